"""How real parts and step sizes are stored as trainable numbers; where dt, and B and C of S5 start.

B and C of a MIMO diagonal SSM (S5, arXiv:2208.04933) are drawn for a real system of J equal blocks
and P states, and brought into the basis of its modes: B = V_inv B_0 and C = C_0 V. Variances are
those of the official code (OC-26).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.init.hippo import legs_nplr
from ssm_jax.init.ptd import legs_ptd
from ssm_jax.options.rows import POSITIVE

# The b of StableSSM's -1 / (w^2 + b), as in its code: |Re A| stays below 1 / b = 10.
STABLE_B = 0.1
# Of products: one seed starts at one place on every platform
_FULL = jax.lax.Precision.HIGHEST
# Initializations that bring their eigenvectors along
EIGENBASES = {"legs": legs_nplr, "ptd": legs_ptd}
C_INITS = ("lecun_normal", "trunc_standard_normal", "complex_normal")


def _checked(name: str, re: np.ndarray, *, zero: bool = False, low: float = -np.inf) -> np.ndarray:
    """re in float64 if it is at most 0, below it unless `zero`, and above `low`."""
    re = np.asarray(re, np.float64)
    if not (np.isfinite(re) & (re <= 0)).all():
        wrong = f"Re A must start finite and at most 0, got {re.max():.6g}."
    elif not zero and not (re < 0).all():
        wrong = "cannot represent Re A = 0; use 'relu', 'clip' or 'none'."
    elif not (re > low).all():
        above = f"above {low:g}, got {re.min():.6g}"
        wrong = f"Re A must start {above}; use 'exp' or a smaller alpha_real."
    else:
        return re
    raise ValueError(f"real_transform {name!r}: {wrong}")


def inverse_softplus(y: Any, numpy: Any = jnp) -> Any:
    """x with log(1 + e^x) = y, for y > 0: x = y + log(1 - e^-y), accurate for small y."""
    return y + numpy.log(-numpy.expm1(-y))


# Re A in 1 / unit of time of its parameter, for JAX arrays of any shape, at most 0 but for "none";
# and the parameter of float64 NumPy arrays, for the start: ValueError where there is none.
REAL_TRANSFORMS: dict[str, tuple[Callable[[Array], Array], Callable[[np.ndarray], np.ndarray]]] = {
    # -e^raw, as the official code has it (OC-3)
    "exp": (lambda raw: -jnp.exp(raw), lambda re: np.log(-_checked("exp", re))),
    # -log(1 + e^raw)
    "softplus": (
        lambda raw: -jax.nn.softplus(raw),
        lambda re: inverse_softplus(-_checked("softplus", re), np),
    ),
    # -max(raw, 0), derivative -1 where raw >= 0, 0 included (that of jax.nn.relu at 0 is 0): a mode
    # that starts at Re A = 0 can leave it. One that training has pushed to raw < 0 is undamped and
    # stays so.
    "relu": (
        lambda raw: jnp.where(raw >= 0, -raw, jnp.zeros_like(raw)),
        lambda re: -_checked("relu", re, zero=True),
    ),
    # min(raw, 0), derivative 1 everywhere (straight through): no mode is ever stuck at 0. While raw
    # is positive Re A is 0, and moves again when the gradient has brought raw back.
    "clip": (
        lambda raw: raw + jax.lax.stop_gradient(jnp.minimum(raw, 0) - raw),
        lambda re: _checked("clip", re, zero=True),
    ),
    # -1 / (raw^2 + b), in (-1 / b, 0): StableSSM, arXiv:2311.14495. Its derivative is 0 at raw = 0,
    # that is at Re A = -1 / b, where it can therefore not start.
    "stable": (
        lambda raw: -1 / (raw**2 + STABLE_B),
        lambda re: np.sqrt(-1 / _checked("stable", re, low=-1 / STABLE_B) - STABLE_B),
    ),
    # raw itself: training may make Re A positive, and the mode unstable
    "none": (lambda raw: raw, lambda re: _checked("none", re, zero=True)),
}

# dt of its parameter, and the inverse (OC-5)
DT_TRANSFORMS = {"softplus": (jax.nn.softplus, inverse_softplus), "exp": (jnp.exp, jnp.log)}


def log_uniform(key: Array, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Draws whose logarithm is uniform in [log low, log high], float32, for 0 < low <= high."""
    if not (POSITIVE.holds(low) and POSITIVE.holds(high) and low <= high):
        got = f"got low={low}, high={high}; of a layer they are dt_min and dt_max."
        raise ValueError(f"log_uniform: needs 0 < low <= high, {got}")
    u = jax.random.uniform(key, shape, jnp.float32)
    return jnp.exp(u * (math.log(high) - math.log(low)) + math.log(low))


def real_basis(init: str, n_modes: int) -> tuple[np.ndarray, np.ndarray]:
    """V (2n, n) and V_inv (n, 2n) of the n modes of one block, half of its conjugate pairs.

    The eigenvectors where `init` is a key of EIGENBASES; else one plane of real states per mode.
    """
    if init in EIGENBASES:
        *_, V, V_inv = EIGENBASES[init](2 * n_modes)
        return V, V_inv
    V = np.concatenate([np.eye(n_modes), -1j * np.eye(n_modes)]) * np.sqrt(0.5)
    return V, V.conj().T


def input_matrix(key: Array, V_inv: np.ndarray, n_blocks: int, d_model: int) -> Array:
    """B = V_inv B_0, (N, H, 2), for a real B_0 of (P, H) and variance 1 / P (not 1 / H: OC-26).

    V_inv is (n, p), of one block: N = n_blocks n and P = n_blocks p.
    """
    block = V_inv.shape[1]
    B0_JPH = cut_normal(key, (n_blocks, block, d_model), 1 / (n_blocks * block))
    B_ri = [jnp.einsum("np,jph->jnh", part, B0_JPH, precision=_FULL) for part in _parts(V_inv)]
    return jnp.stack(B_ri, axis=-1).reshape(-1, d_model, 2)


def output_matrix(
    key: Array, V: np.ndarray, n_blocks: int, shape: tuple[int, int], C_init: str
) -> Array:
    """C = C_0 V, (*shape, N, 2), for a complex C_0 of (*shape, P); V is (p, n), of one block.

    The shape is 1 or, for a layer that looks both ways, 2; and H. With the C_init "lecun_normal"
    the variance of either part of C_0 is 1 / (P H), with "trunc_standard_normal" 1 / P; with
    "complex_normal" C itself is drawn, with 1/2.
    """
    block, n_modes = V.shape
    shape_of_C = (*shape, n_blocks * n_modes, 2)
    if C_init == "complex_normal":
        draws = jax.random.normal(key, (math.prod(shape_of_C),), jnp.float32)
        return draws.reshape(shape_of_C) * jnp.sqrt(jnp.float32(0.5))
    P = n_blocks * block
    variance = 1 / P if C_init == "trunc_standard_normal" else 1 / (P * shape[1])
    re, im = cut_normal(key, (2, *shape, n_blocks, block), variance)
    V_re, V_im = _parts(V)

    def times(C0: Array, part: Array) -> Array:
        return jnp.einsum("chjp,pn->chjn", C0, part, precision=_FULL)

    C_ri = [times(re, V_re) - times(im, V_im), times(re, V_im) + times(im, V_re)]
    return jnp.stack(C_ri, axis=-1).reshape(shape_of_C)


def cut_normal(key: Array, shape: tuple[int, ...], variance: float) -> Array:
    """Draws of this variance from a normal distribution cut at two of its standard deviations."""
    # Drawn in one row: for five axes the generator takes three seconds to compile.
    draws = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), jnp.float32)
    # A standard normal variable that is cut at +-2 has the standard deviation 0.88.
    return draws.reshape(shape) * jnp.float32(variance**0.5 / 0.8796256610342398)


def _parts(V: np.ndarray) -> tuple[Array, Array]:
    return jnp.asarray(V.real, jnp.float32), jnp.asarray(V.imag, jnp.float32)
