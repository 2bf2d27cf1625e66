"""ConvS5: a diagonal SSM over the frames of a video, with tuned frequency bias over time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.init.modes import INITS, initial_modes
from ssm_jax.init.parameters import EIGENBASES, cut_normal, real_basis
from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.convs5 import (
    conv_scan,
    conv_step,
    filtered_conv_scan,
    frames_to_modes,
    read_out_frames,
)
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import lacking
from ssm_jax.kernels.uneven import uneven_scan
from ssm_jax.layers.base import Knob, Scale
from ssm_jax.layers.inputs import from_ri
from ssm_jax.layers.mimo import over_steps
from ssm_jax.layers.s5 import SharedModes
from ssm_jax.options.arguments import check, check_choice
from ssm_jax.options.rows import SIZE


class ConvS5(SharedModes):
    """x' = A x + B * u, y = 2 Re C * x of frames, with B and C convolutions over space.

    Inputs are (B, L, Y, X, H): videos of L frames. A and dt are those of S5, and act over time at
    every pixel alike; alpha and beta tune the bias over temporal frequencies. It is causal, runs
    over whole videos (`mode="scan"`; with a filter "conv"), and without a filter frame by frame.
    There is no D. Source: ConvS5, arXiv:2310.19694, its "resnet" configuration.

    The filter of other layers reaches ahead, which a prediction must not. Here every mode's kernel
    is filtered by it and only lags from 0 on are kept (`filtered_conv_scan`). This causal
    projection is ours and in no paper. beta is one number, (1,): all outputs share the modes.
    """

    NAME = "ConvS5"
    INPUT = "BLYXH"
    STATE = "BYXN"
    CAUSAL_FILTER = True
    INITS = tuple({**EIGENBASES, **INITS})

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        window: int = 3,
        chunk: int | None = None,
        init: str = "legs",
        init_seed: int = 0,
        clip_eigs: bool = True,
        real_transform: str = "none",
        dt_transform: str = "exp",
        beta: float | None = None,
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options`, `StateSpaceLayer` and `S5`. Besides

        Args:
          d_state: modes N that are stored at each pixel; their conjugates come on top, so the
            published ssm_size of 256 is 128 here.
          window: rows and columns of B and C, odd; 1 is an S5 at every pixel by itself.
          chunk: frames whose states are in memory at a time, see `conv_scan`; None: all. With a
            filter they are all there, whatever it is.
          clip_eigs: Re A is at most -1e-4. There it has no gradient: with alpha_real=0 and
            real_transform="none" training leaves all real parts at -1e-4.
          beta: one number, or None.

        B starts as V^-1 B_0 and C as C_0 V of a real basis of the modes (`real_basis`), for real
        B_0 and C_0 of variance 2 over the numbers that are summed (He et al., arXiv:1502.01852).
        """
        check_choice("ConvS5", "init", init, self.INITS)
        if not SIZE.holds(window) or window % 2 == 0:
            raise ValueError(f"ConvS5: window must be odd and at least 1, got {window!r}.")
        if chunk is not None and not SIZE.holds(chunk):
            raise ValueError(f"ConvS5: chunk must be at least 1 frame, or None, got {chunk!r}.")
        if shared.pop("bidirectional", False):
            raise ValueError("ConvS5: bidirectional=True is not for this layer, which is causal.")
        if shape := np.shape(0.0 if beta is None else beta):
            got = f"one number for all channels, got the shape {shape}."
            raise ValueError(f"ConvS5: beta must be {got}")
        check("ConvS5", locals(), "beta")
        name = "s4d_legs" if init == "legs" else init

        def modes(**scales: Any) -> np.ndarray:
            return initial_modes(name, d_state, seed=init_seed, **scales).A_SN[0]

        shared |= {"d_state": d_state, "real_transform": real_transform, "beta": beta}
        shared |= {"dt_transform": dt_transform, "bidirectional": False}
        super().__init__(d_model, d_state, modes, rngs=rngs, **shared)
        self.beta = type(self.beta)(self.beta[...][:1])
        self.window, self.chunk, self.clip_eigs = window, chunk, clip_eigs
        V_PN, V_inv_NP = real_basis(init, d_state)
        seen = window * window
        B0 = cut_normal(rngs.params(), (2 * d_state, seen * d_model), 2 / (seen * d_model))
        C0 = cut_normal(rngs.params(), (seen * d_model, 2 * d_state), 2 / (seen * 2 * d_state))
        times = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        B_ri = [
            times(jnp.asarray(part, jnp.float32), B0) for part in (V_inv_NP.real, V_inv_NP.imag)
        ]
        C_ri = [times(C0, jnp.asarray(part, jnp.float32)) for part in (V_PN.real, V_PN.imag)]
        self.B_ri = nnx.Param(jnp.stack(B_ri, axis=-1))  # (N, W W H, 2)
        self.C_ri = nnx.Param(jnp.stack(C_ri, axis=-1).reshape(seen, d_model, d_state, 2))
        self.D = Knob(jnp.zeros((d_model,), jnp.float32))

    def input_matrix(self) -> Array:
        """B of the continuous system, complex (N, W W H): from a window's numbers to the modes."""
        return from_ri(self.B_ri[...])

    def readout(self) -> Array:
        """C, complex (W W, H, N), of y = Re C * x: one matrix for each pixel of the window.

        It is twice the parameter: the conjugate modes add as much again.
        """
        return 2 * from_ri(self.C_ri[...])

    def convolve(self, v_BLYXH: Array, steps: int, scale: Scale) -> Array:
        L = v_BLYXH.shape[1]
        gain_1F = sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale)
        padded = jnp.pad(v_BLYXH, ((0, 0), (0, steps - L), (0, 0), (0, 0), (0, 0)))
        return filtered_conv_scan(padded, *self._discrete(scale)[1:], gain_1F[0])[:, :L]

    def scan(self, v_BLYXH: Array, scale: Scale) -> Array:
        return conv_scan(v_BLYXH, *self._discrete(scale)[1:], chunk=self.chunk)[1]

    def run_from(self, state, v_BLYXH, lengths_B, scale) -> tuple[Array, Array]:
        system = self._discrete(scale)[1:]
        return conv_scan(v_BLYXH, *system, state, lengths_B, chunk=self.chunk)

    def run_uneven(
        self, state, v_BLYXH, lengths_B, starts_BL, scale, *, side: int
    ) -> tuple[Array, Array]:
        B, _, Y, X, _ = v_BLYXH.shape
        A_N, dt_N, N = self.eigenvalues(), self.step_sizes(), self.A_im.size
        B_WWHN, C_WWNH = self._windows(jnp.ones_like(A_N))

        def modes(v_BTYXH: Array, scale: Array) -> tuple[Array, Phase, Array]:
            A, dt = A_N[None, None], dt_N[None, None] * (scale[:, :, None] if scale.ndim else scale)
            z, phase = exponent(A, dt, self.discretization)
            _, gain = DISCRETIZE[self.discretization](A, dt)
            T = v_BTYXH.shape[1]
            v_BT2PN = frames_to_modes(v_BTYXH, B_WWHN).reshape(B, T, 2, Y * X, N)
            v_BTPN = jax.lax.complex(v_BT2PN[:, :, 0], v_BT2PN[:, :, 1])
            return *jax.tree.map(over_steps, (z, phase)), over_steps(gain) * v_BTPN

        def outputs(x_BTPN: Array) -> Array:
            x_BTYXN = x_BTPN.reshape(B, x_BTPN.shape[1], Y, X, N)
            return read_out_frames(jnp.stack([x_BTYXN.real, x_BTYXN.imag], axis=2), C_WWNH)

        x0_BPN = state.reshape(B, Y * X, N)
        x_BPN, y = uneven_scan(x0_BPN, v_BLYXH, starts_BL, scale, lengths_B, modes, outputs)
        return x_BPN.reshape(B, Y, X, N), y

    def advance(self, state: Array, v_BYXH: Array, scale: Scale) -> tuple[Array, Array]:
        A_bar_N, z_N, phase_N, B_bar_WWHN, C_WWNH = self._discrete(scale)
        rest_N = lacking(A_bar_N, z_N, phase_N)
        return conv_step(state, v_BYXH, A_bar_N, rest_N, B_bar_WWHN, C_WWNH)

    def skipped(self, v: Array) -> Array:
        """Nothing: there is no D."""
        return jnp.zeros((), v.dtype)

    def _discrete(self, scale: Scale) -> tuple[Array, Array, Phase, Array, Array]:
        """(A_bar, z, phase of z, B_bar, C), the last two as windows."""
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * scale
        z_N, phase_N = exponent(A_N, dt_N, self.discretization)
        A_bar_N, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        return A_bar_N, z_N, phase_N, *self._windows(gain_N)

    def _windows(self, gain_N: Array) -> tuple[Array, Array]:
        """(B, times a gain, and C) as windows."""
        W, H, N = self.window, self.D.shape[0], self.A_im.size
        B_bar_NWWH = (gain_N[:, None] * self.input_matrix()).reshape(N, W, W, H)
        C_WWHN = self.readout().reshape(W, W, H, N)
        return jnp.moveaxis(B_bar_NWWH, 0, -1), jnp.swapaxes(C_WWHN, 2, 3)
