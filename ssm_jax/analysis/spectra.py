"""The frequency side of a model's state space layers, as NumPy arrays.

Frequencies are angles per sample, w = s dt in radians: what a channel does at the frequency s of
its own time, it does to a tone of angle w. Sampling ends at Nyquist, w = pi. A mode beyond it is
aliased: it answers to the angle folded into 0..pi.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx

from ssm_jax.kernels import sobolev_frequency, transfer_function

NYQUIST = np.pi


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerView:
    """The numbers of one layer, a pytree. R counts what has a step: channels, in S5 modes.

    name: its path in the model, such as blocks/0/ssm.
    A_HN: complex eigenvalues (R, N) in rad per unit of time, in S5 (R, 1); the conjugates are
      implied. In S4 the diagonal part of A, without its low rank.
    C_CHN: complex read-out, forward, then reverse if there is one; in ConvS5 one for each pixel of
      the window.
    dt_H: step (R,) in units of time per sample; 1 if the discretization is "none".
    beta_H, beta_unit: exponent of the filter (1 + |s|)^beta, and the unit of |s|; in ConvS5 one.
    D_H: the skip past the filter.
    discretization: "zoh", "bilinear" or "none".
    B_NH: complex input matrix of S5 and its kin; in ConvS5 of the numbers in a window.
    PB_HN: complex P and B of S4, where A = diag(A_HN) - P P^*.
    causal: the filter is made causal, see `ConvS5`.
    unsymmetric: the gain is that of the official wave program, see `circular_gain`.
    """

    name: str = field(metadata={"static": True})
    A_HN: np.ndarray
    C_CHN: np.ndarray
    dt_H: np.ndarray
    beta_H: np.ndarray
    beta_unit: str = field(metadata={"static": True})
    beta_learned: bool = field(metadata={"static": True})
    D_H: np.ndarray
    discretization: str = field(metadata={"static": True})
    B_NH: np.ndarray | None = None
    PB_HN: tuple[np.ndarray, np.ndarray] | None = None
    causal: bool = field(default=False, metadata={"static": True})
    unsymmetric: bool = field(default=False, metadata={"static": True})


def modules_of(model: nnx.Module) -> list[tuple[str, Any]]:
    """The state space layers anywhere in a model, with their paths; blocks in their order."""
    # A layer of a user's own may have one of these names for something else.
    names = ("readout", "step_sizes", "beta", "D")
    modules = nnx.iter_modules(model)
    found = [(path, m) for path, m in modules if all(hasattr(m, name) for name in names)]
    # A path holds names and the numbers of list elements, which do not compare with each other.
    found.sort(key=lambda pair: [(str(type(part)), part) for part in pair[0]])
    return [("/".join(map(str, path)), module) for path, module in found]


def layers_of(model: nnx.Module) -> list[LayerView]:
    """The numbers of the state space layers anywhere in a model."""
    return [view(name, module) for name, module in modules_of(model)]


def view(name: str, layer: Any) -> LayerView:
    """The numbers of an S4D, S4 or S5."""
    B_NH = PB_HN = None
    if hasattr(layer, "state_matrix"):  # S4
        A_HN, P_HN = map(np.asarray, layer.state_matrix())
        PB_HN = P_HN, np.asarray(layer.input_vector())
    else:
        A_HN = np.asarray(layer.eigenvalues())
        if hasattr(layer, "input_matrix"):  # S5
            A_HN, B_NH = A_HN[:, None], np.asarray(layer.input_matrix())
    return LayerView(
        name=name,
        A_HN=A_HN,
        C_CHN=np.asarray(layer.readout()),
        dt_H=np.asarray(layer.step_sizes()),
        beta_H=np.asarray(layer.beta[...]),
        beta_unit=layer.beta_unit,
        beta_learned=isinstance(layer.beta, nnx.Param),
        D_H=np.asarray(layer.D[...]),
        discretization="bilinear" if PB_HN is not None else layer.discretization,
        B_NH=B_NH,
        PB_HN=PB_HN,
        causal=getattr(layer, "CAUSAL_FILTER", False) and layer.filtered,
        unsymmetric=getattr(layer, "unsymmetric", False),
    )


def filter_gain(layer: LayerView, omega_F: np.ndarray, n_fft: int) -> np.ndarray:
    """gain_HF = (1 + |s|)^beta at any angle; `sobolev_gain` has it at the bins of a transform.

    Beyond Nyquist it is the gain at the folded angle, where an aliased mode meets the filter.
    n_fft is the length of the layer's transform, twice that of the sequence.
    """
    turns_F = np.asarray(omega_F, np.float64) / (2 * np.pi)
    bin_F = n_fft * np.abs(turns_F - np.round(turns_F))
    at_bins = sobolev_frequency(n_fft, layer.beta_unit)
    s_F = np.interp(bin_F, np.arange(at_bins.size), at_bins)  # |s| is linear in the bin: exact
    s_SF = [s_F, n_fft * at_bins[1] - s_F] if layer.unsymmetric else [s_F]
    with np.errstate(over="ignore"):  # a diverged beta has an infinite gain
        beta_H1 = layer.beta_H[:, None].astype(np.float64)
        return np.mean([np.exp(beta_H1 * np.log1p(s_F)[None, :]) for s_F in s_SF], axis=0)


_transfer = jax.jit(transfer_function)  # the sum over n is fused: no (H, F, N) array


def response_magnitude(layer: LayerView, omega_F: np.ndarray, n_fft: int) -> np.ndarray:
    """|G^(beta)_h(i s)|, (C, H, F): the continuous response with the filter's gain, without D.

    Zero-order hold: s = w / dt, beyond Nyquist too, where it shows what is aliased. G at w = 0 is
    the kernel's sum exactly; above, the kernel's spectrum differs from G by the hold,
    sin(w/2) / (w/2), and by what is aliased. Bilinear: s = (2 / dt) tan(w / 2), which has all s
    below Nyquist, where the kernel's spectrum is G / cos(w/2); nan beyond. Modes given per sample
    ("none") are of no continuous system: here it is the kernel's spectrum, which repeats beyond
    Nyquist. An output of S5 answers to H inputs: here the root of the sum of its squared answers.
    omega_F is at least 0; n_fft as in `filter_gain`.
    """
    per_sample = layer.discretization == "none"
    s_F = omega_F = np.asarray(omega_F, np.float64)
    if layer.discretization == "bilinear":
        omega_F = np.where(omega_F < NYQUIST, omega_F, np.nan)
        s_F = 2 * np.tan(omega_F / 2)
    s_HF = s_F[None, :] / layer.dt_H[:, None]

    def transfer(w_HN: np.ndarray) -> np.ndarray:
        if not per_sample:
            return np.asarray(_transfer(layer.A_HN, w_HN, s_HF.astype(np.float32)))
        A_NH, w_NH = (np.concatenate([x, x.conj()], axis=1).T for x in (layer.A_HN, w_HN))
        modes = zip(A_NH[:, :, None], w_NH[:, :, None], strict=True)
        return sum(w_H1 / _from_one(A_H1, omega_F) for A_H1, w_H1 in modes)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # diverged, or a resonance
        if layer.B_NH is not None:  # the norms of the rows of C (s - A)^-1 B, with conjugate modes
            A, B = (np.concatenate([x, x.conj()]) for x in (layer.A_HN, layer.B_NH))
            s_NF = 1j * np.concatenate([s_HF, s_HF])
            answers_FN = (1 / (_from_one(A, omega_F) if per_sample else s_NF - A)).T
            if layer.causal:
                answers_FN *= _causal_share(layer, A[:, 0], omega_F, n_fft).T
            C_CHN = np.concatenate([layer.C_CHN, layer.C_CHN.conj()], axis=2) / 2
            rows = [[np.linalg.norm((C * a) @ B, axis=1) for a in answers_FN] for C in C_CHN]
            G_CHF = np.swapaxes(rows, 1, 2)
        elif layer.PB_HN is not None:
            P_HN, B_HN = layer.PB_HN
            fed_back_HF = transfer(P_HN.conj() * B_HN) / (1 + transfer(P_HN.conj() * P_HN))
            each = [transfer(C * B_HN) - transfer(C * P_HN) * fed_back_HF for C in layer.C_CHN]
            G_CHF = np.stack(each)
        else:
            G_CHF = np.stack([transfer(C_HN) for C_HN in layer.C_CHN])
        return np.abs(G_CHF) * (1 if layer.causal else filter_gain(layer, omega_F, n_fft))


def _from_one(A: np.ndarray, omega_F: np.ndarray) -> np.ndarray:
    """1 - e^(A - iw) in float64, of modes per sample: where it is 0 they resonate."""
    return -np.expm1(A.astype(np.complex128) - 1j * omega_F)


def _causal_share(layer: LayerView, A_N: np.ndarray, omega_F: np.ndarray, n_fft: int) -> np.ndarray:
    """Of each mode (N, F): its spectrum with the causal filter over that without one.

    The kernel is kappa of `filtered_conv_scan`, of n_fft / 2 steps.
    """
    z_N = np.asarray(A_N, complex) * np.resize(layer.dt_H, A_N.size)
    if layer.discretization == "bilinear":
        z_N = np.log((1 + z_N / 2) / (1 - z_N / 2))
    steps_L = np.arange(n_fft // 2)
    gain_F = filter_gain(layer, 2 * np.pi / n_fft * np.arange(n_fft // 2 + 1), n_fft)[0]
    even_M = np.concatenate([gain_F, gain_F[1:-1][::-1]])
    power_NM = np.fft.fft(np.exp(z_N[:, None] * steps_L), n_fft)
    kappa_NL = np.fft.ifft(power_NM * even_M)[:, : steps_L.size]
    spectrum_NF = kappa_NL @ np.exp(-1j * np.outer(steps_L, omega_F))
    return spectrum_NF * (1 - np.exp(z_N[:, None] - 1j * omega_F))


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
    """Quartiles and median, (3, F), of the finite values over all axes but the last; else nan."""
    flat = values.reshape(-1, values.shape[-1])
    kept = np.where(np.isfinite(flat), flat, np.nan)
    some_F = np.isfinite(flat).any(axis=0)
    found = np.full((3, flat.shape[1]), np.nan)
    found[:, some_F] = np.nanpercentile(kept[:, some_F], (25, 50, 75), axis=0)
    return found
