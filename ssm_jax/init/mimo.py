"""Input and output matrices of a MIMO diagonal SSM (S5, arXiv:2208.04933) at initialization.

They are drawn for a real system of J equal blocks and P states, and brought into the basis of its
modes: B = V_inv B_0 and C = C_0 V. Variances are those of the official code (OC-26).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.init.hippo import legs_normal
from ssm_jax.init.ptd import legs_ptd

# Initializations that bring their eigenvectors along
EIGENBASES = {"legs": legs_normal, "ptd": legs_ptd}
C_INITS = ("lecun_normal", "trunc_standard_normal", "complex_normal")

# Standard deviation of a normal variable that is cut at +-2
_STD_OF_CUT = 0.8796256610342398


def real_basis(init: str, n_modes: int) -> tuple[np.ndarray, np.ndarray]:
    """V (2n, n) and V_inv (n, 2n) of the n modes of one block, half of its conjugate pairs.

    The eigenvectors where `init` is a key of EIGENBASES; else one plane of real states per mode.
    """
    if init in EIGENBASES:
        _, _, V, V_inv = EIGENBASES[init](2 * n_modes)
        return V, V_inv
    V = np.concatenate([np.eye(n_modes), -1j * np.eye(n_modes)]) * np.sqrt(0.5)
    return V, V.conj().T


def input_matrix(key: Array, V_inv: np.ndarray, n_blocks: int, d_model: int) -> Array:
    """B = V_inv B_0, (N, H, 2), for a real B_0 of (P, H) and variance 1 / P (not 1 / H: OC-26).

    V_inv is (n, p), of one block: N = n_blocks n and P = n_blocks p.
    """
    block = V_inv.shape[1]
    B0_JPH = _cut_normal(key, (n_blocks, block, d_model), 1 / (n_blocks * block))
    B_ri = [jnp.einsum("np,jph->jnh", part, B0_JPH) for part in _parts(V_inv)]
    return jnp.stack(B_ri, axis=-1).reshape(-1, d_model, 2)


def output_matrix(
    key: Array, V: np.ndarray, n_blocks: int, n_sides: int, d_model: int, C_init: str
) -> Array:
    """C = C_0 V, (n_sides, H, N, 2), for a complex C_0 of (H, P); V is (p, n), of one block.

    n_sides is 2 for a layer that looks both ways. With the C_init "lecun_normal" the variance of
    either part of C_0 is 1 / (P H), with "trunc_standard_normal" 1 / P; with "complex_normal" C
    itself is drawn, with 1/2.
    """
    block, n_modes = V.shape
    if C_init == "complex_normal":
        shape = (n_sides, d_model, n_blocks * n_modes, 2)
        draws = jax.random.normal(key, (math.prod(shape),), jnp.float32)
        return draws.reshape(shape) * jnp.sqrt(jnp.float32(0.5))
    P = n_blocks * block
    variance = 1 / P if C_init == "trunc_standard_normal" else 1 / (P * d_model)
    re, im = _cut_normal(key, (2, n_sides, d_model, n_blocks, block), variance)
    V_re, V_im = _parts(V)

    def times(C0: Array, part: Array) -> Array:
        return jnp.einsum("chjp,pn->chjn", C0, part)

    C_ri = [times(re, V_re) - times(im, V_im), times(re, V_im) + times(im, V_re)]
    return jnp.stack(C_ri, axis=-1).reshape(n_sides, d_model, n_blocks * n_modes, 2)


def _cut_normal(key: Array, shape: tuple[int, ...], variance: float) -> Array:
    """Draws of this variance from a normal distribution cut at two of its standard deviations."""
    # Drawn in one row: for five axes the generator takes three seconds to compile.
    draws = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), jnp.float32)
    return draws.reshape(shape) * jnp.float32(variance**0.5 / _STD_OF_CUT)


def _parts(V: np.ndarray) -> tuple[Array, Array]:
    return jnp.asarray(V.real, jnp.float32), jnp.asarray(V.imag, jnp.float32)
