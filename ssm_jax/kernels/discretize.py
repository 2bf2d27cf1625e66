"""From continuous to discrete time, for a diagonal state matrix.

x' = A x + B u becomes x_{l+1} = A_bar x_l + gain B u_l, elementwise in the modes:

    zero-order hold   A_bar = e^{dt A}                           gain = (e^{dt A} - 1) / A
    bilinear          A_bar = (1 + dt A / 2) / (1 - dt A / 2)    gain = dt / (1 - dt A / 2)
    none              A_bar = e^{dt A}                           gain = 1 at dt = 1

Source: S4D, arXiv:2206.11893; for the bilinear form S4, arXiv:2111.00396. "none" is for modes that
are given per sample, A = log A_bar, as in LRU, arXiv:2303.06349. Its dt is not a length of time but
a number of samples: 1, unless the same modes shall run at another sampling rate.

Multiplying by powers of A_bar, for complex numbers kept as real arrays (..., 2, N).

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

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.phase import (
    DIRECTIONS,
    TICK_BITS,
    TURN,
    Phase,
    cos_sin,
    direction,
    multiply,
    phase_of_bilinear,
    phase_of_product,
    wrapped,
)
from ssm_jax.kernels.rules import Ruled

DISCRETIZATIONS = ("zoh", "bilinear", "none")

# Below this |z| phi_1 is summed as a series: there the derivative of the quotient cancels (float32:
# 1e-4 off at 1e-3).
_SERIES_BELOW = 0.1
_SERIES_TERMS = 8  # the remainder is below 0.1^8 / 9! = 3e-14


@Ruled
def value_of(value: Array, carrier: Array) -> Array:
    """`value`, differentiated as if it were `carrier`: an angle with and without whole turns."""
    return value


@value_of.defjvp
def _value_of_jvp(primals, tangents):
    # Not primals[0]: a second derivative would take that for a constant.
    return value_of(*primals), tangents[1]


def _zoh_exponent(A: Array, dt: Array) -> tuple[Array, Phase]:
    """z = dt A, and the phase of its imaginary part."""
    return dt * A, phase_of_product(dt, A.imag)


def _bilinear_exponent(A: Array, dt: Array) -> tuple[Array, Phase]:
    """z = log A_bar, with h = dt A / 2:

    Re z = log(|1 + h|^2 / |1 - h|^2) / 2,    Im z = atan2(2 Im h, 1 - |h|^2).
    """
    half = dt * A / 2
    x, y = half.real, half.imag
    # A mode with dt A = -2 is forgotten in one step: log 0. 1e-17 is 0 beside 1 and has a gradient.
    plus = 1 + x
    gone = (plus == 0) & (jnp.abs(y) < 1e-17)
    plus = jnp.where(gone, value_of(jnp.full_like(plus, 1e-17), plus), plus)
    dividend = plus**2 + y**2
    divisor = (1 - x) ** 2 + y**2
    ratio = 4 * x / divisor  # |A_bar|^2 - 1
    fast = ratio < -0.5  # there 1 + ratio cancels
    square = jnp.where(fast, dividend / divisor, 1.0)
    z_re = 0.5 * jnp.where(fast, jnp.log(square), jnp.log1p(jnp.where(fast, 0.0, ratio)))
    z_im = jnp.arctan2(2 * y, (1 - x) * plus - y**2)
    return z_re + 1j * z_im, phase_of_bilinear(dt, A.real, A.imag)


_EXPONENT = {"zoh": _zoh_exponent, "bilinear": _bilinear_exponent, "none": _zoh_exponent}


@in_one_type
def exponent(A: Array, dt: Array, discretization: str) -> tuple[Array, Phase]:
    """z with A_bar^l = e^{z l}, and the phase of Im z, which is exact where z itself is rounded.

    Args:
      A: complex eigenvalues, in rad per unit of time; for "none" in rad per sample.
      dt: real step in units of time, or samples, positive; broadcasts against A.
      discretization: "zoh", "bilinear" or "none".

    Raises:
      ValueError: for another discretization.
    """
    if discretization not in DISCRETIZATIONS:
        raise ValueError(
            f"unknown discretization {discretization!r}; "
            f"choose one of {', '.join(DISCRETIZATIONS)}."
        )
    return _EXPONENT[discretization](A, dt)


def complex_expm1(x: Array, y: Array) -> Array:
    """e^{x + iy} - 1 without cancellation: Re = expm1(x) cos y - 2 sin(y/2)^2, Im = e^x sin y."""
    real = jnp.expm1(x) * jnp.cos(y) - 2 * jnp.sin(y / 2) ** 2
    return real + 1j * (jnp.exp(x) * jnp.sin(y))


@in_one_type
def discretize_zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    """Zero-order hold of diagonal modes; right also at A = 0, where A_bar = 1 and gain = dt.

    Args:
      A: complex eigenvalues, in rad per unit of time.
      dt: real step in units of time, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape. Accurate to a few units of float32 for any
      |dt A|.
    """
    z, phase = _zoh_exponent(A, dt)
    z_minus_1 = complex_expm1(z.real, value_of(wrapped(phase), z.imag))
    # gain = dt phi_1(z), phi_1(z) = (e^z - 1) / z = 1 + z/2 (1 + z/3 (1 + ...))
    small = z.real**2 + z.imag**2 < _SERIES_BELOW**2
    near = jnp.where(small, z, 0.0)
    away = jnp.where(small, 1.0, z)  # keeps 0/0 out of the gradient of the branch not taken
    series = jnp.ones_like(z)
    for k in range(_SERIES_TERMS, 0, -1):
        series = 1 + series * near / (k + 1)
    return z_minus_1 + 1, dt * jnp.where(small, series, z_minus_1 / away)


@in_one_type
def discretize_bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    """Bilinear (Tustin) rule for diagonal modes; Re A <= 0 stays in the closed unit disc.

    Args:
      A: complex eigenvalues, in rad per unit of time.
      dt: real step in units of time, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape.
    """
    half = dt * A / 2
    return (1 + half) / (1 - half), dt / (1 - half)


@in_one_type
def discretize_none(A: Array, dt: Array) -> tuple[Array, Array]:
    """Modes that are discrete already: A_bar = e^A and gain = 1 at dt = 1.

    Another dt resamples them: as long as the input is held, 1 / dt steps do what one step of dt = 1
    does. So A_bar = e^{dt A} and gain = (e^{dt A} - 1) / (e^A - 1), the zero-order hold of the
    system whose step of dt = 1 has the gain 1.

    Args:
      A: log of the complex eigenvalues of one sample. Resampling depends on its branch: keep
        |Im A| <= pi.
      dt: real number of samples per step, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape. Where dt = 1 the gain is 1 without rounding,
      and constant.
    """
    A_bar, held = discretize_zoh(A, dt)
    _, held_for_one = discretize_zoh(A, jnp.ones_like(dt))
    return A_bar, jnp.where(dt == 1, jnp.ones_like(held), held / held_for_one)


DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear, "none": discretize_none}


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
