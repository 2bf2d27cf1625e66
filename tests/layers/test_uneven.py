"""Steps that differ: sequences packed into one row, and a dt for each step, in every layer."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads
from running import numbers, run

from ssm_jax.layers import LRU, S4, S4D, S5, DLinOSS, LinOSS
from ssm_jax.layers.base import NoStateForm
from ssm_jax.layers.convs5 import ConvS5

H, N = 4, 5
KINDS = {
    "s4d": (S4D, {}),
    "s4d bilinear": (S4D, {"discretization": "bilinear", "n_ssm": 2}),
    "s4d ring": (S4D, {"init": "dfout", "discretization": "none", "input_norm": "lru"}),
    "s4": (S4, {}),
    "s5": (S5, {}),
    "lru": (LRU, {}),
    "im": (LinOSS, {}),
    "imex": (LinOSS, {"scheme": "imex"}),
    "damped": (DLinOSS, {}),
    "convs5": (ConvS5, {"window": 3}),
}
each_form = pytest.mark.parametrize("kind", ["s4d", "s4", "s5", "imex", "convs5"])
FRAME = (3, 2)


@functools.cache
def layer(kind, both=False):
    made, own = KINDS[kind]
    return made(H, d_state=N, beta=None, bidirectional=both, rngs=nnx.Rngs(params=0), **own)


def inputs(kind, length, batch=2):
    frame = FRAME if kind == "convs5" else ()
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, *frame, H)).astype(np.float32)


def uneven(length, batch=2, longest=4.0):
    """Steps from a quarter to four times as long, or to less."""
    steps = 4 ** np.random.default_rng(1).uniform(-1, 1, (batch, length))
    return np.minimum(steps, longest).astype(np.float32)


def call(model, u, lengths=None, **steps):
    graphdef, variables = nnx.split(model)
    return run(_call, variables, u, lengths, steps, graphdef=graphdef)


def _call(variables, u, lengths, steps, graphdef):
    return nnx.merge(graphdef, variables)(u, lengths, **steps)


def prefill(model, u, lengths=None, **steps):
    graphdef, variables = nnx.split(model)
    return run(_prefill, variables, u, lengths, steps, graphdef=graphdef)


def _prefill(variables, u, lengths, steps, graphdef):
    return nnx.merge(graphdef, variables).prefill(u, lengths, **steps)


def stepped(model, u, **steps):
    graphdef, variables = nnx.split(model)
    state = model.initial_state(len(u), frame=u.shape[2:-1])
    return run(_stepped, variables, u, state, steps, graphdef=graphdef)


def _stepped(variables, u, state, steps, graphdef):
    model = nnx.merge(graphdef, variables)
    first = {key: jnp.moveaxis(value, 1, 0) for key, value in steps.items()}

    def step(state, part):
        u_BH, own = part
        return model.step(state, u_BH, **own)

    state, y = jax.lax.scan(step, state, (jnp.moveaxis(u, 1, 0), first))
    return state, jnp.moveaxis(y, 0, 1)


def assert_close(found, exact, tolerance=3e-6):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


def exact_steps(kind, model, u_LH, scale_L, side=0):
    """y_LH without D by a float64 loop over the steps, from the layer's own numbers."""
    p = numbers(model)
    if kind in ("im", "imex", "damped"):
        a, G = np.maximum(p["A_im"], 0), np.maximum(p.get("A_re_raw", 0 * p["A_im"]), 0)
        h = np.asarray(jax.nn.sigmoid(model.dt_raw[...]), float)
        B, C = (p[name] @ [1, 1j] for name in ("B_ri", "C_ri"))
        v_LP = u_LH.astype(float) @ B.T
        h_LP = scale_L[:, None] * h
        if kind == "damped":  # published: where its poles are pairs
            S_LP = 1 + h_LP * G
            a = np.clip(a, (1 - S_LP**0.5) ** 2 / h_LP**2, (1 + S_LP**0.5) ** 2 / h_LP**2)
        x_LP = oracles.oscillate(a, G, h_LP, model.scheme, v_LP)
        return (x_LP @ C[side].T).real
    C = np.asarray(model.readout(), complex)[side]
    if kind == "s4":
        Lambda, P = (np.asarray(x, complex) for x in model.state_matrix())
        B, dt_H = np.asarray(model.input_vector(), complex), np.asarray(model.step_sizes(), float)
        x, y = None, []
        for u_H, scale in zip(u_LH, scale_L, strict=True):
            one, states = oracles.dplr_recurrence(Lambda, P, B, C, scale * dt_H, u_H[None], x)
            x = states[-1]
            y.append(one[0])
        return np.stack(y)
    A, dt = np.asarray(model.eigenvalues(), complex), np.asarray(model.step_sizes(), float)
    A_bar, gain = oracles.discretize(
        A, np.multiply.outer(scale_L, dt[:, None] if A.ndim == 2 else dt), model.discretization
    )
    if A.ndim == 2:
        v = gain * u_LH[..., None]
    else:
        v = gain * (u_LH @ np.asarray(model.input_matrix(), complex).T)
    x, y = np.zeros(A.shape, complex), []
    for factor, added in zip(A_bar, v, strict=True):
        x = factor * x + added
        y.append(2 * np.sum(C * x, axis=-1).real if A.ndim == 2 else (C @ x).real)
    return np.stack(y)


@pytest.mark.parametrize(
    ("kind", "both"),
    [
        *((kind, False) for kind in KINDS if kind != "convs5"),
        ("s4d", True),
        ("s4", True),
        ("s5", True),
        ("imex", True),
    ],
)
def test_packed_sequences_of_uneven_steps_are_those_of_a_float64_loop_over_each(kind, both):
    """Two rows cut at different places: one piece has a single step, one row ends in padding.

    The part that looks ahead is the piece turned round, with its steps.
    """
    # In imex the poles of longer ones would meet at Nyquist, and outputs grow.
    scale = uneven(60, longest=1.5 if kind == "imex" else 4.0)
    model, u = layer(kind, both), inputs(kind, 60)
    cuts, lengths, starts = (
        [[0, 30, 31, 60], [0, 44, 50]],
        np.array([60, 50]),
        np.zeros((2, 60), bool),
    )
    for row, at in enumerate(cuts):
        starts[row, at[:-1]] = True
    found = call(model, u, lengths, starts_BL=starts, step_scale=scale)
    for row, at in enumerate(cuts):
        for start, end in itertools.pairwise(at):
            own_u, own_scale = u[row, start:end], scale[row, start:end].astype(float)
            exact = exact_steps(kind, model, own_u, own_scale)
            if both:
                turned = exact_steps(kind, model, own_u[::-1], own_scale[::-1], 1)[::-1]
                if kind.startswith("s4"):  # of the future alone
                    turned = np.concatenate([turned[1:], np.zeros((1, H))])
                exact = exact + turned
            exact = exact + numbers(model)["D"] * own_u
            assert_close(found[row, start:end], exact, 2e-5 if kind == "s4" else 5e-6)


@pytest.mark.parametrize("kind", ["s4d", "imex"])
def test_packed_sequences_are_as_if_each_ran_alone(kind):
    """Alone as convolutions, of all pieces in one batch; in both directions."""
    model, u, cuts = layer(kind, True), inputs(kind, 60, 1), [0, 30, 31, 60]
    starts = np.zeros((1, 60), bool)
    starts[0, cuts[:-1]] = True
    pieces, lengths = np.zeros((3, 30, H), np.float32), np.diff(cuts)
    for piece, (start, end) in zip(pieces, itertools.pairwise(cuts), strict=True):
        piece[: end - start] = u[0, start:end]
    alone = run(_alone, nnx.state(model), pieces, lengths, graphdef=nnx.graphdef(model))
    packed = call(model, u, starts_BL=starts)[0]
    assert_close(packed, np.concatenate([y[:n] for y, n in zip(alone, lengths, strict=True)]), 5e-6)


def _alone(variables, u, lengths, graphdef):
    return nnx.merge(graphdef, variables)(u, lengths, mode="conv")


def test_a_convs5_of_one_pixel_is_an_s5_with_the_same_steps():
    model = layer("convs5")
    u, scale = inputs("convs5", 30)[:, :, :1, :1], uneven(30)
    found = call(model, u, step_scale=scale)
    B, C = model.input_matrix().reshape(N, 9, H)[:, 4], np.asarray(model.readout()[4], complex)
    for row in range(2):
        A_bar, gain = oracles.discretize(
            model.eigenvalues(),
            np.multiply.outer(scale[row].astype(float), np.asarray(model.step_sizes(), float)),
            model.discretization,
        )
        x, y = np.zeros(N, complex), []
        for factor, added, u_H in zip(A_bar, gain, u[row, :, 0, 0], strict=True):
            x = factor * x + added * (np.asarray(B, complex) @ u_H)
            y.append((C @ x).real)
        assert_close(found[row, :, 0, 0], np.stack(y))


@each_form
def test_steps_and_prefill_agree_and_a_state_goes_on(kind):
    """With starts and uneven steps; cut in two, and a row that ends early."""
    model, u, scale = layer(kind), inputs(kind, 24), uneven(24)
    starts = np.zeros((2, 24), bool)
    starts[0, [7, 19]] = starts[1, 12] = True
    steps = {"step_scale": scale, "starts_BL": starts}
    state, y = prefill(model, u, np.array([24, 24]), **steps)
    last, one_by_one = stepped(model, u, step_scale=scale, starts_B=starts)
    assert_close(one_by_one, y, 1e-5)
    assert_close(last, state, 1e-5)
    middle, _ = prefill(model, u, np.array([16, 16]), **steps)
    rest = {key: value[:, 16:] for key, value in steps.items()}
    end, y_rest = prefill(model, u[:, 16:], state=middle, **rest)
    assert_close(y_rest, y[:, 16:], 1e-5)
    assert_close(end, state, 1e-5)


@pytest.mark.parametrize("kind", ["s4d ring", "im", "imex", "damped"])
def test_even_steps_are_those_of_one_scale(kind, scale=0.5):
    """Also the state, from a state that is not zero: it means the same at every scale."""
    model, u, lengths = layer(kind), inputs(kind, 33), np.array([33, 9])
    re, im = np.random.default_rng(2).normal(size=(2, *model.initial_state(2).shape))
    state = (re + 1j * im).astype(np.complex64)
    expected = prefill(model, u, lengths, state=state, step_scale=np.float32(scale))
    each = np.full((2, 33), scale, np.float32)
    found = prefill(model, u, lengths, state=state, step_scale=each)
    for part, exact in zip(found, expected, strict=True):
        assert_close(part, exact, 2e-5)


@pytest.mark.parametrize("kind", ["s4d", "s5", "imex"])
def test_gradients_of_uneven_packed_steps(kind):
    """By differences, of all parameters, inputs and steps, in float64."""
    model, u, scale = layer(kind, both=True), inputs(kind, 20, 1), uneven(20, 1, 1.5)
    starts = np.zeros((1, 20), bool)
    starts[0, [5, 6]] = True
    graphdef, params, others = nnx.split(model, nnx.Param, ...)

    def loss(params, u, scale):
        y = nnx.merge(graphdef, params, others)(u, step_scale=scale, starts_BL=starts)
        return jnp.sum(jnp.sin(y))

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), (params, u, scale))
        check_grads(jax.jit(loss), wide, order=1, modes=["rev"], rtol=1e-5, eps=1e-5)


@pytest.mark.parametrize("kind", ["s4d", "s5"])
def test_undamped_modes_do_not_drift_over_many_steps(kind):
    """Some 2,000 uneven steps of modes that forget nothing."""
    made, own = KINDS[kind]
    own = own | {"alpha_real": 0.0, "real_transform": "none"}
    model = made(H, d_state=N, beta=None, bidirectional=False, rngs=nnx.Rngs(params=0), **own)
    u, scale = inputs(kind, 2000, 1), uneven(2000, 1)
    found = call(model, u, step_scale=scale)
    exact = exact_steps(kind, model, u[0], scale[0].astype(float))
    assert_close(found[0], exact + numbers(model)["D"] * u[0], 1e-5)


def test_what_a_filter_and_a_convolution_cannot_do_is_refused_in_words():
    u, starts = inputs("s4d", 8), np.zeros((2, 8), bool)
    with pytest.raises(NoStateForm, match="starts_BL needs mode='scan': a convolution has"):
        layer("s4d")(u, starts_BL=starts, mode="conv")
    with pytest.raises(NoStateForm, match="a step_scale for each step needs mode='scan'"):
        layer("s4d")(u, step_scale=uneven(8), mode="conv")
    filtered = S4D(H, d_state=N, beta=0.5, rngs=nnx.Rngs(params=0))
    with pytest.raises(NoStateForm, match="starts_BL needs beta = 0, since the filter has"):
        filtered(u, starts_BL=starts)
    with pytest.raises(NoStateForm, match="prefill needs a causal layer"):
        layer("s4d", both=True).prefill(u, starts_BL=starts)
    for wrong, text in (
        ({"starts_BL": starts[:, :7]}, r"starts must be booleans \(2, 8\), true where .* \(2, 7\)"),
        ({"starts_BL": starts.astype(int)}, "got int64 of the shape"),
        ({"step_scale": uneven(7)}, r"step_scale must be one real number, or those of the steps"),
        ({"step_scale": 0 * uneven(8)}, r"must be positive and finite, got 0 at \(0, 0\)"),
    ):
        with pytest.raises(ValueError, match=text):
            layer("s4d")(u, **wrong)
