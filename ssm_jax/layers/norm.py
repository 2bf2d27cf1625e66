"""Batch normalization with PyTorch's statistics; layer normalization with PyTorch's epsilon."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_lengths, computed_in, real_steps, returned_in
from ssm_jax.kernels.devices import materialize, on_gpu
from ssm_jax.layers.inputs import checked_input
from ssm_jax.options.arguments import check, check_choice

EPSILON = 1e-5
NORMS = ("batch", "layer")


class BatchNorm(nnx.Module):
    """Normalizes each channel over batch and time, as torch.nn.BatchNorm1d.

    In training with the batch's own mean and biased variance; in evaluation with running ones. The
    running variance is the unbiased one, times n / (n - 1), which Flax's BatchNorm does not keep
    (OC-16). Steps of a sequence without a real step never count.
    """

    def __init__(self, num_features: int, *, momentum: float = 0.1):
        """`momentum`: weight of the new statistics in the running ones (Flax's is 1 - m)."""
        check("BatchNorm", locals())
        self.momentum = momentum
        self.scale = nnx.Param(jnp.ones((num_features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((num_features,), jnp.float32))

    def __call__(
        self,
        x_BLH: Array,
        lengths_B: ArrayLike | None = None,
        *,
        train: bool,
        padding: bool = False,
        near_H: Array | None = None,
    ) -> Array:
        """Normalize, by the rule of types of `inputs.py`.

        With `train` by the statistics of the batch, and update the running ones, unless there is no
        real step (`checked_lengths`; None: all are). With `padding` padded steps count, too, in
        sequences that have a real one (OC-15). `near_H` is a guess of the mean, see `_normalized`.
        """
        x_BLH = checked_input("BatchNorm", x_BLH, "(B, L, H)", self.scale.shape[0])
        B, L, _ = x_BLH.shape
        lengths_B = checked_lengths("BatchNorm", lengths_B, (B,), L)
        kept = self.scale[...], self.bias[...], self.mean[...], self.var[...]
        dtype = computed_in(x_BLH, *kept)
        scale_H, bias_H, old_mean_H, old_var_H = (a_H.astype(dtype) for a_H in kept)
        z_BLH = x_BLH.astype(dtype)
        if not train or B == 0:
            y_BLH = _affine(z_BLH, old_mean_H, old_var_H, scale_H, bias_H)
            return y_BLH.astype(returned_in(x_BLH, dtype))
        n: Array | None = None  # steps that count; None: B L
        if lengths_B is None:
            y_BLH, mean_H, var_H = _normalized(z_BLH, scale_H, bias_H, None, near_H)
        elif padding:
            n = jnp.sum(lengths_B > 0).astype(dtype) * L
            y_BLH, mean_H, var_H = _normalized(z_BLH, scale_H, bias_H, lengths_B > 0, near_H)
        else:
            n = jnp.sum(lengths_B).astype(dtype)
            y_BLH, mean_H, var_H = _normalized_within(z_BLH, lengths_B, n, scale_H, bias_H)
        mean_H, var_H = jax.lax.stop_gradient((mean_H, var_H))
        var_H = var_H * (B * L / max(B * L - 1, 1) if n is None else n / jnp.maximum(n - 1, 1))
        moves = (self.mean, old_mean_H, mean_H), (self.var, old_var_H, var_H)
        for variable, old_H, new_H in moves:
            moved_H = (1 - self.momentum) * old_H + self.momentum * new_H
            moved_H = moved_H if n is None else jnp.where(n > 0, moved_H, old_H)
            variable[...] = moved_H.astype(variable[...].dtype)
        return y_BLH.astype(returned_in(x_BLH, dtype))


def _affine(x_BLH: Array, mean_H: Array, var_H: Array, scale_H: Array, bias_H: Array) -> Array:
    factor_H = scale_H * jax.lax.rsqrt(var_H + EPSILON)
    return (x_BLH - mean_H[None, None, :]) * factor_H[None, None, :] + bias_H[None, None, :]


def _normalized_within(x_BLH, lengths_B, n, scale_H, bias_H) -> tuple[Array, Array, Array]:
    """y, and mean and biased variance over the n real steps."""
    real_BL1, n = real_steps(lengths_B, x_BLH.shape[1])[:, :, None], jnp.maximum(n, 1)
    zero = jnp.zeros_like(x_BLH)
    mean_H = jnp.sum(jnp.where(real_BL1, x_BLH, zero), axis=(0, 1)) / n
    centered_BLH = jnp.where(real_BL1, x_BLH - mean_H[None, None, :], zero)
    var_H = jnp.sum(jnp.square(centered_BLH), axis=(0, 1)) / n
    return _affine(x_BLH, mean_H, var_H, scale_H, bias_H), mean_H, var_H


@jax.custom_jvp
def _normalized(x_BLH, scale_H, bias_H, present_B=None, near_H=None) -> tuple[Array, ...]:
    """y, and the mean and biased variance of the sequences that are present; None: all.

    With the derivative in closed form: a gradient reads 3 arrays of the size of x; the one that JAX
    derives reads 7. With a guess of the mean both statistics take one pass: the error of the
    variance, relative, is float32's times 1 + (mean - near)^2 / variance.
    """
    if near_H is None:
        mean_H = _mean(x_BLH, present_B)
        var_H = _mean(jnp.square(x_BLH - mean_H[None, None, :]), present_B)
    else:  # as one sum of complex numbers: of two XLA takes one alone in the pass that makes x
        apart_BLH = x_BLH - near_H[None, None, :]
        both_H = _mean(jax.lax.complex(apart_BLH, jnp.square(apart_BLH)), present_B)
        mean_H = near_H + both_H.real
        var_H = jnp.maximum(both_H.imag - jnp.square(both_H.real), 0)
    return _affine(x_BLH, mean_H, var_H, scale_H, bias_H), mean_H, var_H


@_normalized.defjvp
def _normalized_jvp(primals, tangents):
    """With x_hat = (x - mean) / sigma: dy = scale / sigma (dx - mean dx - x_hat mean(dx x_hat))."""
    x_BLH, scale_H, _, present_B, _ = primals
    dx_BLH, dscale_H, dbias_H, *_ = tangents
    y_BLH, mean_H, var_H = _normalized(*primals)
    inverse_H = jax.lax.rsqrt(var_H + EPSILON)
    centered_BLH = x_BLH - mean_H[None, None, :]
    factor_H = scale_H * inverse_H
    shift_H = _mean(dx_BLH, present_B)
    half_H = _mean(dx_BLH * centered_BLH, present_B)  # half of the variance's
    by_centered_H = inverse_H * dscale_H - factor_H * inverse_H**2 * half_H
    by_constant_H = dbias_H - factor_H * shift_H
    by_H = by_constant_H, by_centered_H
    if on_gpu():  # one complex number, so that the sums for its gradient are one
        by_BLH = jnp.broadcast_to(jax.lax.complex(*by_H)[None, None, :], x_BLH.shape)
        by_constant, by_centered = by_BLH.real, by_BLH.imag
    else:
        by_constant, by_centered = (a_H[None, None, :] for a_H in by_H)
    dy_BLH = dx_BLH * factor_H[None, None, :] + centered_BLH * by_centered + by_constant
    return (y_BLH, mean_H, var_H), (materialize(dy_BLH, scale_H[0]), shift_H, 2 * half_H)


def _mean(x_BLH: Array, present_B: Array | None) -> Array:
    """Over the steps of the sequences that are present; the same bits if all are."""
    B, L, _ = x_BLH.shape
    if present_B is None:
        return jnp.sum(x_BLH, axis=(0, 1)) / (B * L)
    sum_H = jnp.sum(jnp.where(present_B[:, None, None], x_BLH, jnp.zeros_like(x_BLH)), axis=(0, 1))
    share = B / jnp.maximum(jnp.sum(present_B), 1).astype(x_BLH.dtype)
    return sum_H / (B * L) * share


class LayerNorm(nnx.Module):
    """Normalizes each step over its channels, whatever lengths and mode are."""

    def __init__(self, num_features: int):
        check("LayerNorm", locals())
        self.scale = nnx.Param(jnp.ones((num_features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_features,), jnp.float32))

    def __call__(self, x_BLH: Array, lengths_B: Any = None, **_: bool) -> Array:
        x_BLH = checked_input("LayerNorm", x_BLH, "(B, L, H)", self.scale.shape[0])
        dtype = computed_in(x_BLH, self.scale[...], self.bias[...])
        z_BLH = x_BLH.astype(dtype)
        mean_BL1 = jnp.mean(z_BLH, axis=-1, keepdims=True)
        var_BL1 = jnp.mean(jnp.square(z_BLH - mean_BL1), axis=-1, keepdims=True)
        normal_BLH = (z_BLH - mean_BL1) * jax.lax.rsqrt(var_BL1 + EPSILON)
        scale_H, bias_H = self.scale[...].astype(dtype), self.bias[...].astype(dtype)
        y_BLH = normal_BLH * scale_H[None, None, :] + bias_H[None, None, :]
        return y_BLH.astype(returned_in(x_BLH, dtype))


def make_norm(kind: str, num_features: int, momentum: float = 0.1) -> BatchNorm | LayerNorm:
    """The norm named `kind`, one of NORMS; only the first has a momentum."""
    check_choice("make_norm", "norm", kind, NORMS)
    if kind == "layer":
        return LayerNorm(num_features)
    return BatchNorm(num_features, momentum=momentum)
