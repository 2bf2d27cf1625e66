"""Powers e^{zl} of modes by exact phases, and complex numbers as pairs of reals.

Products of complex64 are slow on CPUs: complex arrays are pairs (re, im), or [Re, Im] on a last
axis of 2N.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.phase import Phase, cos_sin, multiply, nearest_direction, wrapped
from ssm_jax.kernels.rules import Ruled

ReIm = tuple[Array, Array]  # real and imaginary part


def parts(x: Any) -> ReIm:
    return x.real, x.imag


def halves(x: Array) -> ReIm:
    """Of an array whose last axis is 2N."""
    N = x.shape[-1] // 2
    return x[..., :N], x[..., N:]


def times(a: ReIm, b: ReIm) -> ReIm:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def complex_expm1(x: Array, y: Array) -> Array:
    """e^{x + iy} - 1 without cancellation: Re = expm1(x) cos y - 2 sin(y/2)^2, Im = e^x sin y."""
    real = jnp.expm1(x) * jnp.cos(y) - 2 * jnp.sin(y / 2) ** 2
    return real + 1j * (jnp.exp(x) * jnp.sin(y))


@Ruled
def value_of(value: Array, carrier: Array) -> Array:
    """`value`, differentiated as if it were `carrier`: an angle with and without whole turns."""
    return value


@value_of.defjvp
def _value_of_jvp(primals, tangents):
    # Not primals[0]: a second derivative would take that for a constant.
    return value_of(*primals), tangents[1]


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
    steps = steps.astype(power[0].dtype)
    return times((dz.real * steps, dz.imag * steps), power)


@Ruled
def powers(z_HN: Array, phase_HN: Phase, steps_T: Array) -> Array:
    """[Re e^{zl}, Im e^{zl}] for the int32 steps l, as (H, T, 2N); differentiable as its parts."""
    phase_H1N = Phase(*(part[:, None, :] for part in phase_HN))
    power = power_parts(z_HN[:, None, :], phase_H1N, steps_T[None, :, None])
    return jnp.concatenate(power, axis=-1)


@powers.defjvp
def _powers_jvp(primals, tangents):  # of the whole: XLA would compute the parts again for it
    power_HT2N = powers(*primals)
    slope = slope_of_power(halves(power_HT2N), tangents[0][:, None], primals[2][None, :, None])
    return power_HT2N, jnp.concatenate(slope, axis=-1)


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
    (g_re, g_re_low), (g_im, g_im_low), angle = nearest_direction(phase)
    w = complex_expm1(z.real, angle)  # e^d - 1
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
