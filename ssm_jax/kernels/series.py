r"""Power series a(z) = sum_l a_l z^l modulo z^L: product and quotient, by FFT.

A causal kernel of L taps is such a series, and causal convolution is its product. Nothing is
approximated: no tap below L of a product or a quotient depends on one from L on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

# Up to here a reciprocal is found by substitution, beyond by Newton's method.
_DIRECT_TERMS = 64


def product(a: Array, b: Array) -> Array:
    """a b mod z^L, for real series of the same shape, their L terms on the last axis."""
    length = a.shape[-1]
    return _cut_product(_spectrum(a, length), _spectrum(b, length), length)


def _spectrum(a: Array, length: int) -> Array:
    return jnp.fft.rfft(a, 2 * length)


def _cut_product(a_F: Array, b_F: Array, length: int) -> Array:
    return jnp.fft.irfft(a_F * b_F, 2 * length)[..., :length]


def _short_reciprocal(f: Array) -> Array:
    """1 / f by substitution in the lower triangular Toeplitz matrix of f."""
    terms = f.shape[-1]
    lag = jnp.arange(terms)[:, None] - jnp.arange(terms)[None, :]
    matrix = jnp.where(lag >= 0, f[..., jnp.maximum(lag, 0)], jnp.zeros((), f.dtype))
    one = jnp.zeros((*f.shape, 1), f.dtype).at[..., 0, 0].set(1)
    return jax.lax.linalg.triangular_solve(matrix, one, left_side=True, lower=True)[..., 0]


def _reciprocal(f: Array) -> Array:
    """1 / f by Newton's method, g <- g - g (f g - 1), which doubles the known terms.

    The circle is as long as the new g: of f g only the terms wrap around that are known to be 1, 0,
    0, ...
    """
    terms = f.shape[-1]
    if terms <= _DIRECT_TERMS:
        return _short_reciprocal(f)
    half = -(-terms // 2)
    g = _reciprocal(f[..., :half])
    g_F = _spectrum(g, half)
    error = jnp.fft.irfft(jnp.fft.rfft(f, 2 * half) * g_F, 2 * half)[..., half:]
    return jnp.concatenate([g, -_cut_product(_spectrum(error, half), g_F, half)], -1)[..., :terms]


@jax.custom_vjp
def quotient(b: Array, f: Array) -> Array:
    """b / f mod z^L, the series h with f h = b; differentiable in reverse mode.

    For f with |1 / f| <= 1 on the unit disc, which keeps rounding errors from growing with L. In
    float32 the FFT in the reciprocal alone can cost 1e-3 of the answer, where f is large at some
    frequencies; so the answer is refined once by its residual, which leaves 1e-5 there.

    Args:
      b, f: real series of the same shape, their L terms on the last axis; f_0 is not 0.
    """
    return _quotient_forward(b, f)[0]


def _solve(b: Array, f_F: Array, g_F: Array) -> Array:
    length = b.shape[-1]
    h = _cut_product(_spectrum(b, length), g_F, length)
    residual = b - _cut_product(_spectrum(h, length), f_F, length)
    return h + _cut_product(_spectrum(residual, length), g_F, length)


def _quotient_forward(b, f):
    length = f.shape[-1]
    f_F, g_F = _spectrum(f, length), _spectrum(_reciprocal(f), length)
    h = _solve(b, f_F, g_F)
    return h, (h, f_F, g_F)


def _quotient_backward(residuals, dh):
    """The transpose of dividing is dividing with time reversed."""
    h, f_F, g_F = residuals
    reversed_db = _solve(dh[..., ::-1], f_F, g_F)
    return reversed_db[..., ::-1], -product(reversed_db, h)[..., ::-1]


quotient.defvjp(_quotient_forward, _quotient_backward)
