r"""The power spectrum of input sequences: where its energy lies, and how steeply it falls.

Angles w are in radians per sample, 0..pi. The power is one-sided and a density per radian: over
0..pi it integrates to the variance around each segment's own mean, up to the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.signal import welch
from scipy.special import stdtrit

SEGMENTS = 16  # at least so many are averaged, where the data allow it
SHORTEST = 64  # samples of a segment: below that there is no spectrum to speak of
SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class InputSpectrum:
    """A mean power spectrum.

    Attributes:
      omega_F: angles (F,), the first 0 and the last at or below pi.
      power_F: density per radian, summed over features; at 0 what the window leaves of it.
      segment: samples of a segment; segments: how many were averaged.
      sequences: how many were read; too_short: those of them shorter than a segment, left out.
    """

    omega_F: np.ndarray
    power_F: np.ndarray
    segment: int
    segments: int
    sequences: int
    too_short: int

    @property
    def method(self) -> str:
        """How it was estimated, in words."""
        return (
            f"Welch: {self.segments:,} Hann windows of {self.segment:,} samples that overlap by "
            "half, the mean of each taken off"
        )

    def _cumulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles between the bins, and the share of the energy below each; the bin 0 has none."""
        edges = np.append(self.omega_F[:-1] + np.diff(self.omega_F) / 2, np.pi)
        energy = np.cumsum(np.append(0.0, self.power_F[1:] * np.diff(edges)))
        return edges, energy / energy[-1]

    def energy_below(self, omega: np.ndarray) -> np.ndarray:
        """The share of the energy between 0 and each angle, 0..1."""
        return np.interp(omega, *self._cumulated())

    def angle_below_which(self, share: float) -> float:
        """The angle below which a share of the energy lies."""
        edges, below = self._cumulated()
        return float(np.interp(share, below, edges))


def default_segment(lengths: np.ndarray) -> int:
    """Samples of a segment: the whole sequence where there are many, else a part of it.

    With 16 sequences of `lengths` and more it is the length that 90 % of them have. With fewer,
    half of a segment being shared with the next, it is so short that there are 16 in all.

    Raises:
      ValueError: no sequence, or none of 64 samples.
    """
    if not lengths.size or lengths.max() < SHORTEST:
        longest = lengths.max() if lengths.size else 0
        raise ValueError(
            f"a spectrum takes sequences of at least {SHORTEST} samples; the longest of the "
            f"{lengths.size} given has {longest}."
        )
    common = int(np.quantile(lengths, 0.1, method="lower"))
    parts = math.ceil(SEGMENTS / lengths.size)
    return max(2 * common // (parts + 1), SHORTEST)


def input_spectrum(
    sequences: Iterable[np.ndarray], segment: int, *, n_tokens: int | None = None
) -> InputSpectrum:
    """The mean spectrum of sequences by Welch's method.

    Token ids have no spectrum, since they are names. Of tokens it is the sum over the vocabulary of
    the spectra of the indicator sequences (1 where the token is, else 0): it does not depend on how
    the ids are given out, and of independent tokens it is flat.

    Args:
      sequences: each real (L,) or (L, features), or int (L,) tokens; the lengths may differ.
      segment: in samples; n_tokens: size of the vocabulary, None for real sequences.

    Raises:
      ValueError: a value that is not finite, no sequence as long as a segment, or sequences that
        never change.
    """
    total = np.zeros(segment // 2 + 1)
    segments = count = too_short = 0
    for sequence in sequences:
        count += 1
        if n_tokens is not None:
            sequence = np.arange(n_tokens) == np.asarray(sequence)[:, None]
        x_LM = np.asarray(sequence, np.float64).reshape(len(sequence), -1)
        if not np.isfinite(x_LM).all():
            raise ValueError(f"sequence {count - 1} has a value that is not finite; mend the data.")
        if len(x_LM) < segment:
            too_short += 1
            continue
        x_LM = x_LM[:, np.ptp(x_LM, axis=0) > 0]  # most tokens of a vocabulary are not in it
        parts = 1 + (len(x_LM) - segment) // (segment - segment // 2)
        segments += parts
        if x_LM.size:
            _, power_FM = welch(x_LM, fs=2 * np.pi, nperseg=segment, detrend="constant", axis=0)
            total += parts * power_FM.sum(axis=1)
    if not segments:
        raise ValueError(f"none of the {count} sequences has the {segment} samples of a segment.")
    if not total[1:].any():
        raise ValueError("the sequences are constant; they have no spectrum.")
    omega_F = 2 * np.pi * np.arange(total.size) / segment
    return InputSpectrum(omega_F, total / segments, segment, segments, count, too_short)


@dataclass(frozen=True)
class PowerLaw:
    """A fit P(w) = scale w^-gamma from low to high, in rad per sample.

    half_width, half of the 95 % interval of gamma, tells how far the spectrum is from a straight
    line, not how far another sample of the data may be.
    """

    gamma: float
    half_width: float
    scale: float
    low: float
    high: float


def fit_power_law(
    spectrum: InputSpectrum, low: float | None = None, high: float | None = None
) -> PowerLaw:
    """A straight line through log P against log w, P being the mean of each octave.

    Without the octaves the upper half of the bins would have half of the say. The fit goes from
    `low`, None: two turns in a segment, as far as the window spreads the mean, to `high`, None:
    half of Nyquist, since above a sampled spectrum levels off.

    Raises:
      ValueError: fewer than three octaves with power in the range.
    """
    low = 2 * 2 * np.pi / spectrum.segment if low is None else low
    high = np.pi / 2 if high is None else high
    at = (spectrum.omega_F >= low * (1 - 1e-9)) & (spectrum.omega_F <= high * (1 + 1e-9))
    omega, power = spectrum.omega_F[at], spectrum.power_F[at]
    omega, power = omega[power > 0], power[power > 0]
    number = np.floor(np.log2(omega / low) + 1e-6).astype(int)
    groups = np.unique(number)
    if groups.size < 3:
        raise ValueError(
            f"{groups.size} octaves from {low:.3g} to {high:.3g} rad per sample have power, and a "
            "line takes at least 3; take longer sequences or a wider range."
        )
    x = np.array([np.log(omega[number == g]).mean() for g in groups])
    y = np.array([np.log(power[number == g].mean()) for g in groups])
    slope, intercept = np.polyfit(x, y, 1)
    free = groups.size - 2
    residual = np.sum((y - slope * x - intercept) ** 2) / free
    error = math.sqrt(residual / np.sum((x - x.mean()) ** 2))
    half_width = float(stdtrit(free, 0.975)) * error
    return PowerLaw(-float(slope), half_width, float(np.exp(intercept)), float(low), float(high))
