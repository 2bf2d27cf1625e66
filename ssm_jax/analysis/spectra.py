r"""The frequency side of a model's S4D layers, as NumPy arrays.

Frequencies are angles per sample, w = s dt in radians: what a channel does at the frequency s of
its own time, it does to a tone of angle w. Sampling ends at Nyquist, w = pi. A mode beyond it is
aliased: it answers to the angle folded into 0..pi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.kernels import sobolev_frequency, transfer_function
from ssm_jax.models import SequenceClassifier

NYQUIST = np.pi


@runtime_checkable
class DiagonalLayer(Protocol):
    """What is read of a layer; S4D has it."""

    D: nnx.Variable
    beta: nnx.Variable
    beta_unit: str
    discretization: str

    def eigenvalues(self) -> Array: ...

    def readout(self) -> Array: ...

    def step_sizes(self) -> Array: ...


@dataclass(frozen=True)
class LayerView:
    """The numbers of one layer.

    name: its path in the model, such as blocks/0/ssm.
    A_HN: complex eigenvalues in rad per unit of time; the conjugates are implied.
    C_CHN: complex read-out, forward, then reverse if there is one.
    dt_H: step in units of time per sample.
    beta_H, beta_unit: exponent of the filter (1 + |s|)^beta, and the unit of |s|.
    beta_learned: whether beta is trained.
    D_H: the skip past the filter.
    discretization: "zoh" or "bilinear".
    """

    name: str
    A_HN: np.ndarray
    C_CHN: np.ndarray
    dt_H: np.ndarray
    beta_H: np.ndarray
    beta_unit: str
    beta_learned: bool
    D_H: np.ndarray
    discretization: str


def layers_of(model: SequenceClassifier) -> list[LayerView]:
    """The diagonal layers of a model in the order of their use; others are passed over."""
    return [
        LayerView(
            name=f"blocks/{i}/ssm",
            A_HN=np.asarray(block.ssm.eigenvalues()),
            C_CHN=np.asarray(block.ssm.readout()),
            dt_H=np.asarray(block.ssm.step_sizes()),
            beta_H=np.asarray(block.ssm.beta[...]),
            beta_unit=block.ssm.beta_unit,
            beta_learned=isinstance(block.ssm.beta, nnx.Param),
            D_H=np.asarray(block.ssm.D[...]),
            discretization=block.ssm.discretization,
        )
        for i, block in enumerate(model.blocks)
        if isinstance(block.ssm, DiagonalLayer)
    ]


def filter_gain(layer: LayerView, omega_F: np.ndarray, n_fft: int) -> np.ndarray:
    """gain_HF = (1 + |s|)^beta at any angle; `sobolev_gain` has it at the bins of a transform.

    Beyond Nyquist it is the gain at the folded angle, where an aliased mode meets the filter.

    Args:
      layer: gives beta and its unit.
      omega_F: radians per sample, at least 0.
      n_fft: length of the layer's transform, twice that of the sequence.
    """
    turns_F = np.asarray(omega_F, np.float64) / (2 * np.pi)
    bin_F = n_fft * np.abs(turns_F - np.round(turns_F))
    at_bins = sobolev_frequency(n_fft, layer.beta_unit)
    s_F = np.interp(bin_F, np.arange(at_bins.size), at_bins)  # |s| is linear in the bin: exact
    with np.errstate(over="ignore"):  # a diverged beta has an infinite gain
        return np.exp(layer.beta_H[:, None].astype(np.float64) * np.log1p(s_F)[None, :])


def response_magnitude(layer: LayerView, omega_F: np.ndarray, n_fft: int) -> np.ndarray:
    """|G^(beta)_h(i s)|, (C, H, F): the continuous response with the filter's gain, without D.

    D passes by the filter and answers to all frequencies alike. Under zero-order hold G at w = 0
    is the kernel's sum exactly; above, the kernel's spectrum differs from G by the hold,
    sin(w/2) / (w/2), and by what is aliased.

    Args:
      layer: see `layers_of`.
      omega_F: radians per sample, at least 0. Zero-order hold: s = w / dt, beyond Nyquist too,
        where it shows what is aliased. Bilinear: s = (2 / dt) tan(w / 2), which has all s below
        Nyquist; nan beyond.
      n_fft: as in `filter_gain`.
    """
    omega_F = np.asarray(omega_F, np.float64)
    if layer.discretization == "bilinear":
        omega_F = np.where(omega_F < NYQUIST, omega_F, np.nan)
        s_HF = 2 * np.tan(omega_F / 2)[None, :] / layer.dt_H[:, None]
    else:
        s_HF = omega_F[None, :] / layer.dt_H[:, None]
    gain_HF = filter_gain(layer, omega_F, n_fft)
    each = [_transfer(layer.A_HN, C_HN, s_HF.astype(np.float32)) for C_HN in layer.C_CHN]
    return np.abs(np.stack([np.asarray(G_HF) for G_HF in each])) * gain_HF


_transfer = jax.jit(transfer_function)  # the sum over n is fused: no (H, F, N) array


def mode_angles(layer: LayerView) -> np.ndarray:
    """The angle per sample of each mode, (H, N), at least 0: |Im a| dt, which aliases from pi on.

    Bilinear: 2 atan(|Im a| dt / 2), always below pi.
    """
    angle_HN = np.abs(layer.A_HN.imag) * layer.dt_H[:, None]
    return 2 * np.arctan(angle_HN / 2) if layer.discretization == "bilinear" else angle_HN


def share_aliased(layer: LayerView) -> float:
    """The share of the modes of all channels beyond Nyquist; non-finite ones do not count."""
    angle = mode_angles(layer)
    angle = angle[np.isfinite(angle)]
    return float(np.mean(angle > NYQUIST)) if angle.size else float("nan")


def quartiles(values: np.ndarray) -> np.ndarray:
    """First quartile, median, third quartile over all axes but the last, (3, F).

    Non-finite values do not count; where there are no others the result is nan.
    """
    flat = values.reshape(-1, values.shape[-1])
    finite = np.isfinite(flat)
    found = np.full((3, flat.shape[1]), np.nan)
    some_F = finite.any(axis=0)
    kept = np.where(finite, flat, np.nan)[:, some_F]
    found[:, some_F] = np.nanpercentile(kept, (25, 50, 75), axis=0)
    return found
