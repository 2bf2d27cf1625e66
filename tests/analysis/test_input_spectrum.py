"""The spectrum of known processes, against their closed forms."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ssm_jax.analysis.input_spectrum import default_segment, fit_power_law, input_spectrum

LENGTH = 512


def white(n: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, length))


def ar1(phi: float, n: int, length: int) -> np.ndarray:
    """x_t = phi x_{t-1} + e_t, past its start."""
    return lfilter([1.0], [1.0, -phi], white(n, length + 500), axis=1)[:, 500:]


def power_law(gamma: float, n: int) -> np.ndarray:
    """Noise with the power w^-gamma, a part of a period eight times as long."""
    spectrum = np.fft.rfft(white(n, 8 * LENGTH), axis=1)
    spectrum[:, 0] = 0
    spectrum[:, 1:] *= np.arange(1, spectrum.shape[1]) ** (-gamma / 2)
    return np.fft.irfft(spectrum, axis=1)[:, :LENGTH]


def test_white_noise_is_flat_and_integrates_to_its_variance():
    found = input_spectrum(2 * white(400), LENGTH)
    # one-sided: variance 4 over 0..pi
    np.testing.assert_allclose(found.power_F[2:-1].mean(), 4 / np.pi, rtol=0.01)
    for share in (0.1, 0.5, 0.9):
        assert found.angle_below_which(share) == pytest.approx(share * np.pi, abs=0.02)
    fit = fit_power_law(found)
    assert abs(fit.gamma) < max(3 * fit.half_width, 0.03)


@pytest.mark.parametrize("phi", [0.9, -0.6])
def test_a_process_of_first_order_has_its_spectrum_and_its_bands(phi):
    length = 8 * LENGTH  # what the mean takes away with it is below a bin and a half
    found = input_spectrum(ar1(phi, 100, length), length)
    omega = found.omega_F[4:-1]
    expected = 1 / np.pi / (1 - 2 * phi * np.cos(omega) + phi**2)
    error = found.power_F[4:-1] / expected - 1
    assert abs(error.mean()) < 0.01 and np.sqrt(np.mean(error**2)) < 0.15
    for share in (0.5, 0.9):
        # The share below w is (2 / pi) atan((1 + phi) / (1 - phi) tan(w / 2)).
        exact = 2 * np.arctan((1 - phi) / (1 + phi) * np.tan(share * np.pi / 2))
        assert found.angle_below_which(share) == pytest.approx(exact, rel=0.03)
        assert found.energy_below(exact) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 1.7])
def test_the_slope_of_a_power_law_is_found(gamma):
    fit = fit_power_law(input_spectrum(power_law(gamma, 400), LENGTH))
    assert fit.gamma == pytest.approx(gamma, abs=0.05)
    assert fit.half_width < 0.15
    assert fit.low == pytest.approx(4 * np.pi / LENGTH) and fit.high == pytest.approx(np.pi / 2)


def test_the_line_of_a_fit_passes_through_the_spectrum():
    found = input_spectrum(power_law(1.0, 400), LENGTH)
    fit = fit_power_law(found, low=0.05, high=2.0)
    assert (fit.low, fit.high) == (0.05, 2.0)
    at = (found.omega_F > 0.05) & (found.omega_F < 2)
    ratio = found.power_F[at] / (fit.scale * found.omega_F[at] ** -fit.gamma)
    assert np.exp(np.log(ratio).mean()) == pytest.approx(1, abs=0.1)


def test_all_energy_of_a_tone_is_at_its_angle():
    tone = 3.0 + np.cos(0.7 * np.arange(4 * LENGTH))
    found = input_spectrum([tone], LENGTH)
    for share in (0.1, 0.5, 0.9):
        assert found.angle_below_which(share) == pytest.approx(0.7, abs=2 * 2 * np.pi / LENGTH)
    energy = np.sum(found.power_F) * 2 * np.pi / LENGTH
    assert energy == pytest.approx(0.5, rel=0.01), "the square of a cosine is a half on average"


def test_channels_add_up():
    both = white(2)[:, :, None] * np.array([1.0, 2.0])
    single = input_spectrum(white(2), LENGTH)
    np.testing.assert_allclose(input_spectrum(both, LENGTH).power_F, 5 * single.power_F)


def test_tokens_have_a_spectrum_that_does_not_depend_on_their_ids():
    random = np.random.default_rng(0)
    tokens = random.integers(0, 5, (200, LENGTH))
    found = input_spectrum(tokens, LENGTH, n_tokens=5)
    renamed = input_spectrum(np.array([3, 0, 4, 1, 2])[tokens], LENGTH, n_tokens=5)
    np.testing.assert_allclose(renamed.power_F, found.power_F)
    # Independent tokens: flat, and each indicator has the variance p (1 - p), p = 1/5
    np.testing.assert_allclose(found.power_F[2:-1].mean(), 5 * 0.2 * 0.8 / np.pi, rtol=0.01)
    assert abs(fit_power_law(found).gamma) < 0.05
    # Tokens that stay for a while have more power below.
    slow = np.repeat(tokens[:, : LENGTH // 8], 8, axis=1)
    assert fit_power_law(input_spectrum(slow, LENGTH, n_tokens=5)).gamma > 0.5


def test_one_long_sequence_is_cut_and_short_ones_are_left_out():
    assert default_segment(np.full(20, 300)) == 300
    segment = default_segment(np.array([10_000]))
    found = input_spectrum(white(1, 10_000), segment)
    assert 16 <= found.segments <= 17 and found.segment == segment
    lengths = np.array([100] * 95 + [70] * 5)
    segment = default_segment(lengths)
    assert segment == 100
    found = input_spectrum([white(1, n)[0] for n in lengths], segment)
    assert (found.sequences, found.too_short, found.segments) == (100, 5, 95)


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ([np.full(LENGTH, np.nan)], "sequence 0 has a value that is not finite"),
        ([np.ones(LENGTH)] * 2, "constant"),
        ([np.ones(LENGTH - 1)], "none of the 1 sequences has the 512 samples"),
    ],
)
def test_what_has_no_spectrum_is_refused(sequences, words):
    with pytest.raises(ValueError, match=words):
        input_spectrum(sequences, LENGTH)


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="at least 64 samples; the longest of the 1 given has 63"):
        default_segment(np.array([63]))
    with pytest.raises(ValueError, match="a line takes at least 3"):
        fit_power_law(input_spectrum(white(2), LENGTH), low=1.0, high=1.5)
