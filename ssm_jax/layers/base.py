"""What every state space layer takes, returns and refuses, and the ways in which it runs.

A layer says its own mathematics: parameters, and the five methods at the end of `StateSpaceLayer`.
Here are the rules that hold for all of them.

Numbers: see `inputs.py`; a state counts as an input. It has the complex type of what is computed
in, or keeps the one that it came with.

Lengths: see `padding.checked_lengths`. Steps from a sequence's length on are set to zero before
anything is computed. Outputs there are those for zeros, and the state is that after the length.

The filter, and which layers have a state form: see `filter.py`.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.transforms import DT_TRANSFORMS, REAL_TRANSFORMS
from ssm_jax.kernels.arrays import checked_lengths, complex_of, known_values, without_padding
from ssm_jax.kernels.filter import BETA_UNITS
from ssm_jax.kernels.sharding import on_any_mesh
from ssm_jax.layers.filter import WHOLE_SEQUENCE, filter_exponent, require_state_form
from ssm_jax.layers.inputs import checked_input, checked_key, computed_in, in_type, returned_in
from ssm_jax.layers.inputs import dropout as apply_dropout
from ssm_jax.options import POSITIVE, check, check_choice

MODES = ("conv", "scan")  # ways to run a layer over a whole sequence

Scale = float | Array  # a factor on dt: a real scalar, which may be traced


class StateSpaceLayer(nnx.Module):
    """y = k^(beta) * u + D u: what `S4D`, `S4` and `S5` have in common.

    A layer calls `set_options`, and sets D, of (H,), and parameters of its own.
    """

    NAME: ClassVar[str]  # in messages
    STATE: ClassVar[str] = "BHN"  # axes of a state
    D: nnx.Variable

    def set_options(
        self,
        *,
        d_model: int,
        real_transform: str,
        beta: float | None,
        learn_beta: bool | None,
        beta_unit: str,
        dt_transform: str,
        bidirectional: bool,
        dropout: float,
        tie_dropout: bool,
        horizon: int | None,
        **checked: Any,
    ) -> None:
        """Keep the options that all layers have; `checked` are others, whose range is looked at.

        Raises:
          ValueError: for a value out of its range or set.
        """
        for name, value, allowed in (
            ("beta_unit", beta_unit, BETA_UNITS),
            ("dt_transform", dt_transform, tuple(DT_TRANSFORMS)),
            ("real_transform", real_transform, tuple(REAL_TRANSFORMS)),
        ):
            check_choice(self.NAME, name, value, allowed)
        flags = {"bidirectional": bidirectional, "tie_dropout": tie_dropout}
        check(self.NAME, d_model=d_model, dropout=dropout, **flags, **checked)
        self.real_transform = real_transform
        self.filtered = beta is not None
        self.beta_unit = beta_unit
        self.dt_transform = dt_transform
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.tie_dropout = tie_dropout
        self.horizon = None if horizon is None else self._checked_integer("horizon", horizon)
        self.beta = filter_exponent(self.NAME, d_model, beta, learn_beta)

    @on_any_mesh("BLH")
    def __call__(
        self,
        u_BLH: Array,
        lengths_B: ArrayLike | None = None,
        *,
        key: Array | None = None,
        mode: str | None = None,
        step_scale: Scale = 1.0,
    ) -> Array:
        """Apply the layer.

        Args:
          u_BLH: real input, L at least 1; of any float or integer type.
          lengths_B: integers, 0..L; steps from lengths_B on are padding and are set to zero first.
            None: no padding.
          key: of the dropout; None: no dropout.
          mode: "conv" by FFT, or "scan", which needs beta = 0. None: "conv"; in S5 "scan" if the
            layer was made without a filter.
          step_scale: factor on dt, a positive scalar: 0.5 for a signal sampled twice as densely.
            The filter follows: |s| per sample is divided by it. A factor for each sequence or step
            is refused; `jax.vmap` over the first is one for each sequence.

        Returns:
          y_BLH, in the float type of the input.

        Raises:
          ValueError: for a shape, length or scale that does not fit, an unknown mode, a horizon
            below L, or a symbolic length in mode="conv".
          TypeError: for complex input, or lengths that are no integers.
          NoStateForm: for mode="scan" with a filter.
        """
        u_BLH = checked_input(self.NAME, u_BLH, "(B, L, H)", self.D.shape[0])
        L = u_BLH.shape[1]
        mode = self.default_mode() if mode is None else mode
        check_choice(self.NAME, "mode", mode, MODES)
        n = L if self.horizon is None else self.horizon
        if self.horizon is not None and self.horizon < L:
            raise ValueError(f"{self.NAME}: horizon={n} must be at least the input's length {L}.")
        lengths_B = checked_lengths(self.NAME, lengths_B, u_BLH.shape[:1], L)
        key = checked_key(self.NAME, key)
        if mode == "scan":
            self._require_state_form(WHOLE_SEQUENCE)
        elif jax.export.is_symbolic_dim(n):
            raise ValueError(
                f"{self.NAME}: mode='conv' needs a length that is a number, got {n}: JAX has no "
                "FFT of a symbolic length. Export one program for each length (the batch may be "
                "symbolic), or a layer without a filter with mode='scan'."
            )
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = in_type(self, u_BLH)
            scale = self._checked_scale(step_scale, dtype)
            v_BLH = without_padding(u_BLH.astype(dtype), lengths_B)
            if mode == "scan":
                y_BLH = layer.scan(v_BLH, scale) + layer.D[...][None, None, :] * v_BLH
            else:
                y_BLH = layer.convolve(v_BLH, n, scale)
            y_BLH = apply_dropout(y_BLH, self.dropout, key, tied=self.tie_dropout)
            return y_BLH.astype(returned_in(u_BLH, dtype))

    def initial_state(self, batch_size: int, dtype: Any = float) -> Array:
        """The state before the first step: complex zeros, x_BHN of S4D and S4, x_BN of S5.

        Args:
          batch_size: B.
          dtype: of the inputs, whose complex type it gets; by default that of JAX's floats, so that
            a `jax.lax.scan` of `step` goes in 64 bits where they are enabled.
        """
        B = self._checked_integer("batch_size", batch_size)
        if B < 0:
            raise ValueError(f"{self.NAME}: batch_size must be at least 0, got {B}.")
        kind = complex_of(computed_in(jnp.zeros((), dtype)))
        return jnp.zeros((B, *self.state_shape()), kind)

    @on_any_mesh(lambda named: named["self"].STATE, "BLH")
    def prefill(
        self,
        u_BLH: Array,
        lengths_B: ArrayLike | None = None,
        *,
        state: Array | None = None,
        step_scale: Scale = 1.0,
    ) -> tuple[Array, Array]:
        """Many steps at once, without dropout: the state after the last real one, and all outputs.

        Args:
          u_BLH, lengths_B, step_scale: as in the call.
          state: before the first step, as `initial_state` gives it; None: zero.

        Raises:
          ValueError, TypeError: as the call; for a state of another shape.
          NoStateForm: if the layer is bidirectional or has a filter.
        """
        self._require_state_form("prefill")
        u_BLH = checked_input(self.NAME, u_BLH, "(B, L, H)", self.D.shape[0])
        B, L, _ = u_BLH.shape
        lengths_B = checked_lengths(self.NAME, lengths_B, (B,), L)
        given = None if state is None else self._checked_state(state, B)
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = in_type(self, u_BLH, given)
            scale = self._checked_scale(step_scale, dtype)
            v_BLH = without_padding(u_BLH.astype(dtype), lengths_B)
            start = None if given is None else given.astype(complex_of(dtype))
            y_BLH, state = layer.run_from(start, v_BLH, lengths_B, scale)
            y_BLH += layer.D[...][None, None, :] * v_BLH
            state = state if given is None else state.astype(_kept(given, dtype))
            return state, y_BLH.astype(returned_in(u_BLH, dtype))

    @on_any_mesh(lambda named: named["self"].STATE, "BH")
    def step(self, state: Array, u_BH: Array, *, step_scale: Scale = 1.0) -> tuple[Array, Array]:
        """One step, without dropout: (state, y_BH), as `jax.lax.scan` wants it.

        Args:
          state: as `initial_state` gives it; it keeps its complex type.
          u_BH, step_scale: of the one step, else as in the call.

        Raises:
          ValueError, TypeError: as the call; for a state of another shape.
          NoStateForm: if the layer is bidirectional or has a filter.
        """
        self._require_state_form("step")
        u_BH = checked_input(self.NAME, u_BH, "(B, H)", self.D.shape[0])
        given = self._checked_state(state, u_BH.shape[0])
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = in_type(self, u_BH, given)
            scale = self._checked_scale(step_scale, dtype)
            v_BH = u_BH.astype(dtype)
            state, y_BH = layer.advance(given.astype(complex_of(dtype)), v_BH, scale)
            y_BH = y_BH + layer.D[...][None, :] * v_BH
            return state.astype(_kept(given, dtype)), y_BH.astype(returned_in(u_BH, dtype))

    def _require_state_form(self, what: str) -> None:
        require_state_form(
            self.NAME,
            what,
            bidirectional=self.bidirectional,
            filtered=self.filtered,
            beta_H=self.beta[...],
        )

    def _checked_state(self, state: ArrayLike, batch: int) -> Array:
        shape = (batch, *self.state_shape())
        try:
            state = jnp.asarray(state)
        except (TypeError, ValueError):
            kind = type(state).__name__
            raise TypeError(
                f"{self.NAME}: the state must be an array {shape}, got {kind}."
            ) from None
        if state.shape != shape:
            raise ValueError(f"{self.NAME}: the state must be {shape}, got {state.shape}.")
        return state

    def _checked_integer(self, what: str, value: Any) -> int:
        try:
            if not isinstance(value, bool):
                return operator.index(value)
        except TypeError:  # also of an array of one integer
            pass
        raise TypeError(f"{self.NAME}: {what} must be an integer, got {value!r}.")

    def _checked_scale(self, step_scale: Scale, dtype: Any) -> Scale:
        """A scale as a Python number where it is known, else in the type that is computed in."""
        scale = step_scale if isinstance(step_scale, Array) else np.asarray(step_scale)
        if scale.shape != () or not (
            jnp.issubdtype(scale.dtype, jnp.integer) or jnp.issubdtype(scale.dtype, jnp.floating)
        ):
            raise ValueError(
                f"{self.NAME}: step_scale must be one real number, "
                f"got {scale.dtype} of the shape {scale.shape}."
            )
        known = known_values(scale)
        if known is None:
            return jnp.asarray(scale, dtype)
        if not POSITIVE.holds(float(known)):
            raise ValueError(
                f"{self.NAME}: step_scale must be positive and finite, got {float(known):g}."
            )
        return float(known)

    # What a layer says itself. Inputs, parameters and scale are of one float type; v is an input
    # whose padding is zero.

    def default_mode(self) -> str:
        """The mode of a call that names none."""
        return "conv"

    @abstractmethod
    def state_shape(self) -> tuple[int, ...]:
        """Of the state of one sequence."""

    @abstractmethod
    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        """y_BLH with the filter and D, as if padded to this many steps."""

    @abstractmethod
    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        """y_BLH without filter and D, of a layer that may look ahead."""

    @abstractmethod
    def run_from(
        self, state: Array | None, v_BLH: Array, lengths_B: Array | None, scale: Scale
    ) -> tuple[Array, Array]:
        """y_BLH without D, and the state after lengths_B steps; None: zero, and L."""

    @abstractmethod
    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        """The state after one step, and y_BH without D."""


def _kept(state: Array, dtype: Any) -> Any:
    """The type in which a state goes on: its own, if that is complex."""
    is_complex = jnp.issubdtype(state.dtype, jnp.complexfloating)
    return state.dtype if is_complex else complex_of(dtype)
