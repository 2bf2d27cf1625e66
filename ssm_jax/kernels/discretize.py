"""From continuous to discrete time, for a diagonal state matrix.

x' = A x + B u becomes x_{l+1} = A_bar x_l + gain B u_l, elementwise in the modes:

    zero-order hold   A_bar = e^{dt A}                           gain = (e^{dt A} - 1) / A
    bilinear          A_bar = (1 + dt A / 2) / (1 - dt A / 2)    gain = dt / (1 - dt A / 2)
    none              A_bar = e^{dt A}                           gain = 1 at dt = 1

Source: S4D, arXiv:2206.11893; for the bilinear form S4, arXiv:2111.00396. "none" is for modes that
are given per sample, A = log A_bar, as in LRU, arXiv:2303.06349: dt is then a number of samples, 1
unless the same modes run at another sampling rate.
"""

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

ReIm = tuple[Array, Array]  # real and imaginary part


@in_one_type
def discretize_zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    """Zero-order hold of diagonal modes: (A_bar, gain), complex, of the broadcast shape.

    Accurate to a few units of float32 at any |dt A|; at A = 0, A_bar = 1 and gain = dt.

    Args:
      A: complex eigenvalues, in rad per unit of time.
      dt: real step in units of time, positive; broadcasts against A.
    """
    z, phase = exponent(A, dt, "zoh")
    z_minus_1 = complex_expm1(z.real, value_of(wrapped(phase), z.imag))
    # gain = dt phi_1(z), phi_1(z) = (e^z - 1) / z = 1 + z/2 (1 + z/3 (1 + ...)). The derivative of
    # the quotient cancels at small |z| (float32: 1e-4 off at 1e-3), so there the series is summed.
    small = z.real**2 + z.imag**2 < 0.1**2
    near = jnp.where(small, z, 0.0)
    away = jnp.where(small, 1.0, z)  # keeps 0/0 out of the gradient of the branch not taken
    series = jnp.ones_like(z)
    for k in range(8, 0, -1):  # the remainder is below 0.1^8 / 9! = 3e-14
        series = 1 + series * near / (k + 1)
    return z_minus_1 + 1, dt * jnp.where(small, series, z_minus_1 / away)


@in_one_type
def discretize_bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    """Bilinear (Tustin) rule: (A_bar, gain) as above. Re A <= 0 stays in the closed unit disc."""
    half = dt * A / 2
    return (1 + half) / (1 - half), dt / (1 - half)


@in_one_type
def discretize_none(A: Array, dt: Array) -> tuple[Array, Array]:
    """Modes that are discrete already: A_bar = e^A and gain = 1 at dt = 1, without rounding.

    Another dt resamples them: as long as the input is held, 1 / dt steps do what one step of dt = 1
    does. So A_bar = e^{dt A} and gain = (e^{dt A} - 1) / (e^A - 1), the zero-order hold of the
    system whose step of dt = 1 has the gain 1. Resampling depends on the branch of the log A: keep
    |Im A| <= pi.
    """
    A_bar, held = discretize_zoh(A, dt)
    _, held_for_one = discretize_zoh(A, jnp.ones_like(dt))
    return A_bar, jnp.where(dt == 1, jnp.ones_like(held), held / held_for_one)


DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear, "none": discretize_none}


@in_one_type
def exponent(A: Array, dt: Array, discretization: str) -> tuple[Array, Phase]:
    """z with A_bar^l = e^{z l}, and the phase of Im z, which is exact where z itself is rounded.

    Args:
      A: complex eigenvalues, in rad per unit of time; for "none" in rad per sample.
      dt: real step in units of time, or samples, positive; broadcasts against A.
      discretization: one of DISCRETIZE; ValueError for another.
    """
    if discretization not in DISCRETIZE:
        raise ValueError(
            f"unknown discretization {discretization!r}; choose one of {', '.join(DISCRETIZE)}."
        )
    if discretization == "bilinear":
        return _log_of_bilinear(A, dt), phase_of_bilinear(dt, A.real, A.imag)
    return dt * A, phase_of_product(dt, A.imag)


def _log_of_bilinear(A: Array, dt: Array) -> Array:
    """log A_bar, with h = dt A / 2:

    Re = log(|1 + h|^2 / |1 - h|^2) / 2,    Im = atan2(2 Im h, 1 - |h|^2).
    """
    half = dt * A / 2
    x, y = half.real, half.imag
    # A mode with dt A = -2 is forgotten in one step: log 0. 1e-17 adds nothing to 1 and has a
    # gradient.
    plus = 1 + x
    gone = (plus == 0) & (jnp.abs(y) < 1e-17)
    plus = jnp.where(gone, value_of(jnp.full_like(plus, 1e-17), plus), plus)
    dividend = plus**2 + y**2
    divisor = (1 - x) ** 2 + y**2
    ratio = 4 * x / divisor  # |A_bar|^2 - 1
    fast = ratio < -0.5  # there 1 + ratio cancels
    square = jnp.where(fast, dividend / divisor, 1.0)
    z_re = 0.5 * jnp.where(fast, jnp.log(square), jnp.log1p(jnp.where(fast, 0.0, ratio)))
    return z_re + 1j * jnp.arctan2(2 * y, (1 - x) * plus - y**2)


@Ruled
def value_of(value: Array, carrier: Array) -> Array:
    """`value`, differentiated as if it were `carrier`: an angle with and without whole turns."""
    return value


@value_of.defjvp
def _value_of_jvp(primals, tangents):
    # Not primals[0]: a second derivative would take that for a constant.
    return value_of(*primals), tangents[1]


def complex_expm1(x: Array, y: Array) -> Array:
    """e^{x + iy} - 1 without cancellation: Re = expm1(x) cos y - 2 sin(y/2)^2, Im = e^x sin y."""
    real = jnp.expm1(x) * jnp.cos(y) - 2 * jnp.sin(y / 2) ** 2
    return real + 1j * (jnp.exp(x) * jnp.sin(y))


@Ruled
def power_parts(z: Array, phase: Phase, steps: Array) -> ReIm:
    """Re and Im of e^{zl}, by the exact phase of Im z, for the int32 steps l; broadcasts.

    Differentiable by z, to any order: a phase has no derivative, so that of e^{zl} is l e^{zl}.
    """
    decay = jnp.exp(z.real * steps.astype(z.real.dtype))
    cos, sin = cos_sin(multiply(phase, steps))
    return decay * cos, decay * sin


@power_parts.defjvp
def _power_parts_jvp(primals, tangents):
    power = power_parts(*primals)
    return power, slope_of_power(power, tangents[0], primals[2])


def slope_of_power(power: ReIm, dz: Array, steps: Array) -> ReIm:
    """l e^{zl} dz of the powers e^{zl}."""
    re, im = power
    dz_re, dz_im = dz.real * steps.astype(re.dtype), dz.imag * steps.astype(re.dtype)
    return dz_re * re - dz_im * im, dz_re * im + dz_im * re


def power(z_N: Array, phase_N: Phase, steps: int) -> Array:
    """A_bar^steps, complex; differentiable by z."""
    angle_N = value_of(wrapped(multiply(phase_N, jnp.int32(steps))), steps * z_N.imag)
    decay_N = jnp.exp(steps * z_N.real)
    return jax.lax.complex(decay_N * jnp.cos(angle_N), decay_N * jnp.sin(angle_N))


def rest_of_power(power: ReIm, z: Array, phase: Phase) -> ReIm:
    """The part of A_bar = e^z that rounding took; with it A_bar is known to some 3e-9.

    By the nearest G of 128 directions, A_bar = G e^d = G + G (e^d - 1). G is known to 48 bits, and
    e^d - 1 is small unless the mode decays so fast that its steps do not add up.
    """
    re, im = power
    if re.dtype != jnp.float32:
        return jnp.zeros_like(re), jnp.zeros_like(im)
    nearest = (phase.ticks + (1 << (TICK_BITS - 1))) >> TICK_BITS
    turns = (phase.ticks - (nearest << TICK_BITS)).astype(jnp.float32) / TURN
    w = complex_expm1(z.real, np.float32(2 * np.pi) * (turns + phase.rest))  # e^d - 1
    (g_re, g_re_low), (g_im, g_im_low) = direction(nearest & (DIRECTIONS - 1))
    low_re = (g_re - re) + (g_re_low + (g_re * w.real - g_im * w.imag))
    low_im = (g_im - im) + (g_im_low + (g_re * w.imag + g_im * w.real))
    slow = z.real > -0.5  # below, the rounding of e^d - 1 would be all there is
    zero = jnp.float32(0)
    return jnp.where(slow, low_re, zero), jnp.where(slow, low_im, zero)


def lacking(A_bar: Array, z: Array, phase: Phase) -> Array:
    """The part that a rounded A_bar lacks to be e^z, by the exact phase of Im z; of any shape.

    x -> A_bar x + lacking x, step after step, then errs as a random walk of roundings does and not
    as a rotation by a wrong angle. Not differentiable: its derivative is far below rounding.
    """
    power = power_parts(z, phase, jnp.int32(1))
    low_re, low_im = rest_of_power(power, z, phase)
    difference = (power[0] + 1j * power[1]) - A_bar  # exact
    return jax.lax.stop_gradient(difference + (low_re + 1j * low_im))
