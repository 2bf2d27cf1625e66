"""How real parts and step sizes are stored as trainable numbers, and where step sizes start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.options import POSITIVE

# The b of StableSSM's -1 / (w^2 + b), as in its code: |Re A| stays below 1 / b = 10.
STABLE_B = 0.1


class RealTransform(NamedTuple):
    """A pair of functions, Re A = forward(raw) and raw = inverse(Re A).

    forward: of JAX arrays of any shape; Re A in 1 / unit of time, at most 0 but for "none".
    inverse: of float64 NumPy arrays, for the start; raises ValueError where no raw gives it.
    """

    forward: Callable[[Array], Array]
    inverse: Callable[[np.ndarray], np.ndarray]


def _checked(name: str, re: np.ndarray, *, zero: bool, low: float = -np.inf) -> np.ndarray:
    """re in float64 if it is at most 0, below it unless `zero`, and above `low`."""
    re = np.asarray(re, np.float64)
    wrong = None
    if not (np.isfinite(re) & (re <= 0)).all():
        wrong = f"Re A must start finite and at most 0, got {re.max():.6g}."
    elif not zero and not (re < 0).all():
        wrong = "cannot represent Re A = 0; use 'relu', 'clip' or 'none'."
    elif not (re > low).all():
        wrong = f"Re A must start above {low:g}, got {re.min():.6g}; use 'exp' or a smaller "
        wrong += "alpha_real."
    if wrong:
        raise ValueError(f"real_transform {name!r}: {wrong}")
    return re


def _softplus_inverse(re: np.ndarray) -> np.ndarray:
    y = -_checked("softplus", re, zero=False)
    return y + np.log(-np.expm1(-y))


def _stable_inverse(re: np.ndarray) -> np.ndarray:
    return np.sqrt(-1 / _checked("stable", re, zero=False, low=-1 / STABLE_B) - STABLE_B)


REAL_TRANSFORMS: dict[str, RealTransform] = {
    # -e^raw, as the official code has it (OC-3)
    "exp": RealTransform(
        lambda raw: -jnp.exp(raw), lambda re: np.log(-_checked("exp", re, zero=False))
    ),
    # -log(1 + e^raw)
    "softplus": RealTransform(lambda raw: -jax.nn.softplus(raw), _softplus_inverse),
    # -max(raw, 0), derivative -1 where raw >= 0, 0 included (that of jax.nn.relu at 0 is 0): a mode
    # that starts at Re A = 0 can leave it. One that training has pushed to raw < 0 is undamped and
    # stays so.
    "relu": RealTransform(
        lambda raw: jnp.where(raw >= 0, -raw, jnp.zeros_like(raw)),
        lambda re: -_checked("relu", re, zero=True),
    ),
    # min(raw, 0), derivative 1 everywhere (straight through): no mode is ever stuck at 0. While raw
    # is positive Re A is 0, and moves again when the gradient has brought raw back.
    "clip": RealTransform(
        lambda raw: raw + jax.lax.stop_gradient(jnp.minimum(raw, 0) - raw),
        lambda re: _checked("clip", re, zero=True),
    ),
    # -1 / (raw^2 + b), in (-1 / b, 0): StableSSM, arXiv:2311.14495. Its derivative is 0 at raw = 0,
    # that is at Re A = -1 / b, where it can therefore not start.
    "stable": RealTransform(lambda raw: -1 / (raw**2 + STABLE_B), _stable_inverse),
    # raw itself: training may make Re A positive, and the mode unstable
    "none": RealTransform(lambda raw: raw, lambda re: _checked("none", re, zero=True)),
}


def log_uniform(key: Array, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Draws whose logarithm is uniform in [log low, log high], float32.

    Raises:
      ValueError: unless 0 < low <= high < infinity.
    """
    if not (POSITIVE.holds(low) and POSITIVE.holds(high) and low <= high):
        raise ValueError(
            f"log_uniform: needs 0 < low <= high, got low={low}, high={high}; "
            "of a layer they are dt_min and dt_max."
        )
    u = jax.random.uniform(key, shape, jnp.float32)
    return jnp.exp(u * (math.log(high) - math.log(low)) + math.log(low))


def inverse_softplus(y: Array) -> Array:
    """x with log(1 + e^x) = y, for y > 0: x = y + log(1 - e^-y), accurate for small y."""
    return y + jnp.log(-jnp.expm1(-y))


# dt of its parameter, and the inverse (OC-5)
DT_TRANSFORMS = {"softplus": (jax.nn.softplus, inverse_softplus), "exp": (jnp.exp, jnp.log)}
