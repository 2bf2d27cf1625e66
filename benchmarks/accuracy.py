"""Error of the ways to run a layer, against a float64 loop over the steps.

The loops are NumPy and share nothing with the kernels; they take the layer's float32 eigenvalues,
read-out and step sizes as exact numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_jax.layers import LAYERS, S4, S4D, S5

CHANNELS, MODES = 8, 64
WAYS = ("conv", "scan", "prefill", "step")
OPTIONS: dict[str, dict[str, Any]] = {
    "s4d": {"alpha": 3.0},
    "s4d undamped": {"alpha": 3.0, "alpha_real": 0.0, "real_transform": "relu"},
    "s4": {},
    "s5": {"n_blocks": 4},
}


def _numbers(x: Any) -> np.ndarray:
    """Exactly, in double precision."""
    return np.asarray(x).astype(complex if np.iscomplexobj(x) else float)


def _s4d_loop(layer: S4D, u_LH: np.ndarray) -> np.ndarray:
    A_HN, C_HN = _numbers(layer.eigenvalues()), _numbers(layer.readout())[0]
    z_HN = _numbers(layer.step_sizes())[:, None] * A_HN
    safe = np.where(A_HN == 0, 1, A_HN)
    gain_HN = np.where(A_HN == 0, _numbers(layer.step_sizes())[:, None], np.expm1(z_HN) / safe)
    A_bar_HN, x_HN = np.exp(z_HN), np.zeros_like(A_HN)
    y_LH = np.empty_like(u_LH)
    for step, u_H in enumerate(u_LH):
        x_HN = A_bar_HN * x_HN + gain_HN * u_H[:, None]
        y_LH[step] = 2 * np.sum(C_HN * x_HN, axis=-1).real
    return y_LH


def _s4_loop(layer: S4, u_LH: np.ndarray) -> np.ndarray:
    """By dense matrices over the modes and their conjugates."""
    (Lambda_HN, P_HN), B_HN = map(_numbers, layer.state_matrix()), _numbers(layer.input_vector())
    A_HM, P_HM, B_HM, C_HM = (
        np.concatenate([x, x.conj()], axis=-1)
        for x in (Lambda_HN, P_HN, B_HN, _numbers(layer.readout())[0])
    )
    half_H = _numbers(layer.step_sizes())[:, None, None] / 2
    one = np.eye(A_HM.shape[1])[None]
    matrix = one * A_HM[:, None, :] - P_HM[:, :, None] * P_HM[:, None, :].conj()
    inverse = np.linalg.inv(one - half_H * matrix)
    A_bar = inverse @ (one + half_H * matrix)
    B_bar_HM = 2 * half_H[:, 0] * np.einsum("hij,hj->hi", inverse, B_HM)
    x_HM, y_LH = np.zeros_like(B_HM), np.empty_like(u_LH)
    for step, u_H in enumerate(u_LH):
        x_HM = np.einsum("hij,hj->hi", A_bar, x_HM) + B_bar_HM * u_H[:, None]
        y_LH[step] = np.sum(C_HM * x_HM, axis=-1).real
    return y_LH


def _s5_loop(layer: S5, u_LH: np.ndarray) -> np.ndarray:
    A_N, B_NH = _numbers(layer.eigenvalues()), _numbers(layer.input_matrix())
    C_HN = _numbers(layer.readout())[0]
    z_N = _numbers(layer.step_sizes()) * A_N
    v_LN = u_LH @ (B_NH * (np.expm1(z_N) / A_N)[:, None]).T
    A_bar_N, x_N, y_LH = np.exp(z_N), np.zeros_like(A_N), np.empty_like(u_LH)
    for step, v_N in enumerate(v_LN):
        x_N = A_bar_N * x_N + v_N
        y_LH[step] = (C_HN @ x_N).real
    return y_LH


_LOOPS: dict[str, Callable[..., np.ndarray]] = {
    "s4d": _s4d_loop,
    "s4": _s4_loop,
    "s5": _s5_loop,
}


def layer_errors(kind: str, length: int) -> dict[str, Any]:
    """Relative rms error of a causal layer without filter and skip, in each way to run it, float32.

    Args:
      kind: a key of OPTIONS.
      length: L, at least 1; one sequence of normal numbers.
    """
    name = kind.split()[0]
    layer = LAYERS[name](
        CHANNELS,
        d_state=MODES,
        bidirectional=False,
        beta=None,
        **OPTIONS[kind],
        rngs=nnx.Rngs(params=0),
    )
    layer.D[...] = jnp.zeros_like(layer.D[...])  # exact, it would only make the output larger
    u_BLH = jax.random.normal(jax.random.key(1), (1, length, CHANNELS), jnp.float32)
    graphdef, variables = nnx.split(layer)

    @jax.jit
    def ways(variables, u_BLH):
        layer = nnx.merge(graphdef, variables)
        _, stepped_LBH = jax.lax.scan(layer.step, layer.initial_state(1), jnp.swapaxes(u_BLH, 0, 1))
        whole = (layer(u_BLH, mode="conv"), layer(u_BLH, mode="scan"), layer.prefill(u_BLH)[1])
        return dict(zip(WAYS, (*whole, jnp.swapaxes(stepped_LBH, 0, 1)), strict=True))

    u_LH = _numbers(u_BLH[0])
    exact_LH = _LOOPS[name](layer, u_LH)
    size = np.sqrt(np.mean(exact_LH**2))
    errors = {
        way: float(np.sqrt(np.mean((_numbers(y_BLH[0]) - exact_LH) ** 2)) / size)
        for way, y_BLH in ways(variables, u_BLH).items()
    }
    return {"layer": kind, "length": length, **errors}
