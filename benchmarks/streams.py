"""A whole causal model step by step, one sequence: what a program in real time waits for."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.measure import rounds, summary
from ssm_jax import config as config_lib
from ssm_jax.layers import find_layer
from ssm_jax.models import SequenceClassifier
from ssm_jax.options.arguments import parameters_of
from ssm_jax.trained import Trained
from ssm_jax.trained.predict import plain

STEPS = 1_000  # of a round, so that its milliseconds are microseconds of a step
BLOCKS = 4


def measure_stream(layer: str, channels: int, modes: int, n: int) -> dict[str, Any]:
    """A step of BLOCKS blocks with batch norm, gate, mean and decoder, for one real input.

    Args:
      layer: see `ssm_jax.layers.find_layer`; made causal and without a filter.
      channels, modes: H and N.
      n: rounds of STEPS steps to time.

    Returns:
      Microseconds of a step: `stream_us` of `Stream.step`, from NumPy to NumPy; `scan_us` within a
      compiled `jax.lax.scan` of `SequenceClassifier.step`; and the seconds to compile the first.
    """
    takes = parameters_of(find_layer(layer))
    wanted = {"d_state": modes, "bidirectional": False, "beta": None}
    network = SequenceClassifier(
        n_classes=10, d_input=1, d_model=channels, depth=BLOCKS, layer=layer,
        ssm={name: value for name, value in wanted.items() if name in takes},
        rngs=nnx.Rngs(params=0),
    )  # fmt: skip
    about = {"n_classes": 10, "vocab_size": None, "d_input": 1, "padded_length": STEPS}
    start = time.perf_counter()
    stream = Trained(config_lib.default("image"), about, network, {}).stream()
    compile_s = time.perf_counter() - start
    u_L1 = np.random.default_rng(0).normal(size=(STEPS, 1)).astype(np.float32)
    network = plain(network)

    @jax.jit
    def scan(u_LB1):
        return jax.lax.scan(network.step, network.initial_state(), u_LB1)[1]

    def one_by_one():
        for u_1 in u_L1:
            stream.step(u_1)
        return stream.state

    times = rounds({"stream": one_by_one, "scan": lambda: scan(u_L1[:, None])}, n)
    return {
        "layer": layer,
        "batch": 1,
        "blocks": BLOCKS,
        "channels": channels,
        "modes": modes,
        "stream_us": summary(times["stream"]),
        "scan_us": summary(times["scan"]),
        "compile_s": round(compile_s, 2),
        "rounds": n,
    }
