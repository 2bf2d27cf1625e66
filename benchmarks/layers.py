"""Forward and backward of one layer, next to the FFTs that it cannot do without."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.floor import FFTS, kernel_flops, layer_seconds, passes
from benchmarks.measure import PeakMemory, processor_seconds, ratio, rounds, summary
from ssm_jax.layers import find_layer
from ssm_jax.options.arguments import parameters_of


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
      gradients alone, `over_floor` to the whole floor of an S4D layer of this size (floor.py).
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
