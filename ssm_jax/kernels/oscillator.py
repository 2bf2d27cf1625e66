r"""Forced oscillators in discrete time as diagonal modes (LinOSS, D-LinOSS).

An oscillator x'' = -a x - G x' + v, with velocity s = x' and S = 1 + dt G, takes steps of dt:

    im      s_l = s + dt (v_l - a x_l)             x_l = x + dt s_l       implicit, G = 0
    imex    s_l = s + dt (v_l - a x - G s_l)       x_l = x + dt s_l       implicit in the damping

where s and x are of the step before. The poles of a step are r e^{+-it}, and its answer to an
impulse is the position k_l = F r^l sin((l + 1) t) / sin t, which is one mode and its conjugate:

    k_l = Re weight e^{zl},    z = log r + it,    weight = F (1 - i cot t)

            r                       t                                   F
    im      (1 + dt^2 a)^(-1/2)     atan(dt sqrt a)                     dt^2 / (1 + dt^2 a)
    imex    S^(-1/2)                2 atan(sqrt(q / p))                 dt^2 / S

with q = dt^2 a - (sqrt S - 1)^2 and p = (sqrt S + 1)^2 - dt^2 a. At t = 0 and t = pi the two poles
meet, the answer grows with l, and beyond one of them leaves the circle. So t stays between
SMALLEST and, for imex, pi - SMALLEST: D-LinOSS's clip of a to (2 + dt G -+ 2 sqrt S) / dt^2, this
much inside. Source: LinOSS, arXiv:2410.03943; D-LinOSS, arXiv:2505.12171.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.double import Double, add, exactly, over, product, root, subtract, times
from ssm_jax.kernels.phase import Phase, multiply, phase_of_vector
from ssm_jax.kernels.powers import power_parts, value_of

SCHEMES = ("im", "imex")
SMALLEST = 1e-4  # rad per step: a period of 63,000 steps


@in_one_type
def oscillator(
    a: Array, damping: Array, dt: Array, scheme: str, smallest: ArrayLike = SMALLEST
) -> tuple[Array, Phase, Array]:
    """(z, phase of Im z, weight) of the answers to an impulse, k_l = Re weight e^{zl}.

    Arrays of one shape: a and damping at least 0, in 1 / time^2 and 1 / time, dt positive; "im" has
    no damping and does not look at it. They are taken as exact float32 numbers, and the phase is
    right to some 1e-11 rad. Differentiable by all three; where t is clipped, not by a. Of "im" the
    least t may be another, which broadcasts: steps of different lengths have one least a then.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; choose one of {', '.join(SCHEMES)}.")
    # p and q have their exact values, and the derivatives of these formulas.
    held = jax.lax.stop_gradient
    smallest = jnp.broadcast_to(jnp.asarray(smallest, dt.dtype), dt.shape)
    p, q = _exact_parts(held(a), held(damping), held(dt), scheme, held(smallest))
    half = phase_of_vector(root(p), root(q))
    k = dt * dt * a
    if scheme == "im":
        q_value = value_of(q[0], jnp.maximum(k, held(smallest) ** 2))
        t, cot = jnp.arctan(jnp.sqrt(q_value)), 1 / jnp.sqrt(q_value)
        log_square, force = jnp.log1p(q_value), dt * dt / (1 + q_value)
        phase = half
    else:
        root_S = jnp.sqrt(1 + dt * damping)
        log_square, force = jnp.log1p(dt * damping), dt * dt / (1 + dt * damping)
        total, least = 4 * root_S, root_S * SMALLEST**2
        clipped = q[0] <= held(least), p[0] <= held(least)
        q_near = k - (dt * damping / (1 + root_S)) ** 2
        q_near = jnp.where(clipped[0], least, jnp.where(clipped[1], total - least, q_near))
        p_value, q_value = value_of(p[0], total - q_near), value_of(q[0], q_near)
        p_root, q_root = jnp.sqrt(p_value), jnp.sqrt(q_value)
        t, cot = 2 * jnp.arctan2(q_root, p_root), (p_value - q_value) / (2 * p_root * q_root)
        phase = multiply(half, jnp.int32(2))
    return jax.lax.complex(-0.5 * log_square, t), phase, jax.lax.complex(force, -force * cot)


@in_one_type
def imex_step(position, velocity, v, a, damping, dt) -> tuple[Array, Array]:
    """(position, velocity) after a step of the scheme "imex", of real arrays that broadcast.

    `oscillator` has the poles of this step, a being clipped as there.
    """
    shrunk = 1 + dt * damping
    root_S = jnp.sqrt(shrunk)
    slow, least = (dt * damping / (1 + root_S)) ** 2, root_S * SMALLEST**2
    k = jnp.clip(dt * dt * a, slow + least, slow + 4 * root_S - least)
    velocity = (velocity + dt * v - k / dt * position) / shrunk
    return position + dt * velocity, velocity


@in_one_type
def in_motion(x: Array, z: Array, phase: Phase, dt: Array) -> tuple[Array, Array]:
    """(position, velocity) of oscillators whose modes are in the states x, complex.

    z and its phase are as above. Near Nyquist the phase alone has the digits of sin t.
    """
    above, sin = _above_and_sin(z, phase)
    return x.real, jnp.exp(-z.real) * (above * x.real - sin * x.imag) / dt


@in_one_type
def in_modes(position: Array, velocity: Array, z: Array, phase: Phase, dt: Array) -> Array:
    """The states of the modes, whose answers go on from there: the reverse of `in_motion`."""
    above, sin = _above_and_sin(z, phase)
    pulled = above * position - jnp.exp(z.real) * dt * velocity
    return jax.lax.complex(position, pulled / sin)


def _above_and_sin(z: Array, phase: Phase) -> tuple[Array, Array]:
    """r - cos t and sin t of the pole r e^(it) = e^z."""
    # By the angle alone, as a power of e^{it}: a phase itself has no derivative.
    turn = jax.lax.complex(jnp.zeros_like(z.real), z.imag)
    cos, sin = power_parts(turn, phase, jnp.int32(1))
    return jnp.expm1(z.real) + jnp.where(cos > 0, sin**2 / (1 + abs(cos)), 1 - cos), sin


def _exact_parts(
    a: Array, damping: Array, dt: Array, scheme: str, smallest: Array
) -> tuple[Double, Double]:
    """p and q, clipped; for "im" 1 and dt^2 a, whose roots have the angle t and not half of it."""
    one = exactly(jnp.ones_like(dt))
    k = times(product(dt, dt), (a, jnp.zeros_like(a)))
    if scheme == "im":
        least = smallest**2, jnp.zeros_like(dt)
        return one, _where(k[0] > least[0], k, least)
    shrinking = product(dt, damping)
    root_S = root(add(one, shrinking))
    wide, narrow = add(one, root_S), over(shrinking, add(one, root_S))
    p, q = subtract(times(wide, wide), k), subtract(k, times(narrow, narrow))
    total = 4 * root_S[0], 4 * root_S[1]
    least = root_S[0] * np.float32(SMALLEST**2), jnp.zeros_like(dt)
    rest = subtract(total, least)
    low, high = q[0] <= least[0], p[0] <= least[0]
    return (
        _where(high, least, _where(low, rest, p)),
        _where(low, least, _where(high, rest, q)),
    )


def _where(chosen: Array, a: Double, b: Double) -> Double:
    return jnp.where(chosen, a[0], b[0]), jnp.where(chosen, a[1], b[1])
