"""Layers exported once run at every batch and, without a filter, at every length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssm_jax.layers import LRU, S4, S4D, S5, DLinOSS, LinOSS

LAYERS = pytest.mark.parametrize("kind", [S4D, S4, S5, LRU, LinOSS, DLinOSS])
FLOAT, INT = jnp.float32, jnp.int32


def exported(function, *shapes, platforms=("cpu",)):
    scope = jax.export.SymbolicScope()
    args = [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(dims, scope=scope), dtype)
        for dims, dtype in shapes
    ]
    return jax.export.export(jax.jit(function), platforms=platforms)(*args)


@LAYERS
def test_one_program_serves_every_batch_and_length(kind):
    both = kind(4, d_state=2, beta=None, rngs=nnx.Rngs(0))
    causal = kind(4, d_state=2, beta=None, bidirectional=False, rngs=nnx.Rngs(0))

    def function(u, lengths):
        return both(u, lengths, mode="scan"), causal.prefill(u, lengths)

    program = exported(function, ("b, l, 4", FLOAT), ("b", INT), platforms=("cpu", "cuda", "tpu"))
    for lengths in ([1, 0], [70, 3, 64]):  # more than a block, and less
        shape = len(lengths), max(lengths), 4
        u = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found = program.call(u, np.asarray(lengths, np.int32))
        right = jax.jit(function)(u, np.asarray(lengths, np.int32))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@LAYERS
def test_a_convolution_of_symbolic_length_is_refused(kind):
    layer = kind(4, d_state=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f"{kind.NAME}: mode='conv' needs a length that is a "):
        exported(lambda u: layer(u, mode="conv"), ("b, l, 4", FLOAT))
