"""The S4 kernel against dense float64 recurrences, against S4's own formula, and HiPPO-LegS."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.init.hippo import legs, legs_nplr
from ssm_jax.kernels import s4d_kernel
from ssm_jax.kernels.devices import compiling_for
from ssm_jax.kernels.dplr import dplr_kernel

DTS = (1e-3, 1e-2, 1e-1, 1.0)
KINDS = ("legs", "clipped", "undamped", "alpha 10", "random")


def system(kind, n_modes, rng):
    """Lambda, P, B of one channel."""
    Lambda, P, B, *_ = legs_nplr(2 * n_modes)
    if kind == "clipped":
        B = B.real + 1j * np.clip(B.imag, -2, 2)
    elif kind == "undamped":
        Lambda = 1j * Lambda.imag
    elif kind == "alpha 10":
        Lambda = Lambda.real + 10j * Lambda.imag
    elif kind == "random":
        Lambda = -rng.uniform(0, 2, n_modes) + 1j * rng.uniform(0, 500, n_modes)
        P, B = 3 * rng.normal(size=(2, n_modes, 2)) @ [1, 1j]
    return Lambda, P, B


def systems(n_modes, seed=0):
    """A, P, B, C (H, N) and dt, in float32: each kind with each dt."""
    rng = np.random.default_rng(seed)
    rows = [system(kind, n_modes, rng) for kind in KINDS for _ in DTS]
    A, P, B = (np.stack(part).astype(np.complex64) for part in zip(*rows, strict=True))
    C = rng.normal(size=(*A.shape, 2)) @ (np.sqrt(0.5) * np.array([1, 1j]))
    return A, P, B, C.astype(np.complex64), np.tile(np.float32(DTS), len(KINDS))


def worst_error(found, exact):
    """Over the channels, the largest error over the largest tap."""
    return (np.abs(found - exact).max(-1) / np.abs(exact).max(-1)).max()


@functools.cache
def exact_kernel(n_modes, length):
    return oracles.dplr_kernel(*systems(n_modes), length)


def in_float64(arrays):
    return [a.astype(complex if np.iscomplexobj(a) else float) for a in arrays]


@pytest.mark.parametrize(
    ("n_modes", "length", "backend"),
    [
        *((1, 1, "cpu"), (4, 2, "cpu"), (8, 17, "cpu"), (8, 257, "cpu"), (64, 2048, "cpu")),
        *((8, 17, "gpu"), (64, 2048, "gpu")),
    ],
)
def test_kernel_is_the_impulse_response_of_the_dense_recurrence(n_modes, length, backend):
    """LegS, with B clipped, without damping, at alpha = 10, and random: dt from 1e-3 to 1."""
    arguments = systems(n_modes)
    with compiling_for(backend):
        found = run(dplr_kernel, *arguments, length=length)
    assert worst_error(found, exact_kernel(n_modes, length)) < 1e-5


@pytest.mark.optimized
def test_kernel_is_as_right_at_length_16384():
    """Of the systems above those with the slow steps, where late taps are large."""
    arguments = [a[::4] for a in systems(64)]
    exact = oracles.dplr_kernel(*arguments, 16384)
    for backend in ("cpu", "gpu"):
        with compiling_for(backend):
            found = run(dplr_kernel, *arguments, length=16384)
        assert worst_error(found, exact) < 1e-5, backend


def test_float64_kernel_is_right_to_1e_11():
    arguments = systems(8)
    with jax.enable_x64(True):
        found = run(dplr_kernel, *in_float64(arguments), length=257)
    assert worst_error(found, exact_kernel(8, 257)) < 1e-11


def test_unclipped_kernel_is_that_of_the_true_legs_system():
    """The real HiPPO matrices themselves, without a decomposition, and real read-outs."""
    order, dt = 16, 0.01
    A, B = legs(order)
    nplr = legs_nplr(order)
    c = np.random.default_rng(0).normal(size=(20, order))
    inverse = np.linalg.inv(np.eye(order) - dt / 2 * A)
    x, exact = inverse @ (dt * B), []
    for _ in range(257):
        exact.append(c @ x)
        x = inverse @ (x + dt / 2 * (A @ x))
    Lambda, P, B = (np.tile(np.complex64(a), (20, 1)) for a in nplr[:3])
    dt = np.full(20, dt, np.float32)
    found = run(dplr_kernel, Lambda, P, B, np.complex64(c @ nplr.V), dt, length=257)
    assert worst_error(found, np.stack(exact, axis=1)) < 1e-5


def test_official_clip_of_B_changes_the_legs_kernel_by_tens_of_percent():
    """OC-27, at real order 8: by 20 to 130 % of the largest tap, for any of 20 read-outs."""
    Lambda, P, B = (np.tile(np.complex64(a), (20, 1)) for a in legs_nplr(8)[:3])
    assert abs(np.abs(B.imag).max() - 5.154) < 1e-3
    C = np.complex64(np.random.default_rng(0).normal(size=(20, 4, 2)) @ [1, 1j])
    dt = np.full(20, 0.01, np.float32)
    clipped = np.complex64(B.real + 1j * np.clip(B.imag, -2, 2))
    true, found = (run(dplr_kernel, Lambda, P, b, C, dt, length=257) for b in (B, clipped))
    change = np.abs(found - true).max(1) / np.abs(true).max(1)
    assert change.min() > 0.15
    assert change.max() < 1.5


def test_kernel_is_the_inverse_dft_of_the_formula_of_s4():
    """Cauchy sums at the roots of unity, with C (I - A_bar^L) for C (arXiv:2111.00396)."""
    L = 257  # odd: no root is -1, where the formula has no value
    A, P, B, C, dt = in_float64(systems(8))
    exact = []
    for h in range(len(dt)):
        Lambda = np.concatenate([A[h], A[h].conj()])
        p, b, c = (np.concatenate([a[h], a[h].conj()]) for a in (P, B, C))
        matrix, one = np.diag(Lambda) - np.outer(p, p.conj()), np.eye(16)
        A_bar = np.linalg.solve(one - dt[h] / 2 * matrix, one + dt[h] / 2 * matrix)
        c = c @ (one - np.linalg.matrix_power(A_bar, L))
        z = np.exp(-2j * np.pi * np.arange(L) / L)
        s = 2 / dt[h] * (1 - z) / (1 + z)
        cauchy = 1 / (s[:, None] - Lambda)
        CB, CP, PB, PP = (cauchy @ (x * y) for x in (c, p.conj()) for y in (b, p))
        exact.append(np.fft.ifft(2 / (1 + z) * (CB - CP * PB / (1 + PP))).real)
    with jax.enable_x64(True):
        found = run(dplr_kernel, A, P, B, C, dt, length=L)
    assert worst_error(found, np.stack(exact)) < 1e-10


def test_taps_do_not_depend_on_the_length():
    """C is tied to no length: a short kernel is the beginning of a long one."""
    arguments = systems(8)
    long = run(dplr_kernel, *arguments, length=257)
    for length in (1, 129):
        short = run(dplr_kernel, *arguments, length=length)
        error = np.abs(short - long[:, :length]).max(1)
        assert (error / np.abs(long).max(1)).max() < 1e-5


def test_without_low_rank_part_it_is_the_s4d_kernel():
    A, P, B, C, dt = systems(8)
    found = run(dplr_kernel, A, 0 * P, B, C, dt, length=257)
    exact = run(s4d_kernel, A, B * C, dt, length=257, discretization="bilinear")
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * np.abs(exact).max())


@functools.cache
def objective_gradient(length):
    def objective(A, P, B, C, dt, g):
        return jnp.sum(g * dplr_kernel(A, P, B, C, dt, length))

    return jax.grad(objective, argnums=(0, 1, 2, 3, 4))


@pytest.mark.unoptimized
@pytest.mark.parametrize(("length", "backend"), [(2, "cpu"), (131, "cpu"), (131, "gpu")])
def test_gradients_pass_finite_differences_in_float64(length, backend):
    """With modes on the axis, at 0 and real ones, a leading axis of C, and dt = 2."""
    rng = np.random.default_rng(6)
    re = np.array([[-0.5, 0.0, -0.5], [0.0, -2.0, 0.0]])
    im = np.array([[3.0, 2.0, 1e-4], [0.0, 0.0, 40.0]])
    parts = rng.normal(size=(6, 2, 3))

    def kernel(re, im, parts, dt):
        P, B, C = parts[0::2] + 1j * parts[1::2]
        return dplr_kernel(re + 1j * im, P, B, jnp.stack([C, 1j * C]), dt, length)

    with jax.enable_x64(True), compiling_for(backend):
        point = (re, im, parts, np.array([0.1, 2.0]))
        # The default step is too long for derivatives that grow as l^3.
        check_grads(jax.jit(kernel), point, order=1, modes=["rev"], atol=1e-5, rtol=1e-5, eps=1e-7)


def test_gradients_in_float32_are_those_of_float64():
    """For each channel within 1e-4 of the largest entry of the gradient by that array.

    Without the undamped systems, where those by A cancel: 3e-3 off at dt = 1.
    """
    length = 700
    arguments = [np.delete(a, slice(8, 12), axis=0) for a in systems(64)]
    g = np.random.default_rng(4).normal(size=(len(arguments[-1]), length)).astype(np.float32)
    found = run(objective_gradient(length), *arguments, g)
    with jax.enable_x64(True):
        exact = run(objective_gradient(length), *in_float64((*arguments, g)))
    for name, f, e in zip(("A", "P", "B", "C"), found, exact, strict=False):
        assert (np.abs(f - e).max(1) / np.abs(e).max(1)).max() < 1e-4, name
    assert (np.abs(found[4] - exact[4]) / np.abs(exact[4])).max() < 1e-3


def test_leading_axes_of_C_are_independent_kernels():
    A, P, B, C, dt = systems(4)
    both = run(dplr_kernel, A, P, B, np.stack([C, C[::-1]])[:, None], dt, length=100)
    assert both.shape == (2, 1, len(dt), 100)
    for c, C_one in enumerate((C, C[::-1])):
        one = run(dplr_kernel, A, P, B, C_one, dt, length=100)
        np.testing.assert_allclose(both[c, 0], one, rtol=0, atol=1e-6 * np.abs(one).max())


@pytest.mark.unoptimized
def test_vmap_over_a_population_equals_a_loop_in_values_and_gradients():
    members = [systems(4, seed=s) for s in range(3)]
    stacked = [np.stack(part) for part in zip(*members, strict=True)]
    g = np.random.default_rng(7).normal(size=(len(DTS) * len(KINDS), 100)).astype(np.float32)

    def both(A, P, B, C, dt, g):
        kernel, transpose = jax.vjp(lambda *p: dplr_kernel(*p, 100), A, P, B, C, dt)
        return kernel, *transpose(g)

    population = run(jax.vmap(both, in_axes=(0, 0, 0, 0, 0, None)), *stacked, g)
    for m in range(3):
        for f, e in zip(population, run(both, *members[m], g), strict=True):
            np.testing.assert_allclose(f[m], e, rtol=0, atol=3e-5 * np.abs(e).max())


def lowered(gradient, n_modes=64, channels=16, length=4096):
    """The program of the kernel, or of its gradient."""
    HN = jax.ShapeDtypeStruct((channels, n_modes), jnp.complex64)
    H = jax.ShapeDtypeStruct((channels,), jnp.float32)
    HL = jax.ShapeDtypeStruct((channels, length), jnp.float32)
    forward = lambda A, P, B, C, dt, g: dplr_kernel(A, P, B, C, dt, length)  # noqa: E731
    function = objective_gradient(length) if gradient else forward
    return jax.jit(function).lower(HN, HN, HN, HN, H, HL)


@pytest.mark.unoptimized
def test_memory_of_the_gradient_is_that_of_some_kernels_whatever_the_number_of_modes():
    """No array has (H, N, L) elements: 32 more modes cost less than one of 32 modes."""
    small, large = (
        lowered(True, n_modes).compile().memory_analysis().temp_size_in_bytes
        for n_modes in (32, 64)
    )
    one_HL = 16 * 4096 * 4
    assert 0 < large < 64 * one_HL
    assert large - small < 0.75 * 32 * one_HL


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_products_are_asked_for_in_full_precision(gradient):
    products = [line for line in lowered(gradient).as_text().splitlines() if "dot_general" in line]
    assert products
    for line in products:
        assert re.search(r"precision\s*=\s*\[HIGHEST, HIGHEST\]", line), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"P": np.ones((4, 4), np.complex64)}, r"got A \(2, 4\), P \(4, 4\)"),
        ({"B": np.ones((2,), np.complex64)}, r"B \(2,\)"),
        ({"C": np.ones((2, 3), np.complex64)}, r"C ends in \(H, N\)"),
        ({"dt": np.ones((4,), np.float32)}, r"dt \(4,\)"),
        ({"length": 0}, "length must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    HN = np.ones((2, 4), np.complex64)
    arguments = {"A": HN, "P": HN, "B": HN, "C": HN, "dt": np.ones((2,), np.float32), "length": 8}
    with pytest.raises(ValueError, match=message):
        dplr_kernel(*(arguments | changes).values())
