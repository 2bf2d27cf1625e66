"""The diagonal scan against the recurrence in float64, closed gradients, and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels.devices import compiling_for
from ssm_jax.kernels.discretize import exponent
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import power, power_parts, rest_of_power
from ssm_jax.kernels.scan import METHODS, diagonal_scan, state_after

BOTH = [m for m in METHODS if m != "auto"]
DAMPED = slice(0, 16)
UNDAMPED = slice(16, 32)


def modes(seed=0):
    """A and dt: 16 modes of S5, alpha up to 10 and dt from 1e-3 to 0.1; 16 with Re A = 0."""
    rng = np.random.default_rng(seed)
    alpha = np.repeat([0.1, 1.0, 3.0, 10.0], 4)
    damped = -0.5 + 1j * np.pi * alpha * rng.integers(0, 64, 16)
    A = np.concatenate([damped, 1j * rng.uniform(-2000, 2000, 16)])
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), 32))
    return A.astype(np.complex64), dt.astype(np.float32)


def complex_normal(rng, *shape):
    return (rng.normal(size=(*shape, 2)) @ [1, 1j]).astype(np.complex64)


def recurrence(A_bar, v, x0=None, reverse=False):
    """x_l = A_bar x_{l-1} + v_l, or with x_{l+1}, one step after the other."""
    x = np.zeros_like(v[:, 0], complex) if x0 is None else np.asarray(x0, complex)
    out = np.empty(v.shape, complex)
    for step in reversed(range(v.shape[1])) if reverse else range(v.shape[1]):
        x = A_bar * x + v[:, step]
        out[:, step] = x
    return out


def scan(A, dt, v, x0, reverse, method, rule="zoh"):
    z, phase = exponent(A, dt, rule)
    return diagonal_scan(z, phase, v, x0, reverse=reverse, method=method)


def worst_errors(found, exact):
    """Largest rms error / rms, and max error / max, over the modes."""
    e, x = np.abs(found - exact), np.abs(exact)
    rms = np.sqrt(np.mean(e**2, (0, 1)) / np.mean(x**2, (0, 1)))
    return rms.max(), (e.max((0, 1)) / x.max((0, 1))).max()


@pytest.mark.parametrize(
    ("method", "length", "reverse", "with_x0"),
    [
        ("chunked", length, reverse, not reverse)
        for length in (1, 2, 17)
        for reverse in (False, True)
    ]
    + [("chunked", 257, True, True), ("chunked", 257, False, False)]
    + [
        ("chunked", length, reverse, reverse)
        for length in (2048, 16384)
        for reverse in (False, True)
    ]
    + [("associative", length, False, True) for length in (1, 2, 1023)]
    + [("associative", 17, True, True)],
)
def test_scan_is_the_recurrence(method, length, reverse, with_x0):
    """At any length and damping: rms error below 1.5e-6 of the rms, largest 3e-6 of the largest."""
    A, dt = modes()
    rng = np.random.default_rng(length)
    v = complex_normal(rng, 2, length, len(A))
    x0 = complex_normal(rng, 2, len(A)) * 10 if with_x0 else None
    found = run(scan, A, dt, v, x0, reverse=reverse, method=method)
    assert found.shape == v.shape
    A_bar = np.exp(A.astype(complex) * dt.astype(float))
    rms, largest = worst_errors(found, recurrence(A_bar, v, x0, reverse))
    assert rms < 1.5e-6
    assert largest < 3e-6


def test_scan_with_bilinear_multipliers():
    A, dt = modes(1)
    v = complex_normal(np.random.default_rng(1), 2, 1000, len(A))
    found = run(scan, A, dt, v, None, reverse=False, method="chunked", rule="bilinear")
    A_bar, _ = oracles.discretize(A, dt, "bilinear")
    assert worst_errors(found, recurrence(A_bar, v))[1] < 3e-6


def multiplied(A, dt, v):
    """`jax.lax.associative_scan` in complex64, which multiplies A_bar with itself."""
    A_bar = jnp.broadcast_to(jnp.exp(A * dt), v.shape)
    join = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
    return jax.lax.associative_scan(join, (A_bar, v), axis=1)[1]


@pytest.mark.optimized
def test_known_powers_are_right_where_multiplied_ones_are_not():
    """L = 16384, rms: 1e-6 here; multiplied 6e-5 for modes of S5, 4e-2 without damping."""
    A, dt = modes()
    v = complex_normal(np.random.default_rng(2), 1, 16384, len(A))
    exact = recurrence(np.exp(A.astype(complex) * dt.astype(float)), v)
    found = run(scan, A, dt, v, None, reverse=False, method="chunked")
    plain = run(multiplied, A, dt, v)
    for part, floor in ((DAMPED, 1e-5), (UNDAMPED, 1e-3)):
        assert worst_errors(found[..., part], exact[..., part])[0] < 1.5e-6
        assert worst_errors(plain[..., part], exact[..., part])[0] > floor


def test_multiplier_is_known_beyond_float32():
    """The sum of the two factors is A_bar to 4e-9 and 3e-7 of the decay per step."""
    rng = np.random.default_rng(3)
    decay = np.concatenate([np.zeros(500), -np.exp(rng.uniform(-12, -1, 1500)), [-0.6, -30, 0.1]])
    z = (decay + 1j * rng.uniform(-np.pi, np.pi, len(decay))).astype(np.complex64)

    def pair(z):
        z, phase = exponent(z, jnp.ones_like(z.real), "zoh")
        power = power_parts(z, phase, jnp.int32(1))
        return power, rest_of_power(power, z, phase)

    high, low = (re.astype(float) + 1j * im for re, im in run(pair, z))
    error = np.abs(high + low - np.exp(z.astype(complex)))
    slow = decay > -0.5
    assert (error[slow] < 4e-9 + 3e-7 * np.abs(decay[slow])).all()
    assert np.abs(high - np.exp(z.astype(complex)))[slow].max() > 5e-8
    assert (error[~slow] < 2e-7 * np.abs(high[~slow])).all()


def test_float64_scan_is_right_to_1e_12():
    A, dt = (a.astype(t) for a, t in zip(modes(), (complex, float), strict=True))
    v = complex_normal(np.random.default_rng(4), 2, 99, len(A)).astype(complex)
    exact = recurrence(np.exp(A * dt), v)
    with jax.enable_x64(True):
        for method in BOTH:
            found = run(scan, A, dt, v, None, reverse=False, method=method)
            assert worst_errors(found, exact)[1] < 1e-11


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    ("method", "length", "reverse"),
    [
        ("chunked", 1, True),
        ("chunked", 19, False),
        ("chunked", 19, True),
        ("associative", 2, False),
        ("associative", 11, True),
    ],
)
def test_gradients_pass_finite_differences_in_float64(method, length, reverse):
    """By z, v and x0: generic modes, Re z = 0, z = 0, and a growing one."""

    def states(re, im, v_re, v_im, x_re, x_im):
        z, phase = exponent(re + 1j * im, jnp.ones_like(re), "zoh")
        x = diagonal_scan(
            z, phase, v_re + 1j * v_im, x_re + 1j * x_im, reverse=reverse, method=method
        )
        return x.real, x.imag

    rng = np.random.default_rng(5)
    re, im = np.array([-0.2, 0.0, 0.0, 0.05]), np.array([0.7, 2.0, 0.0, -0.3])
    with jax.enable_x64(True):
        point = (re, im, *rng.normal(size=(2, 2, length, 4)), *rng.normal(size=(2, 2, 4)))
        check_grads(jax.jit(states), point, order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


@functools.cache
def gradient(method, reverse):
    def objective(z, phase, v, x0, g):
        x = diagonal_scan(z, phase, v, x0, reverse=reverse, method=method)
        return jnp.sum((g.conj() * x).real)

    return jax.grad(objective, argnums=(0, 2, 3))


@pytest.mark.parametrize(
    ("method", "length", "reverse"),
    [("chunked", 2048, False), ("chunked", 16384, True), ("associative", 37, False)],
)
def test_gradients_are_those_of_the_adjoint_recurrence(method, length, reverse):
    """In float32 at full length; JAX's gradient is the conjugate of d/dRe + i d/dIm."""
    A, dt = modes(6)
    rng = np.random.default_rng(6)
    v, g = complex_normal(rng, 2, length, len(A)), complex_normal(rng, 2, length, len(A))
    x0 = complex_normal(rng, 2, len(A))
    z, phase = run(exponent, A, dt, discretization="zoh")
    found = run(gradient(method, reverse), z, phase, v, x0, g)
    A_bar = np.exp(A.astype(complex) * dt.astype(float))
    x = recurrence(A_bar, v, x0, reverse)
    back = recurrence(A_bar.conj(), g.astype(complex), None, not reverse)
    first = -1 if reverse else 0
    ends = (x0[:, None], x[:, :-1]) if not reverse else (x[:, 1:], x0[:, None])
    before = np.concatenate(ends, axis=1)
    exact = (
        ((A_bar * before).conj() * back).sum((0, 1)).conj(),
        back.conj(),
        (A_bar.conj() * back[:, first]).conj(),
    )
    for f, e, axes in zip(found, exact, (None, (0, 1), 0), strict=True):
        scale = np.abs(e) if axes is None else np.abs(e).max(axes)
        # The sums by z cancel, up to 100 times at 16384 steps.
        assert (np.abs(f - e) < (2e-4 if axes is None else 3e-6) * scale).all()


@pytest.mark.unoptimized
def test_vmap_over_a_population_equals_a_loop_in_values_and_gradients():
    members = [modes(seed) for seed in range(3)]
    rng = np.random.default_rng(7)
    v = complex_normal(rng, 3, 2, 70, 32)
    g, x0 = complex_normal(rng, 2, 70, 32), complex_normal(rng, 3, 2, 32)
    z_MN, phase_MN = run(exponent, *map(np.stack, zip(*members, strict=True)), discretization="zoh")

    def both(z, phase, v, x0, g):
        states = diagonal_scan(z, phase, v, x0)
        return states, gradient("auto", False)(z, phase, v, x0, g)

    found = run(jax.vmap(both, in_axes=(0, 0, 0, 0, None)), z_MN, phase_MN, v, x0, g)
    for m in range(3):
        phase = Phase(*(x[m] for x in phase_MN))
        alone = run(both, z_MN[m], phase, v[m], x0[m], g)
        for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(f[m], e, rtol=0, atol=3e-6 * np.abs(e).max())


def test_zero_input_decays_to_exact_zero_and_stays():
    """Numbers below the normal range are flushed; they would slow the loops down a hundredfold."""
    z, phase = exponent(np.complex64([-0.5, -0.1 + 1j]), np.float32([1, 1]), "zoh")
    x = run(diagonal_scan, z, phase, np.zeros((1, 4096, 2), np.complex64), np.ones((1, 2), "c8"))
    assert (x[:, -1] == 0).all()


def test_state_after_is_that_of_the_last_real_step():
    rng = np.random.default_rng(8)
    x, x0 = rng.normal(size=(4, 9, 2, 3)), rng.normal(size=(4, 2, 3))
    found = run(state_after, x, np.array([0, 1, 5, 9]), x0)
    exact = np.stack([x0[0], x[1, 0], x[2, 4], x[3, 8]])
    np.testing.assert_array_equal(found, exact.astype(np.float32))
    np.testing.assert_array_equal(run(state_after, x, None, x0), x[:, -1].astype(np.float32))


def test_power_is_exact_at_any_step_and_differentiable():
    A, dt = modes(9)
    z, phase = run(exponent, A, dt, discretization="zoh")
    found = run(power, z, phase, steps=16384)
    exact = np.exp(A.astype(complex) * dt.astype(float) * 16384)
    assert (
        np.abs(found - exact).max() < 3e-4 * np.abs(exact).max()
    )  # Re z is rounded, not its phase
    np.testing.assert_allclose(found[UNDAMPED], exact[UNDAMPED], rtol=0, atol=5e-7)

    def parts(re, im):
        p = power(*exponent(re + 1j * im, jnp.ones_like(re), "zoh"), 7)
        return p.real, p.imag

    with jax.enable_x64(True):
        point = (np.array([-0.2, 0.0]), np.array([0.7, 0.0]))
        check_grads(jax.jit(parts), point, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-5)


B, L, N = 4, 16384, 64


def test_gradient_keeps_the_states_alone():
    """Beside its arguments and results it holds twice the size of x at most.

    Autodiff of `jax.lax.associative_scan` keeps a pair for each of its 28 levels.
    """
    struct = jax.ShapeDtypeStruct
    z = struct((N,), jnp.complex64)
    phase = Phase(struct((N,), jnp.int32), struct((N,), jnp.float32))
    v, x0 = struct((B, L, N), jnp.complex64), struct((B, N), jnp.complex64)
    compiled = jax.jit(gradient("chunked", False)).lower(z, phase, v, x0, v).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert 0 < temporary < 3.1 * B * L * N * 8


@pytest.mark.parametrize("method", BOTH)
def test_types_stay_single_also_where_double_is_enabled(method):
    A, dt = modes()
    v = complex_normal(np.random.default_rng(0), 1, 130, len(A))
    for double in (False, True):
        with jax.enable_x64(double):
            x = jax.eval_shape(
                functools.partial(scan, reverse=False, method=method), A, dt, v, None
            )
            assert x.dtype == jnp.complex64 and not x.weak_type
            z, phase = jax.eval_shape(lambda A, dt: exponent(A, dt, "zoh"), A, dt)
            leaves = jax.eval_shape(gradient(method, False), z, phase, v, v[:, 0], v)
            assert all(g.dtype == jnp.complex64 and not g.weak_type for g in leaves)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": np.ones((2, 5, 3), "c8")}, r"got v \(2, 5, 3\), z \(4,\), x0 None"),
        ({"v": np.ones((2, 0, 4), "c8")}, "with L >= 1"),
        ({"x0": np.ones((4,), "c8")}, r"x0 \(4,\)"),
        ({"method": "fft"}, "unknown method 'fft'; choose one of auto, chunked, associative"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    arguments = {"v": np.ones((2, 5, 4), "c8"), "x0": None, "method": "auto", **changes}
    z, phase = exponent(np.ones(4, "c8"), np.ones(4, "f4"), "zoh")
    with pytest.raises(ValueError, match=message):
        diagonal_scan(z, phase, arguments["v"], arguments["x0"], method=arguments["method"])


def test_a_program_for_a_tpu_reverses_no_axis():
    """libtpu's compiler ends where it fuses that; the numbers are those of other platforms."""
    A, dt = modes()
    v = complex_normal(np.random.default_rng(0), 2, 24, 32)

    def energy(v):
        z, phase = exponent(jnp.asarray(A), jnp.asarray(dt), "zoh")
        return jnp.sum(jnp.abs(diagonal_scan(z, phase, v, method="associative")) ** 2)

    gradient = jax.jit(jax.value_and_grad(energy))
    expected, programs = gradient(v), {}
    for name in ("gpu", "tpu"):
        with compiling_for(name):
            programs[name] = gradient.lower(v).as_text()
            for found, e in zip(gradient(v), expected, strict=True):
                np.testing.assert_allclose(found, e, rtol=1e-5, atol=1e-5 * np.abs(e).max())
    assert "stablehlo.reverse" in programs["gpu"]
    assert "stablehlo.reverse" not in programs["tpu"]
