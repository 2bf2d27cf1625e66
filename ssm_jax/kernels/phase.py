r"""Angles of powers, e^{i theta l} for theta = dt y, with an error that does not grow with l.

Only theta mod 2 pi matters at an integer l. Rounding theta to float32 costs l |theta| 6e-8 rad: at
alpha = 10 and l = 2,000 the whole accuracy of a kernel. So theta is a fixed-point number of turns,

    theta / (2 pi) mod 1 = ticks / 2^32 + rest,     ticks: int32,  |rest| <= 2^-32,

and l ticks, which wraps around modulo 2^32 = one turn by itself, is exact. dt and y are taken as
exact float32 numbers. Their product and that with 1/(2 pi) are formed without rounding, see
`double.py`. Phases have no derivatives; `discretize.exponent` has.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.double import Double, add, exactly, over, product, subtract, times

_TURN = 2.0**32  # ticks in one turn
_DIRECTIONS = 128  # that divide the circle; a power of two, so they are whole numbers of ticks
_TICK_BITS = 25  # 2^25 ticks from one direction to the next

_INV_2PI = 1 / (2 * np.pi)
_INV_2PI_HIGH = np.float32(_INV_2PI)
_INV_2PI_LOW = np.float32(_INV_2PI - np.float64(_INV_2PI_HIGH))

# sin(2 pi t) / t and cos(2 pi t) as polynomials in t^2, for |t| <= 1/8 + 1e-3 (the margin is for
# `rest`). Interpolated at Chebyshev nodes, which comes within a factor 2 of the best polynomial:
# errors 3e-9 and 2e-10.
_SIN = (6.283185286541936, -41.34166063528543, 81.59213348746943, -75.3808251455036)
_COS = (0.9999999999485579, -19.739208640152032, 64.93931233591434, -85.4423944571966,
        59.20383798391507)  # fmt: skip


class Phase(NamedTuple):
    """An angle in turns: ticks / 2^32 + rest, modulo 1. Both arrays have the angle's shape."""

    ticks: Array  # int32
    rest: Array  # float


@jax.jit
def phase_of_product(dt: Array, y: Array) -> Phase:
    """The angle dt y as a phase; both are float32, or float64, where plain arithmetic is enough."""
    dt, y = jnp.broadcast_arrays(jax.lax.stop_gradient(dt), jax.lax.stop_gradient(y))
    if y.dtype != jnp.float32:
        return _phase_of_turns(dt * y * _INV_2PI)
    return _phase_of_angle(product(dt, y))


@jax.jit
def phase_of_bilinear(dt: Array, x: Array, y: Array) -> Phase:
    """The angle of (1 + h) / (1 - h), h = dt (x + iy) / 2, as a phase; types as above.

    It is atan2(2 Im h, 1 - |h|^2), which float32 rounds by up to 2e-7 rad: 2e-3 rad after 10,000
    steps. Here its error is 3e-12 rad.
    """
    dt, x, y = (jax.lax.stop_gradient(a) for a in (dt, x, y))
    if y.dtype != jnp.float32:
        re, im = dt * x / 2, dt * y / 2
        return _phase_of_turns(jnp.arctan2(2 * im, 1 - re**2 - im**2) * _INV_2PI)
    dt, x, y = jnp.broadcast_arrays(dt, x, y)
    h_re, h_im = product(dt, x / 2), product(dt, y / 2)
    one = exactly(jnp.ones_like(h_im[0]))
    # The vector (cosine, sine) of the angle, times |1 - h|^2.
    cosine = subtract(one, add(times(h_re, h_re), times(h_im, h_im)))
    return phase_of_vector(cosine, (2 * h_im[0], 2 * h_im[1]))


@jax.jit
def phase_of_vector(cosine: Double, sine: Double) -> Phase:
    """The angle of (cosine, sine), of any length, as a phase: of 48 bits to some 3e-12 rad."""
    if sine[0].dtype != jnp.float32:
        return _phase_of_turns(jnp.arctan2(sine[0], cosine[0]) * _INV_2PI)
    # Turn it back by the nearest direction, which is exact in ticks: 0.025 rad or less are left.
    per_radian = np.float32(_DIRECTIONS * _INV_2PI)
    nearest = jnp.round(jnp.arctan2(sine[0], cosine[0]) * per_radian).astype(jnp.int32)
    c, s = _direction(nearest)
    across = subtract(times(sine, c), times(cosine, s))
    along = add(times(cosine, c), times(sine, s))
    t, low = over(across, along)  # the tangent of what is left; of no vector its angle 0
    # arctan t = t - t^3/3 + t^5/5 - ...: all but t is below 5e-6, so float32 is enough for it.
    square = t * t
    cubic = t * square * (1 / 3 - square * (1 / 5 - square / 7))
    rest = _phase_of_angle((t, low - cubic))
    return Phase((nearest << _TICK_BITS) + rest.ticks, rest.rest)


def multiply(phase: Phase, steps: Array) -> Phase:
    """The phase of l times the angle, exact, for int32 steps l below 2^22; broadcasts."""
    return Phase(phase.ticks * steps, phase.rest * steps.astype(phase.rest.dtype))


def wrapped(phase: Phase) -> Array:
    """The angle in rad, in [-pi, pi] up to rounding."""
    dtype = phase.rest.dtype
    return (phase.ticks.astype(dtype) / _TURN + phase.rest) * jnp.asarray(2 * np.pi, dtype)


@jax.jit
def cos_sin(phase: Phase) -> tuple[Array, Array]:
    """(cos, sin) of a phase. Largest error in float32: 1.2e-7.

    By short polynomials around the nearest quarter turn: that rounds once less than jnp.cos and
    jnp.sin with their range reduction.
    """
    dtype = phase.rest.dtype
    if dtype != jnp.float32:
        angle = wrapped(phase)
        return jnp.cos(angle), jnp.sin(angle)
    # The two upper bits name the nearest quarter turn; overflow wraps, as it should.
    quadrant = (phase.ticks + (1 << 29)) >> 30  # -2..1
    octant = phase.ticks - (quadrant << 30)
    t = octant.astype(dtype) * np.float32(1 / _TURN) + phase.rest  # in turns, |t| <= 1/8
    square = t * t

    def polynomial(coefficients: tuple[float, ...]) -> Array:
        total = jnp.full_like(square, coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = total * square + np.float32(c)
        return total

    sine, cosine = t * polynomial(_SIN), polynomial(_COS)
    # A quarter turn exchanges the two, and changes a sign.
    odd = (quadrant & 1) == 1
    cos = jnp.where(odd, sine, cosine)
    sin = jnp.where(odd, cosine, sine)
    flip_cos, flip_sin = ((quadrant + 1) & 2) != 0, (quadrant & 2) != 0
    return jnp.where(flip_cos, -cos, cos), jnp.where(flip_sin, -sin, sin)


def nearest_direction(phase: Phase) -> tuple[Double, Double, Array]:
    """(cos, sin) of the nearest of 128 directions, to 48 bits, and the angle from it in rad."""
    nearest = (phase.ticks + (1 << (_TICK_BITS - 1))) >> _TICK_BITS
    turns = (phase.ticks - (nearest << _TICK_BITS)).astype(jnp.float32) / _TURN
    return *_direction(nearest), np.float32(2 * np.pi) * (turns + phase.rest)


def _direction(index: Array) -> tuple[Double, Double]:
    """Cosine and sine of index / 128 of a turn."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    index = index & (_DIRECTIONS - 1)

    def taken(exact: np.ndarray) -> Double:
        high = exact.astype(np.float32)
        low = (exact - high).astype(np.float32)
        return jnp.asarray(high)[index], jnp.asarray(low)[index]

    return taken(np.cos(angles)), taken(np.sin(angles))


def _phase_of_angle(angle: Double) -> Phase:
    """The phase of an angle in rad."""
    turns, error = product(angle[0], jnp.full_like(angle[0], _INV_2PI_HIGH))
    large = _phase_of_turns(turns)
    small = _phase_of_turns(error + angle[0] * _INV_2PI_LOW + angle[1] * _INV_2PI_HIGH)
    return Phase(large.ticks + small.ticks, large.rest + small.rest)


def _phase_of_turns(turns: Array) -> Phase:
    fraction = turns - jnp.round(turns)  # exact
    fraction = jnp.where(fraction >= 0.5, fraction - 1, fraction)  # +1/2 has no int32
    whole = jnp.round(fraction * _TURN)
    whole = jnp.where(whole >= _TURN / 2, -_TURN / 2, whole)  # float64 may round up to +1/2
    return Phase(whole.astype(jnp.int32), fraction - whole / _TURN)
