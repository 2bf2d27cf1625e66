"""Forward and backward of one layer, next to the passes that no convolution layer can do without.

The floor of both is, at the speeds of the same run, all FFTs (of the input, the output and their
gradients, of the kernel and its gradient), six spectral arrays at the speed of a copy, and the
three products of the kernel at the speed of a large matrix product. Those of a block's gate are at
the precision that the model asks for, which accelerators multiply faster.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from benchmarks.measure import PeakMemory, Times, processor_seconds, ratio, rounds, summary
from ssm_jax.layers import find_layer
from ssm_jax.options.arguments import parameters_of

FFTS = "fft_floor"
KERNEL_FFTS = "kernel_ffts"
COPY = "copy"
PRODUCT = "product"
GATE_PRODUCT = "gate_product"

_SPECTRAL_ARRAYS = 6  # of the input, output and kernel, and of their gradients
_PRODUCT_SIZE = 2048


def passes(
    batch: int, length: int, channels: int, gate: str | None = None
) -> dict[str, Callable[[], Array]]:
    """Passes to time for the floor of a layer, by name; `gate` is `model.precision` of a block."""
    found = {
        FFTS: fft_passes(batch, length, channels),
        KERNEL_FFTS: kernel_fft_passes(length, channels),
        COPY: copy_pass(batch, length, channels),
        PRODUCT: matrix_product("highest"),
    }
    return found if gate is None else {**found, GATE_PRODUCT: matrix_product(gate)}


def layer_seconds(times: Times, flops: float, gate_flops: float = 0.0) -> list[float]:
    """The floor of each round, with so many operations of products, from `passes` timed."""
    columns = [times[name] for name in (FFTS, KERNEL_FFTS, COPY, PRODUCT)]
    columns.append(times[GATE_PRODUCT] if gate_flops else [0.0] * len(columns[0]))
    large = 2 * _PRODUCT_SIZE**3
    return [
        ffts
        + kernel_ffts
        + _SPECTRAL_ARRAYS * copy
        + (flops * product + gate_flops * gate_product) / large
        for ffts, kernel_ffts, copy, product, gate_product in zip(*columns, strict=True)
    ]


def kernel_flops(length: int, channels: int, modes: int) -> float:
    """Operations of the three products of two kernels (kernels/diagonal.py), both ways."""
    return 3 * 2.0 * channels * 2 * modes * 2 * length


def fft_passes(batch: int, length: int, channels: int) -> Callable[[], Array]:
    """The FFTs of one layer, (batch, channels, 2 length) each: rfft of the input, irfft of the
    output, rfft of its gradient, irfft of the input's, each waiting for the one before it."""
    x_BHL = jnp.zeros((batch, channels, 2 * length), jnp.float32)

    @jax.jit
    def four(x_BHL):
        y_BHL = jnp.fft.irfft(jnp.fft.rfft(x_BHL), 2 * length)
        return jnp.fft.irfft(jnp.fft.rfft(y_BHL), 2 * length)

    return functools.partial(four, x_BHL)


def kernel_fft_passes(length: int, channels: int) -> Callable[[], Array]:
    """The rfft of the kernels and the irfft of their gradient, (channels, 2 length)."""
    k_HL = jnp.zeros((channels, 2 * length), jnp.float32)
    two = jax.jit(lambda k_HL: jnp.fft.irfft(jnp.fft.rfft(k_HL), 2 * length))
    return functools.partial(two, k_HL)


def copy_pass(batch: int, length: int, channels: int) -> Callable[[], Array]:
    """Read one spectrum (batch, channels, length + 1) and write another."""
    X = jnp.zeros((batch, channels, length + 1), jnp.complex64)
    add = jax.jit(lambda X: X + 1)
    return functools.partial(add, X)


def matrix_product(precision: str) -> Callable[[], Array]:
    """A product of two square float32 matrices, large enough for the machine's full speed."""
    a = jnp.ones((_PRODUCT_SIZE, _PRODUCT_SIZE), jnp.float32)
    how = jax.lax.Precision(precision)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=how))
    return functools.partial(product, a, a)


def measure_layer(
    layer: str, batch: int, length: int, channels: int, modes: int, n: int
) -> dict[str, Any]:
    """One layer as its constructor makes it: output, and gradients of input and parameters.

    S4D and S4 are two-sided and learn a filter; S5 is two-sided and has none, as published.

    Args:
      layer: see `ssm_jax.layers.find_layer`.
      batch, length, channels, modes: B, L, H and N.
      n: rounds to time.

    Returns:
      Milliseconds and MiB, the seconds to compile, and the ratios to the floors. `processor_ms` is
      the time of all cores together. `over_fft` is to the FFTs of the inputs, the outputs and their
      gradients alone, `over_floor` to the whole floor of an S4D layer of this size, see `passes`.
    """
    made = find_layer(layer)
    size = {"d_state": modes} if "d_state" in parameters_of(made) else {}
    module = made(channels, **size, rngs=nnx.Rngs(params=0))
    graphdef, *states = nnx.split(module, nnx.Param, ...)
    params, rest = (nnx.to_pure_dict(state) for state in states)
    u_BLH, dy_BLH = jax.random.normal(jax.random.key(0), (2, batch, length, channels), jnp.float32)

    @jax.jit
    def forward_backward(params, u_BLH, dy_BLH):
        y_BLH, transpose = jax.vjp(
            lambda params, u_BLH: nnx.merge(graphdef, params, rest)(u_BLH), params, u_BLH
        )
        return y_BLH, transpose(dy_BLH)

    start = time.perf_counter()
    compiled = forward_backward.lower(params, u_BLH, dy_BLH).compile()
    compile_s = time.perf_counter() - start
    with PeakMemory(compiled) as memory:
        jax.block_until_ready(compiled(params, u_BLH, dy_BLH))
    functions = {
        **passes(batch, length, channels),
        "layer": lambda: compiled(params, u_BLH, dy_BLH),
    }
    times = rounds(functions, n)
    times["floor"] = layer_seconds(times, kernel_flops(length, channels, modes))
    return {
        "layer": layer,
        "batch": batch,
        "length": length,
        "channels": channels,
        "modes": modes,
        "layer_ms": summary(times["layer"]),
        "fft_floor_ms": summary(times[FFTS]),
        "floor_ms": summary(times["floor"]),
        "processor_ms": summary(processor_seconds(functions["layer"], n)),
        "over_fft": ratio(times, "layer", FFTS),
        "over_floor": ratio(times, "layer", "floor"),
        "peak_mib": memory.mib,
        "peak_by": memory.by,
        "compile_s": round(compile_s, 2),
        "rounds": n,
    }
