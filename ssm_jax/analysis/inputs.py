"""The spectrum of input sequences, the power law in it, and the sequences as a layer gets them.

Angles w are in radians per sample, 0..pi. The power is one-sided and a density per radian: over
0..pi it integrates to the variance around each segment's own mean, up to the window.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssm_jax.analysis.autocorrelation import Padded

SEGMENTS = 16  # at least so many are averaged, where the data allow it
SHORTEST = 64  # samples of a segment: below that there is no spectrum to speak of
PARTS = 50  # groups of sequences, which are drawn anew for the intervals
RESAMPLES = 200
EMBEDDED = 16  # channels of a random embedding of tokens


@dataclass(frozen=True)
class InputSpectrum:
    """A mean power spectrum.

    The angles begin with 0; power_F is a density per radian, summed over features, at 0 what the
    window leaves of it. A segment has `segment` samples, `segments` were averaged; `sequences` were
    read, of which those that are `too_short` for a segment are left out. `parts_GF` and `windows_G`
    are sums of power and segments over groups of sequences.
    """

    omega_F: np.ndarray
    power_F: np.ndarray
    segment: int
    segments: int
    sequences: int
    too_short: int
    parts_GF: np.ndarray
    windows_G: np.ndarray

    def resampled(self) -> Iterator["InputSpectrum"]:
        """Spectra of as many sequences, drawn anew; none if there is but one."""
        random, groups = np.random.default_rng(0), int(np.sum(self.windows_G > 0))
        for _ in range(RESAMPLES if groups > 1 else 0):
            drawn_G = random.multinomial(groups, [1 / groups] * groups)
            parts_GF, windows_G = self.parts_GF[:groups], self.windows_G[:groups]
            yield replace(self, power_F=drawn_G @ parts_GF / (drawn_G @ windows_G))

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
    """Samples of a segment: of 16 sequences and more the length that 90 % of them have.

    Of fewer, half of a segment being shared with the next, so short that there are 16 in all.
    Raises ValueError if there is no sequence of 64 samples.
    """
    longest = lengths.max(initial=0)
    if longest < SHORTEST:
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
    """The mean spectrum of sequences by Welch's method, in segments of so many samples.

    Token ids have no spectrum, since they are names. Of tokens it is the sum over the vocabulary of
    the spectra of the indicator sequences (1 where the token is, else 0): it does not depend on how
    the ids are given out, and of independent tokens it is flat.

    Args:
      sequences: each real (L,) or (L, features), or int (L,) of n_tokens; the lengths may differ.

    Raises:
      ValueError: a value that is not finite, no sequence as long as a segment, or sequences that
        never change.
    """
    from scipy.signal import welch  # half a second to import, which a run that only trains spares

    parts_GF, windows_G = np.zeros((PARTS, segment // 2 + 1)), np.zeros(PARTS, int)
    count = too_short = 0
    for count, sequence in enumerate(sequences, start=1):
        if n_tokens is not None:
            sequence = np.arange(n_tokens) == np.asarray(sequence)[:, None]
        x_LM = np.asarray(sequence, np.float64).reshape(len(sequence), -1)
        if not np.isfinite(x_LM).all():
            raise ValueError(f"sequence {count - 1} has a value that is not finite; mend the data.")
        if len(x_LM) < segment:
            too_short += 1
            continue
        x_LM = x_LM[:, np.ptp(x_LM, axis=0) > 0]  # most tokens of a vocabulary are not in it
        parts, group = (
            1 + (len(x_LM) - segment) // (segment - segment // 2),
            (count - too_short - 1) % PARTS,
        )
        windows_G[group] += parts
        if x_LM.size:
            _, power_FM = welch(x_LM, fs=2 * np.pi, nperseg=segment, detrend="constant", axis=0)
            if segment % 2 == 0:  # SciPy's bin at pi is the energy of half a bin, and no density
                power_FM[-1] *= 2
            parts_GF[group] += parts * power_FM.sum(axis=1)
    total, segments = parts_GF.sum(axis=0), int(windows_G.sum())
    if not segments:
        raise ValueError(f"none of the {count} sequences has the {segment} samples of a segment.")
    if not total[1:].any():
        raise ValueError("the sequences are constant; they have no spectrum.")
    omega_F = 2 * np.pi * np.arange(total.size) / segment
    mean_F = total / segments
    return InputSpectrum(omega_F, mean_F, segment, segments, count, too_short, parts_GF, windows_G)


def check_ends(low: float | None, high: float | None) -> None:
    """Refuse ends of a line, as far as they are given, with a ValueError: they are to be angles
    that rise, from above 0 to Nyquist."""
    for name, end in (("low", low), ("high", high)):
        must = ""
        if end is not None and not 0 < end < 3.142:  # also of a pi that was rounded
            must = "at most pi" if end > 0 else "greater than 0"
        elif name == "low" and end is not None and high is not None and 0 < high <= end:
            must = f"below high={high:.4g}"
        if must:
            raise ValueError(
                f"{name}={end} does not fit: it must be {must}; a line rises from above 0 to at "
                "most pi rad per sample, Nyquist."
            )


def fit_power_law(
    spectrum: InputSpectrum, low: float | None = None, high: float | None = None
) -> dict[str, float]:
    """A straight line P(w) = scale w^-gamma through log P against log w, P the mean of each octave.

    Without the octaves the upper half of the bins would have half of the weight. The fit goes from
    `low`, None: two turns in a segment, as far as the window spreads the mean, to `high`, None:
    half of Nyquist, since above a sampled spectrum levels off. Raises ValueError if fewer than
    three octaves of it have power, or if these are not angles from above 0 to Nyquist.

    Returns "gamma", "half_width", "scale", "low" and "high". The half width, of the 95 % interval
    of gamma, tells how far the spectrum is from a straight line, not how far another sample of the
    data may be.
    """
    from scipy.special import stdtrit

    low = 2 * 2 * np.pi / spectrum.segment if low is None else low
    high = np.pi / 2 if high is None else high
    check_ends(low, high)
    omega, power = spectrum.omega_F, spectrum.power_F
    at = (omega >= low * (1 - 1e-9)) & (omega <= high * (1 + 1e-9)) & (power > 0)
    omega, power = omega[at], power[at]
    octave = np.floor(np.log2(omega / low) + 1e-6).astype(int)
    octaves = [octave == number for number in np.unique(octave)]
    if len(octaves) < 3:
        raise ValueError(
            f"{len(octaves)} octaves from {low:.3g} to {high:.3g} rad per sample have power, and a "
            "line takes at least 3; take longer sequences or a wider range."
        )
    x = np.array([np.log(omega[one]).mean() for one in octaves])
    y = np.array([np.log(power[one].mean()) for one in octaves])
    slope, intercept = np.polyfit(x, y, 1)
    free = len(octaves) - 2
    residual = np.sum((y - slope * x - intercept) ** 2) / free
    error = math.sqrt(residual / np.sum((x - x.mean()) ** 2))
    half_width = float(stdtrit(free, 0.975)) * error
    found = {"gamma": -slope, "half_width": half_width, "scale": np.exp(intercept)}
    return {name: float(value) for name, value in {**found, "low": low, "high": high}.items()}


def embedding(sequences: Sequence[np.ndarray], n_tokens: int) -> np.ndarray:
    """What stands for each token, (V, C): a random N(0, 1) embedding, as of a new model, whose
    channels have the mean 0 and the variance 1 over these sequences, as a batch norm leaves them.

    Without the norm the mean of a channel over few tokens would be a constant input.
    """
    table_VH = np.random.default_rng(0).normal(size=(n_tokens, EMBEDDED))
    counts_V = np.zeros(n_tokens)
    for sequence in sequences:
        counts_V += np.bincount(sequence, minlength=n_tokens)
    share_V1 = (counts_V / counts_V.sum())[:, None]
    table_VH -= (share_V1 * table_VH).sum(axis=0)
    std_H = np.sqrt((share_V1 * table_VH**2).sum(axis=0))
    return table_VH / np.where(std_H > 0, std_H, 1)


def behind_norm(sequences: Sequence[np.ndarray], n_tokens: int | None) -> Padded:
    """The sequences as a first layer gets them behind a batch norm: channels of mean 0, variance 1.

    Of tokens those of `embedding`. A channel that never changes becomes 0.
    """
    if n_tokens is not None:
        return Padded(sequences, embedding(sequences, n_tokens))
    rows = [np.asarray(row, np.float64).reshape(len(row), -1) for row in sequences]
    n = sum(map(len, rows))
    mean_C = np.sum([row.sum(axis=0) for row in rows], axis=0) / n
    std_H = np.sqrt(np.sum([((row - mean_C) ** 2).sum(axis=0) for row in rows], axis=0) / n)
    varies_C = std_H > 1e-9 * np.abs(mean_C)  # not by rounding alone
    return Padded(
        [np.where(varies_C, row - mean_C, 0) / np.where(varies_C, std_H, 1) for row in rows]
    )
