"""E|y_L|^2 of a new layer against L, under four rules for dt, with its bound dt^2 L lambda_max.

One input channel, N modes of S4D-Lin by zero-order hold, B = 1 and a complex read-out C with
E[C C^*] = I / N. Each mode has the taps phi[l] = (exp(dt a) - 1) / a exp(dt a l), |phi| <= dt where
Re a <= 0, so that, by Cauchy and Schwarz, the last output y_L = sum_n C_n sum_l phi_n[L - l] x_l
obeys

    E|y_L|^2 = mean_n E|sum_l phi_n[L - l] x_l|^2 <= dt^2 L lambda_max(E[x x^T]).

The bound and the rule dt = 1 / sqrt(L lambda_max) that it suggests are after arXiv:2411.19455, as
its reviews and science notes have them; the constant, the proof above, and all numbers are ours.
The mean over C is exact, that over x is over a sample. The taps are the package's, in float32.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssm_jax.analysis.autocorrelation import lambda_max
from ssm_jax.init.modes import initial_modes
from ssm_jax.kernels import s4d_kernel

N = 32  # modes
LENGTHS = (64, 256, 1_024, 4_096, 16_384)
SEQUENCES = 256  # of a sample
REALS = (-0.5, 0.0)  # Re A
USUAL = 0.001, 0.1  # S4's dt, log-uniform
DRAWS = 8  # of them, the middles of so many equal shares
INPUTS = {"white noise": 0.0, "AR(1), 0.9": 0.9, "AR(1), 0.99": 0.99, "constant": 1.0}
RULES = ("1 / L", "1 / sqrt(L)", "rule", "log-uniform")


def sample(rho: float, length: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) sequences (n, L) of variance 1; white for rho = 0, constant for 1."""
    x_nL = rng.normal(size=(n, length))
    if rho == 1:
        return np.repeat(x_nL[:, :1], length, axis=1)
    if rho:
        x_nL[:, 1:] *= math.sqrt(1 - rho**2)
        for step in range(1, length):
            x_nL[:, step] += rho * x_nL[:, step - 1]
    return x_nL


def exact_lambda_max(rho: float, length: int) -> float:
    """The largest eigenvalue of the matrix rho^|j - k|, (L, L).

    (1 - rho^2) / (1 - 2 rho cos t + rho^2) at the least positive root t of
    sin((L + 1) t) - 2 rho sin(L t) + rho^2 sin((L - 1) t), which lies below pi / (L + 1) (Kac,
    Murdock and Szego, 1953).
    """
    if rho in (0, 1):
        return 1.0 if rho == 0 else float(length)

    def sign(t: float) -> float:
        terms = (length + 1, 1), (length, -2 * rho), (length - 1, rho**2)
        return sum(factor * math.sin(times * t) for times, factor in terms)

    low, high = 0.0, math.pi / (length + 1)
    for _ in range(100):  # positive below the root
        middle = (low + high) / 2
        low, high = (middle, high) if sign(middle) > 0 else (low, middle)
    return (1 - rho**2) / (1 - 2 * rho * math.cos(low) + rho**2)


_taps = jax.jit(s4d_kernel, static_argnums=3)


def squares(x_nL: np.ndarray, A_N: np.ndarray, dt: float) -> np.ndarray:
    """|y_L|^2 of each sequence, the mean over read-outs."""
    # Real and imaginary parts of the taps of each mode: read-outs 1/2 and -i/2 of s4d_kernel
    A = jnp.asarray(np.concatenate([A_N, A_N])[:, None], jnp.complex64)
    C = jnp.asarray(np.repeat([0.5, -0.5j], len(A_N))[:, None], jnp.complex64)
    taps = _taps(A, C, jnp.full(len(A), dt, jnp.float32), x_nL.shape[1])
    parts = x_nL @ np.asarray(taps, np.float64)[:, ::-1].T
    return np.square(parts).sum(axis=1) / len(A_N)


def steps_of(rule: str, length: int, eigenvalue: float) -> np.ndarray:
    """The steps dt of a rule."""
    if rule == "log-uniform":
        low, high = USUAL
        return low * (high / low) ** ((np.arange(DRAWS) + 0.5) / DRAWS)
    scale = {"1 / L": length**2, "1 / sqrt(L)": length, "rule": length * eigenvalue}[rule]
    return np.array([1 / math.sqrt(scale)])


def measure(
    lengths: Iterable[int] = LENGTHS, sequences: int = SEQUENCES, seed: int = 0
) -> dict[str, Any]:
    """Rows of E|y_L|^2, measured and its bound, by input, length, rule and Re A; float64 sums.

    The rule takes lambda_max from the sample, as training does, the bound the exact one.
    """
    rows: list[dict[str, Any]] = []
    modes = initial_modes("s4d_lin", N).A_SN[0]
    for length in lengths:
        rng = np.random.default_rng([seed, length])
        samples = [sample(rho, length, sequences, rng) for rho in INPUTS.values()]
        estimates = [lambda_max(x_nL).estimate for x_nL in samples]
        for rule, re in itertools.product(RULES, REALS):
            A_N = re + 1j * modes.imag
            steps = [steps_of(rule, length, estimate) for estimate in estimates]
            if rule == "rule":
                pairs = zip(samples, steps, strict=True)
                found = [squares(x_nL, A_N, dts[0]) for x_nL, dts in pairs]
            else:  # of all inputs at once
                together = np.concatenate(samples)
                mean_n = np.mean([squares(together, A_N, dt) for dt in steps[0]], axis=0)
                found = list(mean_n.reshape(len(samples), -1))
            for (name, rho), square_n, dts, guess in zip(
                INPUTS.items(), found, steps, estimates, strict=True
            ):
                exact, dt = exact_lambda_max(rho, length), float(np.sqrt(np.mean(dts**2)))
                error = float(square_n.std()) / math.sqrt(sequences)
                row = {"input": name, "length": length, "rule": rule, "real": re, "dt": dt}
                row |= {"lambda_max": exact, "estimate": guess, "bound": dt**2 * length * exact}
                rows.append({**row, "measured": float(square_n.mean()), "error": error})
    return {"rows": rows, "modes": N, "sequences": sequences, "seed": seed}


def growth(rows: Iterable[Mapping[str, Any]]) -> float:
    """The power of L with which E|y_L|^2 grows, by least squares of the logarithms."""
    pairs = np.log([(row["length"], row["measured"]) for row in rows])
    return float(np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0])


def describe(results: Mapping[str, Any]) -> str:
    """A line of each input and rule: range and growth of what was measured, and the bound."""
    lines = []
    for re in REALS:
        for name in INPUTS:
            for rule in RULES:
                asked = {"input": name, "rule": rule, "real": re}
                rows = [row for row in results["rows"] if asked.items() <= row.items()]
                measured = [row["measured"] for row in rows]
                tight = [row["measured"] / row["bound"] for row in rows]
                lines.append(
                    f"Re A = {re:4}, {name:11}, {rule:11}: E|y_L|^2 {min(measured):8.2g} to "
                    f"{max(measured):8.2g}, ~ L^{growth(rows):5.2f}; {min(tight):.2g} to "
                    f"{max(tight):.2g} of the bound"
                )
    return "\n".join(lines)
