"""What every state space layer takes, returns and refuses, and the ways in which it runs.

Numbers: see `inputs.py`; a state counts as an input, and keeps its complex type. Lengths: see
`kernels.arrays.checked_lengths`. Steps from a sequence's length on are set to zero before anything
is computed. Outputs there are those for zeros, and the state is that after the length.
"""

import inspect
from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels import arrays
from ssm_jax.kernels.arrays import checked_lengths, complex_of
from ssm_jax.kernels.devices import on_any_mesh
from ssm_jax.kernels.uneven import from_the_end
from ssm_jax.layers import inputs
from ssm_jax.layers.inputs import as_one_program, checked_input, checked_integer
from ssm_jax.options.arguments import check, check_choice, parameters_of

MODES = ("conv", "scan")  # ways to run a layer over a whole sequence

_ONE_KERNEL = "a convolution has one kernel for the whole input"

Scale = float | Array  # factors on dt: a real scalar, which may be traced, or (B, L)


class Knob(nnx.Variable):
    """A number of the forward pass that is not trained; populations may differ in it."""


class NoStateForm(ValueError):  # noqa: N818 - it names a property, as StopIteration does
    """The layer cannot be run as a recurrence, or not step by step."""


class _AllKeywords:
    """The signature of a class: its own arguments and those that it hands to its bases."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # a call of a layer has another one
        return inspect.Signature([*parameters_of(owner).values()])


class StateSpaceLayer(nnx.Module):
    """y = k^(beta) * u + D u: what the layers have in common.

    A layer hands the keywords that it does not know to this constructor, sets D, of (H,), and has
    the six abstract methods. The filter (1 + |s|)^beta is no rational function of the shift, so no
    state of finite size carries it from one step to the next, and it reaches ahead: only layers
    without a filter run as a recurrence, and step by step only causal ones.
    """

    NAME: ClassVar[str]  # in messages
    INPUT: ClassVar[str] = "BLH"  # axes of an input; what is between L and H has a state each
    STATE: ClassVar[str] = "BHN"  # axes of a state
    SCANS: ClassVar[bool] = False  # without a filter it runs as a recurrence, unless told otherwise
    __signature__: ClassVar[Any] = _AllKeywords()  # for help and inspect.signature
    D: nnx.Variable
    unsymmetric: bool = False  # a model applies its filter as `circular_gain` has it

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        beta: ArrayLike | None = 0.0,
        learn_beta: bool | None = None,
        beta_unit: str = "lra",
        bidirectional: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        horizon: int | None = None,
    ):
        """Check and keep the options of all layers, and make beta.

        What they are, with units, ranges and sources: `ssm_jax.options`. Besides, here

        Args:
          beta: one start value or one for each channel. None: no filter, and the layer has a state
            form wherever it is compiled.
          learn_beta: beta is a parameter, or a Knob. None: a parameter, if there is a filter.
          bidirectional: look ahead too, with another C and the same A, dt and beta.
          horizon: run as if inputs were padded with zeros to this many steps. The filter acts on
            the circle of twice the padded length, so outputs depend on it. None: an input's own.
        """
        name = self.NAME
        check(name, locals(), "beta")
        self.filtered = beta is not None
        self.beta_unit = beta_unit
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.tie_dropout = tie_dropout
        self.horizon = None if horizon is None else checked_integer(name, "horizon", horizon)

        if beta is None and learn_beta:
            raise ValueError(
                f"{name}: learn_beta=True needs a filter, and beta=None means none; "
                "use beta=0.0 to start from the identity."
            )
        start = 0.0 if beta is None else beta
        of_channels = f"{name}: beta must be one number or one for each of {d_model} channels"
        if isinstance(start, list | tuple):
            try:
                start = np.asarray(start)
            except ValueError:  # lists of different lengths
                raise ValueError(f"{of_channels}, got {start!r:.40}.") from None
        if np.shape(start) not in ((), (d_model,)):
            raise ValueError(f"{of_channels}, got the shape {np.shape(start)}.")
        known = arrays.known_values(start)
        for value in () if known is None else np.ravel(known).tolist():
            check(name, {"beta": value})
        kind = Knob if beta is None or learn_beta is False else nnx.Param
        self.beta: nnx.Variable = kind(jnp.full((d_model,), start, jnp.float32))

    @on_any_mesh(lambda named: named["self"].INPUT)
    def __call__(
        self,
        u_BLH: Array,
        lengths_B: ArrayLike | None = None,
        *,
        key: Array | None = None,
        mode: str | None = None,
        step_scale: Scale = 1.0,
        starts_BL: ArrayLike | None = None,
    ) -> Array:
        """Apply the layer: y_BLH, in the float type of the input.

        Args:
          u_BLH: real input, L at least 1; of any float or integer type.
          lengths_B: integers, 0..L; later steps are padding. None: L.
          key: of the dropout; None: no dropout.
          mode: "conv" by FFT, or "scan", which needs beta = 0 or raises NoStateForm. None: "conv";
            in S5 "scan" if the layer was made without a filter.
          step_scale: factor on dt, a positive scalar: 0.5 for a signal sampled twice as densely.
            The filter follows: |s| per sample is divided by it. Or (B, L), the length of each step,
            which a step has in both directions; that needs a scan, as `starts_BL` does.
          starts_BL: boolean; true where a new sequence begins, to which those before and after it
            in the same row are nothing. None: one sequence in a row.
        """
        u_BLH = checked_input(self.NAME, u_BLH, self.INPUT, self.D.shape[0])
        L = u_BLH.shape[1]
        starts_BL = inputs.checked_starts(self.NAME, starts_BL, u_BLH.shape[:2])
        uneven = "starts_BL" if starts_BL is not None else "a step_scale for each step"
        if starts_BL is None and np.ndim(step_scale) == 0:
            uneven = ""
        if uneven and mode == "conv":
            raise NoStateForm(f"{self.NAME}: {uneven} needs mode='scan': {_ONE_KERNEL}.")
        mode = ("scan" if uneven else self.default_mode()) if mode is None else mode
        check_choice(self.NAME, "mode", mode, MODES)
        n = L if self.horizon is None else self.horizon
        if self.horizon is not None and n < L:
            raise ValueError(f"{self.NAME}: horizon={n} must be at least the input's length {L}.")
        lengths_B = checked_lengths(self.NAME, lengths_B, u_BLH.shape[:1], L)
        key = inputs.checked_key(self.NAME, key)
        if mode == "scan":
            self._require_state_form(uneven or "mode='scan'", causal=False)
        elif jax.export.is_symbolic_dim(n):
            raise ValueError(
                f"{self.NAME}: mode='conv' needs a length that is a number, got {n}: JAX has no "
                "FFT of a symbolic length. Export one program for each length (the batch may be "
                "symbolic), or a layer without a filter with mode='scan'."
            )
        scale = inputs.checked_scale(self.NAME, step_scale, u_BLH.shape[:2])
        arrays_in = u_BLH, lengths_B, key, scale, starts_BL
        return as_one_program(StateSpaceLayer._applied, self, *arrays_in, mode=mode, steps=n)

    def _applied(self, u_BLH, lengths_B, key, scale, starts_BL, *, mode, steps):
        """The call, of arguments that are checked."""
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = inputs.in_type(self, u_BLH)
            scale = inputs.scale_in(dtype, scale)
            v_BLH = arrays.without_padding(u_BLH.astype(dtype), lengths_B)
            if starts_BL is not None or jnp.ndim(scale):
                y_BLH = layer._run_uneven(None, v_BLH, None, starts_BL, scale)[1]
                if self.bidirectional:
                    y_BLH += layer.look_ahead(v_BLH, starts_BL, scale)
                y_BLH += layer.skipped(v_BLH)
            elif mode == "scan":
                y_BLH = layer.scan(v_BLH, scale) + layer.skipped(v_BLH)
            else:
                y_BLH = layer.convolve(v_BLH, steps, scale)
            y_BLH = inputs.dropout(y_BLH, self.dropout, key, tied=self.tie_dropout)
            return y_BLH.astype(arrays.returned_in(u_BLH, dtype))

    def initial_state(
        self, batch_size: int, dtype: Any = float, *, frame: tuple[int, ...] = ()
    ) -> Array:
        """The state before the first step: zeros x_BHN, in S5 x_BN, for inputs of this type.

        By default JAX's floats, so that a `jax.lax.scan` of `step` has 64 bits where enabled.
        `frame` are the axes of an input between time and channels.
        """
        B = checked_integer(self.NAME, "batch_size", batch_size)
        if B < 0:
            raise ValueError(f"{self.NAME}: batch_size must be at least 0, got {B}.")
        kind = complex_of(arrays.computed_in(jnp.zeros((), dtype)))
        return jnp.zeros((B, *frame, *self.state_shape()), kind)

    @on_any_mesh(lambda named: named["self"].STATE, lambda named: named["self"].INPUT)
    def prefill(
        self,
        u_BLH: Array,
        lengths_B: ArrayLike | None = None,
        *,
        state: Array | None = None,
        step_scale: Scale = 1.0,
        starts_BL: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Many steps at once, without dropout: the state after the last real one, and all outputs.

        Arguments as in the call; `state` is before the first step, None: zero. Raises NoStateForm
        with a filter, and if the layer is bidirectional.
        """
        steps = step_scale, starts_BL
        return self._advanced("prefill", u_BLH, self.INPUT, lengths_B, state, *steps)

    @on_any_mesh(
        lambda named: named["self"].STATE, lambda named: named["self"].INPUT.replace("L", "")
    )
    def step(
        self,
        state: Array,
        u_BH: Array,
        *,
        step_scale: Scale = 1.0,
        starts_B: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """One step as in `prefill`: (state, y_BH), as `jax.lax.scan` wants it.

        `step_scale` may be (B,). Where `starts_B` is true, the state before the step is zero.
        """
        steps = step_scale, starts_B
        return self._advanced("step", u_BH, self.INPUT.replace("L", ""), None, state, *steps)

    def _advanced(self, what, u, axes, lengths_B, state, step_scale, starts):
        """The state after one step u_BH or the steps u_BLH, and the outputs."""
        self._require_state_form(what)
        u = checked_input(self.NAME, u, axes, self.D.shape[0])
        lengths_B = checked_lengths(self.NAME, lengths_B, u.shape[:1], u.shape[1])
        one_step = len(axes) < len(self.INPUT)
        shape_of_steps = u.shape[: 1 if one_step else 2]
        starts = inputs.checked_starts(self.NAME, starts, shape_of_steps)
        shape = u.shape[0], *u.shape[1 if one_step else 2 : -1], *self.state_shape()
        if state is not None or one_step:
            state = inputs.checked_state(self.NAME, state, shape)
        scale = inputs.checked_scale(self.NAME, step_scale, shape_of_steps)
        arrays_in = state, u, lengths_B, scale, starts
        return as_one_program(StateSpaceLayer._run, self, *arrays_in, one_step=one_step)

    def _run(self, state, u, lengths_B, scale, starts, *, one_step):
        """`_advanced`, of arguments that are checked."""
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = inputs.in_type(self, u, state)
            scale = inputs.scale_in(dtype, scale)
            v = arrays.without_padding(u.astype(dtype), lengths_B)
            kind = kept = complex_of(dtype)
            if state is not None:
                kept = state.dtype if jnp.issubdtype(state.dtype, jnp.complexfloating) else kind
                state = state.astype(kind)
            if starts is not None or jnp.ndim(scale):
                steps = [v, starts, scale]
                if one_step:
                    steps = [x if np.ndim(x) == 0 else x[:, None] for x in steps]
                state, y = layer._run_uneven(state, steps[0], lengths_B, *steps[1:])
                y = y[:, 0] if one_step else y
            elif one_step:
                state, y = layer.advance(state, v, scale)
            else:
                state, y = layer.run_from(state, v, lengths_B, scale)
            y = y + layer.skipped(v)
            return state.astype(kept), y.astype(arrays.returned_in(u, dtype))

    def _require_state_form(self, what: str, *, causal: bool = True) -> None:
        """Raise NoStateForm unless there is the form that "step", "prefill" or "mode='scan'" needs.

        Known values of beta decide; else, as under jit, whether the layer was made with a filter.
        """
        values, lacks = arrays.known_values(self.beta[...]), ""
        if self.bidirectional and causal:
            lacks = "a causal layer, this one is bidirectional; make it with bidirectional=False."
        elif values is None and self.filtered:
            lacks = (
                "beta = 0, and this beta is traced and may differ; make the layer with beta=None."
            )
        elif values is not None and (values != 0).any():
            largest = f"got beta up to {np.abs(values).max():g}."
            if what in ("step", "prefill", "mode='scan'"):
                largest += " Use mode='conv'."
            lacks = f"beta = 0, since the filter has no finite state; {largest}"
        if lacks:
            raise NoStateForm(f"{self.NAME}: {what} needs {lacks}")

    def look_ahead(self, v_BLH: Array, starts_BL: Array | None, scale: Scale) -> Array:
        """y_BLH of the second read-out of uneven steps: everything run from the end."""
        turned = from_the_end(v_BLH, starts_BL, scale)
        return self._run_uneven(None, turned[0], None, *turned[1:], side=1)[1][:, ::-1]

    def _run_uneven(self, state, v, lengths_B, starts_BL, scale, *, side=0):
        """`run_uneven`, also from no state."""
        if state is None:
            shape = v.shape[0], *v.shape[2:-1], *self.state_shape()
            state = jnp.zeros(shape, complex_of(v.dtype))
        return self.run_uneven(state, v, lengths_B, starts_BL, scale, side=side)

    def skipped(self, v: Array) -> Array:
        """D v."""
        return self.D[...].reshape(*(1,) * (v.ndim - 1), -1) * v

    def default_mode(self) -> str:
        return "scan" if self.SCANS and not self.filtered else "conv"

    # What a layer has of its own, all of one float type; v is an input whose padding is zero.

    @abstractmethod
    def state_shape(self) -> tuple[int, ...]:
        """Of the state of one sequence, or of one pixel of it."""

    @abstractmethod
    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        """y_BLH with the filter and D, as if padded to this many steps."""

    @abstractmethod
    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        """y_BLH without filter and D, of a layer that may look ahead."""

    @abstractmethod
    def run_from(self, state, v_BLH: Array, lengths_B, scale: Scale) -> tuple[Array, Array]:
        """The state after lengths_B steps, and y_BLH without D; None: zero, and L."""

    @abstractmethod
    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        """The state after one step, and y_BH without D."""

    @abstractmethod
    def run_uneven(
        self, state, v_BLH: Array, lengths_B, starts_BL, scale: Scale, *, side: int
    ) -> tuple[Array, Array]:
        """As `run_from` a state, with starts or None, or a scale (B, L); by the read-out `side`."""
