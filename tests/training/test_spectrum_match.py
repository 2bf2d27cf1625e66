"""The response of a layer is fitted to a known spectrum, as NumPy and a loop see it."""

import numpy as np
import pytest
from flax import nnx

from ssm_jax.layers import S4, S4D
from ssm_jax.training import spectrum_match

L, SEGMENT = 512, 256
OMEGA = 2 * np.pi * np.arange(1, SEGMENT // 2 + 1) / SEGMENT


def band(omega: np.ndarray) -> np.ndarray:
    return np.where((omega > 0.5) & (omega < 1.0), 1.0, 1e-3)


def power_law(omega: np.ndarray) -> np.ndarray:
    return np.maximum(omega, 1e-2) ** -2.0


SPECTRA = {"band": band, "power law": power_law}


def shaped_noise(spectrum, n: int = 64) -> np.ndarray:
    """White noise with this power, (n, L, 2)."""
    rng = np.random.default_rng(0)
    gain = np.sqrt(spectrum(2 * np.pi * np.fft.rfftfreq(2 * L)))[:, None]
    white = np.fft.rfft(rng.normal(size=(n, 2 * L, 2)), axis=1)
    return np.fft.irfft(white * gain, axis=1)[:, :L]


def impulse_response(layer) -> np.ndarray:
    """(H, L) by a loop over the recurrence, in float64."""
    A_HN = np.asarray(layer.eigenvalues(), complex)
    dt_H1 = np.asarray(layer.step_sizes(), float)[:, None]
    C_HN, state = np.asarray(layer.readout()[0], complex), np.expm1(dt_H1 * A_HN) / A_HN
    taps = []
    for _ in range(L):
        taps.append(2 * (C_HN * state).sum(1).real)
        state = np.exp(dt_H1 * A_HN) * state
    return np.stack(taps, axis=1)


def response(layer) -> np.ndarray:
    """The mean power over channels at OMEGA, by the sum of the series."""
    taps = impulse_response(layer)
    G_HF = taps @ np.exp(-1j * np.outer(np.arange(L), OMEGA))
    return np.mean(np.abs(G_HF) ** 2, axis=0)


def small(kind=S4D, **options):
    return kind(8, d_state=8, beta=None, bidirectional=False, rngs=nnx.Rngs(0), **options)


def test_the_power_that_passes_is_that_of_a_loop():
    layer = small()
    power = nnx.jit(lambda layer: spectrum_match.passed_power(layer, SEGMENT // 2, L))
    found = np.asarray(power(layer))
    np.testing.assert_allclose(found, response(layer), rtol=1e-3)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_power_of_the_input_is_that_which_made_it(name):
    power = spectrum_match.input_power(shaped_noise(SPECTRA[name]))
    omega = np.pi * np.arange(1, power.size + 1) / power.size
    apart = np.log(power / SPECTRA[name](omega))[4:]
    inside = np.abs(apart - np.median(apart)) < 0.7
    assert inside.mean() > 0.9  # but at the edges of the band


def test_padding_is_no_part_of_the_spectrum():
    x = shaped_noise(power_law)
    padded = np.concatenate([x, np.zeros_like(x)], axis=1)
    np.testing.assert_array_equal(spectrum_match.input_power(padded), spectrum_match.input_power(x))


@pytest.mark.parametrize("name", SPECTRA)
def test_a_fitted_response_is_nearer_to_the_known_shape(name):
    layer, wanted = small(), SPECTRA[name](OMEGA)
    unfitted = spectrum_match.distance(response(layer), wanted, np)
    power = spectrum_match.input_power(shaped_noise(SPECTRA[name]))
    energy = float(spectrum_match.passed_power(layer, power.size, L).sum())
    before, after = spectrum_match.match(layer, power, L, 150)
    fitted = spectrum_match.distance(response(layer), wanted, np)
    assert after < 0.6 * before
    assert fitted < 0.7 * unfitted
    kept = float(spectrum_match.passed_power(layer, power.size, L).sum())
    assert kept == pytest.approx(energy, rel=1e-3)  # the scale is that of before


def test_it_is_the_same_again_and_never_worse():
    layers = [small() for _ in range(2)]
    found = [spectrum_match.match(layer, power_law(OMEGA), L, 20) for layer in layers]
    assert found[0] == found[1]
    for ours, theirs in zip(*(nnx.to_flat_state(nnx.state(each)) for each in layers), strict=True):
        np.testing.assert_array_equal(ours[1][...], theirs[1][...])
    before, after = spectrum_match.match(small(), power_law(OMEGA), L, 0)
    assert before == after


def test_s4_is_fitted_too_in_both_directions():
    layer = S4(4, d_state=4, rngs=nnx.Rngs(0))
    before, after = spectrum_match.match(layer, power_law(OMEGA), L, 30)
    assert after < before


def test_the_distance_is_zero_for_equal_shapes_and_that_of_decibels_else():
    one = power_law(OMEGA)
    assert spectrum_match.distance(7 * one, one, np) == pytest.approx(0, abs=1e-9)
    weight = 1 / np.arange(1, OMEGA.size + 1)
    line = 10 * np.log10(OMEGA)  # a factor w between the spectra
    mean = np.average(line, weights=weight)
    expected = np.sqrt(np.average((line - mean) ** 2, weights=weight))
    assert spectrum_match.distance(OMEGA**-0.5, OMEGA**-1.5, np) == pytest.approx(expected)


def test_short_inputs_are_refused():
    with pytest.raises(ValueError, match="at least 64 samples"):
        spectrum_match.input_power(np.ones((3, 20, 1)))
