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


def fft_passes(batch: int, length: int, channels: int) -> Callable[[], Array]:
    """The FFTs of one layer, (batch, channels, 2 length) each: rfft of the input, irfft of the
    output, rfft of its gradient, irfft of the input's, each waiting for the one before it."""
    x_BHL = jnp.zeros((batch, channels, 2 * length), jnp.float32)

    @jax.jit
    def passes(x_BHL):
        y_BHL = jnp.fft.irfft(jnp.fft.rfft(x_BHL), 2 * length)
        return jnp.fft.irfft(jnp.fft.rfft(y_BHL), 2 * length)

    return functools.partial(passes, x_BHL)


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
