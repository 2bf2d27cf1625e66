"""Layers that are one diagonal SSM with many inputs and outputs: how they run."""

from abc import abstractmethod
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.mimo import mimo_scan, read_out, to_modes
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import lacking
from ssm_jax.kernels.scan import from_parts, in_parts, scan_parts, state_after
from ssm_jax.layers.base import Scale, StateSpaceLayer


class MimoLayer(StateSpaceLayer):
    """x_l = A_bar x_{l-1} + B_bar u_l, y = Re C x + D u: H channels in and out, N complex modes.

    It runs as `S4D` does; the default mode is the scan, and with a filter the convolution.
    """

    STATE: ClassVar[str] = "BN"

    discretization: str = "none"  # of modes per sample, whose step is 1

    @abstractmethod
    def eigenvalues(self) -> Array:
        """A_N, complex, in rad per unit of time; per sample if the discretization is "none"."""

    @abstractmethod
    def input_matrix(self) -> Array:
        """B_NH, complex, in the same time."""

    @abstractmethod
    def readout(self) -> Array:
        """C_CHN of y = Re C x, complex: forward, then reverse if bidirectional."""

    def step_sizes(self) -> Array:
        """dt_N, in units of time per sample."""
        return jnp.ones(self.state_shape(), self.D[...].dtype)

    def discrete(self, scale: Scale) -> tuple[Array, Array, Phase, Array]:
        """(A_bar_N, z_N, phase of z_N, B_bar_NH), with A_bar = e^z; complex."""
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * scale
        A_bar_N, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        z_N, phase_N = exponent(A_N, dt_N, self.discretization)
        return A_bar_N, z_N, phase_N, gain_N[:, None] * self.input_matrix()

    def default_mode(self) -> str:
        return "conv" if self.filtered else "scan"

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        L = v_BLH.shape[1]
        gain_HF = sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale)
        padded = jnp.pad(v_BLH, ((0, 0), (0, steps - L), (0, 0)))
        y_BLH = mimo_scan(padded, *self.discrete(scale)[1:], self.readout(), gain_HF)[:, :L]
        return y_BLH + self.D[...][None, None, :] * v_BLH

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        return mimo_scan(v_BLH, *self.discrete(scale)[1:], self.readout())

    def run_from(self, state, v_BLH, lengths_B, scale) -> tuple[Array, Array]:
        _, z_N, phase_N, B_bar_NH = self.discrete(scale)
        inputs_BL2N = to_modes(v_BLH, B_bar_NH)
        x0_B2N = jnp.zeros_like(inputs_BL2N[:, 0]) if state is None else in_parts(state)
        x_BL2N = scan_parts(z_N, phase_N, inputs_BL2N, x0_B2N)
        state = from_parts(state_after(x_BL2N, lengths_B, x0_B2N))
        return state, read_out(x_BL2N, self.readout()[0])

    def transition(self, scale: Scale) -> tuple[Array, ...]:
        """(A_bar_N, what it lacks, B_bar_NH, C_HN): what every step is made of."""
        A_bar_N, z_N, phase_N, B_bar_NH = self.discrete(scale)
        return A_bar_N, lacking(A_bar_N, z_N, phase_N), B_bar_NH, self.readout()[0]

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        A_bar_N, rest_N, B_bar_NH, C_HN = self.transition(scale)
        v_BN = from_parts(to_modes(v_BH[:, None], B_bar_NH)[:, 0])
        state = A_bar_N[None, :] * state + (rest_N[None, :] * state + v_BN)
        return state, read_out(in_parts(state)[:, None], C_HN)[:, 0]
