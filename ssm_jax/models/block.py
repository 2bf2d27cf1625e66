"""The residual blocks of S4 and S5: norm, state space layer, GELU, 1x1 convolution, gate."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_lengths, computed_in, returned_in, without_padding
from ssm_jax.kernels.devices import backend, materialize, on_gpu
from ssm_jax.layers.inputs import checked_input, checked_key, dropout, moved, untrained
from ssm_jax.layers.norm import BatchNorm, make_norm
from ssm_jax.models.gate import GATES, gated, gelu
from ssm_jax.options.arguments import check


def linear(d_in: int, d_out: int, rngs: nnx.Rngs, precision: str = "default") -> nnx.Linear:
    """A linear map of the last axis, initialized as PyTorch's Linear and Conv1d(kernel_size=1).

    Weights and biases are uniform in +-1/sqrt(d_in). The precision is that of its product, and of
    the gate that takes it apart: model.precision in `ssm_jax.options`.
    """
    bound = d_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    # None, as a caller's jax.default_matmul_precision would not count beside DEFAULT
    said = None if precision == "default" else jax.lax.Precision(precision)
    return nnx.Linear(d_in, d_out, kernel_init=init, bias_init=init, precision=said, rngs=rngs)


class Block(nnx.Module):
    """x + drop(gate(drop(ssm(norm x)))); without `prenorm`, the norm of that sum.

    The gates are GATES, the dropouts those of OC-14. Padding is masked after the norm, before the
    state space layer (OC-15), and nowhere else. The residual stream, the GELU and the gate have the
    type of x; norms and the state space layer compute in float32 or float64 (`layers/inputs.py`).
    """

    def __init__(
        self,
        d_model: int,
        ssm: Any,
        *,
        norm: str = "batch",
        norm_momentum: float = 0.1,
        norm_padding: bool = True,
        prenorm: bool = True,
        gate: str = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = True,
        precision: str = "default",
        rngs: nnx.Rngs,
    ):
        """Make a block; the options are those of `ssm_jax.options`.

        `ssm` maps (u_BLH, lengths_B, key=) to y_BLH, and brings the dropout before the GELU; those
        after it and on the residual branch are the block's.
        """
        check("Block", locals())
        self.norm = make_norm(norm, d_model, norm_momentum)
        self.norm_padding = norm_padding
        self.ssm = ssm
        self.glu = linear(d_model, GATES[gate] * d_model, rngs, precision)
        self.gate = gate
        self.prenorm = prenorm
        self.dropout = dropout
        self.tie_dropout = tie_dropout

    def __call__(
        self,
        x_BLH: Array,
        lengths_B: ArrayLike | None,
        *,
        train: bool,
        key: Array | None,
        near_H: Array | None = None,
    ) -> Array:
        """Apply the block to features with lengths_B real steps, see `checked_lengths`; None: all.

        With `train` the batch norm uses the batch's statistics, and updates the running ones;
        `near_H` is a guess of its mean (`layers.norm`). Without a key there is no dropout.
        """
        x_BLH = checked_input("Block", x_BLH, "(B, L, H)", self.glu.in_features)
        B, L, _ = x_BLH.shape
        lengths_B = checked_lengths("Block", lengths_B, (B,), L)
        dtype = computed_in(x_BLH, self.norm.scale[...])
        x_BLH = x_BLH.astype(returned_in(x_BLH, dtype))
        key = checked_key("Block", key)
        ssm_key, gelu_key, branch_key = (None,) * 3 if key is None else jax.random.split(key, 3)

        def normed(z_BLH: Array) -> Array:
            how: dict[str, Any] = {"padding": self.norm_padding, "near_H": near_H}
            return self.norm(z_BLH, lengths_B, train=train, **how)

        def ssm(u_BLH: Array) -> Array:
            return self.ssm(u_BLH, lengths_B, key=ssm_key)

        return self._around(ssm, normed, x_BLH, dtype, gelu_key, branch_key)

    def layer_input(
        self, x_BLH: Array, lengths_B: ArrayLike | None = None, *, train: bool = False
    ) -> Array:
        """What the state space layer gets of features in the call: 0 at padded steps."""
        lengths_B = checked_lengths("Block", lengths_B, x_BLH.shape[:1], x_BLH.shape[1])
        u_BLH = x_BLH.astype(computed_in(x_BLH, self.norm.scale[...]))
        if self.prenorm:
            u_BLH = self.norm(u_BLH, lengths_B, train=train, padding=self.norm_padding)
        return without_padding(u_BLH, lengths_B)

    def _around(
        self,
        ssm: Callable[[Array], Array],
        normed: Callable[[Array], Array],
        x_BLH: Array,
        dtype: Any,
        gelu_key: Array | None = None,
        branch_key: Array | None = None,
    ) -> Array:
        u_BLH = x_BLH.astype(dtype)
        u_BLH = normed(u_BLH) if self.prenorm else u_BLH
        y_BLH: Any = ssm(u_BLH)
        shape = getattr(y_BLH, "shape", None)
        if shape != u_BLH.shape or jnp.iscomplexobj(y_BLH):
            got = type(y_BLH).__name__ if shape is None else f"{y_BLH.dtype} {shape}"
            layer = type(self.ssm).__name__
            raise ValueError(
                f"{layer} must return an array {u_BLH.shape}, real as its input, got {got}."
            )
        y_BLH = y_BLH.astype(x_BLH.dtype)
        g_BLH = dropout(gelu(y_BLH), self.dropout, gelu_key, tied=self.tie_dropout)
        y_BLH = gated(self.gate, y_BLH, g_BLH, self.glu)
        y_BLH = x_BLH + dropout(y_BLH, self.dropout, branch_key, tied=self.tie_dropout)
        return y_BLH if self.prenorm else normed(y_BLH.astype(dtype)).astype(x_BLH.dtype)

    def step(self, state: Array, x_BH: Array) -> tuple[Array, Array]:
        """One step in evaluation, of a causal layer: (state, y_BH); the state is the layer's."""
        dtype = computed_in(x_BH, self.norm.scale[...])

        def ssm(u_B1H: Array) -> Array:
            nonlocal state
            state, y_BH = self.ssm.step(state, u_B1H[:, 0])
            return y_BH[:, None]

        def normed(z_B1H: Array) -> Array:
            return self.norm(z_B1H, train=False)

        y_B1H = self._around(ssm, normed, x_BH[:, None], dtype)
        return state, y_B1H[:, 0]


def apply_blocks(
    blocks: Sequence[Any], x_BLH: Array, lengths_B, *, train: bool, key: Array | None, remat=False
) -> Array:
    """All blocks in turn, as one scan, which is unrolled but on TPUs (`devices.backend`).

    On CPUs the residual stream is materialized between the blocks, or the gradients of later blocks
    would be computed again in the earlier ones. With `remat` it stays a loop, which alone keeps XLA
    from computing once what is to be computed twice. Blocks that a user has made unlike, in more
    than numbers, run one by one.
    """
    graphdef, *others = map(nnx.graphdef, blocks)
    each = [nnx.to_pure_dict(nnx.state(block)) for block in blocks]
    shapes = [jax.tree.map(jnp.shape, state) for state in each]
    if any(other != graphdef for other in others) or any(shape != shapes[0] for shape in shapes):
        keys_of = [None] * len(blocks) if key is None else jax.random.split(key, len(blocks))
        for block, block_key in zip(blocks, keys_of, strict=True):
            how = {"train": train, "key": block_key, "remat": remat}
            x_BLH = apply_blocks([block], x_BLH, lengths_B, **how)
        return x_BLH
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    keys = None if key is None else jax.random.split(key, len(blocks))

    # On GPUs batch norms get a guess of their mean. What a channel's mean is apart from the running
    # one it still is in the next block, but after a norm.
    norm: Any = blocks[0].norm if isinstance(blocks[0], Block) else None
    guess = on_gpu() and train and isinstance(norm, BatchNorm) and norm.momentum > 0
    apart_H = None
    if guess:
        dtype = computed_in(x_BLH, norm.mean[...])
        apart_H = jax.lax.stop_gradient(
            jnp.mean(x_BLH.astype(dtype), axis=(0, 1)) - norm.mean[...].astype(dtype)
        )

    def one_block(carry, variables):
        (x_BLH, apart_H), (state, key) = carry, variables
        block = nnx.merge(graphdef, state)
        how: dict[str, Any] = {"train": train, "key": key}
        if guess:
            before_H = block.norm.mean[...].astype(apart_H.dtype)
            how["near_H"] = before_H + apart_H
        before = untrained(block)
        y_BLH = block(x_BLH, lengths_B, **how)
        y_BLH = materialize(y_BLH, jax.tree.leaves(state)[0].ravel()[0])
        if guess:
            moved_H = (block.norm.mean[...].astype(apart_H.dtype) - before_H) / block.norm.momentum
            apart_H = moved_H if block.prenorm else jnp.zeros_like(moved_H)
        return (y_BLH, apart_H), moved(block, before)

    unroll = backend() != "tpu" and not remat
    body = jax.checkpoint(one_block, prevent_cse=False) if remat else one_block
    (x_BLH, _), statistics = jax.lax.scan(body, (x_BLH, apart_H), (stacked, keys), unroll=unroll)
    if train:
        for i, block in enumerate(blocks):
            nnx.update(block, jax.tree.map(lambda leaf, i=i: leaf[i], statistics))
    return x_BLH
