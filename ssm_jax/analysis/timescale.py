"""The timescale that the autocorrelation of inputs asks for, beside that of a layer.

dt = 1 / sqrt(L lambda_max) is the rule (after arXiv:2411.19455); of a range of dt, log-uniform over
the channels, the root mean square stands for it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssm_jax.analysis.autocorrelation import Autocorrelation, LambdaMax

APART = 4.0  # ends of the interval of lambda_max: dt is then known to within a factor of 2
# Mean square behind a norm below which a layer gets nothing: that of channels which never change is
# what float32 leaves of their mean, over the norm's eps; that of all others is near 1.
SILENT = 1e-3
Steps = tuple[float, float]  # the least and the largest dt, in units of time per sample


def correlation_facts(found: LambdaMax, r: Autocorrelation, dt: Steps | None) -> dict[str, Any]:
    """What was found, as JSON can hold it, with the timescale that it asks for.

    "dt" = 1 / sqrt(L lambda_max) with its interval, None where it is not known; "dt_limits", what
    it is of constant and of white inputs of this power; "dt_layer", the ends of the layer's range
    and the root of its mean square, which is what the bound takes of a range; None of a layer
    without one. "lags" are spread evenly on a logarithmic axis; the intervals are of r(k) / r(0).
    """
    last = len(r.r_K) - 1
    K = np.unique([0, *np.geomspace(1, max(last, 1), 60).astype(int)])[: last + 1]
    power, L = float(r.r_K[0]), found.length
    known = found.sequences > 1 and found.low > 0
    ends = [found.high, found.low]
    silent = power == 0
    return {
        "length": L,
        "sequences": found.sequences,
        "channels": len(found.channels_C),
        "power": power,
        "mean": r.mean,
        "lambda_max": found.mean,
        "held_out": found.held_out if known else None,
        "interval": [found.low, found.high] if known else None,
        "steps": found.steps,
        "error": found.error,
        "converged": found.converged,
        "dt": None if silent else found.timescale(),
        "dt_interval": [1 / math.sqrt(L * end) for end in ends] if known else None,
        "dt_limits": None if silent else [1 / (L * math.sqrt(power)), 1 / math.sqrt(L * power)],
        "dt_layer": dt and [*dt, root_mean_square(dt)],
        "lags": {
            "lag": K.tolist(),
            "r": r.r_K[K].tolist(),
            "low": r.low_K[K].tolist() if known else None,
            "high": r.high_K[K].tolist() if known else None,
        },
    }


def root_mean_square(dt: Steps) -> float:
    """Of dt log-uniform in a range: sqrt((dt_max^2 - dt_min^2) / (2 log(dt_max / dt_min)))."""
    low, high = dt
    if low == high:
        return low
    return math.sqrt((high**2 - low**2) / (2 * math.log(high / low)))


def describe_correlation(facts: Mapping[str, Any]) -> str:
    """Lines for a person about `correlation_facts`."""
    L, power = facts["length"], facts["power"]
    if facts["dt"] is None:
        return "autocorrelation: the inputs are zero"
    interval = "of one sequence there is no interval"
    if facts["interval"] is not None:
        interval = "{:.4g} to {:.4g} (95 %)".format(*facts["interval"])
    ended = f"{facts['steps']} steps, error {facts['error']:.1g}"
    if not facts["converged"]:
        ended += ": not converged, too small"
    held = "" if facts["held_out"] is None else f", held out {facts['held_out']:.4g}"
    dt = "" if facts["dt_interval"] is None else " ({:.3g} to {:.3g})".format(*facts["dt_interval"])
    constant, white = facts["dt_limits"]
    layer = ""
    if facts["dt_layer"] is not None:
        layer = "; the layer has {:.4g} to {:.4g}, root mean square {:.3g}".format(
            *facts["dt_layer"]
        )
    return (
        f"autocorrelation: lambda_max of E[x x^T] {facts['lambda_max']:.4g} of the sample{held}; "
        f"{interval}; {facts['sequences']:,} sequences, L = {L:,}, E[x^2] = {power:.4g}; {ended}\n"
        f"timescale: dt = 1 / sqrt(L lambda_max) = {facts['dt']:.3g}{dt}; constant input of this "
        f"power {constant:.3g} (1/L), white {white:.3g} (1/sqrt(L)){layer}"
    )


def range_in_use(facts: Mapping[str, Any], model: Mapping[str, Any], layer: int = 0) -> Steps:
    """The least and the largest dt that a new layer has by its options, the first one is 0."""
    rule = "log_uniform" if layer and model["dt_apply_to"] == "first" else model["dt_rule"]
    if rule == "autocorrelation" and facts["dt"] is not None:
        return (model["dt_kappa"] * facts["dt"],) * 2
    return model["dt_min"], model["dt_min" if rule == "fixed" else "dt_max"]


def no_time(facts: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """Why inputs have no timescale; None: they have one."""
    if facts["dt"] is None or (facts["power"] < SILENT and model.get("prenorm", True)):
        return "the inputs are zero behind the norm: they never change"
    if facts["length"] == 1:
        return "series of one step have no order in time: L = 1"
    return None


def no_rule(facts: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """Why the rule's dt is not known; None: it is."""
    if model["discretization"] == "none":
        return "its modes are of discrete time: there is no dt"
    if (why := no_time(facts, model)) is not None:
        return why
    if facts["interval"] is None:
        return "few sequences: of one there is no interval"
    least, most = facts["interval"]
    if most > APART * least:
        return f"few sequences ({facts['sequences']:,}), take more: {ends_of(facts)}"
    return None


def ends_of(facts: Mapping[str, Any]) -> str:
    """The intervals of lambda_max and of the rule's dt, in words."""
    ends = *facts["interval"], *facts["dt_interval"]
    return "lambda_max {:.4g} to {:.4g}, dt {:.3g} to {:.3g} (95 %)".format(*ends)


def moved_to_rule(facts: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, float]:
    """The options that move the range in use to the rule's dt; {}: it is there already."""
    first, last = facts["dt_interval"]
    if first <= facts["dt_layer"][2] <= last:
        return {}
    scale = facts["dt"] / facts["dt_layer"][2]
    moved = {key: rounded(model[key] * scale) for key in ("dt_min", "dt_max")}
    if all(value == model[key] for key, value in moved.items()):  # the interval is that narrow
        return {}
    return {f"model.{key}": value for key, value in moved.items()}


def rounded(value: float) -> float:
    """Three digits, as a person would write an option."""
    return float(f"{value:.3g}")
