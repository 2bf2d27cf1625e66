"""One label for one sequence: encoder, residual blocks, pooling, linear decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.kernels.materialize import materialize
from ssm_jax.layers import LAYERS
from ssm_jax.layers.norm import make_norm
from ssm_jax.layers.padding import real_steps
from ssm_jax.models.block import Block, linear

POOLS = ("last", "mean", "first", "sum")
ACTIVATIONS = ("float32", "bfloat16")


def pool(x_BLH: Array, lengths_B: Array | None, mode: str) -> Array:
    """One vector per sequence over its unpadded steps: the last, the mean, the first or the sum.

    Args:
      x_BLH: features.
      lengths_B: int, at least 1; None: all steps are real.
      mode: a member of POOLS.

    Raises:
      ValueError: for another mode.
    """
    if mode not in POOLS:
        raise ValueError(f"unknown pool {mode!r}; choose one of {', '.join(POOLS)}.")
    B, L, _ = x_BLH.shape
    if lengths_B is None:
        lengths_B = jnp.full((B,), L, jnp.int32)
    if mode == "first":
        return x_BLH[:, 0]
    if mode == "last":
        return jnp.take_along_axis(x_BLH, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
    real_BL1 = real_steps(lengths_B, L)[:, :, None]
    sum_BH = jnp.sum(jnp.where(real_BL1, x_BLH, jnp.zeros_like(x_BLH)), axis=1)
    return sum_BH if mode == "sum" else sum_BH / lengths_B[:, None].astype(x_BLH.dtype)


class SequenceClassifier(nnx.Module):
    """Logits of K classes for token sequences (B, L) or real sequences (B, L, d_input).

    The LRA model of the official code: embedding N(0, 1) or linear encoder, `depth` blocks, a final
    norm if prenorm (OC-16), pooling, linear decoder. No positional encoding (OC-18).
    """

    def __init__(
        self,
        *,
        n_classes: int,
        vocab_size: int | None = None,
        d_input: int | None = None,
        d_model: int = 128,
        depth: int = 6,
        norm: str = "batch",
        norm_momentum: float = 0.1,
        norm_padding: bool = True,
        prenorm: bool = True,
        final_norm: bool = True,
        gate: str = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = True,
        pool: str = "mean",
        layer: str = "s4d",
        activations: str = "float32",
        remat: bool = False,
        ssm: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        """Args:
          n_classes: K.
          vocab_size: number of token ids; give this, or d_input.
          d_input: features per step of a real input.
          d_model, depth: channels H and number of blocks.
          norm, norm_momentum, norm_padding, prenorm, gate, dropout, tie_dropout: see Block.
          final_norm: with prenorm, a last norm behind the blocks (S4's code has it, S5's has not).
          pool: a member of POOLS.
          layer: a key of LAYERS.
          activations: a member of ACTIVATIONS, the type of the residual stream, the GELU and the
            gate; parameters, norms, state space layers and the decoder stay in float32.
          remat: in the backward pass compute every block again instead of keeping what it made.
          ssm: further arguments of the layer.
          rngs: with a "params" stream.

        Raises:
          ValueError: unless exactly one of vocab_size and d_input is given; for an unknown layer,
            pool or type.
        """
        if (vocab_size is None) == (d_input is None):
            raise ValueError(
                f"give vocab_size or d_input, got vocab_size={vocab_size}, d_input={d_input}."
            )
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}; choose one of {', '.join(POOLS)}.")
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}; choose one of {', '.join(LAYERS)}.")
        if activations not in ACTIVATIONS:
            raise ValueError(
                f"unknown activations {activations!r}; choose one of {', '.join(ACTIVATIONS)}."
            )
        self.encoder: nnx.Embed | nnx.Linear
        if vocab_size is not None:
            normal = jax.nn.initializers.normal(1.0)
            self.encoder = nnx.Embed(vocab_size, d_model, embedding_init=normal, rngs=rngs)
        else:
            assert d_input is not None
            self.encoder = linear(d_input, d_model, rngs)
        drop: dict[str, Any] = {"dropout": dropout, "tie_dropout": tie_dropout}
        normed: dict[str, Any] = {"norm": norm, "norm_momentum": norm_momentum}
        normed["norm_padding"] = norm_padding

        def block() -> Block:
            mixer = LAYERS[layer](d_model, **drop, **(ssm or {}), rngs=rngs)
            return Block(d_model, mixer, prenorm=prenorm, gate=gate, **normed, **drop, rngs=rngs)

        self.blocks = nnx.List([block() for _ in range(depth)])
        self.norm = make_norm(norm, d_model, norm_momentum) if prenorm and final_norm else None
        self.norm_padding = norm_padding
        self.decoder: nnx.Module = self.make_decoder(d_model, n_classes, rngs)
        self.pool = pool
        self.activations = activations
        self.remat = remat

    @staticmethod
    def make_decoder(d_model: int, n_classes: int, rngs: nnx.Rngs) -> nnx.Module:
        """From the vector of a sequence to logits."""
        return linear(d_model, n_classes, rngs)

    def __call__(
        self,
        inputs: Array,
        lengths: Array | None = None,
        *,
        train: bool = False,
        key: Array | None = None,
        horizon: int | None = None,
    ) -> Array:
        """Logits (B, K).

        Args:
          inputs: int ids (B, L), or real (B, L, d_input); of pairs (B, 2, L).
          lengths: int number of real steps of each sequence, (B,), of pairs (B, 2); None: all.
          train: normalize with the batch's statistics and update the running ones.
          key: of the dropout; None: no dropout.
          horizon: run the state space layers as if the input were padded to this many steps, on
            which the unit of beta's filter depends; None: L.
        """
        inputs, lengths_B = self.in_rows(inputs, lengths)
        x_BLH = self.encoder(inputs).astype(self.activations)
        x_BLH = apply_blocks(
            self.blocks,
            x_BLH,
            lengths_B,
            train=train,
            key=key,
            horizon=horizon,
            remat=self.remat and train,
        )
        x_BLH = x_BLH.astype(jnp.float32)
        if self.norm is not None:
            x_BLH = self.norm(x_BLH, None if self.norm_padding else lengths_B, train=train)
        return self.decoder(self.joined(pool(x_BLH, lengths_B, self.pool)))

    def in_rows(self, inputs: Array, lengths: Array | None) -> tuple[Array, Array | None]:
        """Inputs and lengths with every sequence on the batch axis."""
        return inputs, lengths

    def joined(self, x_BH: Array) -> Array:
        """What the decoder sees of the vectors of the sequences."""
        return x_BH


class PairClassifier(SequenceClassifier):
    """Logits of K classes for pairs of token sequences (B, 2, L): two towers with shared weights.

    Both sequences go through the blocks side by side on the batch axis, so that batch statistics
    are of 2B sequences; the decoder sees [x1, x2, x1 x2, x1 - x2]. As the official code (`nli`).
    """

    @staticmethod
    def make_decoder(d_model: int, n_classes: int, rngs: nnx.Rngs) -> nnx.Module:
        """Two linear maps with a ReLU between them."""
        hidden = linear(4 * d_model, d_model, rngs)
        return nnx.Sequential(hidden, jax.nn.relu, linear(d_model, n_classes, rngs))

    def in_rows(self, inputs: Array, lengths: Array | None) -> tuple[Array, Array | None]:
        return inputs.reshape(-1, inputs.shape[-1]), None if lengths is None else lengths.ravel()

    def joined(self, x_BH: Array) -> Array:
        first_BH, second_BH = x_BH[0::2], x_BH[1::2]
        both = (first_BH, second_BH, first_BH * second_BH, first_BH - second_BH)
        return jnp.concatenate(both, axis=-1)


def apply_blocks(
    blocks: nnx.List,
    x_BLH: Array,
    lengths_B: Array | None,
    *,
    train: bool,
    key: Array | None,
    horizon: int | None = None,
    remat: bool = False,
) -> Array:
    """All blocks in turn, as one scan: compile time does not grow with depth on accelerators.

    On CPUs the scan is unrolled: XLA copies what a loop keeps for the backward pass, which made a
    step of 4 x 64 channels at L = 64 take 84 ms against 60, and compiling the loop was no faster
    (4.4 s against 4.0). There the residual stream is materialized between the blocks, or the
    gradients of later blocks would be computed again in the earlier ones. With `remat` it stays a
    loop, which alone keeps XLA from computing once what is to be computed twice.
    """
    graphdef = nnx.graphdef(blocks[0])
    each = [nnx.to_pure_dict(nnx.state(block)) for block in blocks]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    keys = None if key is None else jax.random.split(key, len(blocks))

    def one_block(x_BLH: Array, variables):
        state, key = variables
        block = nnx.merge(graphdef, state)
        y_BLH = block(x_BLH, lengths_B, train=train, key=key, horizon=horizon)
        y_BLH = materialize(y_BLH, jax.tree.leaves(state)[0].ravel()[0])
        return y_BLH, nnx.to_pure_dict(nnx.state(block, nnx.BatchStat))

    unroll = jax.default_backend() == "cpu" and not remat
    body = jax.checkpoint(one_block, prevent_cse=False) if remat else one_block
    x_BLH, statistics = jax.lax.scan(body, x_BLH, (stacked, keys), unroll=unroll)
    if train:
        for i, block in enumerate(blocks):
            nnx.update(block, jax.tree.map(lambda leaf, i=i: leaf[i], statistics))
    return x_BLH
