r"""A starting alpha and beta for inputs of a spectrum: what window a layer's modes open upon them.

A layer of N modes with frequencies y_n (Im a_n at alpha = 1) answers, in a channel of step dt, at
the angles alpha |y_n| dt rad per sample. dt starts log-uniform in [dt_min, dt_max] over the
channels, so all that follows are expectations over the channels of a new layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssm_jax.analysis.input_spectrum import (
    SHARES,
    InputSpectrum,
    PowerLaw,
    default_segment,
    fit_power_law,
    input_spectrum,
)
from ssm_jax.kernels.filter import BETA_UNITS, frequency_per_radian

NYQUIST = np.pi
CHANNELS = 2_000  # quantiles of dt over which is averaged


@dataclass(frozen=True)
class Window:
    """The modes of a new layer at one alpha, against a spectrum.

    Attributes:
      alpha: factor on the frequencies.
      lowest, highest: angle of the highest mode at dt_min and at dt_max; the latter can be beyond
        Nyquist.
      aliased: share of all modes beyond Nyquist: they answer to a lower angle than theirs.
      clean: share of the channels without such a mode.
      reached: share of the input's energy below the highest mode of a channel, or below Nyquist,
        whichever is lower; the mean over channels.
      within: modes of a channel in the band, the mean over channels.
      band: the angle below which the asked share of the energy lies.
    """

    alpha: float
    lowest: float
    highest: float
    aliased: float
    clean: float
    reached: float
    within: float
    band: float


def share_beyond(y: np.ndarray, bound: float, dt_min: float, dt_max: float) -> np.ndarray:
    """Of each frequency y, at least 0, the share of the channels in which y dt > bound; exact.

    dt > bound / y has the share log(dt_max y / bound) / log(dt_max / dt_min), within 0..1; bound is
    an angle in rad per sample.
    """
    y = np.asarray(y, np.float64)
    if dt_min == dt_max:
        return (y * dt_max > bound).astype(np.float64)
    positive = np.maximum(y, np.finfo(np.float64).tiny)
    share = (np.log(positive) + math.log(dt_max / bound)) / math.log(dt_max / dt_min)
    return np.clip(share, 0.0, 1.0)


def window_of(
    spectrum: InputSpectrum,
    y_N: np.ndarray,
    alpha: float,
    dt_min: float,
    dt_max: float,
    share: float = 0.9,
) -> Window:
    """What the modes of a new layer see of a spectrum.

    Args:
      spectrum: of the input; share: of its energy that the band holds, 0..1.
      y_N: |Im a| of a channel's modes at alpha = 1, rad per unit of time.
      dt_min, dt_max: steps in units of time per sample, log-uniform over the channels.
    """
    y_N = alpha * np.abs(np.asarray(y_N, np.float64))
    band = spectrum.angle_below_which(share)
    dt = dt_quantiles(dt_min, dt_max)
    top = np.minimum(y_N.max() * dt, NYQUIST)
    return Window(
        alpha=float(alpha),
        lowest=float(y_N.max() * dt_min),
        highest=float(y_N.max() * dt_max),
        aliased=float(share_beyond(y_N, NYQUIST, dt_min, dt_max).mean()),
        clean=float(1 - share_beyond(y_N.max(), NYQUIST, dt_min, dt_max)),
        reached=float(spectrum.energy_below(top).mean()),
        within=float((1 - share_beyond(y_N, band, dt_min, dt_max)).sum()),
        band=band,
    )


def dt_quantiles(dt_min: float, dt_max: float, n: int = CHANNELS) -> np.ndarray:
    """The steps of n channels that stand for all: the middles of n equal shares."""
    middles = (np.arange(n) + 0.5) / n
    return dt_min * (dt_max / dt_min) ** middles


def recommend(
    sequences: Sequence[np.ndarray],
    y_N: np.ndarray,
    dt: tuple[float, float],
    *,
    alphas: Sequence[float],
    share: float = 0.9,
    n_tokens: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> tuple[InputSpectrum, PowerLaw, dict[str, Any]]:
    """Read a starting alpha and beta off the spectrum of some inputs.

    Args:
      sequences, n_tokens: as in `input_spectrum`; low, high: as in `fit_power_law`.
      y_N, share: as in `window_of`; dt: (dt_min, dt_max).
      alphas: candidates that are looked at besides the start.

    Returns:
      The spectrum, its fit, and all that was found as JSON can hold it.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    spectrum = input_spectrum(sequences, default_segment(lengths), n_tokens=n_tokens)
    fit = fit_power_law(spectrum, low, high)
    alpha, beta = starting_alpha(spectrum, y_N, *dt, share), starting_beta(fit.gamma)
    candidates = sorted({*map(float, alphas), alpha})
    found = {
        "inputs": "real" if n_tokens is None else f"one-hot of {n_tokens} tokens",
        "method": spectrum.method,
        "sequences": spectrum.sequences,
        "too_short": spectrum.too_short,
        "length": float(lengths.mean()),
        "fit": asdict(fit),
        "energy_below": {f"{s:g}": spectrum.angle_below_which(s) for s in SHARES},
        "band": share,
        "alpha": alpha,
        "beta": beta,
        "gain_at_nyquist": gains_at_nyquist(beta, int(lengths.max())),
        "windows": [asdict(window_of(spectrum, y_N, a, *dt, share)) for a in candidates],
    }
    return spectrum, fit, found


FAR = 0.3  # half of the 95 % interval of gamma from which the spectrum is called no power law


def describe(found: Mapping[str, Any]) -> str:
    """Lines for a person about what `recommend` found."""
    fit, too_short = found["fit"], found["too_short"]
    below = [
        f"{100 * float(share):g} % below {w:.3g}" for share, w in found["energy_below"].items()
    ]
    gains = [f"{gain:.3g} ({unit})" for unit, gain in found["gain_at_nyquist"].items()]
    poor = "; no straight line: look at the figure before you use it"
    return (
        f"inputs: {found['inputs']}; {found['sequences']:,} sequences of {found['length']:,.0f} "
        f"samples on average{f', {too_short} too short' if too_short else ''}\n"
        f"method: {found['method']}\n"
        f"slope: power ~ w^-gamma, gamma = {fit['gamma']:.2f} ± {fit['half_width']:.2f} (95 %, by "
        f"the residuals) from {fit['low']:.3g} to {fit['high']:.3g} rad per sample"
        f"{poor if fit['half_width'] > FAR else ''}\n"
        f"energy: {', '.join(below)} rad per sample (Nyquist 3.14)\n"
        f"start: beta = gamma / 2 = {found['beta']:.2f}, a third-party rule of thumb; gain at "
        f"Nyquist by unit of beta: {', '.join(gains)}\n"
        f"start: alpha = {found['alpha']:.3g}: half of the channels reach past the band that holds "
        f"{100 * found['band']:g} % of the energy"
    )


def starting_alpha(
    spectrum: InputSpectrum, y_N: np.ndarray, dt_min: float, dt_max: float, share: float = 0.9
) -> float:
    """The alpha at which the middle channel reaches just to the end of the band.

    The middle channel has the geometric mean of dt_min and dt_max. Half of the channels then reach
    beyond the frequency below which `share` of the energy lies, and half end within it, which keeps
    the modes dense where the energy is. Arguments as in `window_of`.
    """
    middle = math.sqrt(dt_min * dt_max)
    return spectrum.angle_below_which(share) / (float(np.abs(y_N).max()) * middle)


def starting_beta(gamma: float) -> float:
    """Half of the slope of the power, within the -4..4 that the option takes.

    A rule of thumb of third parties (arXiv:2410.02035 gives none): for |s| far above 1 the gain
    (1 + |s|)^beta then undoes the fall of the input's amplitude.
    """
    return float(np.clip(gamma / 2, -4.0, 4.0))


def gains_at_nyquist(beta: float, length: int) -> dict[str, float]:
    """(1 + |s|)^beta at Nyquist in each unit of beta, for sequences of a length."""
    return {
        unit: (1 + frequency_per_radian(2 * length, unit) * NYQUIST) ** beta for unit in BETA_UNITS
    }


def mode_density(
    y_N: np.ndarray, alpha: float, dt_min: float, dt_max: float, edges: np.ndarray
) -> np.ndarray:
    """The share of all modes of all channels between each edge, an angle, and the next; exact."""
    y_N = alpha * np.abs(np.asarray(y_N, np.float64))
    beyond = [share_beyond(y_N, edge, dt_min, dt_max).mean() for edge in edges]
    return -np.diff(beyond)
