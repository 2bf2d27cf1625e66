"""What the imaginary parts of the eigenvalues do to learning the read-out: conditioning.

Claim 3 of Autocorrelation Matters (arXiv:2411.19455): the imaginary part determines how well the
problem is conditioned, and there is a trade-off between approximation and estimation. Features are
damped sinusoids, and only their read-out is learned (`analysis.gram`). The experiments are ours:

    spacings   condition number of N = 64 modes, evenly spaced, and of the named initializations
    trade-off  gradient descent on the read-out towards a target whose frequencies are close to
               each other and anywhere, or on the multiples of pi: the loss by spacing and by steps
    alpha      the condition number of S4D-Lin under alpha, continuously and in steps dt, beside
               the total variation of the transfer function by band: two papers in one figure
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssm_jax.analysis.bands import band_edges, spectra_per_band
from ssm_jax.analysis.gram import (
    Time,
    condition_number,
    descent,
    gershgorin_spacing,
    gram,
    uniform_limit,
    uniform_modes,
)
from ssm_jax.analysis.spectra import LayerView
from ssm_jax.init.modes import initial_modes

N = 64
SPACINGS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.64, 2.3, math.pi, 2 * math.pi)
INITS = ("s4d_lin", "s4d_inv", "s4d_legs")
# The target: 8 frequencies 0.05 apart from one in [4, 4 + 2 pi] on, within reach of every spacing
CLOSE, APART, DRAWS = 8, 0.05, 40
STEPS = (10, 100, 1_000, 10_000)
ALPHAS = np.geomspace(0.05, 50, 37)
DTS = (1e-3, 1e-2, 1e-1)
LENGTH, DT, CHANNELS = 1024, 1e-2, 16  # of the layer whose total variation is measured


def spacings() -> list[dict[str, float]]:
    """Condition numbers of N evenly spaced modes, from the first multiple on, without 0."""
    rows = []
    for spacing in SPACINGS:
        modes = uniform_modes(N, spacing)
        real = gram(modes, "real")
        rows.append(
            {
                "spacing": spacing,
                "least": float(np.linalg.eigvalsh(real)[0]),
                "real": condition_number(real),
                "pairs": condition_number(gram(modes, "pairs")),
                "complex": condition_number(gram(modes, "complex")),
                "limit": uniform_limit(spacing),
            }
        )
    return rows


def named() -> list[dict[str, Any]]:
    """Condition numbers of the initializations, with the least distance of two frequencies.

    And of S4D-Inv's formula with R = N instead of 2N, whose upper half mirrors the lower one.
    """
    modes = {init: initial_modes(init, N).A_SN[0] for init in INITS}
    n = np.arange(N)
    modes["s4d_inv with R = N"] = -0.5 + 1j * (N / np.pi) * (N / (2 * n + 1) - 1)
    return [
        {
            "init": name,
            "closest": float(np.diff(np.sort(np.abs(A.imag))).min()),
            **{kind: condition_number(gram(A, kind)) for kind in ("real", "pairs", "complex")},
        }
        for name, A in modes.items()
    ]


def trade_off() -> list[dict[str, Any]]:
    """By spacing and kind of target: the best loss, that after STEPS, and the steps to 1.1 best.

    "close": see CLOSE. "on": four frequencies pi to 4 pi, which a spacing of pi has as features.
    Medians over DRAWS of normal weights and of the place of the target. "steps" is null where the
    best loss is rounding.
    """
    rows = []
    for kind in ("close", "on"):
        for spacing in SPACINGS[1:]:
            found = []
            for seed in range(DRAWS):
                rng = np.random.default_rng(seed)
                if kind == "close":
                    first = 4 + 2 * np.pi * rng.uniform()
                    target = -0.5 + 1j * (first + APART * np.arange(CLOSE))
                else:
                    target = uniform_modes(4, np.pi)
                weights = rng.normal(size=target.size)
                found.append(descent(uniform_modes(N, spacing), target, weights))
            least = float(np.median([d.least for d in found]))
            steps = None
            if least > 1e-12:
                steps = float(np.median([d.steps_to(1.1 * d.least) for d in found]))
            losses = [float(np.median([d.loss(n) for d in found])) for n in STEPS]
            row = {"kind": kind, "spacing": spacing, "least": least, "steps": steps}
            rows.append({**row, "losses": losses})
    return rows


def by_alpha() -> list[dict[str, Any]]:
    """Condition number ("real" features) and total variation of S4D-Lin under alpha.

    The variation is the median over CHANNELS with fixed normal read-outs, steps DT and LENGTH
    taps, in four bands up to Nyquist.
    """
    rng = np.random.default_rng(0)
    C_CHN = (rng.normal(size=(1, CHANNELS, N, 2)) @ [1, 1j]) * math.sqrt(0.5)
    rows = []
    for alpha in ALPHAS:
        A = initial_modes("s4d_lin", N, alpha=float(alpha)).A_SN[0]
        layer = LayerView(
            name="s4d_lin",
            A_HN=np.tile(A, (CHANNELS, 1)).astype(np.complex64),
            C_CHN=C_CHN.astype(np.complex64),
            dt_H=np.full(CHANNELS, DT, np.float32),
            beta_H=np.zeros(CHANNELS, np.float32),
            beta_unit="lra",
            beta_learned=False,
            D_H=np.zeros(CHANNELS, np.float32),
            discretization="zoh",
        )
        variation_CHK = spectra_per_band(layer, LENGTH, 2 * LENGTH)["variation"]
        rows.append(
            {
                "alpha": float(alpha),
                "continuous": condition_number(gram(A)),
                "sampled": [condition_number(gram(A, "real", Time(dt=dt))) for dt in DTS],
                "variation": np.median(variation_CHK[0], axis=0).tolist(),
            }
        )
    return rows


def measure() -> dict[str, Any]:
    """All of the study; null is an infinite condition number: singular, as far as float64 tells."""
    found = {
        "modes": N,
        "gershgorin": gershgorin_spacing(),
        "spacings": spacings(),
        "inits": named(),
        "trade_off": trade_off(),
        "steps": list(STEPS),
        "alpha": by_alpha(),
        "dts": list(DTS),
        "layer": {"length": LENGTH, "dt": DT, "channels": CHANNELS},
        "band_edges": band_edges(LENGTH).tolist(),
    }
    return _finite(found)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(results: Mapping[str, Any]) -> str:
    """Lines for a person about what `measure` found."""

    def number(x: float | None) -> str:
        return "singular in float64" if x is None else f"{x:.3g}"

    lines = [
        f"spacing {row['spacing']:.3g}: condition {number(row['real'])} (real), "
        f"{number(row['pairs'])} (pairs), {number(row['complex'])} (complex)"
        for row in results["spacings"]
    ]
    lines += [f"{row['init']}: condition {number(row['real'])} (real)" for row in results["inits"]]
    return "\n".join(lines)
