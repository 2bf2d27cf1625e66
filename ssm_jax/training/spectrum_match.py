"""Fit the response of a layer to the spectrum of its input, before training.

Where a layer amplifies what its input has, it starts with what the task may need: the idea, called
task-dependent initialization there, is of arXiv:2509.20789, of which we know reviews alone; loss
and loop are ours. The power that a layer passes at a frequency, the mean over its channels and
directions of |K(w)|^2 of the taps K, is fitted to the power of the input: their shapes, not their
scale. Only A, dt and C move. The filter of beta and the skip D are left out.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ssm_jax.analysis.inputs import default_segment, input_spectrum

RATE = 1e-2  # of Adam
FLOOR = 1e-4  # of the largest power: what lies below counts as this
FITTED = ("A_re_raw", "A_im", "dt_raw", "C_ri")


def input_power(u_nLC: np.ndarray) -> np.ndarray:
    """The power of sequences at w = 2 pi k / S, k = 1 .. S / 2, by Welch's method in segments of S.

    Zeros behind the end of a sequence, in all channels, are padding and not counted. ValueError: no
    sequence has 64 steps, or none ever changes.
    """
    ends_n = u_nLC.shape[1] - np.argmax(np.any(u_nLC != 0, axis=2)[:, ::-1], axis=1)
    sequences = [u_LC[:end] for u_LC, end in zip(u_nLC, ends_n, strict=True)]
    spectrum = input_spectrum(sequences, default_segment(ends_n) // 2 * 2)
    return spectrum.power_F[1:]


def passed_power(layer: Any, bins: int, length: int) -> Array:
    """The mean over channels and directions of |K(w)|^2 at the angles of `input_power`."""
    segment = 2 * bins
    k_CHL = layer.taps(-(-length // segment) * segment)
    # Taps a segment apart meet the bins with the same phase
    folded = k_CHL.reshape(*k_CHL.shape[:2], -1, segment).sum(axis=2)
    return jnp.mean(jnp.abs(jnp.fft.rfft(folded)[..., 1:]) ** 2, axis=(0, 1))


def distance(passed_F: Any, wanted_F: Any, numpy: Any = jnp) -> Any:
    """Of two power spectra the root mean square of their ratio in dB, up to a constant factor.

    All octaves have the same weight; what is below FLOOR of the largest counts as that.
    """
    n_F = numpy.arange(1, wanted_F.size + 1)
    weight_F = (1 / n_F) / numpy.sum(1 / n_F)

    def level(power_F: Any) -> Any:
        decibel_F = 10 * numpy.log10(numpy.maximum(power_F / numpy.max(power_F), FLOOR))
        return decibel_F - numpy.sum(weight_F * decibel_F)

    apart_F = level(passed_F) - level(wanted_F)
    return numpy.sqrt(numpy.sum(weight_F * apart_F**2))


def match(layer: Any, wanted_F: np.ndarray, length: int, steps: int) -> tuple[float, float]:
    """Fit A, dt and C of a layer in place, at `length` taps; the `distance` before and after.

    The scale of C is such that the layer passes as much power in all as before. It keeps the best
    of all steps, so that the distance never grows.
    """
    power_F = jnp.asarray(wanted_F / wanted_F.max(), jnp.float32)
    fitted = {name: getattr(layer, name)[...] for name in FITTED}
    best, before, after, factor = _fitted(
        nnx.graphdef(layer), nnx.to_pure_dict(nnx.state(layer)), fitted, power_F, length, steps
    )
    for name, value in best.items():
        setattr(layer, name, nnx.Param(value * factor if name == "C_ri" else value))
    return float(before), float(after)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _fitted(
    graphdef: Any, state: Any, start: Any, wanted_F: Array, length: int, steps: int
) -> tuple[Any, Array, Array, Array]:
    def passed(fitted: Any) -> Array:
        return passed_power(nnx.merge(graphdef, {**state, **fitted}), wanted_F.size, length)

    def loss(fitted: Any) -> Array:
        return distance(passed(fitted), wanted_F) ** 2

    optimizer = optax.adam(RATE)

    def step(carry: Any, _: None) -> Any:
        fitted, moments, best, least = carry
        value, slope = jax.value_and_grad(loss)(fitted)
        better = value < least
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), fitted, best)
        updates, moments = optimizer.update(slope, moments)
        carry = optax.apply_updates(fitted, updates), moments, best, jnp.minimum(value, least)
        return carry, None

    with jax.numpy_dtype_promotion("standard"):
        first = loss(start)
        carry = start, optimizer.init(start), start, first
        (_, _, best, least), _ = jax.lax.scan(step, carry, None, length=steps + 1)
    factor = jnp.sqrt(jnp.sum(passed(start)) / jnp.sum(passed(best)))
    return best, jnp.sqrt(first), jnp.sqrt(least), factor
