"""Laws of the kernels at drawn values: extreme steps, frequencies, dampings and exponents.

Numbers are drawn, shapes and options are not: a new shape is a new compilation. A float32 result is
compared with float64 at the very float32 numbers it was given. Tolerances are relative to the sum
of the absolute values of the terms that a result adds up, which is what rounding is relative to;
where a result cancels, nothing else can be asked.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssm_jax.kernels import (
    discretize_bilinear,
    discretize_zoh,
    fft_conv,
    s4d_kernel,
    s4d_recurrence,
    sobolev_gain,
    transfer_function,
)
from ssm_jax.kernels.discretize import exponent
from ssm_jax.kernels.dplr import dplr_kernel
from ssm_jax.kernels.response import BETA_UNITS, discrete_transfer_function, pair_sensitivity
from ssm_jax.kernels.scan import METHODS, diagonal_scan

RULES = ("zoh", "bilinear")
DTYPES = ("float32", "float64")
SHAPES = [(1, 1, 1), (2, 3, 17), (1, 4, 64)]  # H, N, L

properties = functools.partial(settings, derandomize=True, deadline=None, database=None)


def power_of_ten(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda e: 10.0**e)


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


seeds = st.integers(0, 2**16)
steps = st.one_of(power_of_ten(-6, 1), st.sampled_from([1e-6, 1.0, 10.0]))
damped = st.one_of(power_of_ten(-6, 2), st.sampled_from([0.5, 2.0, 100.0]), st.floats(1.99, 2.01))
dampings = st.one_of(st.just(0.0), damped)
betas = st.floats(-4, 4)
alphas = power_of_ten(-3, 3)


def rounded(value, dtype: str):
    """As an array of this precision, complex where it was."""
    value = np.asarray(value)
    complex_ = np.result_type(dtype, np.complex64)
    return value.astype(complex_ if np.iscomplexobj(value) else dtype)


@st.composite
def systems(draw, H: int, N: int, dtype: str, damping=dampings):
    """A (H, N): 0 to 100 of damping, alpha pi n or random frequencies; C; dt from 1e-6 to 10.

    dt A = -2, which the bilinear rule forgets at once, and its neighbourhood are among them.
    """
    damping = draw(st.lists(damping, min_size=H * N, max_size=H * N))
    frequency = draw(alphas) * np.pi * np.arange(N) * np.ones((H, 1))
    seed = draw(seeds)
    if draw(st.booleans()):
        frequency = frequency * numbers(seed + 1, H, N)
    A = -np.reshape(damping, (H, N)) + 1j * frequency
    C = numbers(seed, H, N, 2) @ np.array([1, 1j])
    dt = np.array(draw(st.lists(steps, min_size=H, max_size=H)))
    return tuple(rounded(a, dtype) for a in (A, C, dt))


@functools.cache
def compiled(function, *static):
    return jax.jit(functools.partial(function, **dict(static)))


def run(dtype: str, function, *args, **static):
    """function(*args, **static), compiled, in this precision; NumPy on both sides."""
    with jax.enable_x64(dtype == "float64"):
        found = compiled(function, *static.items())(*args)
        found = jax.tree.map(np.asarray, found)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    return found


def tolerance(dtype: str, A, dt, length: int = 1) -> float:
    """float64 has no exact phases: its angle dt |A| L is rounded, here and in the oracle."""
    if dtype == "float32":
        return 1e-6
    return 1e-12 + 1e-15 * length * float(np.max(np.abs(A) * dt[..., None]))


def assert_close(found, exact, scale, tolerance: float):
    """Within tolerance times scale; float32 numbers too small to be normal count as 0."""
    error, allowed = np.broadcast_arrays(np.abs(found - exact), tolerance * scale + 1e-36)
    worst = np.argmax(error / allowed)
    assert (error <= allowed).all(), (
        f"error {error.flat[worst]:.3g} at {worst}, allowed {allowed.flat[worst]:.3g}"
    )


def size_of_gain(A, dt) -> np.ndarray:
    """dt min(1, 2 / |dt A|), what bounds |gain| under either rule: near z = 2 pi i it cancels."""
    dt = dt.astype(float)[:, None]
    return dt / np.maximum(1, np.abs(dt * A.astype(complex)) / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@properties(max_examples=100)
@given(data=st.data())
def test_discretization_is_right_at_any_step(rule, dtype, data):
    A, _, dt = data.draw(systems(2, 3, dtype))
    function = discretize_zoh if rule == "zoh" else discretize_bilinear
    A_bar, gain = run(dtype, function, A, dt[:, None])
    exact_bar, exact_gain = oracles.discretize(A, dt[:, None], rule)
    assert_close(A_bar, exact_bar, 1, tolerance(dtype, A, dt))
    assert_close(gain, exact_gain, size_of_gain(A, dt), tolerance(dtype, A, dt))
    assert (np.abs(A_bar) <= 1 + 3e-7).all()


def kernel_and_gradients(A, C, dt, g, *, rule):
    k, transposed = jax.vjp(lambda A, C, dt: s4d_kernel(A, C, dt, g.shape[1], rule), A, C, dt)
    return k, *transposed(g)


def gradient_sizes(A, C, dt, g, rule):
    """Sums of absolute values of what the closed gradients by A, C and dt add up."""
    gain, C = size_of_gain(A, dt), np.abs(C)
    dt = dt.astype(float)[:, None]
    bar, _ = oracles.discretize(A, dt, rule)
    (bar_by_A, _), (bar_by_dt, _) = oracles.discretize_slopes(A, dt, rule)
    steps = np.arange(g.shape[1])
    power = np.abs(bar[..., None]) ** steps
    weight = 2 * np.abs(g)[:, None, :]
    plain = np.sum(weight * power, -1)
    slope = np.sum(weight[..., 1:] * steps[1:] * power[..., :-1], -1)
    by_A = C * (dt * gain * plain + gain * np.abs(bar_by_A) * slope)
    by_dt = C * (plain + gain * np.abs(bar_by_dt) * slope)
    return by_A, gain * plain, by_dt.sum(1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (SHAPES[0], "float64"),
        (SHAPES[1], "float32"),
        (SHAPES[1], "float64"),
        (SHAPES[2], "float32"),
    ],
)
@properties(max_examples=60)
@given(data=st.data())
def test_kernel_and_its_gradients_are_right_for_any_system(shape, rule, dtype, data):
    H, N, L = shape
    A, C, dt = data.draw(systems(H, N, dtype))
    g = rounded(numbers(data.draw(seeds), H, L), dtype)
    k, *gradients = run(dtype, kernel_and_gradients, A, C, dt, g, rule=rule)
    within = tolerance(dtype, A, dt, L)
    size = 2 * np.sum(np.abs(C) * size_of_gain(A, dt), axis=1, keepdims=True)
    assert_close(k, oracles.s4d_kernel(A, C, dt, L, rule), size, within)
    dA, dC, ddt = oracles.s4d_kernel_gradients(A, C, dt, g, rule)
    sizes = gradient_sizes(A, C, dt, g, rule)
    for found, exact, of_terms in zip(gradients, (dA, dC, ddt.sum(1)), sizes, strict=True):
        assert_close(found, exact, of_terms, 3 * within)


def recurrence_and_gradients(u, A, C, dt, x0, g, *, rule):
    y, x = s4d_recurrence(u, A, C, dt, x0, discretization=rule)
    _, transposed = jax.vjp(lambda *p: s4d_recurrence(u, *p, discretization=rule)[0], A, C, dt)
    return y, x, *transposed(g)


@pytest.mark.parametrize(("rule", "dtype"), [("zoh", "float32"), ("bilinear", "float64")])
@properties(max_examples=50)
@given(data=st.data())
def test_recurrence_is_the_loop_for_any_system(rule, dtype, data):
    """Its gradients, from the state zero, are those of the kernel that it convolves with."""
    H, N, L = SHAPES[1]
    A, C, dt = data.draw(systems(H, N, dtype))
    u, g = rounded(numbers(data.draw(seeds), 2, 1, L, H), dtype)
    x0 = rounded(numbers(data.draw(seeds), 1, H, N, 2) @ np.array([1, 1j]), dtype)
    y, x, *gradients = run(dtype, recurrence_and_gradients, u, A, C, dt, x0, g, rule=rule)
    within = tolerance(dtype, A, dt, L)
    bar, gain = oracles.discretize(A, dt[:, None], rule)
    state, size = x0.astype(complex), np.abs(x0)
    for t in range(L):
        state = bar * state + gain * u[:, t, :, None]
        size = np.abs(bar) * size + size_of_gain(A, dt) * np.abs(u[:, t, :, None])
        exact, terms = 2 * np.sum(C * state, -1).real, 2 * np.sum(np.abs(C) * size, -1)
        assert_close(y[:, t], exact, terms, within)
    assert_close(x, state, size, within)

    taps, terms = np.zeros((2, H, L))
    for j in range(L):
        product = g[0, j:] * u[0, : L - j].astype(float)
        taps[:, j], terms[:, j] = product.sum(0), np.abs(product).sum(0)
    dA, dC, ddt = oracles.s4d_kernel_gradients(A, C, dt, taps, rule)
    sizes = gradient_sizes(A, C, dt, terms, rule)
    for found, exact, of_terms in zip(gradients, (dA, dC, ddt.sum(1)), sizes, strict=True):
        assert_close(found, exact, of_terms, 3 * within)


def scan_and_gradients(A, dt, v, x0, g, *, reverse, method):
    def scan(A, v, x0):
        z, phase = exponent(A, dt, "zoh")
        return diagonal_scan(z, phase, v, x0, reverse=reverse, method=method)

    x, transposed = jax.vjp(scan, A, v, x0)
    return x, *transposed(g)


@pytest.mark.parametrize(("reverse", "dtype"), [(False, "float32"), (True, "float64")])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "auto"])
@properties(max_examples=40)
@given(data=st.data())
def test_scan_is_the_loop_for_any_modes(method, reverse, dtype, data):
    _, N, L = SHAPES[1]
    A, _, dt = data.draw(systems(1, N, dtype))
    A, dt = A[0], dt[0]
    drawn = numbers(data.draw(seeds), 2, 2 * L + 1, N, 2) @ np.array([1, 1j])
    v, x0, g = (rounded(a, dtype) for a in (drawn[:, :L], drawn[:, L], drawn[:, L + 1 :]))
    x, dA, dv, dx0 = run(dtype, scan_and_gradients, A, dt, v, x0, g, reverse=reverse, method=method)
    within = tolerance(dtype, A, np.array([dt]), L)
    bar = np.exp(float(dt) * A.astype(complex))
    order = list(range(L))[:: -1 if reverse else 1]
    state, size, states, sizes = x0.astype(complex), np.abs(x0), {}, {}
    for t in order:
        states[t], sizes[t] = state, size  # before the step
        state, size = bar * state + v[:, t], np.abs(bar) * size + np.abs(v[:, t])
        assert_close(x[:, t], state, size, within)
    by_state, terms = np.zeros_like(states[0]), np.zeros(x0.shape)
    by_A, terms_of_A = np.zeros(N, complex), np.zeros(N)
    for t in order[::-1]:
        by_state, terms = by_state + g[:, t], terms + np.abs(g[:, t])
        assert_close(dv[:, t], by_state, terms, within)
        by_state, terms = bar * by_state, np.abs(bar) * terms
        by_A += float(dt) * np.sum(by_state * states[t], axis=0)
        terms_of_A += float(dt) * np.sum(terms * sizes[t], axis=0)
    assert_close(dx0, by_state, terms, 3 * within)  # relative also where it has decayed
    assert_close(dA, by_A, terms_of_A, 3 * within)


def dplr_kernel_and_gradients(A, P, B, C, dt, g):
    k, transposed = jax.vjp(lambda *p: dplr_kernel(*p, g.shape[1]), A, P, B, C, dt)
    return k, *transposed(g)


@pytest.mark.parametrize("dtype", DTYPES)
@properties(max_examples=50)
@given(data=st.data(), size_of_P=power_of_ten(-3, 1))
def test_low_rank_kernel_is_the_dense_recurrence_for_any_system(dtype, data, size_of_P):
    H, N, L = SHAPES[1]
    A, C, dt = data.draw(systems(H, N, dtype))
    drawn = numbers(data.draw(seeds), 2, H, N, 2) @ np.array([1, 1j])
    P, B = rounded(size_of_P * drawn[0], dtype), rounded(drawn[1], dtype)
    g = rounded(numbers(data.draw(seeds), H, L), dtype)
    k, *_ = run(dtype, dplr_kernel_and_gradients, A, P, B, C, dt, g)
    size_C, size_B, size_P = (np.linalg.norm(a, axis=1) for a in (C, B, P))
    size = 2 * size_C * size_B * dt * (1 + dt * size_P**2)
    exact = oracles.dplr_kernel(A, P, B, C, dt, L)
    assert_close(k, exact, size[:, None], 3 * tolerance(dtype, A, dt, L))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", BETA_UNITS)
@pytest.mark.parametrize("n_fft", [2, 33, 4096])
@properties(max_examples=30)
@given(beta=st.lists(betas, min_size=2, max_size=2), scale=power_of_ten(-1, 1))
def test_sobolev_gain_is_a_power_with_the_logarithm_as_slope(n_fft, unit, dtype, beta, scale):
    beta, scale = rounded(beta, dtype), rounded(scale, dtype)
    gain, slope = run(dtype, gain_and_slope, beta, scale, n_fft=n_fft, unit=unit)
    s = oracles.frequency(n_fft, unit) / (1 if unit == "hz_1e4" else float(scale))
    log = beta.astype(float)[:, None] * np.log1p(s)
    exact = np.exp(log)
    within = 5e-7 if dtype == "float32" else 1e-15
    assert_close(gain, exact, exact * (1 + np.abs(log)), within)
    assert_close(slope, exact * np.log1p(s), exact * np.log1p(s) * (1 + np.abs(log)), within)
    assert (gain[:, 0] == 1).all()


def gain_and_slope(beta, scale, *, n_fft, unit):
    return jax.jvp(lambda b: sobolev_gain(b, n_fft, unit, scale), (beta,), (jnp.ones_like(beta),))


def convolution_and_gradients(u, k, reverse, gain, g):
    def convolution(u, k, reverse, gain):
        return fft_conv(u, k, reverse_kernel_HL=reverse, gain_HF=gain)

    y, transposed = jax.vjp(convolution, u, k, reverse, gain)
    return y, *transposed(g)


@pytest.mark.parametrize("dtype", DTYPES)
@properties(max_examples=60)
@given(
    seed=seeds,
    beta=st.lists(betas, min_size=2, max_size=2),
    size=st.lists(power_of_ten(-6, 6), min_size=3, max_size=3),
)
def test_convolution_is_linear_in_input_kernels_and_gain(dtype, seed, beta, size):
    """Outputs and gradients from the oracle's columns, one basis vector at a time."""
    H, L = 2, 17
    rows = numbers(seed, 3, H, L) * np.array(size)[:, None, None]
    (u_HL, k_HL, reverse_HL), g = rounded(rows, dtype), rounded(numbers(seed + 1, L, H), dtype)
    gain = rounded((1 + oracles.frequency(2 * L, "rad")) ** np.array(beta)[:, None], dtype)
    y, du, dk, dreverse, dgain = run(
        dtype, convolution_and_gradients, u_HL.T[None], k_HL, reverse_HL, gain, g[None]
    )
    within = 1e-6 if dtype == "float32" else 1e-14
    one, none = np.eye(L), np.zeros((L, L))
    norm = {n: np.linalg.norm(a, axis=1) for n, a in (("u", u_HL), ("k", k_HL))}
    norm["k"] = norm["k"] + np.linalg.norm(reverse_HL, axis=1)
    for h in range(H):
        u, k, reverse, factor = (
            np.broadcast_to(a[h], (L, a.shape[1])) for a in (u_HL, k_HL, reverse_HL, gain)
        )
        by_u = oracles.convolve(one, k, reverse, factor)
        by_k = oracles.convolve(u.T, one, none, factor)
        by_reverse = oracles.convolve(u.T, none, one, factor)
        F = L + 1
        wide = (np.broadcast_to(a[h], (F, L)) for a in (u_HL, k_HL, reverse_HL))
        u_F, k_F, reverse_F = wide
        by_gain = oracles.convolve(u_F.T, k_F, reverse_F, np.eye(F))
        largest, dy = gain[h].max(), np.linalg.norm(g[:, h])
        both = norm["u"][h] * norm["k"][h]
        assert_close(y[0, :, h], by_u @ u_HL[h], largest * both, within)
        assert_close(du[0, :, h], by_u.T @ g[:, h], largest * dy * norm["k"][h], within)
        assert_close(dk[h], by_k.T @ g[:, h], largest * dy * norm["u"][h], within)
        assert_close(dreverse[h], by_reverse.T @ g[:, h], largest * dy * norm["u"][h], within)
        assert_close(dgain[h], by_gain.T @ g[:, h], dy * both, within)


@st.composite
def tones(draw, A, F: int, highest: float):
    """Frequencies up to the highest, half of them where a mode stands."""
    at = draw(st.lists(st.integers(0, A.shape[1] - 1), min_size=F, max_size=F))
    far = draw(st.lists(power_of_ten(-3, np.log10(highest)), min_size=F, max_size=F))
    here = draw(st.lists(st.booleans(), min_size=F, max_size=F))
    angle = np.where(here, A.imag[:, at], np.array(far)[None, :])
    return rounded(angle, A.real.dtype.name)


def response_and_gradients(A, C, omega, g):
    G, transposed = jax.vjp(lambda A, C: transfer_function(A, C, omega), A, C)
    return G, *transposed(g)


@pytest.mark.parametrize("dtype", DTYPES)
@properties(max_examples=100)
@given(data=st.data())
def test_transfer_function_and_sensitivity_are_right_at_any_frequency(dtype, data):
    """Beside poles with a damping of 1e-6 and 1e4 above them."""
    A, C, _ = data.draw(systems(2, 3, dtype))
    omega = data.draw(tones(A, 4, 1e4))
    g = rounded(numbers(data.draw(seeds), 2, 4, 2) @ np.array([1, 1j]), dtype)
    a, c = A.astype(complex)[:, None, :], C.astype(complex)[:, None, :]
    away, mirrored = (1j * omega.astype(float)[:, :, None] - p for p in (a, a.conj()))
    assume(min(np.abs(away).min(), np.abs(mirrored).min()) > 0)
    G, dA, dC = run(dtype, response_and_gradients, A, C, omega, g)
    within = 1e-6 if dtype == "float32" else 1e-14
    own, other = c / away, c.conj() / mirrored
    assert_close(G, (own + other).sum(-1), (np.abs(own) + np.abs(other)).sum(-1), within)

    ct = g.astype(complex)[:, :, None]
    by_A = ct * own / away, ct * other / mirrored
    by_C = ct / away, ct / mirrored
    for found, (one, two) in ((dA, by_A), (dC, by_C)):
        size = (np.abs(one) + np.abs(two)).sum(1)
        assert_close(found, (one + two.conj()).sum(1), size, within)
    by_x, by_y = run(dtype, pair_sensitivity, A, C, omega)
    size = np.abs(own / away) + np.abs(other / mirrored)
    assert_close(by_x, own / away + other / mirrored, size, within)
    assert_close(by_y, 1j * (own / away - other / mirrored), size, within)


def spectrum_and_gradients(A, C, dt, omega, g, *, rule, length):
    K, transposed = jax.vjp(
        lambda *p: discrete_transfer_function(*p, omega, rule, length), A, C, dt
    )
    return K, *transposed(g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@properties(max_examples=60)
@given(data=st.data())
def test_spectrum_of_the_taps_is_right_at_any_frequency(rule, dtype, data):
    """At resonance with undamped modes too. Its gradients are those of a weighed sum of taps."""
    H, N, L = SHAPES[1]
    A, C, dt = data.draw(systems(H, N, dtype))
    bar, _ = oracles.discretize(A, dt[:, None], rule)
    omega = data.draw(tones(rounded(1j * np.angle(bar), dtype), 4, np.pi))
    g = rounded(numbers(data.draw(seeds), H, 4, 2) @ np.array([1, 1j]), dtype)
    K, *gradients = run(dtype, spectrum_and_gradients, A, C, dt, omega, g, rule=rule, length=L)
    within = tolerance(dtype, A, dt, L)
    turn = np.exp(-1j * omega.astype(float)[:, :, None] * np.arange(L))
    exact = np.einsum("hl,hfl->hf", oracles.s4d_kernel(A, C, dt, L, rule), turn)
    weight = (np.abs(C) * size_of_gain(A, dt))[:, :, None]
    size = 2 * np.sum(weight * np.abs(bar)[:, :, None] ** np.arange(L), axis=(1, 2))
    assert_close(K, exact, size[:, None], within)

    taps = np.einsum("hf,hfl->hl", g.astype(complex), turn).real
    dA, dC, ddt = oracles.s4d_kernel_gradients(A, C, dt, taps, rule)
    all_taps = np.broadcast_to(np.abs(g).sum(1)[:, None], (H, L))
    sizes = gradient_sizes(A, C, dt, all_taps, rule)
    for found, exact, of_terms in zip(gradients, (dA, dC, ddt.sum(1)), sizes, strict=True):
        assert_close(found, exact, of_terms, 3 * within)


@pytest.mark.parametrize("dtype", DTYPES)
@properties(max_examples=60)
@given(data=st.data())
def test_spectrum_of_endless_taps_is_right_down_to_a_damping_of_1e_12(dtype, data):
    """By zero-order hold. The oracle itself knows the distance to a pole to 1e-16 of its angle."""
    A, C, dt = data.draw(systems(2, 3, dtype, damped))
    z = dt.astype(float)[:, None] * A.astype(complex)
    omega = data.draw(tones(rounded(1j * np.angle(np.exp(z)), dtype), 4, np.pi))
    K = run(dtype, discrete_transfer_function, A, C, dt, omega)
    weight = (C * dt[:, None] * oracles.phi_1(z))[:, None, :]
    tone = 1j * omega.astype(float)[:, :, None]
    one_less, mirrored = (-np.expm1(p[:, None, :] - tone) for p in (z, z.conj()))
    exact = (weight / one_less + weight.conj() / mirrored).sum(-1)
    rounding = tolerance(dtype, A, dt) + 2e-15 * (np.pi + np.abs(z.imag))[:, None, :] * (
        1 / np.abs(one_less) + 1 / np.abs(mirrored)
    )
    size = (np.abs(C) * size_of_gain(A, dt))[:, None, :]
    allowed = rounding * size * (1 / np.abs(one_less) + 1 / np.abs(mirrored))
    assert_close(K, exact, allowed.sum(-1), 1)
