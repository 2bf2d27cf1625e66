"""What the machine could do at best: the passes that no convolution layer can do without."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

FFTS = "fft_floor"
COPY = "copy"
PRODUCT = "product"

_PRODUCT_SIZE = 2048


def fft_passes(batch: int, length: int, channels: int) -> Callable[[], tuple[Array, ...]]:
    """The FFTs of one layer, forward and backward: rfft and irfft of the input, the output and
    their gradients, (batch, channels, 2 length) each."""
    x = jnp.zeros((batch, channels, 2 * length), jnp.float32)
    X = jnp.zeros((batch, channels, length + 1), jnp.complex64)

    @jax.jit
    def passes(x_in, Y, dy, dX):
        n = 2 * length
        return jnp.fft.rfft(x_in), jnp.fft.irfft(Y, n), jnp.fft.rfft(dy), jnp.fft.irfft(dX, n)

    return functools.partial(passes, x, X, x + 1, X + 1)


def copy_pass(batch: int, length: int, channels: int) -> Callable[[], Array]:
    """Read one spectrum (batch, channels, length + 1) and write another."""
    X = jnp.zeros((batch, channels, length + 1), jnp.complex64)
    add = jax.jit(lambda X: X + 1)
    return functools.partial(add, X)


def matrix_product() -> Callable[[], Array]:
    """A product of two square float32 matrices, large enough for the machine's full speed."""
    a = jnp.ones((_PRODUCT_SIZE, _PRODUCT_SIZE), jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    return functools.partial(product, a, a)


def product_seconds(flops: float, seconds_of_product: float) -> float:
    """Seconds that `flops` take at the speed of `matrix_product`."""
    return flops / (2 * _PRODUCT_SIZE**3) * seconds_of_product
