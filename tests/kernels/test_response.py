"""The transfer functions in continuous and discrete time."""

import jax
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run
from scipy import signal

from ssm_jax.kernels import transfer_function
from ssm_jax.kernels.response import discrete_transfer_function


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


CASES = [
    (rule, length, damping)
    for rule in ("zoh", "bilinear")
    for length, damping in [
        (None, 0.5),
        (None, 1e-3),
        (1, 0.0),
        (17, 0.0),
        (4096, 0.0),
        (4096, 0.5),
    ]
]


def resonant_systems(damping, rule, seed=3):
    """Modes up to 300 rad per unit, among them the official mode 0; tones at half of them."""
    rng = np.random.default_rng(seed)
    A = -damping + 1j * rng.uniform(0, 300, (3, 6))
    A[:, 0] = -damping + 1e-4j
    A = A.astype(np.complex64)
    C = (rng.normal(size=(3, 6, 2)) @ np.array([1, 1j])).astype(np.complex64)
    dt = np.float32([1e-3, 1e-2, 1e-1])
    at_modes = np.angle(oracles.discretize(A, dt[:, None], rule)[0][:, :3])
    edges = np.broadcast_to([0, np.pi], (3, 2))
    omega = np.concatenate([at_modes, edges, rng.uniform(0, np.pi, (3, 5))], 1)
    return A, C, dt, omega.astype(np.float32)


def spectrum_of_taps(k_HL, omega_HF):
    """sum_l k[l] e^{-i omega l}, one tone at a time."""
    steps = np.arange(k_HL.shape[1])
    found = np.zeros(omega_HF.shape, complex)
    for h, f in np.ndindex(found.shape):
        found[h, f] = np.sum(k_HL[h] * np.exp(-1j * float(omega_HF[h, f]) * steps))
    return found


def geometric_series(A, C, dt, omega, rule, length=None):
    """(K_HF, the sum of bounds of its terms): of C gain / (1 - q), or of the first terms of it."""
    bar, gain = oracles.discretize(A, dt[:, None], rule)
    turn = np.exp(-1j * omega.astype(float))[:, :, None]
    own, other = bar[:, None, :] * turn, bar.conj()[:, None, :] * turn
    w = (C * gain)[:, None, :]
    bounds = [np.abs(w / (1 - q)) for q in (own, other)]
    if length is not None:
        bounds = [np.minimum(2 * b, np.abs(w) * length) for b in bounds]
    return np.sum(w / (1 - own) + w.conj() / (1 - other), -1), np.sum(bounds, axis=(0, -1))


@pytest.mark.parametrize(("rule", "length", "damping"), CASES)
def test_discrete_transfer_function_is_the_spectrum_of_the_taps(rule, length, damping):
    """At resonance too, where undamped taps add up to their number; tone by tone."""
    A, C, dt, omega = resonant_systems(damping, rule)
    exact, size = geometric_series(A, C, dt, omega, rule, length)
    if length is not None:
        exact = spectrum_of_taps(oracles.s4d_kernel(A, C, dt, length, rule), omega)
    found = run(discrete_transfer_function, A, C, dt, omega, discretization=rule, length=length)
    assert (np.abs(found - exact) / size).max() < 1e-6
    with jax.enable_x64(True):
        wide = (a.astype(t) for a, t in zip((A, C, dt, omega), "DDdd", strict=True))
        found = run(discrete_transfer_function, *wide, discretization=rule, length=length)
    # The oracle's 1 - A_bar loses 6 digits of 16 at a damping of 1e-6 per sample.
    assert (np.abs(found - exact) / size).max() < 1e-9


@pytest.mark.parametrize(("rule", "length"), [("zoh", 2), ("zoh", 64), ("bilinear", 17)])
def test_truncated_form_at_the_bins_is_the_fft_of_the_kernel(rule, length):
    A, C, dt, _ = resonant_systems(0.5, rule, seed=4)
    bins = np.broadcast_to(2 * np.pi * np.arange(length + 1) / (2 * length), (3, length + 1))
    spectrum = np.fft.rfft(oracles.s4d_kernel(A, C, dt, length, rule), 2 * length)
    with jax.enable_x64(True):
        wide = (a.astype(t) for a, t in zip((A, C, dt, bins), "DDdd", strict=True))
        found = run(discrete_transfer_function, *wide, discretization=rule, length=length)
    assert np.abs(found - spectrum).max() < 1e-12 * np.abs(spectrum).max()


def test_an_undamped_mode_at_its_own_tone_sums_to_the_number_of_taps():
    """A dt is a float32 number, and so is omega: the quotient is 0/0, the answer L C gain."""
    A, C, dt = np.complex64([[3j]]), np.complex64([[2 - 1j]]), np.float32([0.125])
    for length in (1, 64, 4096):
        K = run(discrete_transfer_function, A, C, dt, np.float32([[0.375]]), length=length)
        k = oracles.s4d_kernel(A, C, dt, length)
        exact = spectrum_of_taps(k, np.array([[0.375]]))
        gain = oracles.discretize(A, dt, "zoh")[1]
        assert abs(K - exact)[0, 0] < 1e-6 * abs(exact)[0, 0]
        other = np.sum(np.exp(-0.75j * np.arange(length)))  # the conjugate's share
        resonant = length * C * gain + (C * gain).conj() * other
        assert abs(K - resonant)[0, 0] < 1e-6 * abs(resonant)[0, 0]


def test_modes_given_per_sample_have_their_own_geometric_series():
    """The rule "none": A = log A_bar, gain 1 at dt = 1; 1e-3 from the circle, at both its ends."""
    A = np.array([[-1e-3, -1e-3 + 3.1415j, -0.2 + 1j, -1e-3 - 2j]]).astype(np.complex64)
    C = (np.random.default_rng(6).normal(size=(1, 4, 2)) @ np.array([1, 1j])).astype(np.complex64)
    dt, omega = np.float32([1]), np.float32([[0, 2, 3.1415, np.pi]])
    q = np.exp(A.astype(complex)[:, None] - 1j * omega.astype(float)[:, :, None])
    p = np.exp(A.astype(complex).conj()[:, None] - 1j * omega.astype(float)[:, :, None])
    exact = np.sum(C[:, None] / (1 - q) + C.conj()[:, None] / (1 - p), axis=-1)
    found = run(discrete_transfer_function, A, C, dt, omega, discretization="none")
    assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max()


def test_bilinear_spectrum_is_the_continuous_one_at_the_warped_frequency():
    """K(omega) = 2 / (1 + e^{-i omega}) G(s), s = (2 / dt) i tan(omega / 2): OC-28."""
    A, C, dt, _ = resonant_systems(0.5, "bilinear", seed=5)
    omega = np.broadcast_to(np.linspace(0, 3.1, 40, dtype=np.float32), (3, 40))
    warped = 2 * np.tan(omega.astype(float) / 2) / dt[:, None].astype(float)
    with jax.enable_x64(True):
        G = np.asarray(transfer_function(A.astype("D"), C.astype("D"), warped))
    exact = 2 / (1 + np.exp(-1j * omega.astype(float))) * G
    found = run(discrete_transfer_function, A, C, dt, omega, discretization="bilinear")
    assert (np.abs(found - exact).max(1) / np.abs(exact).max(1)).max() < 1e-6


@pytest.mark.unoptimized
@pytest.mark.parametrize(("rule", "length"), [("zoh", None), ("bilinear", 33), ("zoh", 33)])
def test_gradients_of_the_discrete_form_pass_finite_differences(rule, length):
    """Generic modes, the mode 0 and A = 0; with a length also Re A = 0 at resonance."""
    re = np.array([[-0.5, -0.3, -0.5]]) if length is None else np.array([[-0.5, 0.0, 0.0]])
    im = np.array([[3.0, 1e-4, 2.0]])
    C_re, C_im = np.random.default_rng(8).normal(size=(2, 1, 3))
    resonance = np.angle(oracles.discretize(1j * im, np.array([[0.25]]), rule)[0][0, 2])

    def spectrum(re, im, C_re, C_im, dt, omega):
        return discrete_transfer_function(re + 1j * im, C_re + 1j * C_im, dt, omega, rule, length)

    with jax.enable_x64(True):
        omega = np.array([[0.0, 0.3, resonance, 2.5]])
        point = (re, im, C_re, C_im, np.array([0.25]), omega)
        check_grads(jax.jit(spectrum), point, order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_discrete_form_refuses_shapes_and_lengths_that_do_not_fit():
    A, C, dt, omega = resonant_systems(0.5, "zoh")
    with pytest.raises(ValueError, match=r"omega is \(H, F\); got .* omega \(2, 10\)"):
        discrete_transfer_function(A, C, dt, omega[:2])
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        discrete_transfer_function(A, C, dt, omega, length=0)
    with pytest.raises(ValueError, match="unknown discretization 'euler'"):
        discrete_transfer_function(A, C, dt, omega, "euler")
