"""The autocorrelation of input sequences, and the largest eigenvalue of its matrix E[x x^T].

x = (x_1, .., x_L) is one channel of one input sequence, and R = E[x x^T] its autocorrelation matrix
(L, L), uncentred: the mean counts. A new diagonal layer of step dt with Re a <= 0 has an expected
last output E|y_L|^2 <= dt^2 L lambda_max(R), so that dt = 1 / sqrt(L lambda_max) keeps it below 1
(after arXiv:2411.19455; docs/autocorrelation.md says whose statement is whose).

Sequences are read in chunks, as often as there are steps, and what is kept of them does not grow
with their number; all sums are float64. Sequences of unequal lengths are padded with zeros behind
their end, as a layer gets them, and L is that of the longest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 2**22  # numbers that are in memory as float64 at a time: 32 MiB
STATE = 2**20  # numbers of an iteration's vector; it keeps eighteen and some for a moment
LAST = 3  # steps whose growth tells how much is still to come
GROUPS = 200  # of sequences, the units that are drawn anew; fewer sequences are a group each
INTERVAL = (0.025, 0.975)
RESAMPLES = 1_000  # draws of the sequences for it
Source = np.ndarray | Iterable[np.ndarray]  # (n, L) or (n, L, C), or chunks of these


@dataclass(frozen=True)
class LambdaMax:
    """lambda_max of E[x x^T] by a sample: of each channel, and their mean with its interval.

    The eigenvalue of a sample is too large on average: of n sequences of white noise it is
    (1 + sqrt(L / n))^2, not 1. `held_out` is too small on average: the mean square of each half of
    the sequences along the eigenvector of the other half. `power` is E[x^2], the mean of all
    eigenvalues, which the largest is not below. `low` to `high` is a 95 % interval that allows for
    these, from the lower end of the resampled held-out value, or of `power` if that is higher, to
    the upper end of `mean`. Of a single sequence there is no other half, and `held_out`, `low` and
    `high` are NaN.

    `converged`: `error`, the estimated relative error of the worst channel after `steps` steps of
    power iteration, is within the tolerance.
    """

    mean: float
    low: float
    high: float
    held_out: float
    power: float
    channels_C: np.ndarray
    length: int
    sequences: int
    steps: int
    error: float
    converged: bool

    @property
    def estimate(self) -> float:
        """The value that is nearer to that of all sequences there could be: `held_out` if any, but
        at least `power`: halves of few sequences may have eigenvectors with nothing in common."""
        return max(self.held_out, self.power) if self.sequences > 1 else self.mean

    def timescale(self, kappa: float = 1.0) -> float:
        """dt = kappa / sqrt(L lambda_max) of the estimate; a ValueError if there is no input."""
        if not 0 < self.estimate < math.inf:
            raise ValueError(
                f"dt = kappa / sqrt(L lambda_max) takes an eigenvalue above 0, got "
                f"{self.estimate:g}: the inputs are zero, or not finite."
            )
        return kappa / math.sqrt(self.length * self.estimate)


class Padded:
    """Chunks of sequences (L,) or (L, C) of any lengths, with zeros behind the end of each.

    Of token ids (L,) with a table (V, C): row i of it stands for the id i.
    """

    def __init__(self, sequences: Sequence[np.ndarray], table_VH: np.ndarray | None = None) -> None:
        self.sequences, self.length = sequences, max(len(sequence) for sequence in sequences)
        self.table_VH = table_VH
        self.trailing = np.shape(sequences[0] if table_VH is None else table_VH)[1:]

    def __iter__(self) -> Iterator[np.ndarray]:
        rows = _rows(self.length * math.prod(self.trailing))
        for start in range(0, len(self.sequences), rows):
            some = self.sequences[start : start + rows]
            chunk = np.zeros((len(some), self.length, *self.trailing))
            for row, sequence in zip(chunk, some, strict=True):
                values = sequence if self.table_VH is None else self.table_VH[sequence]
                row[: len(sequence)] = values
            yield chunk


def lambda_max(
    x: Source,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 500,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> LambdaMax:
    """The largest eigenvalue of E[x x^T] by power iteration, v <- X^T (X v) / n, without R.

    A step takes O(n L) of each channel and reads the sequences once. Of what it has seen it takes
    the best: the v of the largest Rayleigh quotient among all combinations of v, R v and the last
    change of v, which needs some ten steps where the bare iteration needs some hundred (white
    noise; Knyazev, SIAM J. Sci. Comput. 23, 2001). It ends when what the quotient can still grow
    by, estimated from its last growth, is within a relative `tolerance`.

    Args:
      x: sequences (n, L) or (n, L, C), also memory-mapped, or an iterable of such chunks that can
        be gone through again and again. Padding must be zero, see `Padded`.
      resamples: draws of the sequences for the interval; `seed` draws them and the first v.

    Raises:
      ValueError: sequences of different shapes, without any number or not finite ones; an iterator
        that is spent after one pass.
    """
    C, L = next(_chunks(x)).shape[::2]
    each = max(1, STATE // L)  # channels at a time
    blocks = [slice(start, start + each) for start in range(0, C, each)]
    ends = [_power_iteration(x, block, L, tolerance, max_steps, seed) for block in blocks]
    squares_GCK = np.concatenate([end[0] for end in ends], axis=1)
    n, error, steps = ends[0][1], max(end[2] for end in ends), max(end[3] for end in ends)
    channels_C = squares_GCK[:, :, 0].sum(axis=0) / n
    low, high, held_out = _interval(squares_GCK.mean(axis=1), n, resamples, seed)
    return LambdaMax(
        float(channels_C.mean()), low, high, held_out, float(squares_GCK[:, :, 3].sum() / (n * C)),
        channels_C, L, n, steps, error, error <= tolerance,
    )  # fmt: skip


def _power_iteration(
    x: Source, block: slice, L: int, tolerance: float, max_steps: int, seed: int
) -> tuple[np.ndarray, int, float, int]:
    """Of a block of channels: squares along the eigenvectors summed by group (G, C, 4), n, the
    estimated relative error, and steps. The four are along those of all sequences, of the even and
    the odd ones, and the mean over all directions."""

    def times_R(v_CLK: np.ndarray) -> np.ndarray:
        product, n = np.zeros(v_CLK.shape), 0
        for x_CnL in _chunks(x, block):
            number_n = np.arange(n, n + x_CnL.shape[1])
            part_nK = np.stack([number_n >= 0, number_n % 2 == 0, number_n % 2 == 1], axis=1)
            product += x_CnL.swapaxes(1, 2) @ ((x_CnL @ v_CLK) * part_nK)
            n += x_CnL.shape[1]
        return product / np.array([n, (n + 1) // 2, max(n // 2, 1)])

    def unit(a: np.ndarray, *along: np.ndarray, least: float = 0.0) -> list[np.ndarray]:
        """All divided by the norm of the first; zero where that norm is not above `least`."""
        norm = np.linalg.norm(a, axis=1, keepdims=True)
        return [np.divide(b, norm, out=np.zeros_like(b), where=norm > least) for b in (a, *along)]

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("clk,clk->ck", a, b)[:, None]

    C = len(range(*block.indices(next(_chunks(x)).shape[0])))
    start_L1 = np.random.default_rng(seed).normal(size=(L, 1))
    (v,) = unit(np.broadcast_to(start_L1, (C, L, 3)).copy())
    Rv = times_R(v)
    p, Rp = np.zeros_like(v), np.zeros_like(v)
    quotients = [dot(v, Rv)]
    error, step = math.inf, 0
    for step in range(1, max_steps + 1):
        rest = Rv - quotients[-1] * v
        # Where that is rounding a channel is done, and waits for the others. Further directions of
        # rounding would take R v, which is carried along, ever farther from R times v.
        done = np.linalg.norm(rest, axis=1, keepdims=True) <= 1e-9 * quotients[-1]
        rest, p, Rp = (np.where(done, 0.0, part) for part in (rest, p, Rp))
        (w,) = unit(rest)
        for _ in range(2):  # near the end what is left of w is rounding, at first along v
            (w,) = unit(w - dot(v, w) * v)
        Rw = times_R(w)
        p, Rp = unit(p, Rp)
        for one, R_one in ((v, Rv), (w, Rw)):
            overlap = dot(one, p)
            p, Rp = p - overlap * one, Rp - overlap * R_one
        p, Rp = unit(p, Rp, least=1e-6)  # below, it says nothing that v and w do not
        basis, images = (v, w, p), (Rv, Rw, Rp)
        matrix = np.array([[dot(a, b)[:, 0] for b in images] for a in basis])
        matrix = np.moveaxis(matrix + matrix.swapaxes(0, 1), (0, 1), (2, 3)) / 2
        best = np.linalg.eigh(matrix)[1][..., -1]  # (C, K, 3)
        a, b, c = (best[:, None, :, i] for i in range(3))
        p, Rp = b * w + c * p, b * Rw + c * Rp
        v, Rv = unit(a * v + p, a * Rv + Rp)
        quotients.append(dot(v, Rv))
        if step >= LAST:
            grown = np.maximum(quotients[-1] - quotients[-1 - LAST], 0) * max(1, step / LAST)
            scale = np.maximum(quotients[-1], np.finfo(float).tiny)
            error = float((grown / scale).max())
            if error <= tolerance:
                break
    squares, n = np.zeros((GROUPS, C, 4)), 0
    for x_CnL in _chunks(x, block):
        groups = np.arange(n, n + x_CnL.shape[1]) % GROUPS
        power_Cn1 = np.square(x_CnL).mean(axis=2, keepdims=True)
        along_CnK = np.concatenate([np.square(x_CnL @ v), power_Cn1], axis=2)
        np.add.at(squares, groups, along_CnK.swapaxes(0, 1))
        n += x_CnL.shape[1]
    return squares, n, error, step


def _interval(squares_GK: np.ndarray, n: int, resamples: int, seed: int) -> tuple[float, ...]:
    """The ends of the interval, and the held-out value, by sums of squares of groups.

    The eigenvectors stay those of the sample: the derivative of an eigenvalue with respect to its
    matrix is v v^T.
    """
    if n < 2:
        return math.nan, math.nan, math.nan
    even_G = np.arange(GROUPS) % 2 == 0  # GROUPS is even, so a group is of one half alone
    other_G = np.where(even_G, squares_GK[:, 2], squares_GK[:, 1])
    sums_G3 = np.stack([other_G, squares_GK[:, 3], squares_GK[:, 0]], axis=1)
    drawn_R3 = _resampled(sums_G3, n, resamples, seed)
    low = np.quantile(drawn_R3[:, :2], INTERVAL[0], axis=0).max()
    high = np.quantile(drawn_R3[:, 2], INTERVAL[1])
    return float(low), float(high), float(other_G.sum() / n)


def _resampled(
    sums_GK: np.ndarray, n: int, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Means over sequences (resamples, K), whose groups are drawn anew with replacement."""
    groups = min(n, GROUPS)
    count_G = (n - np.arange(groups) + GROUPS - 1) // GROUPS  # sequences of each
    drawn_RG = np.random.default_rng(seed).multinomial(groups, [1 / groups] * groups, resamples)
    return (drawn_RG @ sums_GK[:groups]) / (drawn_RG @ count_G)[:, None]


@dataclass(frozen=True)
class Autocorrelation:
    """r(k) = E[x_t x_{t+k}] at the lags k = 0, 1, .., the mean over channels; r_K[0] is E[x^2].

    `low_K` and `high_K` are the ends of a 95 % interval of r(k) / r(0) by resampling the sequences,
    NaN of a single one; `mean` is E[x], whose square is what r(k) falls to at long lags.
    """

    r_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray
    mean: float
    sequences: int


def autocorrelation(x: Source, lags: int | None = None) -> Autocorrelation:
    """The uncentred autocorrelation at so many lags, None: half of L, by FFT in one pass.

    Each lag is the mean over all pairs of samples so far apart in a sequence; zeros behind its end
    count as samples. Errors as of `lambda_max`.
    """
    C, L = next(_chunks(x)).shape[::2]
    lags = min(lags or max(L // 2, 1), L)
    circle = 1 << (L + lags - 1).bit_length()  # long enough for no lag to wrap around
    sums_GK, total, n = np.zeros((GROUPS, lags)), 0.0, 0
    for x_CnL in _chunks(x):
        groups = np.arange(n, n + x_CnL.shape[1]) % GROUPS
        for x_nL in x_CnL:
            power_nF = np.square(np.abs(np.fft.rfft(x_nL, circle, axis=1)))
            np.add.at(sums_GK, groups, np.fft.irfft(power_nF, circle, axis=1)[:, :lags])
        total += x_CnL.sum()
        n += x_CnL.shape[1]
    sums_GK /= C * (L - np.arange(lags))
    low_K, high_K = np.full((2, lags), np.nan)
    if n > 1:
        drawn_RK = _resampled(sums_GK, n)
        with np.errstate(invalid="ignore"):  # inputs that are zero
            low_K, high_K = np.quantile(drawn_RK / drawn_RK[:, :1], INTERVAL, axis=0)
    return Autocorrelation(sums_GK.sum(axis=0) / n, low_K, high_K, float(total / (n * C * L)), n)


def _rows(size: int) -> int:
    """How many sequences of so many numbers are read at a time."""
    return max(1, CHUNK // max(size, 1))


def _chunks(x: Source, channels: slice = slice(None)) -> Iterator[np.ndarray]:
    """The chunks of a source as float64 (C, n, L), each small; errors as `lambda_max`."""
    if isinstance(x, Iterator):
        raise ValueError(
            "an iterator can be gone through once; give an array, a list of chunks, or an object "
            "whose __iter__ begins anew."
        )
    shape: tuple[int, ...] | None = None
    first = 0
    chunks: Iterable[Any] = (x,) if isinstance(x, np.ndarray) else x
    for chunk in chunks:
        if chunk.ndim not in (2, 3) or not math.prod(chunk.shape[1:]):
            raise ValueError(f"sequences are (n, L) or (n, L, C), got the shape {chunk.shape}.")
        if shape not in (None, chunk.shape[1:]):
            raise ValueError(f"sequences of {shape} and of {chunk.shape[1:]}; pad them with zeros.")
        shape = chunk.shape[1:]
        rows = _rows(math.prod(shape))
        for start in range(0, len(chunk), rows):
            x_nL = chunk[start : start + rows]
            x_nLC = (x_nL if x_nL.ndim == 3 else x_nL[:, :, None])[:, :, channels]
            if not (finite := np.isfinite(x_nLC).all(axis=(1, 2))).all():
                number = first + int(np.argmin(finite))
                raise ValueError(
                    f"sequence {number} has a value that is not finite; mend the data."
                )
            first += len(x_nLC)
            yield np.ascontiguousarray(np.moveaxis(x_nLC, 2, 0), np.float64)
    if not first:
        raise ValueError("there are no sequences; give at least one.")
