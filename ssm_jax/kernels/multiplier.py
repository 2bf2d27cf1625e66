r"""Multiplying by powers of A_bar, for complex numbers kept as real arrays (..., 2, N).

Real parts first, then imaginary ones: with complex64 XLA's CPU backend takes three times as long
for the loops of `scan.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.discretize import complex_expm1, value_of
from ssm_jax.kernels.phase import (
    DIRECTIONS,
    TICK_BITS,
    TURN,
    Phase,
    cos_sin,
    direction,
    multiply,
    wrapped,
)
from ssm_jax.kernels.ruled import Ruled


@Ruled
def power_parts(z: Array, phase: Phase, steps: Array) -> tuple[Array, Array]:
    """Re and Im of e^{zl}, by the exact phase of Im z, for the int32 steps l; broadcasts.

    Differentiable by z, to any order: a phase has no derivative, so that of e^{zl} is l e^{zl}.
    """
    decay = jnp.exp(z.real * steps.astype(z.real.dtype))
    cos, sin = cos_sin(multiply(phase, steps))
    return decay * cos, decay * sin


@power_parts.defjvp
def _power_parts_jvp(primals, tangents):
    z, _, steps = primals
    re, im = power_parts(*primals)
    dz_re, dz_im = (
        part * steps.astype(z.real.dtype) for part in (tangents[0].real, tangents[0].imag)
    )
    return (re, im), (dz_re * re - dz_im * im, dz_re * im + dz_im * re)


class Multiplier(NamedTuple):
    """A_bar = e^z, and the exact phase of Im z."""

    z_N: Array
    phase_N: Phase

    def powers(self, steps: Iterable[int]) -> Array:
        """A_bar^k for the steps k, each as a `factor`: (K, 2, 2, N)."""
        k_K1 = jnp.asarray(list(steps), jnp.int32)[:, None]
        phase_1N = Phase(*(x[None] for x in self.phase_N))
        return factor(*power_parts(self.z_N[None], phase_1N, k_K1))

    def pair(self) -> tuple[Array, Array]:
        """A_bar as a sum of two factors, its float32 value and what that lacks, to some 3e-9.

        By the nearest G of 128 directions, A_bar = G e^d = G + G (e^d - 1). G is known to 48 bits,
        and e^d - 1 is small unless the mode decays so fast that its steps do not add up.
        """
        A_22N = self.powers([1])[0]
        if self.z_N.real.dtype != jnp.float32:
            return A_22N, jnp.zeros_like(A_22N)
        nearest_N = (self.phase_N.ticks + (1 << (TICK_BITS - 1))) >> TICK_BITS
        turns_N = (self.phase_N.ticks - (nearest_N << TICK_BITS)).astype(jnp.float32) / TURN
        w_N = complex_expm1(self.z_N.real, np.float32(2 * np.pi) * (turns_N + self.phase_N.rest))
        (g_re_N, rest_re_N), (g_im_N, rest_im_N) = direction(nearest_N & (DIRECTIONS - 1))
        (re_N, _), (_, im_N) = A_22N
        low_re_N = (g_re_N - re_N) + (rest_re_N + (g_re_N * w_N.real - g_im_N * w_N.imag))
        low_im_N = (g_im_N - im_N) + (rest_im_N + (g_re_N * w_N.imag + g_im_N * w_N.real))
        slow_N = self.z_N.real > -0.5  # below, the rounding of e^d - 1 would be all there is
        zero = jnp.float32(0)
        return A_22N, factor(jnp.where(slow_N, low_re_N, zero), jnp.where(slow_N, low_im_N, zero))

    def conjugate(self) -> Multiplier:
        return Multiplier(self.z_N.conj(), Phase(-self.phase_N.ticks, -self.phase_N.rest))


def lacking(A_bar: Array, z: Array, phase: Phase) -> Array:
    """What the rounded A_bar lacks to be e^z, by the exact phase of Im z; of any shape.

    x -> A_bar x + lacking x, step after step, then errs as a random walk of roundings does and not
    as a rotation by a wrong angle. Not differentiable: its derivative is far below rounding.
    """
    flat = Multiplier(z.ravel(), Phase(*(part.ravel() for part in phase)))
    high, low = (factor[0, 0] + 1j * factor[1, 1] for factor in flat.pair())
    missing = (high - A_bar.ravel()) + low  # the difference is exact
    return jax.lax.stop_gradient(missing.reshape(A_bar.shape))


def power(z_N: Array, phase_N: Phase, steps: int) -> Array:
    """A_bar^steps, complex; differentiable by z."""
    angle_N = value_of(wrapped(multiply(phase_N, jnp.int32(steps))), steps * z_N.imag)
    decay_N = jnp.exp(steps * z_N.real)
    return jax.lax.complex(decay_N * jnp.cos(angle_N), decay_N * jnp.sin(angle_N))


def factor(re_N: Array, im_N: Array) -> Array:
    """re + i im as (..., 2, 2, N): what multiplies x and what multiplies swapped x in a product."""
    return jnp.stack([jnp.stack([re_N, re_N], -2), jnp.stack([-im_N, im_N], -2)], -3)


def times(p_22N: Array, x: Array) -> Array:
    """The complex product p x of one factor and x (..., 2, N)."""
    along, across = p_22N.reshape(2, *(1,) * (x.ndim - 2), *p_22N.shape[1:])
    return along * x + across * swapped(x)


def swapped(x: Array) -> Array:
    """Imaginary parts, then real ones."""
    return jax.lax.rev(x, (x.ndim - 2,))


def in_parts(x: Array) -> Array:
    """Complex (..., N) as real (..., 2, N)."""
    return jnp.stack([x.real, x.imag], axis=-2)


def from_parts(x: Array) -> Array:
    """Real (..., 2, N) as complex (..., N)."""
    return jax.lax.complex(x[..., 0, :], x[..., 1, :])
