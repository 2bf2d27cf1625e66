"""The S5 layer against the recurrence in float64, and its parameters against the official code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads
from running import numbers, run
from scipy import stats

from ssm_jax.init.hippo import legs
from ssm_jax.kernels import devices
from ssm_jax.kernels.devices import compiling_for
from ssm_jax.layers.base import Knob, NoStateForm
from ssm_jax.layers.s5 import S5

H, N = 6, 8


@functools.cache
def layer(seed=0, **options):
    """A layer whose A, beta (if learned) and C have left their common or small start values."""
    model = S5(H, d_state=N, rngs=nnx.Rngs(params=seed), **options)
    rng = np.random.default_rng(seed)
    for name, size in (("A_re_raw", 0.1), ("A_im", 1.0), ("C_ri", 1.0), ("beta", 0.8)):
        variable = getattr(model, name)
        if name != "beta" or model.filtered:
            noise = size * rng.normal(size=variable[...].shape)
            variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
    return model


def call(model, *args, method="__call__", arrays=None, **static):
    """A method of the layer, compiled; `arrays` are keywords that are traced."""
    graphdef, variables = nnx.split(model)
    static = tuple(static.items())
    return run(
        _call, variables, args, arrays or {}, graphdef=graphdef, method=method, static=static
    )


def _call(variables, args, arrays, graphdef, method, static):
    return getattr(nnx.merge(graphdef, variables), method)(*args, **arrays, **dict(static))


def inputs(length, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, H)).astype(np.float32)


def system(p, *, conj_sym=True, clip=False, rule="zoh", dt_of="exp", step_scale=1.0):
    """A_bar, B_bar and the read-outs of y = Re C x, from the parameters."""
    A_re = np.minimum(p["A_re_raw"], -1e-4) if clip else p["A_re_raw"]
    if rule == "none":
        A_bar, gain = np.exp(A_re + 1j * p["A_im"]), np.ones(len(A_re))
    else:
        dt = np.exp(p["dt_raw"])
        dt = step_scale * (np.log1p(dt) if dt_of == "softplus" else dt)
        A_bar, gain = oracles.discretize(A_re + 1j * p["A_im"], dt, rule)
    B, C = (p[name][..., 0] + 1j * p[name][..., 1] for name in ("B_ri", "C_ri"))
    return A_bar, gain[:, None] * B, 2 * C if conj_sym else C


def recurrence(p, u_LH, x0=None, **options):
    """(states, y) step by step, both ways if there are two read-outs."""
    A_bar, B_bar, C = system(p, **options)
    y, states = p["D"] * u_LH.astype(float), []
    x = np.zeros(len(A_bar), complex) if x0 is None else x0
    for step, u in enumerate(u_LH):
        x = A_bar * x + B_bar @ u
        states.append(x)
        y[step] += (C[0] @ x).real
    x = np.zeros(len(A_bar), complex)
    for step in reversed(range(len(u_LH) if len(C) == 2 else 0)):
        x = A_bar * x + B_bar @ u_LH[step]
        y[step] += (C[1] @ x).real
    return np.array(states), y


def filtered(p, u_LH, *, unit="lra", horizon=None, **options):
    """By kernels of L taps from every input to every output, on the circle of 2L steps."""
    A_bar, B_bar, C = system(p, **options)
    length, L = len(u_LH), horizon or len(u_LH)
    powers = A_bar ** np.arange(L)[:, None]
    circle = np.zeros((2 * L, H))
    for sign, C_HN in zip((1, -1), C, strict=False):
        taps = np.einsum("hn,ln,ng->hgl", C_HN, powers, B_bar).real
        for h in range(H):
            for g in range(H):
                image = np.convolve(taps[h, g], u_LH[::sign, g].astype(float))
                steps = np.arange(len(image)) * sign + (0 if sign == 1 else length - 1)
                np.add.at(circle[:, h], steps % (2 * L), image)
    s = oracles.frequency(2 * L, unit)
    if unit != "hz_1e4":
        s = s / options.get("step_scale", 1.0)
    gain = (1 + s[:, None]) ** p["beta"]
    y = np.fft.irfft(np.fft.rfft(circle, axis=0) * gain, 2 * L, axis=0)[:length]
    return y + p["D"] * u_LH


def assert_close(found, exact, tolerance=2e-6):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("length", "mode"), [(1, "scan"), (2, "conv"), (257, "scan"), (257, "conv")]
)
def test_both_modes_are_the_two_sided_recurrence(length, mode, backend):
    """Both directions count the present input (OC-26)."""
    model, u = layer(), inputs(length)
    exact = np.stack([recurrence(numbers(model), u_LH)[1] for u_LH in u])
    with compiling_for(backend):
        assert_close(call(model, u, mode=mode), exact)


def test_long_sequence_by_scan_is_the_recurrence():
    model, u = layer(alpha=3.0), inputs(4096, batch=1)
    assert_close(call(model, u)[0], recurrence(numbers(model), u[0])[1])


@pytest.mark.parametrize(
    ("mode", "options", "oracle"),
    [
        ("conv", {"bidirectional": False, "n_blocks": 4, "dt_transform": "softplus"},
         {"dt_of": "softplus"}),
        ("scan", {"conj_sym": False, "n_blocks": 2, "discretization": "bilinear"},
         {"conj_sym": False, "rule": "bilinear"}),
        ("scan", {"clip_eigs": True, "alpha_real": 0.0, "C_init": "complex_normal"},
         {"clip": True}),
        ("conv", {"init": "ring", "discretization": "none", "C_init": "trunc_standard_normal"},
         {"rule": "none"}),
        ("scan", {"init": "ptd", "alpha": 10.0}, {}),
        ("scan", {"init": "s4d_lin", "real_transform": "clip"}, {}),
    ],
    ids=["softplus", "no-pairs", "clip", "ring", "ptd", "s4d_lin"],
)  # fmt: skip
def test_each_option_is_the_recurrence_with_that_option(mode, options, oracle):
    model, u = layer(**options), inputs(33)
    p = numbers(model)
    if options.get("real_transform") == "clip":
        p["A_re_raw"] = np.minimum(p["A_re_raw"], 0)
    exact = np.stack([recurrence(p, u_LH, **oracle)[1] for u_LH in u])
    assert_close(call(model, u, mode=mode), exact)


@pytest.mark.parametrize(
    ("options", "oracle"),
    [
        ({}, {}),
        ({"bidirectional": False, "beta_unit": "rad"}, {"unit": "rad", "step_scale": 2.0}),
        ({"beta_unit": "hz_1e4"}, {"unit": "hz_1e4", "horizon": 50}),
    ],
    ids=["two-sided", "causal", "horizon"],
)
def test_filter_multiplies_the_spectrum_on_the_circle_of_twice_the_length(options, oracle):
    """Kernels end after L taps, as in S4D (OC-9); D is outside."""
    model, u = layer(beta=0.0, horizon=oracle.get("horizon"), **options), inputs(37)
    exact = np.stack([filtered(numbers(model), u_LH, **oracle) for u_LH in u])
    call_options = {k: oracle[k] for k in ("step_scale",) if k in oracle}
    assert_close(call(model, u, **call_options), exact, 4e-6)
    plain = np.stack([recurrence(numbers(model), u_LH)[1] for u_LH in u])
    assert np.abs(exact - plain).max() > 1e-4 * np.abs(plain).max()


def test_on_tpus_the_filter_takes_slices_of_the_batch_as_the_whole(monkeypatch):
    """Output, and the gradients by beta and the input."""
    model, u = layer(beta=0.0), inputs(37, batch=4)
    graphdef, variables = nnx.split(model)
    monkeypatch.setattr(devices, "ON_CHIP", 2 * (2 * 37 * H * 4))  # two sequences of the four

    def objective(variables, u):
        y = nnx.merge(graphdef, variables)(u)
        return jnp.sum(jnp.sin(y)), y

    gradient = jax.value_and_grad(objective, (0, 1), has_aux=True)
    whole = jax.jit(gradient)(variables, u)
    with compiling_for("tpu"):
        loops = str(jax.make_jaxpr(gradient)(variables, u)).count("length=2\n")
        slices = jax.jit(lambda *args: gradient(*args))(variables, u)
    assert loops == 2, "one forward, one backward"
    for a, b in zip(jax.tree.leaves(slices), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_gradients_of_a_filtered_and_of_a_plain_layer_pass_finite_differences():
    for options in ({"beta": 0.0}, {"discretization": "bilinear"}):
        model = layer(n_blocks=2, **options)
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        u = inputs(5, batch=1)

        def output(params, u, graphdef=graphdef, rest=rest):
            return nnx.merge(graphdef, params, rest)(u)

        with jax.enable_x64(True):
            point = jax.tree.map(lambda a: np.asarray(a, np.float64), (nnx.to_pure_dict(params), u))
            rest = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(rest))
            f = jax.jit(functools.partial(output, rest=rest))
            check_grads(f, point, order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


def test_prefill_and_steps_continue_each_other_exactly():
    """Whole, in two prefills, and a prefill followed by single steps."""
    model, u = layer(bidirectional=False), inputs(90)
    exact = np.stack([recurrence(numbers(model), u_LH)[1] for u_LH in u])
    x = np.stack([recurrence(numbers(model), u_LH)[0][-1] for u_LH in u])
    state, y = call(model, u[:, :70], method="prefill")
    assert_close(y, exact[:, :70])
    last, rest = call(model, u[:, 70:], method="prefill", arrays={"state": state})
    assert_close(rest, exact[:, 70:])
    assert_close(last, x)
    graphdef, params = nnx.split(model)

    def steps(params, state, u_LBH):
        return jax.lax.scan(nnx.merge(graphdef, params).step, state, u_LBH)

    last, rest = run(steps, params, state, np.moveaxis(u[:, 70:], 1, 0))
    assert_close(np.moveaxis(rest, 0, 1), exact[:, 70:])
    assert_close(last, x)


def test_prefill_of_padded_sequences_stops_at_their_last_real_step():
    model, u = layer(bidirectional=False), inputs(40, batch=3)
    rng = np.random.default_rng(0)
    start = (rng.normal(size=(3, N, 2)) @ [1, 1j]).astype(np.complex64)
    lengths = np.array([0, 17, 40], np.int32)
    u[0], u[1, 17:] = np.nan, np.inf
    state, y = call(model, u, lengths, method="prefill", arrays={"state": start})
    np.testing.assert_array_equal(state[0], start[0])
    for b in (1, 2):
        x, exact = recurrence(numbers(model), u[b, : lengths[b]], start[b].astype(complex))
        assert_close(state[b], x[-1])
        assert_close(y[b, : lengths[b]], exact)


def test_step_scale_is_a_factor_on_dt():
    model, u = layer(bidirectional=False), inputs(20)
    exact = np.stack([recurrence(numbers(model), u_LH, step_scale=0.5)[1] for u_LH in u])
    assert_close(call(model, u, step_scale=0.5), exact)
    _, y = call(model, u, method="prefill", step_scale=0.5)
    assert_close(y, exact)
    _, y = call(model, model.initial_state(2), u[:, 0], method="step", step_scale=0.5)
    assert_close(y, exact[:, 0])


@pytest.mark.parametrize(
    ("bidirectional", "mode"), [(False, "scan"), (True, "scan"), (True, "conv")]
)
def test_padded_sequences_give_what_they_give_alone(bidirectional, mode):
    """Whatever the padding holds."""
    model, u = layer(bidirectional=bidirectional), inputs(64)
    u[0, 17:] = np.nan
    padded = call(model, u, np.array([17, 64], np.int32), mode=mode)
    assert np.isfinite(padded).all()
    assert_close(padded[0, :17], recurrence(numbers(model), u[0, :17])[1])
    assert_close(padded[1], recurrence(numbers(model), u[1])[1])


def test_filtered_sequence_gives_padded_what_it_gives_with_that_horizon():
    """And something else alone, since its circle is another one (OC-9)."""
    model, u = layer(beta=0.0), inputs(64)
    u[0, 17:] = np.nan
    padded = call(model, u, np.array([17, 64], np.int32))[0, :17]
    assert_close(padded, call(layer(beta=0.0, horizon=64), u[:1, :17])[0])
    assert np.abs(padded - filtered(numbers(model), u[0, :17])).max() > 1e-3


def test_padding_gets_no_gradient_and_gives_none():
    model, u = layer(), inputs(20)
    u[0, 9:] = np.nan
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, u):
        y = nnx.merge(graphdef, params, rest)(u, jnp.array([9, 20]))
        return jnp.sum(jnp.where(jnp.arange(20)[None, :, None] < 9, y, 0.0) ** 2)

    grads, du = run(jax.grad(loss, argnums=(0, 1)), params, u)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert (du[0, 9:] == 0).all() and (du[0, :9] != 0).any()


def test_one_sided_layer_is_causal_and_the_filter_reaches_back():
    for beta, causal in ((None, True), (-1.0, False)):
        model = S5(H, d_state=N, beta=beta, bidirectional=False, rngs=nnx.Rngs(params=0))
        u = inputs(33)
        other = u.copy()
        other[:, 20:] += 100
        change = np.abs(call(model, other) - call(model, u))[:, :20].max()
        assert (change == 0) if causal else (change > 1e-3)


def test_layer_is_linear():
    model, u, v = layer(beta=0.0), inputs(33), inputs(33)[:, ::-1].copy()
    assert_close(call(model, 2 * u - v), 2 * call(model, u) - call(model, v), 5e-6)


def test_default_mode_follows_the_filter():
    for beta in (None, 0.0):
        program = str(jax.make_jaxpr(layer(beta=beta))(inputs(9)))
        assert (" fft[" in program) == (beta is not None)


def test_half_of_the_conjugate_pairs_is_the_whole_real_system():
    half = layer(n_blocks=1)
    whole = S5(H, d_state=2 * N, conj_sym=False, rngs=nnx.Rngs(params=0))
    for name, axis in (("A_re_raw", 0), ("A_im", 0), ("dt_raw", 0), ("B_ri", 0), ("C_ri", 2)):
        value = getattr(half, name)[...]
        conjugate = value
        if name == "A_im":
            conjugate = -value
        if name.endswith("_ri"):
            conjugate = value * jnp.array([1.0, -1.0]).reshape((1,) * (value.ndim - 1) + (2,))
        getattr(whole, name)[...] = jnp.concatenate([value, conjugate], axis=axis)
    whole.D[...] = half.D[...]
    u = inputs(40)
    assert_close(call(whole, u), call(half, u))


def test_clipped_modes_decay_and_have_no_gradient():
    """As jnp.clip in the official code: a mode that training has made unstable stays there."""
    model = S5(H, d_state=N, clip_eigs=True, rngs=nnx.Rngs(params=0))
    model.A_re_raw[...] = jnp.linspace(-0.5, 0.5, N)
    A = np.asarray(model.eigenvalues())
    np.testing.assert_allclose(A.real, np.minimum(np.linspace(-0.5, 0.5, N), -1e-4), rtol=1e-6)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, u):
        return jnp.sum(nnx.merge(graphdef, params, rest)(u) ** 2)

    slope = run(jax.grad(loss), params, inputs(9))["A_re_raw"][...]
    assert (slope[: N // 2] != 0).all() and (slope[N // 2 :] == 0).all()
    free = S5(H, d_state=N, rngs=nnx.Rngs(params=0))
    free.A_re_raw[...] = model.A_re_raw[...]
    assert np.asarray(free.eigenvalues()).real.max() == 0.5


@pytest.mark.parametrize(("bidirectional", "learn_beta"), [(True, True), (False, False)])
def test_parameters_have_the_official_shapes(bidirectional, learn_beta):
    """One dt per state (OC-26), one C per direction."""
    options = {"bidirectional": bidirectional, "learn_beta": learn_beta}
    model = S5(H, d_state=N, beta=0.0, **options, rngs=nnx.Rngs(0))
    shapes = jax.tree.map(lambda a: a.shape, numbers(model, nnx.Param))
    assert shapes == {
        "A_re_raw": (N,),
        "A_im": (N,),
        "dt_raw": (N,),
        "B_ri": (N, H, 2),
        "C_ri": (1 + bidirectional, H, N, 2),
        "D": (H,),
        **({"beta": (H,)} if learn_beta else {}),
    }
    leaves = jax.tree.leaves(nnx.state(model))
    assert all(a.dtype == jnp.float32 and not a.weak_type for a in leaves)
    assert set(numbers(model, Knob)) == (set() if learn_beta else {"beta"})


@pytest.mark.parametrize(
    ("depth", "d_model", "ssm_size", "n_in", "n_out", "published"),
    [(8, 128, 16, 18, 10, 188e3), (6, 512, 384, 1, 10, 5.13e6), (6, 192, 256, 1, 2, 1.11e6)],
    ids=["listops", "image", "pathfinder"],
)
def test_networks_have_the_official_number_of_parameters(
    depth, d_model, ssm_size, n_in, n_out, published
):
    """With d_state = ssm_size / 2, a gate of one dense layer, a norm, an encoder and a decoder."""
    build = lambda: S5(d_model, d_state=ssm_size // 2, rngs=nnx.Rngs(0))  # noqa: E731
    params = nnx.state(nnx.eval_shape(build), nnx.Param)
    layer_size = sum(a.size for a in jax.tree.leaves(params))
    block = layer_size + d_model * (d_model + 1) + 2 * d_model
    total = depth * block + (n_in + 1) * d_model + (d_model + 1) * n_out
    assert abs(total / published - 1) < 0.005


@pytest.mark.parametrize("n_blocks", [1, 4])
@pytest.mark.parametrize("conj_sym", [True, False])
def test_eigenvalues_start_as_equal_blocks_of_the_normal_part_of_legs(n_blocks, conj_sym):
    model = S5(H, d_state=16, n_blocks=n_blocks, conj_sym=conj_sym, alpha=3.0, alpha_real=0.2,
               rngs=nnx.Rngs(0))  # fmt: skip
    order = 16 // n_blocks * (2 if conj_sym else 1)
    A, B = legs(order)
    spectrum = np.linalg.eigvals(A + np.outer(B, B) / 2)
    spectrum = 0.2 * spectrum.real + 3j * spectrum.imag
    if conj_sym:
        spectrum = spectrum[spectrum.imag > 0]
    found = np.asarray(model.eigenvalues()).reshape(n_blocks, -1)
    for block in found:
        np.testing.assert_allclose(np.sort_complex(1j * block), np.sort_complex(1j * spectrum),
                                   rtol=2e-5)  # fmt: skip


def test_B_and_C_start_as_the_official_draws_in_the_basis_of_the_eigenvectors():
    """B_0 and C_0 come back as 2 Re V B and C_0 = C V^*; cut at two standard deviations."""
    width, modes, blocks = 96, 64, 4
    P = 2 * modes
    cut = stats.truncnorm(-2, 2)
    for C_init, variance in (("lecun_normal", 1 / (P * width)), ("trunc_standard_normal", 1 / P)):
        model = S5(width, d_state=modes, n_blocks=blocks, C_init=C_init, rngs=nnx.Rngs(1))
        p = numbers(model)
        A, b = legs(P // blocks)
        _, V = np.linalg.eigh(-1j * (A + np.outer(b, b) / 2 + np.eye(len(b)) / 2))
        V = V[:, len(b) // 2 :]
        V = V * (np.abs(V[0]) / V[0])  # the package's choice of phases
        B = (p["B_ri"] @ [1, 1j]).reshape(blocks, -1, width)
        draws = 2 * np.einsum("pn,jnh->jph", V, B).real.ravel() * np.sqrt(P)
        assert stats.kstest(draws, stats.truncnorm(-2, 2, scale=1 / cut.std()).cdf).pvalue > 1e-3
        assert np.abs(draws).max() <= 2 / cut.std() * (1 + 1e-4)
        C = p["C_ri"] @ [1, 1j]
        square = np.abs(C) ** 2 / (2 * variance)
        assert abs(square.mean() - 1) < 5 / np.sqrt(square.size)


def test_other_parameters_start_as_the_official_ones():
    """C complex normal with E|C|^2 = 1, D normal, dt log-uniform, one draw for each state."""
    model = S5(64, d_state=128, C_init="complex_normal", rngs=nnx.Rngs(params=0))
    p = numbers(model)
    for part in (0, 1):
        draws = p["C_ri"][..., part].ravel() * np.sqrt(2)
        assert stats.kstest(draws, stats.norm.cdf).pvalue > 1e-3
    forward, reverse = p["C_ri"]
    assert abs(np.corrcoef(forward.ravel(), reverse.ravel())[0, 1]) < 0.05
    assert stats.kstest(p["D"], stats.norm.cdf).pvalue > 1e-3
    dt = np.asarray(model.step_sizes())
    assert dt.min() >= 1e-3 * (1 - 1e-5) and dt.max() <= 0.1 * (1 + 1e-5)
    assert stats.kstest(dt, stats.loguniform(1e-3, 1e-1).cdf).pvalue > 1e-3
    again = numbers(S5(64, d_state=128, C_init="complex_normal", rngs=nnx.Rngs(params=0)))
    other = numbers(S5(64, d_state=128, C_init="complex_normal", rngs=nnx.Rngs(params=1)))
    np.testing.assert_array_equal(p["B_ri"], again["B_ri"])
    assert not np.array_equal(p["B_ri"], other["B_ri"])


def test_vmap_over_a_population_equals_single_layers():
    models = [layer(seed, beta=0.0) for seed in range(3)]
    graphdef, _ = nnx.split(models[0])
    states = jax.tree.map(lambda *a: jnp.stack(a), *(nnx.split(m)[1] for m in models))
    u = inputs(20)

    def forward(state, u):
        return nnx.merge(graphdef, state)(u)

    found = run(jax.vmap(forward, in_axes=(0, None)), states, u)
    for y, model in zip(found, models, strict=True):
        assert_close(y, call(model, u), 4e-6)


@pytest.mark.optimized  # two programs that round alike
def test_dropout_acts_on_the_output_where_a_key_is_given():
    model, u = layer(dropout=0.25), inputs(64)
    kept, dropped = call(model, u), call(model, u, arrays={"key": jax.random.key(0)})
    zero = dropped == 0
    assert 0 < zero.mean() < 1 and (zero == zero[:, :1]).all()
    np.testing.assert_allclose(dropped[~zero], kept[~zero] / 0.75, rtol=1e-6)


@pytest.fixture(scope="module")
def program():
    """The gradient of a layer of Path-X by all parameters and the input, lowered."""
    model = S5(128, d_state=64, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def gradient(params, u, dy):
        return jax.vjp(lambda p, u: nnx.merge(graphdef, p, rest)(u), params, u)[1](dy)

    u = jax.ShapeDtypeStruct((4, 16384, 128), jnp.float32)
    return jax.jit(gradient).lower(params, u, u)


def test_memory_of_a_long_gradient_is_a_few_times_its_input(program):
    """160 MiB of temporary arrays at 32 MiB of input; the official layer grew by 1,423 MiB."""
    temporary = program.compile().memory_analysis().temp_size_in_bytes
    assert 0 < temporary < 200 * 2**20


def test_products_are_asked_for_in_full_precision(program):
    """On a GPU the default would round the operands to 10 bits; a CPU result cannot show it."""
    products = [line for line in program.as_text().splitlines() if "dot_general" in line]
    assert len(products) >= 6
    assert all("HIGHEST, HIGHEST" in line for line in products)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "hippo"}, "unknown init 'hippo'; choose one of legs, ptd, s4d_lin"),
        ({"C_init": "normal"}, "unknown C_init 'normal'; choose one of lecun_normal"),
        ({"beta_unit": "hz"}, "unknown beta_unit 'hz'"),
        ({"dt_transform": "relu"}, "unknown dt_transform 'relu'"),
        ({"discretization": "euler"}, "unknown discretization 'euler'"),
        ({"real_transform": "tanh"}, "unknown real_transform 'tanh'"),
        ({"n_blocks": 3}, "d_state=8 must be a positive multiple of 1 n_blocks .* n_blocks is 3"),
        ({"n_blocks": 8, "conj_sym": False}, "positive multiple of 2 n_blocks"),
        ({"d_state": 0}, "d_state=0 must be a positive multiple"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"dt_min": 0.2}, "needs 0 < low <= high, got low=0.2, high=0.1"),
        ({"init": "ring"}, "gives eigenvalues per sample, .*'zoh' cannot take; use 'none'"),
        ({"discretization": "none"}, "per unit of time, .* use one other than 'none'"),
        ({"alpha_real": 0.0, "real_transform": "exp"}, "cannot represent Re A = 0"),
    ],
)
def test_options_out_of_their_set_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S5(H, **{"d_state": N, **options}, rngs=nnx.Rngs(params=0))


def test_calls_that_cannot_be_are_refused():
    u = inputs(5)
    with pytest.raises(ValueError, match="unknown mode 'fft'; choose one of conv, scan"):
        layer()(u, mode="fft")
    with pytest.raises(ValueError, match="horizon=4 must be at least the input's length 5"):
        layer(horizon=4)(u)
    tuned = layer(beta=0.0, bidirectional=False)
    for use in (
        lambda: tuned(u, mode="scan"),
        lambda: tuned.prefill(u),
        lambda: tuned.step(tuned.initial_state(2), u[:, 0]),
    ):
        with pytest.raises(NoStateForm, match=r"S5: .* needs beta = 0"):
            use()
    for use in (
        lambda: layer().prefill(u),
        lambda: layer().step(layer().initial_state(2), u[:, 0]),
    ):
        with pytest.raises(NoStateForm, match=r"S5: .* needs a causal layer"):
            use()
