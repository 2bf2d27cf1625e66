"""Layers of few modes that forget within 300 steps, and their systems by the oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from flax import nnx

from ssm_jax.analysis.spectra import view
from ssm_jax.layers import S4, S4D, S5
from tests import oracles

STEPS = {"dt_min": 0.6, "dt_max": 1.0, "d_state": 3, "rngs": nnx.Rngs(params=0)}


def of(kind, *, alpha=0.4, **options):
    numbers = view("x", kind(4, **{**STEPS, "alpha": alpha, **options}))
    if numbers.discretization == "none":  # those inits remember for hundreds of steps
        numbers = replace(numbers, A_HN=numbers.A_HN - 0.3)
    return numbers


VIEWS = {
    "s4d": of(S4D, beta=0.5),
    "s4d, causal": of(S4D, bidirectional=False),
    "s4d, bilinear": of(S4D, discretization="bilinear"),
    "s4d, per sample": of(S4D, init="dfout", discretization="none", input_norm="lru"),
    "s4": of(S4, alpha=1.0),
    "s4, causal": of(S4, alpha=1.0, bidirectional=False),
    "s5": of(S5, real_transform="exp"),
    "s5, all modes stored": of(S5, d_state=4, conj_sym=False),
}


def parts(z):
    return np.block([[z.real, -z.imag], [z.imag, z.real]])


def real_systems(numbers):
    """(A, B, C) of each system, real and dense, by the oracles."""
    dt_H1, C_CHN = numbers.dt_H[:, None], numbers.C_CHN.astype(complex)
    if numbers.PB_HN is not None:
        for h, (A_N, P_N, B_N) in enumerate(zip(numbers.A_HN, *numbers.PB_HN, strict=True)):
            each = [oracles.dplr_matrices(A_N, P_N, B_N, C, numbers.dt_H[h]) for C in C_CHN[:, h]]
            yield each[0][0], each[0][1][:, None], np.stack([c for *_, c in each])
        return
    A_bar_HN, gain_HN = oracles.discretize(numbers.A_HN, dt_H1, numbers.discretization)
    if numbers.B_NH is not None:
        B = gain_HN * numbers.B_NH
        C = C_CHN.reshape(-1, C_CHN.shape[2])
        yield (
            parts(np.diag(A_bar_HN[:, 0])),
            np.concatenate([B.real, B.imag]),
            np.concatenate([C.real, -C.imag], axis=1),
        )
        return
    for h, (A_N, gain_N) in enumerate(zip(A_bar_HN, gain_HN, strict=True)):
        C = 2 * C_CHN[:, h]
        yield (
            parts(np.diag(A_N)),
            np.concatenate([gain_N.real, gain_N.imag])[:, None],
            np.concatenate([C.real, -C.imag], axis=1),
        )


def impulse(A, B, C, length):
    """(length, outputs, inputs) by the recurrence."""
    taps, x = [], B
    for _ in range(length):
        taps.append(C @ x)
        x = A @ x
    return np.stack(taps)
