"""Advice on the initialization of a layer, read off its inputs, and what they cannot tell.

Each piece has its reason, how well it is known, and the panel of the figure behind it. dt is that
of arXiv:2411.19455, 1 / sqrt(L lambda_max), as the root mean square of a range; that the mean over
the channels of a range may stand for one dt is ours, as is all that is said of the real part, alpha
and the initialization. beta is a rule of thumb of third parties. None of it knows the target: what
a task needs of the past is not in its inputs, so each comes with a command that tests it.

dt by the rule, the zero real part that goes with it, and alpha (for the dt in use) are proposed for
a test alone: where they were followed they gained in no experiment. beta and the initialization are
advised, though no experiment has tried that advice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssm_jax.analysis.autocorrelation import Source, autocorrelation, lambda_max
from ssm_jax.analysis.gram import Time, condition_number, gram
from ssm_jax.analysis.inputs import InputSpectrum
from ssm_jax.analysis.start import FAR, FEW_WINDOWS, recommend
from ssm_jax.analysis.timescale import (
    Steps,
    correlation_facts,
    ends_of,
    moved_to_rule,
    no_rule,
    no_time,
    range_in_use,
    root_mean_square,
    rounded,
)

FLAT = 0.05  # how near the angles below which 50 and 90 % lie are to those of white noise
KEPT = 0.05  # of a mode after L steps: below that, the beginning is forgotten
ILL = 1e3  # condition number from which a read-out is slow to learn
SEE = "docs/autocorrelation.md, Advice"
TRIED = f"followed in eight experiments it gained in none: {SEE}"
ALPHA_TRIED = f"followed alone in four experiments it gained in none: {SEE}"
UNTRIED = f"not tried in any experiment: {SEE}"
KNOBS = ("dt", "real", "alpha", "beta", "init")


@dataclass(frozen=True)
class Advice:
    """What to set, by dotted option; {}: nothing, as it is right already, or `unknown` says why.

    What is not advised may still be worth a test: then `alone` has the options that test sets.
    """

    knob: str  # one of KNOBS
    proposal: str
    reason: str
    uncertainty: str
    panel: str  # of the figure
    options: dict[str, Any] = field(default_factory=dict)
    unknown: str = ""  # why the inputs cannot tell
    alone: dict[str, Any] = field(default_factory=dict)  # of a test of this knob; {}: `options`

    @property
    def tested(self) -> dict[str, Any]:
        """The options that a test of this knob alone sets; {}: there is nothing to test."""
        return self.alone or self.options


@dataclass(frozen=True)
class Measured:
    """What the inputs say: `spectrum` and `found` of `start.recommend`, or `no_spectrum`, why
    there is none; `correlation` of the inputs as the layer gets them."""

    correlation: Mapping[str, Any]
    spectrum: InputSpectrum | None = None
    found: Mapping[str, Any] | None = None
    no_spectrum: str = ""


def measure(
    sequences: Sequence[np.ndarray],
    behind_norm: Source | Mapping[str, Any],
    y_N: np.ndarray,
    dt: Steps,
    **options: Any,
) -> Measured:
    """Measure inputs; `behind_norm` are those which the layer gets, or their `correlation_facts`;
    the rest is of `recommend`."""
    if isinstance(behind_norm, Mapping):
        correlation = behind_norm
    else:
        correlation = correlation_facts(lambda_max(behind_norm), autocorrelation(behind_norm), dt)
    try:
        spectrum, found = recommend(sequences, y_N, dt, alphas=(), **options)
    except ValueError as error:
        return Measured(correlation, no_spectrum=str(error).rstrip("."))
    return Measured(correlation, spectrum, {**found, "autocorrelation": correlation})


def advise(measured: Measured, model: Mapping[str, Any], A_N: np.ndarray | None) -> list[Advice]:
    """Advice on each of KNOBS, for a model with these options (model.alpha is "alpha").

    `A_N` are the modes of its init at alpha = 1, with its real part; None of a layer that has
    neither dt_min and dt_max nor init.
    """
    facts, dt = measured.correlation, range_in_use(measured.correlation, model)
    if A_N is None:
        why = f"model.layer={model['layer']} starts from modes of its own, by other options"
        panels = {"dt": "timescales", "real": "timescales, autocorrelation", "init": "modes"}
        own = {knob: _unknown(knob, panels[knob], "keep its own", why) for knob in panels}
        alpha = _unknown("alpha", "spectrum, modes", f"keep {model['alpha']:g}", why)
        return [own["dt"], own["real"], alpha, _beta(measured, model), own["init"]]
    init = _init(facts, model, A_N, dt)
    return [
        _dt(facts, model),
        _real(facts, model, A_N),
        _alpha(measured, model, A_N, dt, init),
        _beta(measured, model),
        init,
    ]


def _condition(facts: Mapping[str, Any], A_N: np.ndarray, alpha: float, dt: Steps) -> float:
    """Of the Gram matrix of modes over L steps, of the root mean square of a range."""
    horizon = Time(facts["length"] * root_mean_square(dt))  # what L steps are to the modes
    return condition_number(gram(A_N.real + 1j * alpha * A_N.imag, "real", horizon))


def _even(A_N: np.ndarray) -> np.ndarray:
    """As many modes as S4D-Lin has them."""
    return -0.5 + 1j * np.pi * np.arange(len(A_N))


def _in_digits(condition: float) -> str:
    return f"{condition:.3g}" if condition < math.inf else "singular"


def _dt(facts: Mapping[str, Any], model: Mapping[str, Any]) -> Advice:
    about = "dt", "timescales"
    kept = f"keep {model['dt_min']:g} to {model['dt_max']:g}"
    if model["discretization"] != "none" and model["dt_rule"] != "log_uniform":
        return _unknown(*about, kept, f"model.dt_rule={model['dt_rule']} sets dt, not a range")
    if (why := no_rule(facts, model)) is not None:
        return _unknown(*about, kept, why)
    bound = (facts["dt_layer"][2] / facts["dt"]) ** 2
    said = (
        f"E|y_L|^2 <= dt^2 L lambda_max = {bound:.3g} for the range in use, and 1 for the rule's: "
        f"dt = 1 / sqrt(L lambda_max) = {facts['dt']:.3g} as its root mean square"
    )
    if not (alone := moved_to_rule(facts, model)):
        said += ", which it has already"
        return Advice("dt", kept, said, ends_of(facts), about[1])
    kept += "; to be tested: {:g} to {:g}".format(*alone.values())
    return Advice("dt", kept, said, f"{ends_of(facts)}; {TRIED}", about[1], alone=alone)


def _real(facts: Mapping[str, Any], model: Mapping[str, Any], A_N: np.ndarray) -> Advice:
    slowest = float(A_N.real.max())
    kept = f"keep {slowest:g}"
    about, rule = ("real", "timescales, autocorrelation"), model["dt_rule"]
    if model["layer"] not in ("s4d", "s5"):
        return _unknown(*about, kept, f"model.layer={model['layer']} keeps its own real part")
    if rule == "fixed":
        return _unknown(*about, kept, "it goes with the rule's dt, and model.dt_rule=fixed sets dt")
    if (why := no_rule(facts, model)) is not None:
        return _unknown(*about, kept, f"it goes with the rule's dt, which is not known: {why}")
    L, kappa = facts["length"], model["dt_kappa"] if rule == "autocorrelation" else 1.0
    step = kappa * facts["dt"]
    left = math.exp(slowest * step * L)
    said = (
        f"at the rule's dt = {step:.3g} a mode of Re A = {slowest:g} keeps {left:.2g} of itself "
        f"over L = {L:,}"
    )
    ends = [math.exp(slowest * kappa * end * L) for end in reversed(facts["dt_interval"])]
    sure = "{:.2g} to {:.2g} of it (95 %); whether the target needs the past is not in the inputs"
    sure = sure.format(*ends)
    if min(left, *ends) < KEPT <= max(left, *ends):
        return _unknown(*about, kept, f"{said}, {sure}")
    if left >= KEPT:
        return Advice("real", kept, f"{said}: the beginning reaches the end", sure, about[1])
    alone: dict[str, Any] = {"model.alpha_real": 0.0, "model.real_transform": "clip"}
    dt = {} if rule == "autocorrelation" else moved_to_rule(facts, model)
    kept += "; to be tested: 0, kept at most 0"
    kept += ", at dt {:g} to {:g}".format(*dt.values()) if dt else ""
    why = f"{said}: the beginning is forgotten; with Re A = 0 it is not, and dt keeps y_L bounded"
    sure += f"; followed with the rule's dt in one experiment it lost: {SEE}"
    return Advice("real", kept, why, sure, about[1], alone=alone | dt)


def _alpha(
    measured: Measured, model: Mapping[str, Any], A_N: np.ndarray, dt: Steps, init: Advice
) -> Advice:
    middle, kept = math.sqrt(dt[0] * dt[1]), f"keep {model['alpha']:g}"
    why = _no_spectrum(measured, model)
    if why is None and init.options:
        why = f"it goes with the init, for which {init.proposal} is advised: ask again with that"
    if why is not None:
        return _unknown("alpha", "spectrum, modes", kept, why)
    assert measured.spectrum is not None and measured.found is not None
    found, reach = measured.found, float(np.abs(A_N.imag).max()) * middle
    angle = measured.spectrum.angle_below_which(found["band"])
    ends = [end / reach for end in found["intervals"]["angle"]]
    said = (
        f"{100 * found['band']:g} % of the energy lies below {angle:.3g} rad per sample, which the "
        f"highest mode of the middle channel (dt = {middle:.3g}) reaches at this alpha"
    )
    sure = "{:.3g} to {:.3g} by resampling".format(*ends)
    alpha, facts = rounded(angle / reach), measured.correlation
    if ends[0] <= model["alpha"] <= ends[1] or alpha == model["alpha"]:
        return Advice("alpha", kept, said, sure, "spectrum, modes")
    now = _condition(facts, A_N, model["alpha"], dt)
    if (own := _condition(facts, A_N, alpha, dt)) > ILL:
        even = _condition(facts, _even(A_N), alpha, dt)
        said += (
            f"; over L = {facts['length']:,} modes this close are nearly the same (condition "
            f"number of their Gram matrix: {_in_digits(own)}, in use {_in_digits(now)}), "
        ) + (
            "so fewer of them (model.d_state) would do"
            if own <= 10 * even
            else f"and evenly spaced ones are less so ({_in_digits(even)})"
        )
    kept += f"; to be tested: {alpha:g}"
    sure += f"; {ALPHA_TRIED}"
    return Advice("alpha", kept, said, sure, "spectrum, modes", alone={"model.alpha": alpha})


def _beta(measured: Measured, model: Mapping[str, Any]) -> Advice:
    beta = model["beta"]
    kept = f"keep {beta['init']:g}" if beta["filter"] else "keep none"
    if not beta["filter"]:
        return _unknown("beta", "spectrum", kept, "model.beta.filter=False: there is no filter")
    if (why := _no_spectrum(measured, model)) is not None:
        return _unknown("beta", "spectrum", kept, why)
    assert measured.found is not None
    fit, drawn = measured.found["fit"], measured.found["intervals"]["gamma"]
    width = fit["half_width"]
    said = f"power ~ w^-gamma, gamma = {fit['gamma']:.2f}; beta = gamma / 2, a third-party rule"
    low, high = min(drawn[0], fit["gamma"] - width) / 2, max(drawn[1], fit["gamma"] + width) / 2
    sure = f"{low:.2f} to {high:.2f}: residuals of the line, and resampling"
    if width > FAR:
        return _unknown("beta", "spectrum", kept, f"no straight line: gamma ± {width:.2f}")
    if low <= beta["init"] <= high:
        return Advice("beta", kept, said, sure, "spectrum")
    options = {"model.beta.init": round(measured.found["beta"], 2)}
    proposal, sure = f"{options['model.beta.init']:g}", f"{sure}; {UNTRIED}"
    return Advice("beta", proposal, said, sure, "spectrum", options)


def _init(facts: Mapping[str, Any], model: Mapping[str, Any], A_N: np.ndarray, dt: Steps) -> Advice:
    name, kept = model["init"], f"keep {model['init']}"
    if model["discretization"] == "none" or no_time(facts, model) is not None:
        return _unknown("init", "modes", kept, "without dt or inputs modes cannot be compared")
    own, even = (_condition(facts, m_N, model["alpha"], dt) for m_N in (A_N, _even(A_N)))
    said = (
        f"condition number of the Gram matrix of its modes over L: {_in_digits(own)} at alpha = "
        f"{model['alpha']:.3g} and dt in use"
    )
    sure = "exact for white inputs and a trained read-out alone; where the target lies is not known"
    if name != "s4d_lin" and model["layer"] == "s4d" and own > max(ILL, 10 * even):
        said += f"; {_in_digits(even)} of evenly spaced ones"
        sure += f"; {UNTRIED}"
        return Advice("init", "s4d_lin", said, sure, "modes", {"model.init": "s4d_lin"})
    if own > ILL:
        said += "; modes this close are nearly the same: fewer (model.d_state) would do"
    return Advice("init", kept, said, sure, "modes")


def _no_spectrum(measured: Measured, model: Mapping[str, Any]) -> str | None:
    """Why nothing can be read off the spectrum; None: it can."""
    if model["layer"] != "s4d" or model["discretization"] != "zoh":
        return "the modes that are counted are those of s4d with zoh"
    if measured.found is None or measured.spectrum is None:
        return measured.no_spectrum
    found, tokens = measured.found, measured.found["inputs"] != "real"
    if found["intervals"] is None:
        long = found["sequences"] - found["too_short"]
        return f"few sequences: {long} of {found['sequences']:,} has the samples of a window"
    if (windows := found["segments"]) < FEW_WINDOWS:
        return f"few windows: the spectrum rests on {windows}, at least {FEW_WINDOWS} are needed"
    shares = {0.5: np.pi / 2, 0.9: 0.9 * np.pi}
    angles = {share: measured.spectrum.angle_below_which(share) for share in shares}
    if all(abs(angles[share] / white - 1) < FLAT for share, white in shares.items()):
        what = "tokens without order: their spectrum" if tokens else "the spectrum"
        return f"{what} is flat, as of white noise: no frequency is preferred"
    return None


def _unknown(knob: str, panel: str, proposal: str, why: str) -> Advice:
    return Advice(knob, proposal, "cannot be known from these inputs", why, panel, {}, why)
