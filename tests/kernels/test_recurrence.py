"""The S4D recurrence in blocks against the recurrence step by step, and against the convolution."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels import anticausal, fft_conv, s4d_kernel, s4d_recurrence

ALPHAS = (0.1, 1.0, 10.0)
DTS = (1e-3, 1e-1)
DECAYS = (0.5, 0.01)
N = 16


def system(seed=0, batch=2, rule="zoh"):
    """A, C, dt, x0: one channel for each alpha, dt and decay rate. "none": the same A_bar.

    Re C > 0: read-outs of all signs may cancel in slow modes, and leave nothing to compare with.
    """
    rng = np.random.default_rng(seed)
    alpha, dt, decay = (a.ravel() for a in np.meshgrid(ALPHAS, DTS, DECAYS, indexing="ij"))
    A = alpha[:, None] * np.pi * np.maximum(np.arange(N), 1e-4) * 1j
    A = A - decay[:, None] * np.exp(0.3 * rng.normal(size=A.shape))
    if rule == "none":
        A, dt = A * dt[:, None], np.ones_like(dt)
    C = complex_normal(rng, A.shape)
    C = np.abs(C.real) + 1j * C.imag
    x0 = np.abs(dt)[:, None] * complex_normal(rng, (batch, *A.shape))
    return A.astype(np.complex64), C, dt.astype(np.float32), x0.astype(np.complex64)


def complex_normal(rng, shape):
    return (rng.normal(size=(*shape, 2)) @ np.array([1, 1j])).astype(np.complex64)


def inputs(length, channels, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, channels)).astype(np.float32)


def loop(u_BLH, A, C, dt, x0_BHN, rule="zoh"):
    """All outputs (B, L, H), and all states, the first included: (L + 1, B, H, N)."""
    A_bar, gain = oracles.discretize(A, np.asarray(dt, float)[:, None], rule)
    states, outputs = [np.asarray(x0_BHN, complex)], []
    for u_BH in np.moveaxis(np.asarray(u_BLH, float), 1, 0):
        states.append(A_bar * states[-1] + gain * u_BH[:, :, None])
        outputs.append(2 * np.sum(C * states[-1], axis=-1).real)
    return np.stack(outputs, 1), np.stack(states)


def worst_errors(found, exact, channels):
    """Largest (rms error / rms, largest error / largest value) over the axis of the channels."""
    rest = tuple(i for i in range(found.ndim) if i != channels)
    e, size = np.abs(found - exact), np.abs(exact)
    rms = np.sqrt(np.mean(e**2, rest) / np.mean(size**2, rest))
    return rms.max(), (e.max(rest) / size.max(rest)).max()


@pytest.mark.parametrize(
    ("length", "rule"),
    [(length, "zoh") for length in (1, 2, 17, 257, 2048, 16384)]
    + [(257, "bilinear"), (257, "none")],
)
def test_outputs_and_state_are_those_of_the_recurrence(length, rule):
    """From a state that is not 0: rms error below 1e-6 of the rms, largest 2e-6 of the largest."""
    A, C, dt, x0 = system(batch=8, rule=rule)
    u = inputs(length, len(dt), batch=8)
    lengths = np.repeat([length, length // 3], 4).astype(np.int32)
    y, x = run(s4d_recurrence, u, A, C, dt, x0, lengths, discretization=rule)
    exact_y, states = loop(u, A, C, dt, x0, rule)
    exact_x = states[lengths, np.arange(8)]
    assert y.shape == u.shape and x.dtype == np.complex64
    for errors in (
        worst_errors(y, exact_y, channels=2),
        worst_errors(x, exact_x, channels=1),
    ):
        assert errors[0] < 1e-6
        assert errors[1] < 2e-6


@pytest.mark.parametrize("length", [1, 257, 2048])
def test_recurrence_from_zero_is_the_convolution(length):
    A, C, dt, _ = system(seed=1)
    u = inputs(length, len(dt))

    def both(u, A, C, dt):
        y, _ = s4d_recurrence(u, A, C, dt)
        return y, fft_conv(u, s4d_kernel(A, C, dt, u.shape[1]))

    y, convolved = run(both, u, A, C, dt)
    assert worst_errors(y, convolved, channels=2)[1] < 2e-6


def test_state_is_that_after_each_number_of_steps():
    """Every length of 0..65 over blocks of 16 steps, with one input and one start for all."""
    A, C, dt, x0 = system(seed=2, batch=1)
    u = inputs(65, len(dt), batch=1)
    lengths = np.arange(66, dtype=np.int32)
    _, x = run(s4d_recurrence, np.repeat(u, 66, 0), A, C, dt, np.repeat(x0, 66, 0), lengths)
    exact = loop(u, A, C, dt, x0)[1][:, 0]
    size = np.abs(exact).max(axis=(0, 2), keepdims=True)
    assert (np.abs(x - exact) / size).max() < 1e-6


def test_a_sequence_in_two_parts_goes_on_from_the_state():
    A, C, dt, x0 = system(seed=3)
    u = inputs(100, len(dt))
    y, x = run(s4d_recurrence, u, A, C, dt, x0)
    first, middle = run(s4d_recurrence, u[:, :37], A, C, dt, x0)
    second, end = run(s4d_recurrence, u[:, 37:], A, C, dt, middle)
    assert worst_errors(np.concatenate([first, second], axis=1), y, channels=2)[1] < 1e-6
    assert worst_errors(end, x, channels=1)[1] < 1e-6


@pytest.mark.optimized
def test_undamped_modes_stay_exact_over_16384_steps():
    """Re A = 0: nothing hides the rounding of early steps. Late outputs by their own rms."""
    rng = np.random.default_rng(4)
    A = (1j * rng.uniform(-2000, 2000, (3, 8))).astype(np.complex64)
    C, dt = complex_normal(rng, (3, 8)), np.float32([1e-3, 1e-2, 1e-1])
    u, x0 = inputs(16384, 3, batch=1), np.zeros((1, 3, 8), np.complex64)
    y, x = run(s4d_recurrence, u, A, C, dt, x0)
    exact, states = loop(u, A, C, dt, x0)
    late = slice(-256, None)
    assert worst_errors(y[:, late], exact[:, late], channels=2)[0] < 1e-6
    assert worst_errors(x, states[-1], channels=1)[0] < 1e-6


@pytest.mark.parametrize("length", [1, 2, 17, 257])
def test_anticausal_part_sees_the_future_alone(length):
    """y_t = sum_j k[j] u_{t+1+j}, by NumPy's convolve (OC-12)."""
    A, C, dt, _ = system(seed=5)
    u = inputs(length, len(dt), batch=1)
    found = run(functools.partial(anticausal, s4d_recurrence), u, A, C, dt)
    k = oracles.s4d_kernel(A, C, dt, length)
    exact = oracles.convolve(u[0], np.zeros_like(k), k)
    assert (found[0, -1] == 0).all()
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=2e-6 * max(np.abs(exact).max(), 1e-9))


def test_strongly_damped_modes_neither_overflow_nor_leak():
    """Powers of e^-50 underflow to 0; the output is that of the last input alone."""
    A, C, dt = np.full((1, 1), -500, np.complex64), np.ones((1, 1), np.complex64), np.float32([0.1])
    u = inputs(300, 1)
    y, x = run(s4d_recurrence, u, A, C, dt)
    np.testing.assert_allclose(y, 2 * u / 500, rtol=1e-6)
    np.testing.assert_allclose(x[:, 0, 0], u[:, -1, 0] / 500, rtol=1e-6)


@functools.cache
def objective_gradient(by_convolution):
    """The gradient of a random linear function of the outputs."""

    def objective(u, A, C, dt, g):
        if by_convolution:
            return jnp.sum(g * fft_conv(u, s4d_kernel(A, C, dt, u.shape[1])))
        return jnp.sum(g * s4d_recurrence(u, A, C, dt)[0])

    return jax.grad(objective, argnums=(0, 1, 2, 3))


@pytest.mark.parametrize("length", [257, 2048])
def test_gradients_are_those_of_the_convolution(length):
    """float32 against float64, for each channel within 1e-5 of the largest entry."""
    A, C, dt, _ = system(seed=6)
    u = inputs(length, len(dt))
    g = inputs(length + 1, len(dt))[:, 1:]
    found = run(objective_gradient(False), u, A, C, dt, g)
    with jax.enable_x64(True):
        wide = (a.astype(complex if a.dtype.kind == "c" else float) for a in (u, A, C, dt, g))
        exact = run(objective_gradient(True), *wide)
    scales = [np.abs(e).max(axes) for e, axes in zip(exact, ((0, 1), 1, 1), strict=False)]
    # One number per channel, a sum of the modes' A / dt dJ/dA, which cancel.
    scales.append(np.linalg.norm(A * exact[1], axis=1) / dt)
    for f, e, scale in zip(found, exact, scales, strict=True):
        error = np.moveaxis(np.abs(f - e), 2 if f.ndim == 3 else 0, -1)
        assert (error / scale).max() < 1e-5


@pytest.mark.unoptimized
@pytest.mark.parametrize(("length", "rule"), [(2, "zoh"), (17, "bilinear"), (9, "none")])
def test_gradients_pass_finite_differences_in_float64(length, rule):
    """Of outputs and state, by all arguments; with Re A = 0, the official mode 0 and A = 0."""
    rng = np.random.default_rng(7)
    re = np.array([[-0.5, 0.0, -0.5], [0.0, -2.0, 0.0]])
    im = np.array([[3.0, 2.0, 1e-4], [0.0, 0.0, 1e-4]])
    lengths = np.array([length, length // 2], np.int32)

    def outputs(u, re, im, C_re, C_im, x0_re, x0_im, *dt):
        # Under "none" the gain is constant at dt = 1, by definition.
        (dt,) = dt or (np.ones(2),)
        A, C, x0 = re + 1j * im, C_re + 1j * C_im, x0_re + 1j * x0_im
        y, x = s4d_recurrence(u, A, C, dt, x0, lengths, discretization=rule)
        return y, x.real, x.imag

    dt = () if rule == "none" else (np.array([0.1, 0.3]),)
    with jax.enable_x64(True):
        u, C_ri, x0_ri = (rng.normal(size=s) for s in ((2, length, 2), (2, 2, 3), (2, 2, 2, 3)))
        arguments = (u, re, im, *C_ri, *x0_ri, *dt)
        check_grads(jax.jit(outputs), arguments, order=1, modes=["rev"], atol=1e-7, rtol=1e-5)


def test_float64_is_right_to_1e_12():
    A, C, dt, x0 = system(seed=8)
    u = inputs(257, len(dt))
    with jax.enable_x64(True):
        wide = (a.astype(complex) for a in (A, C))
        y, x = run(s4d_recurrence, u.astype(float), *wide, dt.astype(float), x0.astype(complex))
    exact, states = loop(u, A, C, dt, x0)
    assert worst_errors(y, exact, channels=2)[1] < 1e-12
    assert worst_errors(x, states[-1], channels=1)[1] < 1e-12


@pytest.mark.unoptimized
def test_vmap_over_a_population_equals_a_loop():
    members = [system(seed=s) for s in range(3)]
    A, C, dt, x0 = (np.stack(parts) for parts in zip(*members, strict=True))
    u = inputs(40, dt.shape[1])
    found = run(jax.vmap(s4d_recurrence, in_axes=(None, 0, 0, 0, 0)), u, A, C, dt, x0)
    for m in range(3):
        single = run(s4d_recurrence, u, A[m], C[m], dt[m], x0[m])
        for f, e in zip(found, single, strict=True):
            np.testing.assert_allclose(f[m], e, rtol=0, atol=1e-6 * np.abs(e).max())


B, L, H, WIDE = 4, 4096, 16, 64


@functools.cache
def lowered(gradient):
    """The program of the recurrence, or of its gradient."""
    shapes = (
        jax.ShapeDtypeStruct((B, L, H), jnp.float32),
        jax.ShapeDtypeStruct((H, WIDE), jnp.complex64),
        jax.ShapeDtypeStruct((H, WIDE), jnp.complex64),
        jax.ShapeDtypeStruct((H,), jnp.float32),
        jax.ShapeDtypeStruct((B, L, H), jnp.float32),
    )
    forward = lambda u, A, C, dt, g: s4d_recurrence(u, A, C, dt)  # noqa: E731
    return jax.jit(objective_gradient(False) if gradient else forward).lower(*shapes)


@pytest.mark.unoptimized
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_no_array_of_b_l_h_n_elements_exists(gradient):
    """All temporary memory together is half of one such array in float32 at most."""
    temporary = lowered(gradient).compile().memory_analysis().temp_size_in_bytes
    assert 0 < temporary < B * L * H * WIDE * 4 / 2


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_products_are_asked_for_in_full_precision(gradient):
    """On a GPU the default would round the operands to 10 bits; a CPU result cannot show it."""
    products = [line for line in lowered(gradient).as_text().splitlines() if "dot_general" in line]
    assert len(products) >= 4
    for line in products:
        assert re.search(r"precision\s*=\s*\[HIGHEST, HIGHEST\]", line), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"A": np.ones((3, 4), np.complex64)},
            r"got u \(1, 8, 2\), A \(3, 4\), C \(2, 4\), dt \(2",
        ),
        ({"C": np.ones((1, 2, 4), np.complex64)}, r"C \(1, 2, 4\)"),
        ({"dt": np.ones((4,), np.float32)}, r"dt \(4,\)"),
        ({"u": np.ones((1, 0, 2), np.float32)}, r"L >= 1.*got \(1, 0, 2\)"),
        ({"x0": np.ones((2, 4), np.complex64)}, r"x0 must be \(1, 2, 4\), got \(2, 4\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    arguments = {
        "u": np.ones((1, 8, 2), np.float32),
        "A": np.ones((2, 4), np.complex64),
        "C": np.ones((2, 4), np.complex64),
        "dt": np.ones((2,), np.float32),
        "x0": np.ones((1, 2, 4), np.complex64),
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        s4d_recurrence(*arguments.values())
