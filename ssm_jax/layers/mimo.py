"""Layers that are one diagonal SSM with many inputs and outputs: how they run."""

from abc import abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.mimo import mimo_scan, read_out, to_modes
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import lacking
from ssm_jax.kernels.scan import from_parts, in_parts, scan_parts, state_after
from ssm_jax.kernels.uneven import uneven_scan
from ssm_jax.layers.base import Scale, StateSpaceLayer


def beside(x_N: Array, scale: Scale) -> Array:
    """Numbers of N modes with as many axes as a scale of steps."""
    return x_N.reshape(*(1,) * (jnp.ndim(scale) - 1), -1)


def over_steps(x: Array) -> Array:
    """Numbers of N modes, or of steps too, (B, T, N), as the axes (B, T, P, N) of P = 1."""
    return x[:, :, None] if x.ndim == 3 else x[None, None, None]


class MimoLayer(StateSpaceLayer):
    """x_l = A_bar x_{l-1} + B_bar u_l, y = Re C x + D u: H channels in and out, N complex modes.

    It runs as `S4D` does; the default mode is the scan, and with a filter the convolution.
    """

    STATE: ClassVar[str] = "BN"
    SCANS: ClassVar[bool] = True

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
        A_bar_N, z_N, phase_N, gain_N = self.of_steps(scale)
        return A_bar_N, z_N, phase_N, gain_N[:, None] * self.drive()

    def of_steps(self, scale: Scale) -> tuple[Array, Array, Phase, Array]:
        """(A_bar, z, phase of z, gain of `drive`) of steps whose scale broadcasts against N."""
        A_N, dt_N = beside(self.eigenvalues(), scale), beside(self.step_sizes(), scale) * scale
        A_bar_N, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        return A_bar_N, *exponent(A_N, dt_N, self.discretization), gain_N

    def drive(self) -> Array:
        """B_NH, complex, of which a gain makes B_bar."""
        return self.input_matrix()

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

    def run_uneven(
        self, state, v_BLH, lengths_B, starts_BL, scale, *, side: int
    ) -> tuple[Array, Array]:
        B_NH, C_HN = self.drive(), self.readout()[side]

        def modes(v_BTH: Array, scale: Array) -> tuple[Array, Phase, Array]:
            _, z, phase, gain = self.of_steps(scale[:, :, None] if scale.ndim else scale)
            driven_BT1N = over_steps(from_parts(to_modes(v_BTH, B_NH)))
            z, phase, gain = jax.tree.map(over_steps, (z, phase, gain))
            return z, phase, gain * driven_BT1N

        def outputs(x_BT1N: Array) -> Array:
            return read_out(in_parts(x_BT1N[:, :, 0]), C_HN)

        steps = v_BLH, starts_BL, scale, lengths_B
        x_B1N, y_BLH = uneven_scan(state[:, None], *steps, modes, outputs)
        return x_B1N[:, 0], y_BLH
