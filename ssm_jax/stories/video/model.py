"""A video predictor: frames to features, blocks over time, features to frames.

The network is that of ConvSSM (arXiv:2310.19694) for Moving MNIST: a convolutional encoder that
halves frames twice, residual blocks whose temporal part is a ConvS5, and a decoder that doubles
them again, with tanh at the end. Two other temporal parts stand beside it: an S5 at every pixel by
itself, and a ConvLSTM (arXiv:1506.04214). A constant channel for actions, which the published
program appends to the features, is left out: it is zero there.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.layers.convs5 import ConvS5
from ssm_jax.models.gate import gelu
from ssm_jax.options.arguments import check, check_choice
from ssm_jax.stories.video import CELLS
from ssm_jax.stories.video.data import Scene

BRANCH = 0.1  # weight of what a residual adds in encoder and decoder

# A state is that of each block; frames (B, L, Y, X, channels).


def _each(module: Any, x_BLYXH: Array) -> Array:
    """A module of single frames, of all frames of all videos."""
    B, L = x_BLYXH.shape[:2]
    y = module(x_BLYXH.reshape(B * L, *x_BLYXH.shape[2:]))
    return y.reshape(B, L, *y.shape[1:])


class Residual(nnx.Module):
    """x + 0.1 f(x) of frames, f twice norm, ELU and a 3 x 3 convolution; x through a 1 x 1
    convolution without bias where the width changes."""

    def __init__(self, d_in: int, d_out: int, groups: int, rngs: nnx.Rngs, precision: Any) -> None:
        def conv(width: int, window: int = 3, **options: Any) -> nnx.Conv:
            options |= {"precision": precision, "rngs": rngs}
            return nnx.Conv(width, d_out, (window, window), **options)

        self.norms = nnx.List([group_norm(width, groups, rngs) for width in (d_in, d_out)])
        self.convs = nnx.List([conv(width) for width in (d_in, d_out)])
        self.skip = conv(d_in, 1, use_bias=False) if d_in != d_out else None

    def __call__(self, x_BYXH: Array) -> Array:
        f = x_BYXH
        for norm, conv in zip(self.norms, self.convs, strict=True):
            f = conv(jax.nn.elu(norm(f)))
        return (x_BYXH if self.skip is None else self.skip(x_BYXH)) + BRANCH * f


def group_norm(width: int, groups: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Over the pixels of a frame and the channels of a group, which are of one size."""
    return nnx.GroupNorm(width, num_groups=math.gcd(groups, width), rngs=rngs)


class Encoder(nnx.Module):
    """Frames (B, Y, X, colours) in -1..1 to features (B, Y / 4, X / 4, d_model)."""

    def __init__(self, colours: int, widths: Sequence[int], d_model: int, groups, rngs, precision):
        own = {"precision": precision, "rngs": rngs}
        self.first = nnx.Conv(colours, widths[0], (3, 3), **own)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nnx.List([Residual(a, b, groups, rngs, precision) for a, b in pairs])
        self.last = nnx.Conv(widths[-1], d_model, (1, 1), **own)

    def __call__(self, x: Array) -> Array:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x = block(nnx.avg_pool(x, (2, 2), (2, 2)) if i else x)
        return self.last(x)


class Decoder(nnx.Module):
    """Features (B, Y / 4, X / 4, d_model) to frames (B, Y, X, colours) in -1..1."""

    def __init__(self, colours: int, widths: Sequence[int], d_model: int, groups, rngs, precision):
        down = tuple(reversed(widths))
        own = {"precision": precision, "rngs": rngs}
        self.first = nnx.Conv(d_model, widths[0], (3, 3), **own)
        pairs = zip((widths[0], *down), down, strict=False)
        self.blocks = nnx.List([Residual(a, b, groups, rngs, precision) for a, b in pairs])
        self.norm = nnx.LayerNorm(down[-1], rngs=rngs)
        self.last = nnx.Linear(down[-1], colours, **own)

    def __call__(self, x: Array) -> Array:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x = block(x.repeat(2, axis=1).repeat(2, axis=2) if i else x)
        return jnp.tanh(self.last(self.norm(x)))


class ConvLSTM(nnx.Module):
    """Gates by one convolution of input and output, without peepholes (arXiv:1506.04214).

    Its window is odd, in rows and columns.
    """

    def __init__(self, d_model: int, window: int, rngs: nnx.Rngs, precision: Any) -> None:
        if window % 2 == 0:
            raise ValueError(f"ConvLSTM: window must be odd and at least 1, got {window}.")
        own = {"precision": precision, "rngs": rngs}
        self.gates = nnx.Conv(2 * d_model, 4 * d_model, (window, window), **own)
        self.d_model = d_model

    def initial_state(self, batch_size: int, frame: tuple[int, ...]) -> tuple[Array, Array]:
        """Of c and y: zeros."""
        zero = jnp.zeros((batch_size, *frame, self.d_model))
        return zero, zero

    def step(self, state: tuple[Array, Array], u_BYXH: Array):
        c, y = state
        gates = self.gates(jnp.concatenate([u_BYXH, y], axis=-1))
        write, forget, show, new = jnp.split(gates, 4, axis=-1)
        # With one added, a new cell remembers (Jozefowicz et al. 2015).
        c = jax.nn.sigmoid(forget + 1) * c + jax.nn.sigmoid(write) * jnp.tanh(new)
        y = jax.nn.sigmoid(show) * jnp.tanh(c)
        return (c, y), y

    def prefill(self, u_BLYXH: Array, *, state: Any = None):
        B, _, *frame, _ = u_BLYXH.shape
        state = self.initial_state(B, tuple(frame)) if state is None else state
        state, y = jax.lax.scan(self.step, state, jnp.moveaxis(u_BLYXH, 1, 0))
        return state, jnp.moveaxis(y, 0, 1)

    def __call__(self, u_BLYXH: Array) -> Array:
        return self.prefill(u_BLYXH)[1]


class FrameBlock(nnx.Module):
    """norm(u + n(cell u)), with n(y) = GELU(y + f(y)) of each frame, and f twice norm, GELU and a
    3 x 3 convolution."""

    def __init__(self, cell: Any, d_model: int, groups: int, rngs: nnx.Rngs, precision: Any):
        self.ssm = cell  # also of a ConvLSTM
        self.norms = nnx.List([group_norm(d_model, groups, rngs) for _ in range(2)])
        own = {"precision": precision, "rngs": rngs}
        self.convs = nnx.List([nnx.Conv(d_model, d_model, (3, 3), **own) for _ in range(2)])
        self.norm = nnx.LayerNorm(d_model, rngs=rngs)

    def __call__(self, u_BLYXH: Array) -> Array:
        return self._after(u_BLYXH, self.ssm(u_BLYXH))

    def prefill(self, u_BLYXH: Array) -> tuple[Any, Array]:
        state, y_BLYXH = self.ssm.prefill(u_BLYXH)
        return state, self._after(u_BLYXH, y_BLYXH)

    def step(self, state: Any, u_BYXH: Array) -> tuple[Any, Array]:
        state, y_BYXH = self.ssm.step(state, u_BYXH)
        return state, self._after(u_BYXH[:, None], y_BYXH[:, None])[:, 0]

    def _after(self, u_BLYXH: Array, y_BLYXH: Array) -> Array:
        def frames(y: Array) -> Array:
            f = y
            for norm, conv in zip(self.norms, self.convs, strict=True):
                f = conv(gelu(norm(f)))
            return gelu(y + f)

        return self.norm(u_BLYXH + _each(frames, y_BLYXH))


class VideoPredictor(nnx.Module):
    """Of each frame, (B, L, Y, X, colours) in -1..1, the next one.

    `__call__` is given the true frames (teacher forcing). `roll_out` is given a beginning and then
    its own predictions; a model with a filter refuses, since the filter has no state. Predictions
    see no later frame, with a filter neither: its causal projection in `ConvS5` is ours.
    """

    takes_series = False  # see `trained.model`

    def __init__(
        self,
        *,
        scene: Scene,
        depth: int = 8,
        d_model: int = 256,
        d_state: int = 128,
        init: str = "legs",
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        real_transform: str = "none",
        beta: float | None = None,
        learn_beta: bool | None = None,
        beta_unit: str = "lra",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        cell: str = "convs5",
        window: int = 3,
        width: int = 64,
        groups: int = 32,
        chunk: int = 0,
        l1: float = 0.5,
        loss_beta: float = 0.0,
        remat: bool = False,
        precision: str = "default",
        rngs: nnx.Rngs,
    ):
        """Make a network; the options are those of `ssm_jax.options` and of the task.

        Args:
          scene: what the videos have in common, which the losses read.
          cell: one of CELLS; "s5" is a ConvS5 with a window of one pixel, "convlstm" has no modes:
            alpha, alpha_real and beta are refused, and the other options of modes do nothing.
          alpha_real: at 0, without a real_transform, all real parts are -1e-4 and stay there, see
            clip_eigs of `ConvS5`.
          width: features of the encoder at full size; at half and quarter twice and four times as
            many, and in the decoder the other way round.
          groups: of the group norms.
          chunk: of `ConvS5`, without a filter; 0: None.
          l1, loss_beta: of the loss that the model is trained by, see `task.frame_loss`.
        """
        check("VideoPredictor", locals())
        check_choice("VideoPredictor", "cell", cell, CELLS)
        if cell == "convlstm" and (alpha, alpha_real, beta) != (1, 1, None):
            got = f"alpha={alpha:g}, alpha_real={alpha_real:g}, beta={beta}"
            raise ValueError(
                f"VideoPredictor: cell='convlstm' has no modes and no filter: leave alpha and "
                f"alpha_real at 1 and beta without a filter; got {got}."
            )
        said = None if precision == "default" else jax.lax.Precision(precision)
        widths = width, 2 * width, 4 * width
        own: tuple[Any, ...] = groups, rngs, said
        ssm: dict[str, Any] = {"init": init, "alpha": alpha, "alpha_real": alpha_real}
        ssm |= {"real_transform": real_transform}
        ssm |= {"beta": beta, "learn_beta": learn_beta, "beta_unit": beta_unit}
        ssm |= {"dt_min": dt_min, "dt_max": dt_max}
        self.scene = scene
        self.encoder = Encoder(scene.colours, widths, d_model, *own)

        def block() -> FrameBlock:
            if cell == "convlstm":
                temporal: Any = ConvLSTM(d_model, window, rngs, said)
            else:
                seen = window if cell == "convs5" else 1
                size: dict[str, Any] = {"d_state": d_state, "window": seen, "chunk": chunk or None}
                temporal = ConvS5(d_model, **size, **ssm, rngs=rngs)
            return FrameBlock(temporal, d_model, *own)

        self.blocks = nnx.List([block() for _ in range(depth)])
        self.decoder = Decoder(scene.colours, widths, d_model, *own)
        self.remat, self.beta_unit = remat, beta_unit
        self.l1, self.loss_beta = l1, loss_beta

    def __call__(self, frames: Array) -> Array:
        """The predictions, (B, L, Y, X, colours): number l is that of frame l + 1."""
        x = self._per_frame(self.encoder, frames)
        for block in self.blocks:
            x = nnx.remat(FrameBlock.__call__)(block, x) if self.remat else block(x)
        return self._per_frame(self.decoder, x)

    def _per_frame(self, module: Any, x: Array) -> Array:
        return nnx.remat(_each)(module, x) if self.remat else _each(module, x)

    def roll_out(self, context: Array, steps: int) -> Array:
        """So many frames after those of the context, each of the clipped predictions before it.

        NoStateForm: the blocks have a filter.
        """
        x, states = _each(self.encoder, context), []
        for block in self.blocks:
            state, x = block.prefill(x)
            states.append(state)
        first = _each(self.decoder, x[:, -1:])[:, 0]

        def step(carry, _):
            states, frame = carry
            shown = jnp.clip(frame, -1, 1)
            x, new = self.encoder(shown), []
            for block, state in zip(self.blocks, states, strict=True):
                state, x = block.step(state, x)
                new.append(state)
            return (new, self.decoder(x)), shown

        carry = states, first
        _, frames = jax.lax.scan(step, carry, None, length=steps)
        return jnp.moveaxis(frames, 0, 1)

    @property
    def rolls_out(self) -> bool:
        """Whether there is a state to roll out from."""
        return not any(getattr(block.ssm, "filtered", False) for block in self.blocks)
