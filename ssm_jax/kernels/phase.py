r"""Angles of powers: e^{i theta l} for theta = dt * y, with an error that does not grow with l.

Only theta mod 2 pi matters at an integer l. Rounding theta to float32 first costs l * |theta| *
6e-8 rad: at alpha = 10 and l = 2,000 that is the whole accuracy of a kernel. So theta is kept as a
fixed-point number of turns,

    theta / (2 pi) mod 1 = ticks / 2^32 + rest,     ticks: int32,  |rest| <= 2^-32,

and l * ticks, which wraps around modulo 2^32 = one turn by itself, is exact. `dt` and `y` are taken
as exact float32 numbers; their product and the product with 1/(2 pi) are formed in pieces without
rounding (Dekker 1971, splitting by a bit mask).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

TURN = 2.0**32  # ticks in one turn

# 1 / (2 pi) as a sum of two float32 numbers: 48 bits
_INV_2PI = 1 / (2 * np.pi)
_INV_2PI_HI = np.float32(_INV_2PI)
_INV_2PI_LO = np.float32(_INV_2PI - np.float64(_INV_2PI_HI))

_OCTANT = 1 / 8 + 1e-3  # largest |turns| that the polynomials see; the margin is for `rest`


def _even_polynomial(function, degree: int) -> tuple[float, ...]:
    """Coefficients c of function(t) = sum_k c_k t^(2k) on |t| <= _OCTANT.

    By interpolation at Chebyshev nodes, which comes within a factor 2 of the best polynomial.
    """
    of_square = np.polynomial.Chebyshev.interpolate(
        lambda s: function(np.sqrt(s)), degree, domain=[0, _OCTANT**2]
    )
    return tuple(float(c) for c in of_square.convert(kind=np.polynomial.Polynomial).coef)


_SIN_OVER_T = _even_polynomial(lambda t: 2 * np.pi * np.sinc(2 * t), 3)  # error 3e-9
_COS = _even_polynomial(lambda t: np.cos(2 * np.pi * t), 4)  # error 2e-10


# Directions that divide the circle; a power of two, so that they are whole numbers of ticks
_DIRECTION_BITS = 7
DIRECTIONS = 1 << _DIRECTION_BITS
TICK_BITS = 32 - _DIRECTION_BITS  # ticks from one direction to the next, as a power of two


class Phase(NamedTuple):
    """An angle in turns: ticks / 2^32 + rest, modulo 1. Both arrays have the angle's shape."""

    ticks: Array  # int32
    rest: Array  # float


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """p + e = a b exactly, for float32 a and b.

    A mask, not arithmetic, splits them in halves, so that no compiler can simplify it away.
    """

    def split(x: Array) -> tuple[Array, Array]:
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
        high = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return high, x - high

    # The barrier keeps the rounded p: fused into p - c, the product would stay unrounded and e be
    # counted twice.
    p = jax.lax.optimization_barrier(a * b)
    (a_hi, a_lo), (b_hi, b_lo) = split(a), split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


Pair = tuple[Array, Array]  # the unrounded sum of two float32 numbers, the larger first: 48 bits


def _two_sum(a: Array, b: Array) -> Pair:
    """s + e = a + b exactly (Knuth)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def _add(a: Pair, b: Pair) -> Pair:
    s, e = _two_sum(a[0], b[0])
    return _two_sum(s, e + (a[1] + b[1]))


def _times(a: Pair, b: Pair) -> Pair:
    p, e = _two_product(a[0], b[0])
    return _two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def _negative(a: Pair) -> Pair:
    return -a[0], -a[1]


def direction(index: Array) -> tuple[Pair, Pair]:
    """Cosine and sine of index / DIRECTIONS of a turn, for 0 <= index < DIRECTIONS."""
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS

    def taken(exact: np.ndarray) -> Pair:
        high = exact.astype(np.float32)
        low = (exact - high).astype(np.float32)
        return jnp.asarray(high)[index], jnp.asarray(low)[index]

    return taken(np.cos(angles)), taken(np.sin(angles))


def _to_ticks(turns: Array) -> Phase:
    """The phase of a number of turns, which may be many."""
    fraction = turns - jnp.round(turns)  # exact
    fraction = jnp.where(fraction >= 0.5, fraction - 1, fraction)  # +1/2 has no int32
    whole = jnp.round(fraction * TURN)
    whole = jnp.where(whole >= TURN / 2, -TURN / 2, whole)  # float64 may round up to +1/2
    return Phase(whole.astype(jnp.int32), fraction - whole / TURN)


def phase_of_product(dt: Array, y: Array) -> Phase:
    """The angle dt * y, in rad, as a phase. Not differentiable: `discretize.exponent` is.

    Args:
      dt: real step; broadcasts against y.
      y: real angular frequency in rad per unit of time. Both float32, or both float64 (then plain
        arithmetic is used).
    """
    dt, y = jnp.broadcast_arrays(jax.lax.stop_gradient(dt), jax.lax.stop_gradient(y))
    if y.dtype != jnp.float32:
        return _to_ticks(dt * y * _INV_2PI)
    return _phase_of_pair(_two_product(dt, y))


def _phase_of_pair(angle: Pair) -> Phase:
    """The phase of an angle in rad."""
    turns, turns_error = _two_product(angle[0], jnp.full_like(angle[0], _INV_2PI_HI))
    large = _to_ticks(turns)
    small = _to_ticks(turns_error + angle[0] * _INV_2PI_LO + angle[1] * _INV_2PI_HI)
    return Phase(large.ticks + small.ticks, large.rest + small.rest)


def phase_of_bilinear(dt: Array, x: Array, y: Array) -> Phase:
    """The angle of (1 + h) / (1 - h), h = dt (x + iy) / 2, as a phase. Not differentiable.

    It is atan2(2 Im h, 1 - |h|^2), which float32 rounds by up to 2e-7 rad: 2e-3 rad after 10,000
    steps. So the vector is formed in pairs and turned back by the nearest of 128 directions, exact
    in ticks; the angle that is left is below 0.025 rad, and the only part of its arctangent that is
    rounded to float32, t^3 / 3, below 5e-6. Error 3e-12 rad.

    Args:
      dt: real step; broadcasts against x and y.
      x, y: real and imaginary part of the eigenvalue. All float32, or all float64 (then plain
        arithmetic is used).
    """
    dt, x, y = (jax.lax.stop_gradient(a) for a in (dt, x, y))
    if y.dtype != jnp.float32:
        h_re, h_im = dt * x / 2, dt * y / 2
        return _to_ticks(jnp.arctan2(2 * h_im, 1 - h_re**2 - h_im**2) * _INV_2PI)
    dt, x, y = jnp.broadcast_arrays(dt, x, y)
    p, q = _two_product(dt, x / 2), _two_product(dt, y / 2)
    # Behind the barrier, because XLA adds known constants first: (1 + a) - 1 becomes a.
    one = jax.lax.optimization_barrier(jnp.ones_like(q[0])), jnp.zeros_like(q[0])
    sine = 2 * q[0], 2 * q[1]
    cosine = _add(one, _negative(_add(_times(p, p), _times(q, q))))
    per_radian = np.float32(DIRECTIONS * _INV_2PI)
    nearest = jnp.round(jnp.arctan2(sine[0], cosine[0]) * per_radian).astype(jnp.int32)
    c, s = direction(nearest & (DIRECTIONS - 1))
    across = _add(_times(sine, c), _negative(_times(cosine, s)))
    along = _add(_times(cosine, c), _times(sine, s))
    divisor = jnp.where(along[0] == 0, 1.0, along[0])  # h = -1: the vector is 0 and its angle too
    t = across[0] / divisor
    left_over = _add(across, _negative(_times((t, jnp.zeros_like(t)), along)))
    square = t * t
    cubic = t * square * (1 / 3 - square * (1 / 5 - square / 7))
    rest = _phase_of_pair((t, left_over[0] / divisor - cubic))
    return Phase((nearest << TICK_BITS) + rest.ticks, rest.rest)


def multiply(phase: Phase, steps: Array) -> Phase:
    """The phase of l times the angle, exact, for int32 steps l below 2^22; broadcasts."""
    return Phase(phase.ticks * steps, phase.rest * steps.astype(phase.rest.dtype))


def wrapped(phase: Phase) -> Array:
    """The angle in rad, in [-pi, pi] up to rounding."""
    dtype = phase.rest.dtype
    return (phase.ticks.astype(dtype) / TURN + phase.rest) * jnp.asarray(2 * np.pi, dtype)


def cos_sin(phase: Phase) -> tuple[Array, Array]:
    """(cos, sin) of a phase. Largest error in float32: 1.2e-7.

    There by short polynomials on the octants beside the nearest quarter turn, which two bits of
    the ticks name: that rounds once less than jnp.cos and jnp.sin with their range reduction.
    """
    dtype = phase.rest.dtype
    if dtype != jnp.float32:
        angle = wrapped(phase)
        return jnp.cos(angle), jnp.sin(angle)
    quadrant = (phase.ticks + (1 << 29)) >> 30  # -2..1; overflow wraps, as it should
    octant = phase.ticks - (quadrant << 30)
    t = octant.astype(dtype) * np.float32(1 / TURN) + phase.rest
    square = t * t
    sine = t * _horner(_SIN_OVER_T, square)
    cosine = _horner(_COS, square)
    odd = (quadrant & 1) == 1
    flip_cos = ((quadrant + 1) & 2) != 0
    flip_sin = (quadrant & 2) != 0
    cos_value = jnp.where(odd, sine, cosine)
    sin_value = jnp.where(odd, cosine, sine)
    return (
        jnp.where(flip_cos, -cos_value, cos_value),
        jnp.where(flip_sin, -sin_value, sin_value),
    )


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + np.float32(c)
    return total
