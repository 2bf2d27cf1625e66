"""What every state space layer takes, returns and refuses, and the ways in which it runs.

Numbers: see `inputs.py`; a state counts as an input. It has the complex type of what is computed
in, or keeps the one that it came with. Lengths: see `kernels.arrays.checked_lengths`. Steps from a
sequence's length on are set to zero before anything is computed. Outputs there are those for zeros,
and the state is that after the length. The filter, and which layers have a state form: `filter.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.modes import Modes, initial_modes
from ssm_jax.init.transforms import DT_TRANSFORMS, REAL_TRANSFORMS, log_uniform
from ssm_jax.kernels import fft_conv, sobolev_gain
from ssm_jax.kernels.arrays import checked_lengths, complex_of, without_padding
from ssm_jax.kernels.sharding import on_any_mesh
from ssm_jax.layers.filter import WHOLE_SEQUENCE, filter_exponent, require_state_form
from ssm_jax.layers.inputs import (
    as_complex,
    checked_input,
    checked_integer,
    checked_key,
    checked_scale,
    checked_state,
    computed_in,
    dropout,
    in_type,
    returned_in,
)
from ssm_jax.options import check_arguments, check_choice, divides

MODES = ("conv", "scan")  # ways to run a layer over a whole sequence

Scale = float | Array  # a factor on dt: a real scalar, which may be traced


class StateSpaceLayer(nnx.Module):
    """y = k^(beta) * u + D u: what the layers have in common.

    A layer makes its parameters in a constructor, which calls `set_options`, `initial_modes` and
    `set_system` and sets D, of (H,); and it has the five abstract methods. Arguments of all layers:

      d_model: channels H.
      d_state: complex modes N that are stored; their conjugates come on top (OC-1).
      alpha, alpha_real: factors on Im A and Re A at initialization.
      real_transform: Re A as a function of A_re_raw, a key of `init.transforms.REAL_TRANSFORMS`.
      beta: start value of the filter's exponent, one or one for each channel. None: no filter, and
        the layer has a state form wherever it is compiled.
      learn_beta: beta is a parameter (OC-10), or a Knob that stays. None: a parameter, if there is
        a filter.
      beta_unit: the unit of frequency in (1 + |s|)^beta, one of `kernels.filter.BETA_UNITS`.
      dt_min, dt_max: dt starts log-uniform between them, in units of time per sample.
      dt_transform: dt = "softplus" or "exp" of the stored parameter (OC-5).
      discretization: "zoh", "bilinear", or "none" for eigenvalues per sample: there is no dt then,
        and the three options above are not read.
      bidirectional: look ahead too, with another C and the same A, dt and beta.
      dropout: rate on the output; tie_dropout: one draw for all time steps.
      horizon: run as if inputs were padded with zeros to this many steps. The filter acts on the
        circle of twice the padded length, so outputs depend on it. None: an input's own length.
      rngs: with a "params" stream.

    They raise ValueError for a value out of its range or set, and for an init that the
    discretization or the real_transform cannot take.
    """

    NAME: ClassVar[str]  # in messages
    STATE: ClassVar[str] = "BHN"  # axes of a state
    D: nnx.Variable

    def set_options(self, arguments: Mapping[str, Any]) -> None:
        """Check the arguments of a constructor, its `locals()`, and keep those that calls read."""
        check_arguments(self.NAME, arguments, "init", "beta", "n_ssm", "n_blocks")
        d_model, n_ssm = arguments["d_model"], arguments.get("n_ssm", 1)
        if not divides(n_ssm, d_model):
            raise ValueError(f"{self.NAME}: n_ssm={n_ssm} must divide d_model={d_model}.")
        beta, horizon = arguments["beta"], arguments["horizon"]
        self.real_transform: str = arguments["real_transform"]
        self.filtered = beta is not None
        self.beta_unit: str = arguments["beta_unit"]
        self.dt_transform: str = arguments["dt_transform"]
        self.discretization: str = arguments["discretization"]
        self.bidirectional: bool = arguments["bidirectional"]
        self.dropout: float = arguments["dropout"]
        self.tie_dropout: bool = arguments["tie_dropout"]
        self.horizon = None if horizon is None else checked_integer(self.NAME, "horizon", horizon)
        self.beta = filter_exponent(self.NAME, d_model, beta, arguments["learn_beta"])

    def initial_modes(
        self, init: str | ArrayLike, n_modes: int, n_sets: int, arguments: Mapping[str, Any]
    ) -> Modes:
        """See `init.modes.initial_modes`, with what the arguments of the constructor say of it."""
        named = {key: arguments[key] for key in ("alpha", "alpha_real", "discretization")}
        seed = arguments.get("init_seed", 0)
        return initial_modes(init, n_modes, n_sets=n_sets, seed=seed, owner=self.NAME, **named)

    def set_system(self, A: np.ndarray, n_steps: int, arguments: Mapping[str, Any]) -> None:
        """Make the parameters of A and of n_steps step sizes, if there are any."""
        A_re_raw = REAL_TRANSFORMS[self.real_transform].inverse(A.real)
        self.A_re_raw = nnx.Param(jnp.asarray(A_re_raw, jnp.float32))
        self.A_im = nnx.Param(jnp.asarray(A.imag, jnp.float32))
        if self.discretization != "none":
            key, low, high = arguments["rngs"].params(), arguments["dt_min"], arguments["dt_max"]
            dt = log_uniform(key, (n_steps,), low, high)
            self.dt_raw = nnx.Param(DT_TRANSFORMS[self.dt_transform][1](dt))

    def modes(self) -> Array:
        """A as `set_system` has it: complex, in rad per unit of time, or per sample if no dt."""
        A_re = REAL_TRANSFORMS[self.real_transform].forward(self.A_re_raw[...])
        return as_complex(A_re, self.A_im[...])

    def step_sizes(self) -> Array:
        """dt_H, in S5 dt_N, in units of time per sample; 1 if the discretization is "none"."""
        if self.discretization == "none":
            return jnp.ones(self.state_shape()[:1], self.D[...].dtype)
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

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
        """Apply the layer: y_BLH, in the float type of the input.

        Args:
          u_BLH: real input, L at least 1; of any float or integer type.
          lengths_B: integers, 0..L; later steps are padding and are set to zero first. None: L.
          key: of the dropout; None: no dropout.
          mode: "conv" by FFT, or "scan", which needs beta = 0. None: "conv"; in S5 "scan" if the
            layer was made without a filter.
          step_scale: factor on dt, a positive scalar: 0.5 for a signal sampled twice as densely.
            The filter follows: |s| per sample is divided by it. For a factor for each sequence use
            `jax.vmap`.

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
        if self.horizon is not None and n < L:
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
            scale = checked_scale(self.NAME, step_scale, dtype)
            v_BLH = without_padding(u_BLH.astype(dtype), lengths_B)
            if mode == "scan":
                y_BLH = layer.scan(v_BLH, scale) + layer.D[...][None, None, :] * v_BLH
            else:
                y_BLH = layer.convolve(v_BLH, n, scale)
            y_BLH = dropout(y_BLH, self.dropout, key, tied=self.tie_dropout)
            return y_BLH.astype(returned_in(u_BLH, dtype))

    def initial_state(self, batch_size: int, dtype: Any = float) -> Array:
        """The state before the first step: complex zeros, x_BHN of S4D and S4, x_BN of S5.

        It has the complex type of `dtype`, that of the inputs; by default that of JAX's floats, so
        that a `jax.lax.scan` of `step` has 64 bits where they are enabled.
        """
        B = checked_integer(self.NAME, "batch_size", batch_size)
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

        Arguments and errors as in the call; `state` is before the first step, as `initial_state`
        gives it, None: zero. A bidirectional layer raises NoStateForm too.
        """
        self._require_state_form("prefill")
        u_BLH = checked_input(self.NAME, u_BLH, "(B, L, H)", self.D.shape[0])
        B, L, _ = u_BLH.shape
        lengths_B = checked_lengths(self.NAME, lengths_B, (B,), L)
        before = None if state is None else self._checked_state(state, B)
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = in_type(self, u_BLH, before)
            scale = checked_scale(self.NAME, step_scale, dtype)
            v_BLH = without_padding(u_BLH.astype(dtype), lengths_B)
            start = None if before is None else before.astype(complex_of(dtype))
            y_BLH, state = layer.run_from(start, v_BLH, lengths_B, scale)
            y_BLH += layer.D[...][None, None, :] * v_BLH
            state = state if before is None else state.astype(_kept(before, dtype))
            return state, y_BLH.astype(returned_in(u_BLH, dtype))

    @on_any_mesh(lambda named: named["self"].STATE, "BH")
    def step(self, state: Array, u_BH: Array, *, step_scale: Scale = 1.0) -> tuple[Array, Array]:
        """One step as in `prefill`: (state, y_BH), as `jax.lax.scan` wants it."""
        self._require_state_form("step")
        u_BH = checked_input(self.NAME, u_BH, "(B, H)", self.D.shape[0])
        before = self._checked_state(state, u_BH.shape[0])
        with jax.numpy_dtype_promotion("standard"):
            layer, dtype = in_type(self, u_BH, before)
            scale = checked_scale(self.NAME, step_scale, dtype)
            v_BH = u_BH.astype(dtype)
            state, y_BH = layer.advance(before.astype(complex_of(dtype)), v_BH, scale)
            y_BH = y_BH + layer.D[...][None, :] * v_BH
            return state.astype(_kept(before, dtype)), y_BH.astype(returned_in(u_BH, dtype))

    def _require_state_form(self, what: str) -> None:
        flags = {"bidirectional": self.bidirectional, "filtered": self.filtered}
        require_state_form(self.NAME, what, **flags, beta_H=self.beta[...])

    def _checked_state(self, state: ArrayLike, batch: int) -> Array:
        return checked_state(self.NAME, state, (batch, *self.state_shape()))

    def default_mode(self) -> str:
        """The mode of a call that names none."""
        return "conv"

    # What a layer has of its own. Inputs, parameters and scale are of one float type; v is an input
    # whose padding is zero.

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


class Probe(nnx.Variable):
    """Taps of zeros that are added to a layer's filtered kernel: forward, reverse; (2, H, L)."""


class ChannelwiseLayer(StateSpaceLayer):
    """One SSM for each channel, S4D or S4: channel h has the eigenvalues of set h mod n_ssm."""

    C_ri: nnx.Variable  # (C, H, N, 2): forward, then reverse if bidirectional
    probe: Probe | None = None

    @abstractmethod
    def kernels(self) -> tuple[Callable, Callable, Callable]:
        """Functions of A..C, dt: the taps (.., L), the recurrence (u, ..), and ahead in time."""

    @abstractmethod
    def system(self, scale: Scale) -> tuple[tuple[Array, ...], Array, Array]:
        """(what the kernels take before C, C_CHN, dt_H)"""

    def draw_readout(self, d_state: int, rngs: nnx.Rngs) -> Array:
        """C_ri of complex normal numbers with E|C|^2 = 1: variance 1/2 in either part (OC-4)."""
        C, H = 2 if self.bidirectional else 1, self.beta.shape[0]
        parts = jax.random.normal(rngs.params(), (C, H, d_state, 2), jnp.float32)
        return parts * jnp.sqrt(jnp.float32(0.5))

    def of_channels(self, of_sets: Array) -> Array:
        """(S, N) to (H, N)."""
        return jnp.tile(of_sets, (self.D.shape[0] // of_sets.shape[0], 1))

    def state_shape(self) -> tuple[int, ...]:
        return self.C_ri.shape[1:3]

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        kernel, _, _ = self.kernels()
        system, C_CHN, dt_H = self.system(scale)
        k_CHL = kernel(*system, C_CHN, dt_H, steps)
        y_BLH = fft_conv(
            v_BLH,
            k_CHL[0],
            reverse_kernel_HL=k_CHL[1] if self.bidirectional else None,
            gain_HF=sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale),
            skip_H=self.D[...],
        )
        if self.probe is None:
            return y_BLH
        return y_BLH + fft_conv(v_BLH, self.probe[0], reverse_kernel_HL=self.probe[1])

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        _, recurrence, ahead = self.kernels()
        system, C_CHN, dt_H = self.system(scale)
        y_BLH, _ = recurrence(v_BLH, *system, C_CHN[0], dt_H)
        if self.bidirectional:
            y_BLH += ahead(v_BLH, *system, C_CHN[1], dt_H)
        return y_BLH

    def run_from(
        self, state: Array | None, v_BLH: Array, lengths_B: Array | None, scale: Scale
    ) -> tuple[Array, Array]:
        _, recurrence, _ = self.kernels()
        system, C_CHN, dt_H = self.system(scale)
        return recurrence(v_BLH, *system, C_CHN[0], dt_H, state, lengths_B)


def add_probe(layer: Any, length: int) -> bool:
    """Give a layer a probe in place, if its kernel joins each channel with itself; else False.

    Its outputs in mode="conv" stay the same numbers. The gradient of a loss by `layer.probe` is
    that by the taps of the filtered kernel, k[j] for the input j steps ago and k_rev[j] for that in
    1 + j steps; zeros if the model does not call the layer. `length`: of the taps, the layer's
    horizon or the steps of its input.
    """
    if not isinstance(layer, ChannelwiseLayer):
        return False
    layer.probe = Probe(jnp.zeros((2, layer.D.shape[0], length), jnp.float32))
    return True


def _kept(state: Array, dtype: Any) -> Any:
    """The type of the state that follows: that of this one, if it is complex."""
    is_complex = jnp.issubdtype(state.dtype, jnp.complexfloating)
    return state.dtype if is_complex else complex_of(dtype)
