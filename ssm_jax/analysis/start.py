"""What a new layer makes of an input's spectrum, and the alpha and beta to start from.

A layer of N modes with frequencies y_n (Im a_n at alpha = 1) answers, in a channel of step dt, at
the angles alpha |y_n| dt rad per sample. dt starts log-uniform in [dt_min, dt_max] over the
channels, so what is said of modes are expectations over the channels of a new layer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssm_jax.analysis.autocorrelation import INTERVAL, Padded, autocorrelation, lambda_max
from ssm_jax.analysis.inputs import (
    InputSpectrum,
    default_segment,
    embedding,
    fit_power_law,
    input_spectrum,
)
from ssm_jax.analysis.spectra import NYQUIST
from ssm_jax.analysis.timescale import Steps, correlation_facts, describe_correlation
from ssm_jax.kernels.response import BETA_UNITS, frequency_per_radian

SHARES = (0.5, 0.9, 0.99)
CHANNELS = 2_000  # quantiles of dt over which is averaged
FAR = 0.3  # half of the 95 % interval of gamma from which the spectrum is called no power law
FEW_WINDOWS = 16  # Welch's power has a relative standard error of 1 / sqrt(windows), here a quarter


def window_of(
    spectrum: InputSpectrum, y_N: np.ndarray, alpha: float, dt: Steps, share: float
) -> dict[str, float]:
    """What the modes of a new layer see of a spectrum.

    Args:
      y_N: |Im a| of a channel's modes at alpha = 1, rad per unit of time.
      share: of the input's energy that the band holds, 0..1.

    Returns:
      "alpha"; "lowest" and "highest", the angles of the highest mode at the two steps, which can be
      beyond Nyquist; "aliased", the share of all modes beyond Nyquist, which answer to a lower
      angle than theirs; "clean", the share of the channels without such a mode; "reached", the
      share of the energy below the highest mode of a channel or Nyquist, whichever is lower, and
      "within", the modes of a channel in the band, both means over channels; "band", the angle
      below which that share of the energy lies.
    """
    y_N = alpha * np.abs(np.asarray(y_N, np.float64))
    highest, band = y_N.max(), spectrum.angle_below_which(share)
    middles = (np.arange(CHANNELS) + 0.5) / CHANNELS
    dt_H = dt[0] * (dt[1] / dt[0]) ** middles  # of channels that stand for all
    found = {
        "alpha": alpha,
        "lowest": highest * dt[0],
        "highest": highest * dt[1],
        "aliased": share_beyond(y_N, NYQUIST, dt).mean(),
        "clean": 1 - share_beyond(highest, NYQUIST, dt),
        "reached": spectrum.energy_below(np.minimum(highest * dt_H, NYQUIST)).mean(),
        "within": (1 - share_beyond(y_N, band, dt)).sum(),
        "band": band,
    }
    return {name: float(value) for name, value in found.items()}


def share_beyond(y: np.ndarray, bound: float, dt: Steps) -> np.ndarray:
    """Of each frequency y, at least 0, the share of the channels in which y dt > bound; exact.

    dt > bound / y has the share log(dt_max y / bound) / log(dt_max / dt_min), within 0..1.
    """
    dt_min, dt_max = dt
    y = np.asarray(y, np.float64)
    if dt_min == dt_max:
        return (y * dt_max > bound).astype(np.float64)
    positive = np.maximum(y, np.finfo(np.float64).tiny)
    share = (np.log(positive) + math.log(dt_max / bound)) / math.log(dt_max / dt_min)
    return np.clip(share, 0.0, 1.0)


def mode_density(y_N: np.ndarray, alpha: float, dt: Steps, edges: np.ndarray) -> np.ndarray:
    """The share of all modes of all channels between each edge, an angle, and the next; exact."""
    y_N = alpha * np.abs(np.asarray(y_N, np.float64))
    return -np.diff([share_beyond(y_N, edge, dt).mean() for edge in edges])


def recommend(
    sequences: Sequence[np.ndarray],
    y_N: np.ndarray,
    dt: Steps,
    *,
    alphas: Sequence[float],
    share: float = 0.9,
    n_tokens: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> tuple[InputSpectrum, dict[str, Any]]:
    """Read a starting alpha and beta off the spectrum of some inputs; look at other alphas too.

    And dt off their autocorrelation, of tokens as `embedding` has them.

    At alpha the middle channel, of the geometric mean of dt, reaches all the band: half of the
    channels reach beyond the frequency below which `share` of the energy lies, and half end within
    it, which keeps the modes dense where the energy is. beta is half of the slope of the power:
    (1 + |s|)^beta then undoes the fall of the amplitude. That is a rule of thumb of third parties
    (arXiv:2410.02035 gives none), within the option's -4..4.

    Arguments as in `input_spectrum`, `fit_power_law` and `window_of`. Returns the spectrum, and all
    that was found as JSON can hold it.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    spectrum = input_spectrum(sequences, default_segment(lengths), n_tokens=n_tokens)
    fit = fit_power_law(spectrum, low, high)
    middle, circle = math.sqrt(dt[0] * dt[1]), 2 * int(lengths.max())
    reach = float(np.abs(y_N).max()) * middle
    alpha = spectrum.angle_below_which(share) / reach
    drawn = [
        (fit_power_law(one, low, high)["gamma"], *map(one.angle_below_which, (share, 0.5)))
        for one in spectrum.resampled()
    ]
    ends = np.quantile(drawn, INTERVAL, axis=0).T.tolist() if drawn else None
    source = Padded(sequences, None if n_tokens is None else embedding(sequences, n_tokens))
    beta = float(np.clip(fit["gamma"] / 2, -4.0, 4.0))
    s_at_nyquist = {u: frequency_per_radian(circle, u) * NYQUIST for u in BETA_UNITS}
    candidates = sorted({*map(float, alphas), alpha})
    found = {
        "inputs": "real" if n_tokens is None else f"one-hot of {n_tokens} tokens",
        "method": f"Welch: {spectrum.segments:,} Hann windows of {spectrum.segment:,} samples that "
        "overlap by half, the mean of each taken off",
        "sequences": spectrum.sequences,
        "segments": spectrum.segments,
        "too_short": spectrum.too_short,
        "length": float(lengths.mean()),
        "fit": fit,
        "energy_below": {f"{s:g}": spectrum.angle_below_which(s) for s in SHARES},
        "band": share,
        "alpha": alpha,
        "beta": beta,
        # By resampling the sequences; None: there is but one
        "intervals": ends
        and {
            "gamma": ends[0],
            "angle": ends[1],
            "median": ends[2],
            "alpha": [end / reach for end in ends[1]],
        },
        "autocorrelation": correlation_facts(lambda_max(source), autocorrelation(source), dt),
        "gain_at_nyquist": {unit: (1 + s) ** beta for unit, s in s_at_nyquist.items()},
        "windows": [window_of(spectrum, y_N, a, dt, share) for a in candidates],
    }
    return spectrum, found


def describe(found: Mapping[str, Any], *, filtered: bool = True) -> str:
    """Lines for a person about what `recommend` found; `filtered`: the model has a beta to set."""
    fit, short = found["fit"], found["too_short"]
    below = [
        f"{100 * float(share):g} % below {w:.3g}" for share, w in found["energy_below"].items()
    ]
    gains = [f"{gain:.3g} ({unit})" for unit, gain in found["gain_at_nyquist"].items()]
    poor = "; no straight line: look at the figure before you use it"
    few = ""
    lowest, highest, _ = found["autocorrelation"]["dt_layer"]
    reach = (
        "half of the channels reach past" if lowest < highest else "all channels reach the end of"
    )
    if (n := found["segments"]) < FEW_WINDOWS:
        few = (
            f"\nwarning: this rests on {n} window{'s' if n > 1 else ''}"
            f"{f', as {short} sequences are too short for one' if short else ''}: the power at "
            f"each frequency is known to within {100 / math.sqrt(n):.0f} %; take more or longer "
            "sequences."
        )
    ranges = {"gamma": "", "alpha": ""}
    if (ends := found["intervals"]) is not None:
        ranges = {key: "; {:.3g} to {:.3g} by resampling".format(*ends[key]) for key in ranges}
    beta = f"start: beta = gamma / 2 = {found['beta']:.2f}, a third-party rule of thumb; gain at "
    beta += f"Nyquist by unit of beta: {', '.join(gains)}"
    if not filtered:
        beta = (
            "beta: none to set, as the model has no filter; with --config.model.beta.filter=true "
            f"it may start at gamma / 2 = {found['beta']:.2f}, a third-party rule of thumb"
        )
    return (
        f"inputs: {found['inputs']}; {found['sequences']:,} sequences of {found['length']:,.0f} "
        f"samples on average{f', {short} too short' if short else ''}\n"
        f"method: {found['method']}\n"
        f"slope: power ~ w^-gamma, gamma = {fit['gamma']:.2f} ± {fit['half_width']:.2f} (95 %, by "
        f"the residuals{ranges['gamma']}) from {fit['low']:.3g} to {fit['high']:.3g} rad per sample"
        f"{poor if fit['half_width'] > FAR else ''}\n"
        f"energy: {', '.join(below)} rad per sample (Nyquist 3.14)\n"
        f"{beta}\n"
        f"start: alpha = {found['alpha']:.3g}{ranges['alpha']}: {reach} "
        f"the band that holds {100 * found['band']:g} % of the energy\n"
        f"{describe_correlation(found['autocorrelation'])}{few}"
    )
