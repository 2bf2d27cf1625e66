"""Advice on inputs whose right answer is known, and what is said where there is none."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ssm_jax import config as config_lib
from ssm_jax.analysis.advice import KNOBS, Advice, advise, measure
from ssm_jax.analysis.inputs import behind_norm
from ssm_jax.init import initial_modes
from ssm_jax.plots.inputs import correlation_figure

L = 256
N = 16


def white(n: int = 1_000, length: int = L) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, length))


def ar1(phi: float, n: int = 1_000, length: int = L) -> np.ndarray:
    """x_t = phi x_{t-1} + e_t, past its start."""
    return lfilter([1.0], [1.0, -phi], white(n, length + 1_000), axis=1)[:, 1_000:]


def constant(n: int = 1_000) -> np.ndarray:
    return np.repeat(white(n, 1), L, axis=1)


def advice_on(x, n_tokens=None, **options) -> dict[str, Advice]:
    """By knob, for the default model with 16 modes and some options changed."""
    cfg = config_lib.default()
    config_lib.override(cfg, {"model.d_state": N, **{f"model.{k}": v for k, v in options.items()}})
    model = cfg.model.to_dict()
    A_N = initial_modes(model["init"], N, alpha_real=model["alpha_real"]).A_SN[0]
    dt = (model["dt_min"], model["dt_max"])
    rows = list(x)
    measured = measure(rows, behind_norm(rows, n_tokens), np.abs(A_N.imag), dt, n_tokens=n_tokens)
    found = advise(measured, model, A_N)
    assert tuple(one.knob for one in found) == KNOBS
    assert all(not (one.unknown and one.tested) for one in found)
    assert not any(one.options for one in found if one.knob not in ("beta", "init"))
    assert all(("to be tested" in one.proposal) == bool(one.alone) for one in found)
    return {one.knob: one for one in found}


def root_mean_square(options) -> float:
    """Of dt log-uniform in the advised range, by drawing."""
    ends = np.log([options["model.dt_min"], options["model.dt_max"]])
    return float(np.sqrt(np.mean(np.exp(np.random.default_rng(0).uniform(*ends, 100_000)) ** 2)))


def test_dt_falls_from_white_over_correlated_to_constant_inputs():
    """1 / sqrt(L), 1 / sqrt(L lambda_max) by the matrix of the process, and 1 / L."""
    lags = np.abs(np.subtract.outer(np.arange(L), np.arange(L)))
    expected = {
        "white": L**-0.5,
        "ar": (L * np.linalg.eigvalsh(0.9**lags)[-1]) ** -0.5,
        "constant": 1 / L,
    }
    found = {
        "white": advice_on(white(), dt_max=0.01, dt_min=1e-4),
        "ar": advice_on(ar1(0.9)),
        "constant": advice_on(constant()),
    }
    for kind, exact in expected.items():
        assert root_mean_square(found[kind]["dt"].alone) == pytest.approx(exact, rel=0.12), kind
    ends = found["ar"]["dt"].alone.values()
    assert max(ends) / min(ends) == pytest.approx(100, rel=0.02), "as wide as the range in use"


def test_a_range_that_is_right_already_is_kept():
    """Also where three digits lie outside of the interval, which is a point for inputs of +-1."""
    for x in (constant(300), np.sign(constant(50))):
        first = advice_on(x)["dt"]
        assert first.proposal.startswith("keep 0.001 to 0.1; to be tested: ")
        assert "gained in none" in first.uncertainty
        new = {key.removeprefix("model."): value for key, value in first.alone.items()}
        again = advice_on(x, **new)["dt"]
        assert not again.tested and not again.unknown and "has already" in again.reason


def test_the_real_part_is_zero_where_a_mode_would_forget_the_beginning():
    """White: dt = 1/16, and e^-8 is left after 256 steps. Constant: dt = 1/L, and e^-0.5 is."""
    zero = {"model.alpha_real": 0.0, "model.real_transform": "clip"}
    forgets = advice_on(white(), dt_max=0.01, dt_min=1e-4)
    dt = forgets["dt"].alone
    assert forgets["real"].alone == zero | dt, "without that dt nothing keeps y_L bounded"
    keeps = advice_on(constant())["real"]
    assert not keeps.tested and "0.61 of itself" in keeps.reason
    assert "not in the inputs" in keeps.uncertainty


def test_a_band_is_reached_by_the_middle_channel_of_dt_in_use():
    """Sines of 0.3 rad per sample: the highest mode, alpha pi (N - 1), times the middle dt."""
    random = np.random.default_rng(0)
    phases = random.uniform(0, 2 * np.pi, (600, 1))
    sines = np.cos(0.3 * np.arange(L) + phases) + 1e-3 * random.normal(size=(600, L))
    found = advice_on(sines)
    alpha = found["alpha"].alone["model.alpha"]
    assert alpha * np.pi * (N - 1) * 1e-2 == pytest.approx(0.3, abs=2 * np.pi / L)
    assert "gained in none" in found["alpha"].uncertainty
    assert "90 % of the energy lies below" in found["alpha"].reason
    assert not advice_on(sines, alpha=alpha)["alpha"].tested
    assert "no straight line" in found["beta"].unknown


def test_beta_is_half_of_the_slope():
    spectrum = np.fft.rfft(white(400, 8 * L), axis=1)
    spectrum[:, 0] = 0
    spectrum[:, 1:] /= np.arange(1, spectrum.shape[1]) ** 0.5
    pink = np.fft.irfft(spectrum, axis=1)[:, :L]
    beta = advice_on(pink)["beta"].options["model.beta.init"]
    assert beta == pytest.approx(0.5, abs=0.05)
    assert not advice_on(pink, **{"beta.init": beta})["beta"].options
    assert (
        "no filter"
        in advice_on(pink, **{"beta.filter": False, "beta.learn": False})["beta"].unknown
    )


def test_modes_that_are_hard_to_tell_apart_become_evenly_spaced():
    """At a dt so small that S4D-Inv's low frequencies all turn by much less than once in L."""
    found = advice_on(ar1(0.9, 300), init="s4d_inv", dt_min=1e-3, dt_max=0.02)
    assert found["init"].options == {"model.init": "s4d_lin"} and "Gram" in found["init"].reason
    assert "ask again" in found["alpha"].unknown, "its highest mode is another then"
    assert (
        "13 at alpha = 1 and dt in use" in advice_on(ar1(0.9, 300), init="s4d_inv")["init"].reason
    )
    assert not advice_on(ar1(0.9, 300), dt_min=1e-3, dt_max=0.02)["init"].options


@pytest.mark.parametrize(
    ("x", "n_tokens", "knob", "words"),
    [
        (white(), None, "alpha", "flat"),
        (white(), None, "beta", "flat"),
        (white(30), None, "dt", "few sequences"),
        (white(1, 4_096), None, "dt", "of one there is no interval"),
        (white(1, 4_096), None, "alpha", "few sequences"),
        (ar1(0.9, 6, 100), None, "alpha", "few windows"),
        (ar1(0.8, 200), None, "real", "keeps 0.054 of itself over L = 256, 0.04 to 0.13"),
        (ar1(0.77, 200), None, "real", "keeps 0.043 of itself over L = 256, 0.03 to 0.12"),
        (constant(), None, "alpha", "constant"),
        (np.ones((20, L)), None, "dt", "never change"),
        (np.ones((20, L)), None, "real", "not known"),
        (white(500, 1), None, "dt", "one step"),
        (white(500, 1), None, "real", "not known"),
        (white(500, 1), None, "init", "cannot be compared"),
        (ar1(0.9, 50, 40), None, "alpha", "at least 64 samples"),
        (np.random.default_rng(0).integers(0, 9, (300, L)), 9, "alpha", "tokens without order"),
    ],
)
def test_what_the_inputs_cannot_tell_is_said_and_left(x, n_tokens, knob, words):
    found = advice_on(x, n_tokens)[knob]
    assert words in found.unknown and not found.tested and found.proposal.startswith("keep")


def test_what_rounding_leaves_of_constant_channels_is_nothing():
    """As of a norm in float32: the advice would be a dt of 1 / sqrt(L 1e-6)."""
    model = config_lib.default().model.to_dict()
    A_N = initial_modes("s4d_lin", 64).A_SN[0]
    noise = measure([], 1e-3 * white(), A_N.imag, (1e-3, 0.1))
    found = {one.knob: one for one in advise(noise, model, A_N)}
    assert all(found[knob].unknown for knob in KNOBS) and "never change" in found["dt"].unknown
    raw = model | {"prenorm": False}  # without a norm before the layer they may be as small
    assert advise(noise, raw, A_N)[0].alone


def test_an_alpha_that_crowds_the_modes_says_so_and_is_not_held_against_the_init():
    """The fastest of 16 modes turns once in L steps: no 16 of them can be told apart there."""
    slow = np.cumsum(ar1(0.99, 300), axis=1)
    for init in ("s4d_lin", "s4d_legs"):
        found = advice_on(slow, init=init)
        assert found["alpha"].alone["model.alpha"] < 1
        assert "condition number of their Gram matrix: " in found["alpha"].reason
        assert not found["init"].options and "at alpha = 1 and dt in use" in found["init"].reason
    assert "Gram" not in advice_on(ar1(0.9, 300))["alpha"].reason


def test_alpha_and_the_real_part_go_with_the_dt_that_a_rule_sets():
    """The dt of all channels, in the place of the middle of a range that is not in use."""
    lags = np.abs(np.subtract.outer(np.arange(L), np.arange(L)))
    rule = (L * np.linalg.eigvalsh(0.9**lags)[-1]) ** -0.5
    for kappa in (1.0, 2.0):
        found = advice_on(ar1(0.9, 300), dt_rule="autocorrelation", dt_kappa=kappa)
        assert "sets dt" in found["dt"].unknown and not found["real"].unknown
        said = float(found["alpha"].reason.partition("dt = ")[2].partition(")")[0])
        assert said == pytest.approx(kappa * rule, rel=0.15)
        left = float(found["real"].reason.partition("keeps ")[2].split()[0])
        assert np.log(left) == pytest.approx(-kappa * rule * L / 2, rel=0.15)
        zero = {"model.alpha_real": 0.0, "model.real_transform": "clip"}
        assert found["real"].alone == (zero if left < 0.05 else {}), "dt is set already"
    assert left < 0.05
    fixed = advice_on(ar1(0.9, 300), dt_rule="fixed", dt_min=0.02)
    assert "(dt = 0.02)" in fixed["alpha"].reason and "dt_rule=fixed" in fixed["real"].unknown


def test_other_layers_get_advice_on_dt_alone():
    found = advice_on(ar1(0.9), layer="s5", init="s4d_lin")
    assert found["dt"].alone and "s4d with zoh" in found["alpha"].unknown


def test_a_figure_without_a_spectrum_shows_the_timescales():
    rows = list(constant(50))
    measured = measure(rows, behind_norm(rows, None), np.arange(1.0, 5), (1e-3, 1e-1))
    lags, scales = correlation_figure(measured.correlation, "flat $ rate").axes
    np.testing.assert_allclose(lags.lines[0].get_ydata(), 1)
    assert scales.get_xscale() == "log"
