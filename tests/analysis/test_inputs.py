"""The spectrum of known processes against their closed forms, and modes against counted ones."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ssm_jax.analysis import start
from ssm_jax.analysis.autocorrelation import Padded, autocorrelation, lambda_max
from ssm_jax.analysis.inputs import default_segment, embedding, fit_power_law, input_spectrum
from ssm_jax.analysis.start import (
    SHARES,
    describe,
    mode_density,
    recommend,
    share_beyond,
    window_of,
)
from ssm_jax.analysis.timescale import correlation_facts
from ssm_jax.plots.inputs import spectrum_figure

LENGTH = 512
N = 16
Y_N = np.pi * np.arange(N)  # S4D-Lin
DT = (1e-3, 1e-1)


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


def test_a_spectrum_of_few_windows_says_how_well_it_is_known():
    """The error that it names is that of noise, whose power is known."""
    spectrum, few = recommend(white(2, 200), Y_N, DT, alphas=())
    line = describe(few).splitlines()[-1]
    assert line.startswith(f"warning: this rests on {few['segments']} windows: ")
    said = int(line.split("within ")[1].split(" %")[0]) / 100
    # Of each seed the spectrum that `recommend` rests on
    segment = default_segment(np.array([200, 200]))
    found = [input_spectrum(white(2, 200, seed), segment).power_F for seed in range(200)]
    np.testing.assert_array_equal(found[0], spectrum.power_F)
    powers = [power_F[2:-2] * np.pi for power_F in found]
    assert np.std(powers) == pytest.approx(said, rel=0.2)
    assert "warning" not in describe(recommend(white(20, 1_000), Y_N, DT, alphas=())[1])
    short = [*white(2, 200), *white(30, 20)]
    assert "30 sequences are too short" in describe(
        recommend(short, Y_N, DT, alphas=())[1]
    ).replace("as 30", "30")


def test_white_noise_is_flat_and_integrates_to_its_variance():
    found = input_spectrum(2 * white(400), LENGTH)
    # one-sided: variance 4 over 0..pi
    np.testing.assert_allclose(found.power_F[2:-1].mean(), 4 / np.pi, rtol=0.01)
    for share in (0.1, 0.5, 0.9):
        assert found.angle_below_which(share) == pytest.approx(share * np.pi, abs=0.02)
    fit = fit_power_law(found)
    assert abs(fit["gamma"]) < max(3 * fit["half_width"], 0.03)


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
    assert fit["gamma"] == pytest.approx(gamma, abs=0.05)
    assert fit["half_width"] < 0.15
    assert fit["low"] == pytest.approx(4 * np.pi / LENGTH) and fit["high"] == pytest.approx(
        np.pi / 2
    )


def test_the_line_of_a_fit_passes_through_the_spectrum():
    found = input_spectrum(power_law(1.0, 400), LENGTH)
    fit = fit_power_law(found, low=0.05, high=2.0)
    assert (fit["low"], fit["high"]) == (0.05, 2.0)
    at = (found.omega_F > 0.05) & (found.omega_F < 2)
    ratio = found.power_F[at] / (fit["scale"] * found.omega_F[at] ** -fit["gamma"])
    assert np.exp(np.log(ratio).mean()) == pytest.approx(1, abs=0.1)


def test_all_energy_of_a_tone_is_at_its_angle():
    tone = 3.0 + np.cos(0.7 * np.arange(4 * LENGTH))
    found = input_spectrum([tone], LENGTH)
    for share in (0.1, 0.5, 0.9):
        assert found.angle_below_which(share) == pytest.approx(0.7, abs=2 * 2 * np.pi / LENGTH)
    energy = np.sum(found.power_F) * 2 * np.pi / LENGTH
    assert energy == pytest.approx(0.5, rel=0.01), "the square of a cosine is a half on average"


@pytest.mark.parametrize("segment", [64, 65])
def test_the_energy_at_nyquist_counts_as_that_elsewhere(segment):
    """SciPy's bin at pi, of even segments, is the energy of half a bin."""
    t_L = np.arange(6_400)
    tones = (-1.0) ** t_L + np.sqrt(2) * np.cos(np.pi / 8 * t_L)  # each of variance 1
    assert input_spectrum([tones], segment).energy_below(np.pi / 2) == pytest.approx(0.5, abs=1e-3)
    flat = input_spectrum(white(400), segment).power_F
    assert flat[-1] == pytest.approx(flat[2:-2].mean(), rel=0.15)


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
    assert abs(fit_power_law(found)["gamma"]) < 0.05
    # Tokens that stay for a while have more power below.
    slow = np.repeat(tokens[:, : LENGTH // 8], 8, axis=1)
    assert fit_power_law(input_spectrum(slow, LENGTH, n_tokens=5))["gamma"] > 0.5


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
    for low, high in ((0.0, 1.0), (-1.0, None), (3.0, 1.0), (0.1, 10.0)):
        with pytest.raises(ValueError, match="from above 0 to at most pi"):
            fit_power_law(input_spectrum(white(2), LENGTH), low, high)


@pytest.fixture(scope="module")
def flat():
    """White noise: the share of the energy below w is w / pi."""
    return input_spectrum(np.random.default_rng(0).normal(size=(500, 256)), 256)


def drawn(n: int = 200_000) -> np.ndarray:
    """Steps as a layer draws them, log-uniform."""
    return np.exp(np.random.default_rng(1).uniform(*np.log(DT), n))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0, 30.0])
def test_shares_are_those_of_counted_channels(flat, alpha):
    window = window_of(flat, Y_N, alpha, DT, 0.9)
    angles = alpha * drawn()[:, None] * Y_N
    assert window["aliased"] == pytest.approx((angles > np.pi).mean(), abs=0.003)
    assert window["clean"] == pytest.approx((angles[:, -1] <= np.pi).mean(), abs=0.003)
    top = np.minimum(angles[:, -1], np.pi)
    assert window["reached"] == pytest.approx((top / np.pi).mean(), abs=0.02)
    assert window["band"] == pytest.approx(0.9 * np.pi, rel=0.02)
    assert window["within"] == pytest.approx(
        (angles <= window["band"]).sum(axis=1).mean(), abs=0.05
    )
    assert (window["lowest"], window["highest"]) == pytest.approx(
        (alpha * Y_N[-1] * DT[0], alpha * Y_N[-1] * DT[1])
    )


def test_the_share_beyond_nyquist_is_exact():
    """Of the mode y = 100 pi, dt > 0.01 are beyond pi: half of a log-uniform 0.001..0.1."""
    y = np.pi * np.array([0.0, 9.99, 10.0, 100.0, 1000.0, 1e4])
    expected = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    np.testing.assert_allclose(share_beyond(y, np.pi, DT), expected, atol=1e-12)


def test_with_one_step_for_all_channels_modes_are_beyond_or_not():
    y = np.array([1.0, 31.0, 32.0, 1e3])
    np.testing.assert_array_equal(share_beyond(y, np.pi, (0.1, 0.1)), [0, 0, 1, 1])


def test_a_larger_alpha_reaches_further_and_aliases_more(flat):
    windows = [window_of(flat, Y_N, alpha, DT, 0.9) for alpha in (0.1, 0.3, 1, 3, 10)]
    for name, rises in (("reached", True), ("aliased", True), ("within", False), ("clean", False)):
        values = [window[name] for window in windows]
        assert values == sorted(values, reverse=not rises), name


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_at_the_starting_alpha_half_of_the_channels_reach_past_the_band(flat, share):
    alpha = recommend(white(500, 256), Y_N, DT, alphas=(), share=share)[1]["alpha"]
    reach = alpha * Y_N[-1] * drawn()
    assert (reach > flat.angle_below_which(share)).mean() == pytest.approx(0.5, abs=0.005)


def test_the_modes_of_a_bar_are_those_that_are_counted():
    edges = np.geomspace(1e-3, 30, 9)
    angles = 2.0 * drawn()[:, None] * Y_N
    counted = np.histogram(angles, edges)[0] / angles.size
    np.testing.assert_allclose(mode_density(Y_N, 2.0, DT, edges), counted, atol=0.002)


def start_for(gamma: float, monkeypatch) -> dict:
    monkeypatch.setattr(start, "fit_power_law", lambda *_: {"gamma": gamma})
    return recommend(white(20, 1_000), Y_N, DT, alphas=())[1]


def test_beta_starts_at_half_the_slope_within_its_range(monkeypatch):
    betas = [start_for(gamma, monkeypatch)["beta"] for gamma in (0.7, -1.0, 20.0)]
    assert betas == [0.35, -0.5, 4.0]


def test_the_gain_of_a_beta_at_nyquist_depends_on_its_unit(monkeypatch):
    gains = start_for(4.0, monkeypatch)["gain_at_nyquist"]
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
    found = {"fit": fit, "energy_below": {f"{s:g}": flat.angle_below_which(s) for s in SHARES}}
    x_nL = white(30)
    facts = correlation_facts(lambda_max(x_nL), autocorrelation(x_nL), DT)
    found["autocorrelation"] = facts
    figure = spectrum_figure(flat, found, Y_N, DT, alphas, "noise")
    power, modes, lags, scales = figure.axes
    np.testing.assert_allclose(
        lags.lines[0].get_ydata(), np.array(facts["lags"]["r"][1:]) / facts["power"]
    )
    assert [line.get_xdata()[0] for line in scales.lines[-2:]] == facts["dt_limits"]
    assert facts["dt"] in [line.get_xdata()[0] for line in scales.lines]
    np.testing.assert_array_equal(power.lines[0].get_ydata(), flat.power_F[1:])
    line = power.lines[1]
    np.testing.assert_allclose(line.get_ydata(), fit["scale"] * line.get_xdata() ** -fit["gamma"])
    bands = [path[0, 0] for path in power.collections[0].get_segments()]
    np.testing.assert_allclose(bands, [flat.angle_below_which(share) for share in SHARES])
    for patch, alpha in zip(modes.patches, alphas, strict=False):
        bars, edges, _ = patch.get_data()
        np.testing.assert_allclose(bars, 100 * mode_density(Y_N, alpha, DT, edges))
    labels = modes.get_legend_handles_labels()[1]
    shares = [window_of(flat, Y_N, alpha, DT, 0.9)["aliased"] for alpha in alphas]
    for label, share in zip(labels, shares, strict=True):
        assert label.endswith(f"{100 * share:.0f} % beyond Nyquist")
    assert power.get_xlim()[1] < 1.2 * np.pi < modes.get_xlim()[1], "there is no power beyond pi"
    assert "(start)" in labels[1] and "(" not in labels[0]


def test_the_interval_of_alpha_holds_that_of_the_process():
    """Of first order: the angle below which 90 % lie is known."""
    phi, length = 0.9, 512
    angle = 2 * np.arctan((1 - phi) / (1 + phi) * np.tan(0.9 * np.pi / 2))
    exact = angle / (Y_N.max() * (DT[0] * DT[1]) ** 0.5)
    found = recommend(ar1(phi, 60, length), Y_N, DT, alphas=())[1]
    low, high = found["intervals"]["alpha"]
    assert low < found["alpha"] < high and low <= 1.03 * exact and high >= 0.97 * exact
    low, high = found["intervals"]["gamma"]
    assert low < found["fit"]["gamma"] < high
    assert recommend(ar1(phi, 1, 4_096), Y_N, DT, alphas=())[1]["intervals"] is None


def test_independent_tokens_are_white_behind_a_norm_and_equal_ones_constant():
    tokens = np.random.default_rng(0).integers(0, 5, (300, 128))
    table_VH = embedding(list(tokens), 7)
    embedded = table_VH[tokens]
    np.testing.assert_allclose(embedded.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(embedded.std(axis=(0, 1)), 1, atol=1e-12)
    assert lambda_max(Padded(list(tokens), table_VH)).held_out == pytest.approx(1, rel=0.1)
    same = np.repeat(tokens[:, :1], 128, axis=1)
    table_VH = embedding(list(same), 7)
    assert lambda_max(Padded(list(same), table_VH)).held_out == pytest.approx(128, rel=1e-6)
