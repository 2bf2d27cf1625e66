"""Advice on inputs whose right answer is known, and what is said where there is none."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ssm_jax import config as config_lib
from ssm_jax.analysis.advice import KNOBS, Advice, advise, measure
from ssm_jax.analysis.inputs import behind_norm, mode_density
from ssm_jax.commands.advice import as_advised
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
    assert all(not (one.unknown and one.options) for one in found)
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
        assert root_mean_square(found[kind]["dt"].options) == pytest.approx(exact, rel=0.12), kind
    ends = found["ar"]["dt"].options.values()
    assert max(ends) / min(ends) == pytest.approx(100, rel=0.02), "as wide as the range in use"


def test_a_range_that_is_right_already_is_kept():
    found = advice_on(white(2_000))["dt"]  # the default's root mean square is 0.033
    again = advice_on(constant(), dt_min=3.03 / L / 100, dt_max=3.03 / L)["dt"]
    assert not again.options and not again.unknown and "within the interval" in again.reason
    assert found.options["model.dt_max"] > 0.1 and "gained in none" in found.uncertainty


def test_the_real_part_is_zero_where_a_mode_would_forget_the_beginning():
    """White: dt = 1/16, and e^-8 is left after 256 steps. Constant: dt = 1/L, and e^-0.5 is."""
    forgets = advice_on(white(), dt_max=0.01, dt_min=1e-4)["real"]
    assert forgets.options == {"model.alpha_real": 0.0, "model.real_transform": "clip"}
    keeps = advice_on(constant())["real"]
    assert not keeps.options and "0.61 of itself" in keeps.reason
    assert "not in the inputs" in keeps.uncertainty


def test_a_band_is_reached_by_the_middle_channel():
    """Sines of 0.3 rad per sample: the highest mode, alpha pi (N - 1), times the middle dt."""
    random = np.random.default_rng(0)
    phases = random.uniform(0, 2 * np.pi, (600, 1))
    sines = np.cos(0.3 * np.arange(L) + phases) + 1e-3 * random.normal(size=(600, L))
    found = advice_on(sines)
    middle = np.sqrt(np.prod([*found["dt"].options.values()]))
    reached = found["alpha"].options["model.alpha"] * np.pi * (N - 1) * middle
    assert reached == pytest.approx(0.3, abs=2 * np.pi / L)
    # The figure shows the modes with the dt that goes with this alpha: those of dt as it was would
    # be beyond Nyquist.
    usual = {"alpha": 1.0, "dt_min": 1e-3, "dt_max": 1e-1}
    alpha, dt = as_advised(usual, [*found.values()])
    beyond = mode_density(np.pi * np.arange(N), alpha, dt, np.array([np.pi, 1e30])).item()
    assert alpha * np.pi * (N - 1) * np.sqrt(np.prod(dt)) == pytest.approx(reached)
    assert abs(beyond) < 0.05
    assert as_advised(usual, []) == (1.0, (1e-3, 1e-1))
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
    found = advice_on(ar1(0.9), init="s4d_inv")["init"]
    assert found.options == {"model.init": "s4d_lin"} and "Gram" in found.reason
    assert (
        "13 at alpha = 1 and dt in use" in found.reason and "it goes with the adv" in found.reason
    )
    assert not advice_on(ar1(0.9))["init"].options


@pytest.mark.parametrize(
    ("x", "n_tokens", "knob", "words"),
    [
        (white(), None, "alpha", "flat"),
        (white(), None, "beta", "flat"),
        (white(30), None, "dt", "few sequences"),
        (white(1, 4_096), None, "dt", "of one there is no interval"),
        (white(1, 4_096), None, "alpha", "few sequences"),
        (ar1(0.9, 6, 100), None, "alpha", "few windows"),
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
    assert words in found.unknown and not found.options and found.proposal.startswith("keep")


def test_what_rounding_leaves_of_constant_channels_is_nothing():
    """As of a norm in float32: the advice would be a dt of 1 / sqrt(L 1e-6)."""
    model = config_lib.default().model.to_dict()
    A_N = initial_modes("s4d_lin", 64).A_SN[0]
    noise = measure([], 1e-3 * white(), A_N.imag, (1e-3, 0.1))
    found = {one.knob: one for one in advise(noise, model, A_N)}
    assert all(found[knob].unknown for knob in KNOBS) and "never change" in found["dt"].unknown
    raw = model | {"prenorm": False}  # without a norm before the layer they may be as small
    assert advise(noise, raw, A_N)[0].options


def test_an_alpha_that_crowds_the_modes_says_so_and_is_not_held_against_the_init():
    """The fastest of 16 modes turns once in L steps: no 16 of them can be told apart there."""
    slow = np.cumsum(ar1(0.99, 300), axis=1)
    for init in ("s4d_lin", "s4d_legs"):
        found = advice_on(slow, init=init)
        assert found["alpha"].options["model.alpha"] < 1
        assert "condition number of their Gram matrix: " in found["alpha"].reason
        assert "at alpha = 1 and dt in use" in found["init"].reason
        assert not found["init"].options and "crowds them are the adv" in found["init"].reason
    assert "Gram" not in advice_on(ar1(0.9, 300))["alpha"].reason


def test_alpha_goes_with_the_dt_that_a_rule_sets():
    """The dt of all channels, in the place of the middle of a range that is not in use."""
    found = advice_on(ar1(0.9, 300), dt_rule="autocorrelation", dt_kappa=2.0)
    assert "sets dt" in found["dt"].unknown
    lags = np.abs(np.subtract.outer(np.arange(L), np.arange(L)))
    dt = 2 * (L * np.linalg.eigvalsh(0.9**lags)[-1]) ** -0.5
    said = float(found["alpha"].reason.partition("dt = ")[2].partition(")")[0])
    assert said == pytest.approx(dt, rel=0.15)
    assert "(dt = 0.02)" in advice_on(ar1(0.9, 300), dt_rule="fixed", dt_min=0.02)["alpha"].reason


def test_other_layers_get_advice_on_dt_alone():
    found = advice_on(ar1(0.9), layer="s5")
    assert found["dt"].options and "s4d with zoh" in found["alpha"].unknown


def test_a_figure_without_a_spectrum_shows_the_timescales():
    rows = list(constant(50))
    measured = measure(rows, behind_norm(rows, None), np.arange(1.0, 5), (1e-3, 1e-1))
    lags, scales = correlation_figure(measured.correlation, "flat $ rate").axes
    np.testing.assert_allclose(lags.lines[0].get_ydata(), 1)
    assert scales.get_xscale() == "log"
