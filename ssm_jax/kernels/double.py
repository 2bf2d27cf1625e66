"""Sums of two float32 numbers that are not rounded, the larger first: 48 bits (Dekker 1971, Knuth).

Of float64 numbers, whose 53 bits are enough, products are plain and the second number is nearly 0.
"""

import jax
import jax.numpy as jnp
from jax import Array

Double = tuple[Array, Array]


def exactly(a: Array) -> Double:
    """A float32 number, behind a barrier: XLA adds known constants first, (1 + a) - 1 becomes a."""
    return jax.lax.optimization_barrier(a), jnp.zeros_like(a)


def product(a: Array, b: Array) -> Double:
    """a b exactly, for float32 a and b of one shape (Dekker).

    A mask, not arithmetic, splits them in halves, so that no compiler can simplify it away.
    """

    if a.dtype != jnp.float32:
        return a * b, jnp.zeros_like(a * b)

    def split(x: Array) -> Double:
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
        high = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return high, x - high

    # The barrier keeps the rounded p: fused into a difference, the product would stay unrounded and
    # its error be counted twice.
    p = jax.lax.optimization_barrier(a * b)
    (a_hi, a_lo), (b_hi, b_lo) = split(a), split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


def exact_sum(a: Array, b: Array) -> Double:
    """a + b exactly (Knuth)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def add(a: Double, b: Double) -> Double:
    s, error = exact_sum(a[0], b[0])
    return exact_sum(s, error + (a[1] + b[1]))


def subtract(a: Double, b: Double) -> Double:
    return add(a, (-b[0], -b[1]))


def times(a: Double, b: Double) -> Double:
    p, error = product(a[0], b[0])
    return exact_sum(p, error + (a[0] * b[1] + a[1] * b[0]))


def over(a: Double, b: Double) -> Double:
    """a / b as the rounded quotient and the remainder of the division; 0 where b is."""
    divisor = jnp.where(b[0] == 0, 1.0, b[0])
    t = jnp.where(b[0] == 0, 0.0, a[0] / divisor)
    remainder = subtract(a, times((t, jnp.zeros_like(t)), b))
    return t, jnp.where(b[0] == 0, 0.0, remainder[0] / divisor)


def root(a: Double) -> Double:
    """The square root of a positive number, likewise by its remainder."""
    s = jnp.sqrt(a[0])
    return s, subtract(a, product(s, s))[0] / (2 * s)
