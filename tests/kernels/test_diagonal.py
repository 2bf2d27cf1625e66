"""The S4D kernel against the recurrence, the sum of powers and closed gradients; its memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels import s4d_kernel
from ssm_jax.kernels.devices import compiling_for

ALPHAS = (0.1, 1.0, 3.0, 10.0)
DTS = (1e-3, 1e-2, 1e-1)
COPIES = 2


def official_modes(seed=0, n_modes=64):
    """A, C (2, H, N) and dt: one channel for each alpha, each dt, and each of COPIES draws."""
    rng = np.random.default_rng(seed)
    alpha_H, dt_H = (a.ravel() for a in np.meshgrid(ALPHAS, np.repeat(DTS, COPIES), indexing="ij"))
    frequency = np.maximum(alpha_H[:, None] * np.pi * np.arange(n_modes), 1e-4)
    A = -0.5 * np.exp(0.3 * rng.normal(size=frequency.shape)) + 1j * frequency
    C = rng.normal(size=(2, *A.shape, 2)) @ (np.sqrt(0.5) * np.array([1, 1j]))
    return A.astype(np.complex64), C.astype(np.complex64), dt_H.astype(np.float32)


def worst_errors(found, exact):
    """Largest (rms error / rms, max error / max) over the pairs (alpha, dt).

    The copies and read-outs of a pair are one kernel here: a single tap may cancel to nothing.
    """
    parts = (len(ALPHAS) * len(DTS), -1)
    e = np.moveaxis(found - exact, 0, 1).reshape(parts)
    k = np.moveaxis(exact, 0, 1).reshape(parts)
    rms = np.sqrt(np.mean(e**2, 1) / np.mean(k**2, 1))
    return rms.max(), (np.abs(e).max(1) / np.abs(k).max(1)).max()


@pytest.mark.parametrize(
    ("length", "rule"),
    [(length, "zoh") for length in oracles.LENGTHS]
    + [(length, "bilinear") for length in (1, 17, 257, 16384)],
)
def test_kernel_is_the_impulse_response_of_the_recurrence(length, rule):
    """At any alpha and length: rms error below 1e-6 of the rms, largest 2e-6 of the largest."""
    A, C, dt = official_modes()
    found = run(s4d_kernel, A, C, dt, length=length, discretization=rule)
    assert found.shape == (2, len(dt), length)
    rms, largest = worst_errors(found, oracles.s4d_kernel(A, C, dt, length, rule))
    assert rms < 1e-6
    assert largest < 2e-6


@pytest.mark.parametrize("length", [1, 100, 129])
def test_the_form_for_accelerators_computes_more_taps_and_the_same(length):
    A, C, dt = official_modes(seed=1)
    gradient = objective_gradient("zoh")
    g = np.random.default_rng(0).normal(size=(*C.shape[:-1], length)).astype(np.float32)[0]
    found = {}
    for backend in ("cpu", "gpu"):
        with compiling_for(backend):
            program = jax.jit(gradient).lower(A, C[0], dt, g)
            found[backend] = program.compile()(A, C[0], dt, g)
    # Products of the gradient: 16 blocks, where the CPU has 1, 7 and 9.
    for a, b in zip(found["gpu"], found["cpu"], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(b).max())


def test_kernel_is_the_sum_of_powers_of_the_eigenvalues():
    """Without a recurrence: 2 Re sum_n C gain e^{dt A l}; late taps relative to their own rms."""
    A, C, dt = official_modes(seed=1)
    found = run(s4d_kernel, A, C, dt, length=2048, discretization="zoh")[:, :, 1024:]
    z = dt.astype(float)[:, None] * A.astype(complex)
    powers = np.exp(z[:, :, None] * np.arange(1024, 2048))
    weights = C * dt[:, None] * oracles.phi_1(z)
    exact = 2 * np.einsum("chn,hnl->chl", weights, powers).real
    slow = dt < 0.05  # at 0.1 these taps are e^-50 and less
    error = np.sqrt(np.mean((found - exact)[:, slow] ** 2, -1) / np.mean(exact[:, slow] ** 2, -1))
    assert error.max() < 3e-6


def test_undamped_modes_stay_exact_over_16384_steps():
    """Re A = 0: nothing hides the phases of the late steps."""
    rng = np.random.default_rng(2)
    A = (1j * rng.uniform(-2000, 2000, (3, 8))).astype(np.complex64)
    C = np.exp(2j * np.pi * rng.uniform(size=(3, 8))).astype(np.complex64)
    dt = np.float32([1e-3, 1e-2, 1e-1])
    found = run(s4d_kernel, A, C, dt, length=16384)[:, -256:]
    exact = oracles.s4d_kernel(A, C, dt, 16384)[:, -256:]
    assert np.sqrt(np.mean((found - exact) ** 2, 1) / np.mean(exact**2, 1)).max() < 1e-6


def test_kernel_of_the_denoising_model_is_exact_over_262144_steps():
    """OC-22 with the widest spacing, 490.52 = 156.1 pi: angles up to 3.1 rad per step."""
    modes = np.arange(64)
    A = np.where(modes == 0, -np.exp(-5.0), -3.0) + 490.52j * modes
    rng = np.random.default_rng(8)
    C = (rng.normal(size=(3, 64, 2)) @ np.array([1, 1j])) * A.imag / 1000
    A, C = np.broadcast_to(A, (3, 64)).astype(np.complex64), C.astype(np.complex64)
    dt = np.full(3, 1e-4, np.float32)
    found = run(s4d_kernel, A, C, dt, length=262144)
    exact = oracles.s4d_kernel(A, C, dt, 262144)
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 1e-6


@functools.cache
def objective_gradient(rule):
    def objective(A, C, dt, g):
        return jnp.sum(g * s4d_kernel(A, C, dt, g.shape[1], rule))

    return jax.grad(objective, argnums=(0, 1, 2))


@pytest.mark.parametrize(
    ("length", "rule"),
    [(1, "zoh"), (17, "bilinear"), (257, "zoh"), (2048, "zoh"), (2048, "bilinear")],
)
def test_gradients_equal_the_closed_forms(length, rule):
    """float32 against float64: for each channel within 1e-5 of the largest entry."""
    A, C, dt = official_modes(seed=3)
    g = np.random.default_rng(4).normal(size=(len(dt), length)).astype(np.float32)
    found = run(objective_gradient(rule), A, C[0], dt, g)
    exact = oracles.s4d_kernel_gradients(A, C[0], dt, g, rule)
    for f, e in zip(found[:2], exact[:2], strict=True):
        assert (np.abs(f - e).max(1) / np.abs(e).max(1)).max() < 1e-5
    # One number per channel, a sum over modes that cancel: relative to their root sum of squares.
    by_mode = exact[2]
    assert (np.abs(found[2] - by_mode.sum(1)) / np.linalg.norm(by_mode, axis=1)).max() < 1e-5


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_gradients_are_right_on_the_axis_at_mode_0_and_at_0(rule):
    """Re A = 0, the official mode 0 (Im 1e-4), an undamped slow mode, A = 0 and a real mode."""
    A = np.complex64([[3j, -0.5 + 1e-4j, 1e-4j, 0, -0.5]])
    C = np.complex64([[1 - 1j, 0.3 + 2j, 1j, 1 + 1j, -1]])
    dt = np.float32([0.05])
    g = np.random.default_rng(5).normal(size=(1, 64)).astype(np.float32)
    found = run(objective_gradient(rule), A, C, dt, g)
    dA, dC, ddt = oracles.s4d_kernel_gradients(A, C, dt, g, rule)
    for f, e in zip(found, (dA, dC, ddt.sum(1)), strict=True):
        np.testing.assert_allclose(f, e, rtol=5e-6, atol=5e-6 * np.abs(e).max())


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    ("length", "rule"), [(1, "zoh"), (2, "bilinear"), (17, "zoh"), (17, "bilinear")]
)
def test_gradients_pass_finite_differences_in_float64(length, rule):
    """Generic modes, Re A = 0, the mode 0 and A = 0, with a leading axis of C."""

    def kernel(re, im, C_re, C_im, dt):
        return s4d_kernel(re + 1j * im, C_re + 1j * C_im, dt, length, rule)

    rng = np.random.default_rng(6)
    re = np.array([[-0.5, 0.0, -0.5], [0.0, -2.0, 0.0]])
    im = np.array([[3.0, 2.0, 1e-4], [0.0, 0.0, 1e-4]])
    C_re, C_im = rng.normal(size=(2, 2, 2, 3))
    with jax.enable_x64(True):
        point = (re, im, C_re, C_im, np.array([0.1, 0.3]))
        check_grads(jax.jit(kernel), point, order=1, modes=["rev"], atol=1e-7, rtol=1e-6)


def test_float64_kernel_is_right_to_1e_11():
    A, C, dt = (
        a.astype(t) for a, t in zip(official_modes(), (complex, complex, float), strict=True)
    )
    with jax.enable_x64(True):
        found = run(s4d_kernel, A, C, dt, length=257, discretization="bilinear")
    assert worst_errors(found, oracles.s4d_kernel(A, C, dt, 257, "bilinear"))[1] < 1e-11


def test_leading_axes_of_C_are_independent_kernels():
    A, C, dt = official_modes()
    both = run(s4d_kernel, A, C[:, None], dt, length=64)
    assert both.shape == (2, 1, len(dt), 64)
    for c in (0, 1):
        one = run(s4d_kernel, A, C[c], dt, length=64)
        np.testing.assert_allclose(both[c, 0], one, rtol=0, atol=1e-6 * np.abs(one).max())


@pytest.mark.unoptimized
def test_vmap_over_a_population_equals_a_loop_in_values_and_gradients():
    members = [official_modes(seed=s, n_modes=8) for s in range(3)]
    A_MHN = np.stack([A for A, _, _ in members])
    C_MHN = np.stack([C[0] for _, C, _ in members])
    dt_MH = np.stack([dt for _, _, dt in members])
    g = np.random.default_rng(7).normal(size=(A_MHN.shape[1], 64)).astype(np.float32)

    def both(A, C, dt, g):
        kernel, transpose = jax.vjp(lambda *p: s4d_kernel(*p, 64), A, C, dt)
        return kernel, *transpose(g)

    population = run(jax.vmap(both, in_axes=(0, 0, 0, None)), A_MHN, C_MHN, dt_MH, g)
    for m in range(3):
        single = run(both, A_MHN[m], C_MHN[m], dt_MH[m], g)
        for f, e in zip(population, single, strict=True):
            np.testing.assert_allclose(f[m], e, rtol=0, atol=2e-6 * np.abs(e).max())


H, N, L = 32, 64, 16384


@functools.cache
def lowered(gradient):
    """The program of the kernel, or of its gradient: Path-X with a quarter of its channels."""
    shapes = (
        jax.ShapeDtypeStruct((H, N), jnp.complex64),
        jax.ShapeDtypeStruct((H, N), jnp.complex64),
        jax.ShapeDtypeStruct((H,), jnp.float32),
        jax.ShapeDtypeStruct((H, L), jnp.float32),
    )
    forward = lambda A, C, dt, g: s4d_kernel(A, C, dt, g.shape[1])  # noqa: E731
    return jax.jit(objective_gradient("zoh") if gradient else forward).lower(*shapes)


@pytest.mark.unoptimized
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_no_array_of_h_n_l_elements_exists(gradient):
    """All temporary memory together is a sixth of one such array in float32 at most."""
    temporary = lowered(gradient).compile().memory_analysis().temp_size_in_bytes
    assert 0 < temporary < H * N * L * 4 / 6


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_products_are_asked_for_in_full_precision(gradient):
    """On a GPU the default would round the operands to 10 bits; a CPU result cannot show it."""
    products = [line for line in lowered(gradient).as_text().splitlines() if "dot_general" in line]
    # The gradient of a linear function of the kernel leaves out the forward product.
    assert len(products) == (2 if gradient else 1)
    for line in products:
        assert re.search(r"precision\s*=\s*\[HIGHEST, HIGHEST\]", line), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"C": np.ones((2, 3), np.complex64)}, r"got A \(2, 4\), C \(2, 3\), dt \(2,\)"),
        ({"C": np.ones((4,), np.complex64)}, r"C ends in \(H, N\)"),
        ({"dt": np.ones((4,), np.float32)}, r"dt \(4,\)"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"discretization": "ZOH"}, "unknown discretization 'ZOH'; choose one of zoh, bilinear"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    arguments = {
        "A": np.ones((2, 4), np.complex64),
        "C": np.ones((2, 4), np.complex64),
        "dt": np.ones((2,), np.float32),
        "length": 8,
        "discretization": "zoh",
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        s4d_kernel(*arguments.values())
