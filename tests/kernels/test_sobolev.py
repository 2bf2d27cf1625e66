"""The Sobolev gain in each unit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from running import run

from ssm_jax.kernels import circular_gain, sobolev_frequency, sobolev_gain
from ssm_jax.kernels.response import BETA_UNITS


@pytest.mark.parametrize(
    ("unit", "n_fft", "bin", "base"),
    [
        ("lra", 4096, 2048, 1.5),
        ("lra", 4096, 1024, 1.25),
        ("lra", 4096, 0, 1.0),
        ("hz_1e4", 524288, 262144, 27.2144),
        ("hz_1e4", 524288, 10_000, 2.0),
        ("hz_1e4", 64, 1, 1.0001),
        ("denoise", 524288, 262144, 27.2144),  # as hz_1e4 on the transform of 2048 x 128 steps
        ("denoise", 65536, 32768, 27.2144),
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


@pytest.mark.parametrize("unit", BETA_UNITS)
@pytest.mark.parametrize("n_fft", [1, 2, 33, 128, 4096])
def test_gain_is_one_plus_frequency_to_the_power_beta(unit, n_fft):
    """At every bin, n odd included."""
    beta = np.float32([-2.0, 0.7])
    exact = (1 + oracles.frequency(n_fft, unit)) ** beta.astype(float)[:, None]
    np.testing.assert_allclose(run(sobolev_gain, beta, n_fft=n_fft, unit=unit), exact, rtol=1e-6)
    s = sobolev_frequency(n_fft, unit)
    np.testing.assert_allclose(s, oracles.frequency(n_fft, unit), rtol=1e-7)


@pytest.mark.parametrize("unit", BETA_UNITS)
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
    with pytest.raises(ValueError, match="step_scale must be positive, got 0"):
        sobolev_frequency(64, step_scale=0)


@pytest.mark.parametrize(
    ("n_fft", "scale", "error", "message"),
    [
        *[(n, 1.0, TypeError, "n_fft must be an integer, got") for n in (7.5, "8", None)],
        (0, 1.0, ValueError, "n_fft must be at least 1, got 0"),
        *[
            (8, kind(-1), ValueError, r"step_scale must be positive, got -1(\.0)?\.$")
            for kind in (int, float, np.float32, np.int64, np.array, jnp.float32)
        ],
        (8, np.nan, ValueError, "step_scale must be positive, got nan"),
        (8, np.ones(5), ValueError, r"step_scale must be one number, got the shape \(5,\)"),
        *[(8, x, TypeError, "step_scale must be one real number") for x in (1j, "1", None, True)],
    ],
)
def test_sizes_and_scales_that_are_none_are_refused(n_fft, scale, error, message):
    with pytest.raises(error, match=f"^sobolev_gain: {message}"):
        sobolev_gain(np.zeros(1, np.float32), n_fft, step_scale=scale)
    with pytest.raises(error, match=f"^sobolev_frequency: {message}"):
        sobolev_frequency(n_fft, step_scale=scale)


def test_a_circle_has_no_bins_but_its_own():
    beta = np.ones(1, np.float32)
    assert circular_gain(beta, np.array([0, 7]), 8).shape == (1, 2)
    for k in (-1, 8, 9):
        with pytest.raises(ValueError, match=rf"^circular_gain: bins must be in 0\.\.7, got {k}\."):
            circular_gain(beta, np.array([0, k]), 8)
    with pytest.raises(TypeError, match=r"^circular_gain: bins must be known"):
        jax.jit(lambda bins: circular_gain(beta, bins, 8))(np.array([0, 7]))


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("unit", BETA_UNITS)
def test_a_tone_keeps_its_gain_at_another_sampling_rate(unit, scale):
    """A sequence of the same duration has 1 / scale times the samples; the bins are the same."""
    beta = np.float32([-1.0, 0.7])
    n_fft = 1024
    gain_at = jax.jit(
        lambda b, traced_scale: sobolev_gain(b, round(n_fft / scale), unit, traced_scale)
    )
    coarse = gain_at(beta, np.float32(scale))
    own = run(sobolev_gain, beta, n_fft=n_fft, unit=unit)
    bins = min(coarse.shape[1], own.shape[1])
    np.testing.assert_allclose(coarse[:, :bins], own[:, :bins], rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "at_nyquist"),
    [("lra", 0.25), ("hz_1e4", 0.0032), ("denoise", 13.107), ("rad", 1.5708)],
)
def test_step_scale_divides_frequencies_per_sample(unit, at_nyquist):
    s = sobolev_frequency(64, unit, step_scale=2.0)
    assert s[-1] == pytest.approx(at_nyquist, rel=1e-3)
    gain = sobolev_gain(np.float32([2.0]), 64, unit, 2.0)
    np.testing.assert_allclose(gain[0], (1 + s) ** 2, rtol=1e-6)
