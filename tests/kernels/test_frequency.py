"""The Sobolev gain in each unit, and the transfer function."""

import math

import jax
import numpy as np
import oracles
import pytest
from running import run
from scipy import signal

from ssm_jax.kernels import sobolev_frequency, sobolev_gain, transfer_function


@pytest.mark.parametrize(
    ("unit", "n_fft", "bin", "base"),
    [
        ("lra", 4096, 2048, 1.5),
        ("lra", 4096, 1024, 1.25),
        ("lra", 4096, 0, 1.0),
        ("hz_1e4", 524288, 262144, 27.2144),
        ("hz_1e4", 524288, 10_000, 2.0),
        ("hz_1e4", 64, 1, 1.0001),
        ("rad", 4096, 2048, 1 + math.pi),
        ("rad", 4096, 1024, 1 + math.pi / 2),
    ],
)
def test_gain_at_a_bin_is_a_known_base_to_the_power_beta(unit, n_fft, bin, base):
    beta = np.float32([-1.0, -0.3, 0.0, 0.5, 1.0, 2.0])
    gain = run(sobolev_gain, beta, n_fft=n_fft, unit=unit)
    assert gain.shape == (6, n_fft // 2 + 1)
    assert gain.dtype == np.float32
    np.testing.assert_allclose(gain[:, bin], base ** beta.astype(float), rtol=1e-6)


@pytest.mark.parametrize("unit", ["lra", "hz_1e4", "rad"])
@pytest.mark.parametrize("n_fft", [1, 2, 33, 128, 4096])
def test_gain_is_one_plus_frequency_to_the_power_beta(unit, n_fft):
    """At every bin, n odd included."""
    beta = np.float32([-2.0, 0.7])
    exact = (1 + oracles.frequency(n_fft, unit)) ** beta.astype(float)[:, None]
    np.testing.assert_allclose(run(sobolev_gain, beta, n_fft=n_fft, unit=unit), exact, rtol=1e-6)
    s = sobolev_frequency(n_fft, unit)
    np.testing.assert_allclose(s, oracles.frequency(n_fft, unit), rtol=1e-7)


@pytest.mark.parametrize("unit", ["lra", "hz_1e4", "rad"])
def test_beta_0_is_the_identity_with_gradient_log_of_the_base(unit):
    zero = np.zeros(2, np.float32)
    np.testing.assert_array_equal(run(sobolev_gain, zero, n_fft=64, unit=unit), 1)
    slopes = jax.jacfwd(lambda beta: sobolev_gain(beta, 64, unit))
    slope = run(slopes, zero)
    exact = np.log1p(oracles.frequency(64, unit))
    np.testing.assert_allclose(slope[0, :, 0], exact, rtol=1e-6)
    np.testing.assert_array_equal(slope[0, :, 1], 0)


def test_unknown_unit_and_empty_transform_are_refused():
    with pytest.raises(ValueError, match="unknown unit 'hz' of beta; choose one of lra, hz_1e4"):
        sobolev_gain(np.zeros(1, np.float32), 64, "hz")
    with pytest.raises(ValueError, match="n_fft must be at least 1, got 0"):
        sobolev_frequency(0)


def systems():
    rng = np.random.default_rng(0)
    A = -rng.uniform(0.1, 2, (2, 3)) + 1j * rng.uniform(-20, 20, (2, 3))
    C = rng.normal(size=(2, 3, 2)) @ np.array([1, 1j])
    omega = np.stack([np.linspace(0, 40, 50), np.geomspace(1e-3, 1e3, 50)])
    return A.astype(np.complex64), C.astype(np.complex64), omega.astype(np.float32)


def test_transfer_function_is_the_sum_over_the_poles_and_their_conjugates():
    A, C, omega = systems()
    G = run(transfer_function, A, C, omega)
    exact = np.zeros(omega.shape, complex)
    for h, f in np.ndindex(omega.shape):
        for a, c in zip(A[h].astype(complex), C[h].astype(complex), strict=True):
            s = 1j * float(omega[h, f])
            exact[h, f] += c / (s - a) + c.conjugate() / (s - a.conjugate())
    assert np.abs(G - exact).max() < 2e-6 * np.abs(exact).max()


# SciPy goes by way of polynomials, and says that the numerator's first coefficient is 0.
@pytest.mark.filterwarnings("ignore:Badly conditioned filter coefficients")
def test_transfer_function_is_the_frequency_response_of_the_real_system():
    """A mode x + iy read out by c is the block [[x, -y], [y, x]] read out by 2 (Re c, -Im c)."""
    A, C, omega = systems()
    G = run(transfer_function, A, C, omega)
    for h in range(2):
        a, c = A[h].astype(complex), C[h].astype(complex)
        state = np.zeros((6, 6))
        for n in range(3):
            x, y = a[n].real, a[n].imag
            state[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = [[x, -y], [y, x]]
        read = np.stack([2 * c.real, -2 * c.imag], 1).reshape(1, 6)
        drive = np.array([[1.0], [0.0]] * 3)
        system = signal.StateSpace(state, drive, read, [[0.0]])
        _, response = signal.freqresp(system, omega[h].astype(float))
        assert np.abs(G[h] - response).max() < 3e-6 * np.abs(response).max()


def test_sampled_response_to_a_slow_tone_is_the_transfer_function():
    """Far below Nyquist the kernel's spectrum is G(i omega): the units of A, dt, omega agree."""
    A = np.array([-0.5 + 2j])
    C = np.array([1 - 0.5j])
    dt, L, omega = 0.01, 4000, 3.0
    k = oracles.s4d_kernel(A[None], C[None], np.array([dt]), L)[0]
    steps = np.arange(L)
    spectrum = np.sum(k * np.exp(-1j * omega * dt * steps))
    G = run(
        transfer_function,
        A[None].astype(np.complex64),
        C[None].astype(np.complex64),
        np.float32([[omega]]),
    )
    # a step held for dt lags by dt / 2
    assert abs(spectrum * np.exp(-1j * omega * dt / 2) - G[0, 0]) < 2e-3 * abs(G[0, 0])
