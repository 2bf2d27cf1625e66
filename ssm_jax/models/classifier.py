"""One label for one sequence: encoder, residual blocks, pooling, linear decoder."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_lengths, computed_in, real_steps, returned_in
from ssm_jax.kernels.devices import computed_again, on_gpu
from ssm_jax.layers import find_layer
from ssm_jax.layers.base import NoStateForm
from ssm_jax.layers.inputs import (
    as_one_program,
    check_rngs,
    checked_ids,
    checked_input,
    checked_key,
)
from ssm_jax.layers.norm import make_norm
from ssm_jax.models.block import Block, apply_blocks, linear
from ssm_jax.models.embedding import look_up
from ssm_jax.options.arguments import check, check_choice, parameters_of

POOLS = ("last", "mean", "first", "sum")
State = dict[str, Any]


def pool(x_BLH: Array, lengths_B: ArrayLike | None, mode: str) -> Array:
    """x_BH by a member of POOLS, over the unpadded steps (`checked_lengths`); zero of no steps."""
    check_choice("pool", "pool", mode, POOLS)
    B, L, _ = x_BLH.shape
    lengths_B = checked_lengths("pool", lengths_B, (B,), L)
    if lengths_B is None:
        if mode == "first":
            return x_BLH[:, 0]
        lengths_B = jnp.full((B,), L, jnp.int32)
    taken_BL = real_steps(lengths_B, L)
    if mode in ("first", "last"):
        # One step is a sum, too: the gradient of a gather is a scatter into an array of zeros, and
        # on GPUs every mask of the model then reads its zeros from that array.
        end_B = lengths_B - 1 if mode == "last" else jnp.zeros_like(lengths_B)
        taken_BL &= jnp.arange(L, dtype=lengths_B.dtype)[None, :] == end_B[:, None]
    x_BLH = jnp.where(taken_BL[:, :, None], x_BLH, jnp.zeros_like(x_BLH))
    if on_gpu():  # in parts: XLA makes x in the pass that sums, as there are enough sums
        steps = math.gcd(L, 64)
        x_BLH = computed_again(jnp.sum(x_BLH.reshape(B, L // steps, steps, -1), axis=2))
    sum_BH = jnp.sum(x_BLH, axis=1)
    if mode != "mean":
        return sum_BH
    return sum_BH / jnp.maximum(lengths_B, 1)[:, None].astype(x_BLH.dtype)


class SequenceClassifier(nnx.Module):
    """Logits of K classes for token sequences (B, L) or real sequences (B, L, d_input).

    The LRA model of the official code: embedding N(0, 1) or linear encoder, `depth` blocks, a final
    norm if prenorm (OC-16), pooling, linear decoder. No positional encoding (OC-18).
    """

    TOKEN_AXES: ClassVar[tuple[str, ...]] = ("example", "step")

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
        precision: str = "default",
        remat: bool = False,
        ssm: Mapping[str, Any] | None = None,
        horizon: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Make a model; the options are those of `ssm_jax.options`, the blocks' see `Block`.

        Give vocab_size, the number of token ids, or d_input, the features per step of a real input.
        `ssm` has further arguments of the layer (`layers.find_layer`), `horizon` is that of
        `StateSpaceLayer`. Parameters, norms, state space layers and the decoder stay in float32.
        """
        name = type(self).__name__
        check(name, locals())
        check_rngs(name, rngs)
        if (vocab_size is None) == (d_input is None):
            raise ValueError(f"give vocab_size or d_input, got {vocab_size=}, {d_input=}.")
        self.encoder: nnx.Embed | nnx.Linear
        if vocab_size is not None:
            normal = jax.nn.initializers.normal(1.0)
            self.encoder = nnx.Embed(vocab_size, d_model, embedding_init=normal, rngs=rngs)
        elif d_input is not None:
            self.encoder = linear(d_input, d_model, rngs, precision)
        drop: dict[str, Any] = {"dropout": dropout, "tie_dropout": tie_dropout}
        outer = drop | {"norm": norm, "norm_momentum": norm_momentum, "norm_padding": norm_padding}
        outer |= {"prenorm": prenorm, "gate": gate, "precision": precision, "rngs": rngs}
        ssm_layer = find_layer(layer)
        takes = parameters_of(ssm_layer)
        inner = {k: v for k, v in {**drop, "horizon": horizon}.items() if k in takes}
        inner |= {**(ssm or {}), "rngs": rngs}
        blocks = [Block(d_model, ssm_layer(d_model, **inner), **outer) for _ in range(depth)]
        self.blocks = nnx.List(blocks)
        self.norm = make_norm(norm, d_model, norm_momentum) if prenorm and final_norm else None
        self.norm_padding = norm_padding
        self.decoder: nnx.Module
        if len(self.TOKEN_AXES) == 3:
            hidden = linear(4 * d_model, d_model, rngs, precision)
            last = linear(d_model, n_classes, rngs, precision)
            self.decoder = nnx.Sequential(hidden, jax.nn.relu, last)
        else:
            self.decoder = linear(d_model, n_classes, rngs, precision)
        self.pool = pool
        self.activations = activations
        self.remat = remat

    def __call__(
        self,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> Array:
        """Logits (B, K), by the rule of types of `layers/inputs.py`; train and key as of a `Block`.

        Inputs are int ids (B, L), or real (B, L, d_input); of pairs int (B, 2, L). Ids outside the
        vocabulary are refused where they are known; where they are traced the logits of their
        sequence are NaN, and in training with batch norm those of the whole batch. Lengths, (B,) or
        of pairs (B, 2), are real steps, see `checked_lengths`; of none the pool is zero.
        """
        key = checked_key(type(self).__name__, key)
        arguments = *self._checked(inputs, lengths), key
        return as_one_program(SequenceClassifier._logits, self, *arguments, train=train)

    def _logits(self, inputs, lengths_B, key, *, train):
        """The call, of arguments that are checked."""
        with jax.numpy_dtype_promotion("standard"):
            x_BLH, lengths_B, dtype, returned = self._encoded(inputs, lengths_B)
            how: dict[str, Any] = {"train": train, "key": key, "remat": self.remat and train}
            x_BLH = apply_blocks(self.blocks, x_BLH, lengths_B, **how).astype(dtype)
            if self.norm is not None:
                x_BLH = self.norm(x_BLH, lengths_B, train=train, padding=self.norm_padding)
            if self.pool != "none":
                x_BLH = pool(x_BLH, lengths_B, self.pool)
            if len(self.TOKEN_AXES) == 3:
                one_BH, two_BH = x_BLH[0::2], x_BLH[1::2]
                both = (one_BH, two_BH, one_BH * two_BH, one_BH - two_BH)
                x_BLH = jnp.concatenate(both, axis=-1)
            return self.decoder(x_BLH).astype(returned)

    def encode(
        self, inputs: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[Array, Array | None]:
        """What the first block gets: features, of pairs (2B, L, H), and how many steps are real."""
        with jax.numpy_dtype_promotion("standard"):
            return self._encoded(*self._checked(inputs, lengths))[:2]

    def _checked(self, inputs: ArrayLike, lengths: ArrayLike | None) -> tuple[Array, Array | None]:
        """Ids or real inputs, and lengths (B,) or (B, 2), as arrays that fit."""
        name, encoder = type(self).__name__, self.encoder
        if isinstance(encoder, nnx.Linear):
            inputs = checked_input(name, inputs, "(B, L, d_input)", encoder.in_features)
            *shape, steps, _ = inputs.shape
        else:
            ids = inputs if isinstance(inputs, Array) else np.asarray(inputs)
            in_pairs = len(self.TOKEN_AXES) == 3
            middle = (2,) if in_pairs else ()
            if ids.ndim != len(self.TOKEN_AXES) or ids.shape[1:-1] != middle or ids.shape[-1] < 1:
                expected = "(B, 2, L)" if in_pairs else "(B, L)"
                raise ValueError(f"{name}: tokens must be {expected} with L >= 1, got {ids.shape}.")
            inputs = checked_ids(name, "token", ids, encoder.num_embeddings, self.TOKEN_AXES)
            *shape, steps = inputs.shape
        return inputs, checked_lengths(name, lengths, tuple(shape), steps)

    def _encoded(
        self, inputs: Array, lengths_B: Array | None
    ) -> tuple[Array, Array | None, Any, Any]:
        """`encode`, and the types to compute in and to return."""
        encoder = self.encoder
        if len(self.TOKEN_AXES) == 3:  # every sequence on the batch axis
            inputs = inputs.reshape(-1, inputs.shape[-1])
            lengths_B = None if lengths_B is None else lengths_B.ravel()
        dtype = computed_in(*jax.tree.leaves(nnx.state(self)), inputs)
        if isinstance(encoder, nnx.Linear):
            x_BLH = encoder(inputs.astype(dtype))
        else:
            x_BLH = look_up(encoder.embedding[...], inputs)
        x_BLH = x_BLH.astype(dtype if self.activations == "float32" else self.activations)
        return x_BLH, lengths_B, dtype, returned_in(inputs, dtype)

    def initial_state(self, batch_size: int = 1) -> State:
        """The state of `step` before the first one.

        NoStateForm: a block's layer is bidirectional, filtered, or has no state form at all.
        """
        name, H = type(self).__name__, self.blocks[0].glu.in_features
        if len(self.TOKEN_AXES) > 2:
            raise NoStateForm(f"{name}: pairs of sequences have no steps.")
        for block in self.blocks:
            if not hasattr(block.ssm, "step"):
                raise NoStateForm(f"{name}: the layer {type(block.ssm).__name__} has no `step`.")
            block.ssm._require_state_form("step")
        states = [block.ssm.initial_state(batch_size, jnp.float32) for block in self.blocks]
        # Two arrays: a step may be given the memory of both
        sums = {name: jnp.zeros((batch_size, H), jnp.float32) for name in ("pooled", "rest")}
        return {"blocks": states, **sums, "n": jnp.zeros((), jnp.int32)}

    def step(self, state: State, inputs: ArrayLike) -> tuple[State, Array]:
        """One step of every sequence, ids (B,) or real (B, d_input), in evaluation.

        Returns the state and what the call gives for the steps so far: (B, K), pooled, or those of
        this step. Equal to the call, to float32's rounding, at any length; as `jax.lax.scan` wants.
        Ids outside the vocabulary are as in the call.
        """
        encoder, inputs = self.encoder, self._checked_step(state, inputs)
        if isinstance(encoder, nnx.Linear):
            x_BH = encoder(inputs.astype(jnp.float32))
        else:
            x_BH = look_up(encoder.embedding[...], inputs)
        x_BH, states = x_BH.astype(self.activations), []
        for block, before in zip(self.blocks, state["blocks"], strict=True):
            after, x_BH = block.step(before, x_BH)
            states.append(after)
        x_BH = x_BH.astype(jnp.float32)
        if self.norm is not None:
            x_BH = self.norm(x_BH[:, None], train=False)[:, 0]
        n, pooled_BH, rest_BH = state["n"] + 1, state["pooled"], state["rest"]
        if self.pool in ("mean", "sum"):  # with what rounding has lost so far (Kahan)
            added_BH = x_BH - rest_BH
            total_BH = pooled_BH + added_BH
            pooled_BH, rest_BH = total_BH, (total_BH - pooled_BH) - added_BH
            x_BH = pooled_BH / n.astype(jnp.float32) if self.pool == "mean" else pooled_BH
        elif self.pool == "first":
            x_BH = pooled_BH = jnp.where(n == 1, x_BH, pooled_BH)
        state = {"blocks": states, "pooled": pooled_BH, "rest": rest_BH, "n": n}
        return state, self.decoder(x_BH)

    def _checked_step(self, state: State, inputs: ArrayLike) -> Array:
        """Ids or real inputs of one step, as an array that fits the encoder and the state."""
        name, encoder, B = type(self).__name__, self.encoder, state["pooled"].shape[0]
        if isinstance(encoder, nnx.Linear):
            inputs = checked_input(name, inputs, "(B, d_input)", encoder.in_features)
        else:
            ids = inputs if isinstance(inputs, Array) else np.asarray(inputs)
            if ids.ndim != 1:
                raise ValueError(f"{name}: tokens of one step must be (B,), got {ids.shape}.")
            inputs = checked_ids(name, "token", ids, encoder.num_embeddings, self.TOKEN_AXES[:1])
        if inputs.shape[0] != B:
            each = f"one input for each of the state's {B} sequences, got {inputs.shape[0]}."
            raise ValueError(f"{name}: a step must have {each}")
        return inputs


class PairClassifier(SequenceClassifier):
    """Logits of K classes for pairs of token sequences (B, 2, L): two towers with shared weights.

    Both sequences go through the blocks side by side on the batch axis, so that batch statistics
    are of 2B sequences; the decoder sees [x1, x2, x1 x2, x1 - x2] and has a hidden layer of d_model
    units. As the official code (`nli`).
    """

    TOKEN_AXES = ("example", "sequence", "step")
