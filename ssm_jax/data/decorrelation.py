"""Inputs times (R + eps I)^(-1/2), R = E[x x^T] over training: their autocorrelation becomes I.

This is the whitening of ZCA without its centring, along time. The paper on initialization from the
autocorrelation (arXiv:2411.19455) has a "decorrelated" sequential MNIST; how it was made is not
known to us, and this definition is ours. An eigenvalue r of R becomes r / (r + eps), so the largest
is near 1 and none is above. eps is a share of the mean power, the mean of R's diagonal.
"""

import base64
import binascii
import functools
from collections.abc import Iterable

import numpy as np

LONGEST = 4_096  # steps: the matrix has 134 MB then


def autocorrelation_matrix(series: Iterable[np.ndarray], length: int) -> np.ndarray:
    """R_LL of series (L, C), the mean over series and channels, in float64."""
    R_LL, n, block = np.zeros((length, length)), 0, list[np.ndarray]()
    size = max(1, (1 << 22) // length)  # columns that are in memory at once

    def add() -> None:
        x_LM = np.concatenate(block, axis=1, dtype=np.float64)
        R_LL[...] += x_LM @ x_LM.T

    for x_LC in series:
        block.append(x_LC)
        n += x_LC.shape[1]
        if len(block) * x_LC.shape[1] >= size:
            add()
            block = []
    if block:
        add()
    return R_LL / n


def whitening(R_LL: np.ndarray, eps: float) -> np.ndarray:
    """(R + eps trace(R) / L I)^(-1/2), symmetric; a ValueError if R is 0."""
    power = np.trace(R_LL) / len(R_LL)
    if not power > 0:
        raise ValueError(
            "inputs that are 0 cannot be decorrelated: once standardized, those of training never "
            "change; use data.arrays.decorrelate=0."
        )
    values_L, vectors_LL = np.linalg.eigh(R_LL)
    scale_L = 1 / np.sqrt(np.maximum(values_L, 0) + eps * power)
    return (vectors_LL * scale_L) @ vectors_LL.T


def packed(W_LL: np.ndarray) -> str:
    """A symmetric matrix as text: its upper triangle in float32."""
    upper = W_LL[np.triu_indices(len(W_LL))].astype("<f4")
    return base64.b64encode(upper.tobytes()).decode("ascii")


@functools.lru_cache(maxsize=4)
def unpacked(text: str) -> np.ndarray:
    """The matrix (L, L) of `packed`, its numbers in float64; a ValueError if there is none."""
    try:
        upper = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the decorrelation of the inputs is damaged ({error}).") from None
    length = int((2 * upper.size) ** 0.5)
    if length * (length + 1) != 2 * upper.size:
        raise ValueError(f"the decorrelation of the inputs is damaged ({upper.size} numbers).")
    W_LL = np.zeros((length, length))
    W_LL[np.triu_indices(length)] = upper
    W_LL += np.triu(W_LL, 1).T
    W_LL.flags.writeable = False
    return W_LL


def decorrelated(x_LC: np.ndarray, text: str) -> np.ndarray:
    """One series times the matrix of `packed`, channel by channel, float64; a ValueError if it has
    another length."""
    W_LL = unpacked(text)
    if len(x_LC) != len(W_LL):
        raise ValueError(
            f"a series has {len(x_LC)} steps; the model has decorrelated inputs of {len(W_LL)}."
        )
    # Not by BLAS, whose rounding depends on its threads
    each = [np.einsum("ij,j->i", W_LL, np.ascontiguousarray(x_L)) for x_L in x_LC.T]
    return np.stack(each, axis=1)
