"""What the modes of a new layer see of a spectrum, against counting over many channels."""

import numpy as np
import pytest

from ssm_jax.analysis.choose import (
    gains_at_nyquist,
    mode_density,
    share_beyond,
    starting_alpha,
    starting_beta,
    window_of,
)
from ssm_jax.analysis.input_spectrum import SHARES, fit_power_law, input_spectrum
from ssm_jax.plots.spectrum import spectrum_figure

N = 16
Y_N = np.pi * np.arange(N)  # S4D-Lin
DT = (1e-3, 1e-1)


@pytest.fixture(scope="module")
def flat():
    """White noise: the share of the energy below w is w / pi."""
    return input_spectrum(np.random.default_rng(0).normal(size=(500, 256)), 256)


def drawn(n: int = 200_000) -> np.ndarray:
    """Steps as a layer draws them, log-uniform."""
    return np.exp(np.random.default_rng(1).uniform(*np.log(DT), n))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0, 30.0])
def test_shares_are_those_of_counted_channels(flat, alpha):
    window = window_of(flat, Y_N, alpha, *DT)
    angles = alpha * drawn()[:, None] * Y_N
    assert window.aliased == pytest.approx((angles > np.pi).mean(), abs=0.003)
    assert window.clean == pytest.approx((angles[:, -1] <= np.pi).mean(), abs=0.003)
    top = np.minimum(angles[:, -1], np.pi)
    assert window.reached == pytest.approx((top / np.pi).mean(), abs=0.02)
    assert window.band == pytest.approx(0.9 * np.pi, rel=0.02)
    assert window.within == pytest.approx((angles <= window.band).sum(axis=1).mean(), abs=0.05)
    assert (window.lowest, window.highest) == pytest.approx(
        (alpha * Y_N[-1] * DT[0], alpha * Y_N[-1] * DT[1])
    )


def test_the_share_beyond_nyquist_is_exact():
    """Of the mode y = 100 pi, dt > 0.01 are beyond pi: half of a log-uniform 0.001..0.1."""
    y = np.pi * np.array([0.0, 9.99, 10.0, 100.0, 1000.0, 1e4])
    expected = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    np.testing.assert_allclose(share_beyond(y, np.pi, *DT), expected, atol=1e-12)


def test_with_one_step_for_all_channels_modes_are_beyond_or_not():
    y = np.array([1.0, 31.0, 32.0, 1e3])
    np.testing.assert_array_equal(share_beyond(y, np.pi, 0.1, 0.1), [0, 0, 1, 1])


def test_a_larger_alpha_reaches_further_and_aliases_more(flat):
    windows = [window_of(flat, Y_N, alpha, *DT) for alpha in (0.1, 0.3, 1, 3, 10)]
    for name, rises in (("reached", True), ("aliased", True), ("within", False), ("clean", False)):
        values = [getattr(window, name) for window in windows]
        assert values == sorted(values, reverse=not rises), name


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_at_the_starting_alpha_half_of_the_channels_reach_past_the_band(flat, share):
    alpha = starting_alpha(flat, Y_N, *DT, share)
    reach = alpha * Y_N[-1] * drawn()
    assert (reach > flat.angle_below_which(share)).mean() == pytest.approx(0.5, abs=0.005)


def test_the_modes_of_a_bar_are_those_that_are_counted():
    edges = np.geomspace(1e-3, 30, 9)
    angles = 2.0 * drawn()[:, None] * Y_N
    counted = np.histogram(angles, edges)[0] / angles.size
    np.testing.assert_allclose(mode_density(Y_N, 2.0, *DT, edges), counted, atol=0.002)


def test_beta_starts_at_half_the_slope_within_its_range():
    assert [starting_beta(gamma) for gamma in (0.7, -1.0, 20.0)] == [0.35, -0.5, 4.0]


def test_the_gain_of_a_beta_at_nyquist_depends_on_its_unit():
    gains = gains_at_nyquist(2.0, 1_000)
    assert gains == pytest.approx(
        {
            "lra": 1.5**2,
            "hz_1e4": 1.1**2,
            "denoise": (1 + 2048 * 128 / 1e4) ** 2,
            "rad": (1 + np.pi) ** 2,
        }
    )


def test_the_figure_shows_the_spectrum_its_fit_and_the_modes(flat):
    fit = fit_power_law(flat)
    alphas = {1.0: "", 5.0: "start"}
    figure = spectrum_figure(flat, fit, Y_N, DT, alphas, "noise")
    power, modes = figure.axes
    np.testing.assert_array_equal(power.lines[0].get_ydata(), flat.power_F[1:])
    line = power.lines[1]
    np.testing.assert_allclose(line.get_ydata(), fit.scale * line.get_xdata() ** -fit.gamma)
    bands = [path[0, 0] for path in power.collections[0].get_segments()]
    np.testing.assert_allclose(bands, [flat.angle_below_which(share) for share in SHARES])
    for patch, alpha in zip(modes.patches, alphas, strict=False):
        bars, edges, _ = patch.get_data()
        np.testing.assert_allclose(bars, 100 * mode_density(Y_N, alpha, *DT, edges))
    labels = modes.get_legend_handles_labels()[1]
    shares = [window_of(flat, Y_N, alpha, *DT).aliased for alpha in alphas]
    for label, share in zip(labels, shares, strict=True):
        assert label.endswith(f"{100 * share:.0f} % beyond Nyquist")
    assert power.get_xlim()[1] < 1.2 * np.pi < modes.get_xlim()[1], "there is no power beyond pi"
    assert "(start)" in labels[1] and "(" not in labels[0]
