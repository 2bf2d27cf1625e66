"""S5: one diagonal SSM with many inputs and outputs, with tuned frequency bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.init import DT_TRANSFORMS, log_uniform
from ssm_jax.init.mimo import C_INITS, EIGENBASES, input_matrix, output_matrix, real_basis
from ssm_jax.init.modes import INITS, initial_modes
from ssm_jax.init.transforms import REAL_TRANSFORMS
from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.discretize import (
    DISCRETIZATIONS,
    DISCRETIZE,
    exponent,
    from_parts,
    in_parts,
    lacking,
)
from ssm_jax.kernels.mimo import mimo_conv, mimo_scan, read_out, to_modes
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.scan import scan_parts, state_after
from ssm_jax.layers.base import Scale, StateSpaceLayer
from ssm_jax.layers.inputs import as_complex
from ssm_jax.options import SIZE, check_choice, divides

SLOWEST_DECAY = 1e-4  # of clip_eigs


class S5(StateSpaceLayer):
    """x' = A x + B u, y = Re C x + D u: H channels in and out, N complex modes (arXiv:2208.04933).

    The filter of "Tuning Frequency Bias of State Space Models" (arXiv:2410.02035) can act on every
    output channel: y = gain^(beta) * Re C x + D u. alpha acts on the initial Im A only.

    It runs as a parallel scan, as a convolution (mode="conv"; the only way with a filter), or from
    a state on: `prefill` takes many steps, `step` one. All give the same outputs.
    """

    NAME = "S5"
    INITS = tuple({**EIGENBASES, **INITS})

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """See `S4D.faults`."""
        own = options["s5"]
        blocks = own["n_blocks"] * (1 if own["conj_sym"] else 2)
        if options["d_state"] % blocks:
            twice = "" if own["conj_sym"] else " times 2, as conj_sym is off"
            yield (
                f"model.d_state={options['d_state']} must be a multiple of {blocks}, that is of "
                f"model.s5.n_blocks{twice}."
            )

    STATE = "BN"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_blocks: int = 1,
        init: str = "legs",
        init_seed: int = 0,
        C_init: str = "lecun_normal",
        conj_sym: bool = True,
        clip_eigs: bool = False,
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        real_transform: str = "none",
        beta: float | None = None,
        learn_beta: bool | None = None,
        beta_unit: str = "lra",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_transform: str = "exp",
        discretization: str = "zoh",
        bidirectional: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        horizon: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Args:
          d_model: channels H, of the input and of the output.
          d_state: complex modes N that are stored and shared by the channels. With conj_sym their
            conjugates come on top: the official ssm_size counts both, so its 16 is 8 here.
          n_blocks: A starts as this many equal blocks; divides d_state.
          init: of a block: "legs", the normal part of HiPPO-LegS, as in the official code, or a key
            of `init.diagonal.INITS`. B and C start as draws in a real basis, see `init.mimo`.
          init_seed: of the inits that draw; every block then has its own modes.
          C_init: "lecun_normal", "trunc_standard_normal" or "complex_normal", the last one drawn
            for the modes themselves. Standard deviations are the official ones (OC-26).
          conj_sym: the modes are one half of conjugate pairs; False: all of them are stored, and
            training may take them apart. d_state is then a multiple of 2 n_blocks.
          clip_eigs: Re A is at most -1e-4 in the forward pass.
          alpha, alpha_real: factors on Im A and Re A at initialization.
          real_transform: Re A as a function of A_re_raw, a key of `init.real_part.REAL_TRANSFORMS`;
            "none", the official one, lets training make a mode unstable unless clip_eigs is set.
          beta: start value of the filter's exponent, for every output channel. None: no filter, and
            the layer has a state form wherever it is compiled.
          learn_beta: beta is a parameter, or a Knob that stays. None: a parameter, if there
            is a filter.
          beta_unit: the unit of frequency in (1 + |s|)^beta: "lra", "hz_1e4" or "rad".
          dt_min, dt_max: dt, one per mode, starts log-uniform between them, in units of time per
            sample.
          dt_transform: dt = "exp" or "softplus" of the stored parameter.
          discretization: "zoh", "bilinear", or "none" for an init that gives modes per sample:
            there is no dt then, and the three options above are not read.
          bidirectional: add the states of a scan from the end, with their own C. Both scans count
            the present input (OC-26).
          dropout: rate on the output; tie_dropout: one draw for all time steps.
          horizon: run as if inputs were padded with zeros to this many steps. The filter lives on
            the circle of twice the padded length, so outputs depend on it. None: an input's length.
          rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its set, or an init that the discretization or the
            real_transform cannot take.
        """
        for name, value, allowed in (
            ("init", init, self.INITS),
            ("C_init", C_init, C_INITS),
            ("discretization", discretization, DISCRETIZATIONS),
        ):
            check_choice("S5", name, value, allowed)
        self.set_options(
            d_model=d_model,
            init_seed=init_seed,
            conj_sym=conj_sym,
            clip_eigs=clip_eigs,
            alpha=alpha,
            alpha_real=alpha_real,
            real_transform=real_transform,
            beta=beta,
            learn_beta=learn_beta,
            beta_unit=beta_unit,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_transform=dt_transform,
            bidirectional=bidirectional,
            dropout=dropout,
            tie_dropout=tie_dropout,
            horizon=horizon,
        )
        halves = 1 if conj_sym else 2
        if not (
            SIZE.holds(d_state) and SIZE.holds(n_blocks) and divides(halves * n_blocks, d_state)
        ):
            raise ValueError(
                f"S5: d_state={d_state} must be a positive multiple of {halves} n_blocks with "
                f"conj_sym={conj_sym}; n_blocks is {n_blocks}."
            )
        H, N, J, C = d_model, d_state, n_blocks, 2 if bidirectional else 1
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.discretization = discretization

        # The part of a block that is half of its conjugate pairs, in a real basis of its order.
        A_JN = initial_modes(
            "s4d_legs" if init == "legs" else init,
            N // (halves * J),
            n_sets=J,
            alpha=alpha,
            alpha_real=alpha_real,
            seed=init_seed,
            discretization=discretization,
            owner="S5",
        ).A_SN
        V, V_inv = real_basis(init, A_JN.shape[1])
        if not conj_sym:
            A_JN = np.concatenate([A_JN, A_JN.conj()], axis=1)
            V = np.concatenate([V, V.conj()], axis=1)
            V_inv = np.concatenate([V_inv, V_inv.conj()], axis=0)
        A_N = A_JN.ravel()
        self.A_re_raw = nnx.Param(
            jnp.asarray(REAL_TRANSFORMS[real_transform].inverse(A_N.real), jnp.float32)
        )
        self.A_im = nnx.Param(jnp.asarray(A_N.imag, jnp.float32))
        if discretization != "none":
            dt_N = log_uniform(rngs.params(), (N,), dt_min, dt_max)
            self.dt_raw = nnx.Param(DT_TRANSFORMS[dt_transform][1](dt_N))
        self.B_ri = nnx.Param(input_matrix(rngs.params(), V_inv, J, H))
        self.C_ri = nnx.Param(output_matrix(rngs.params(), V, J, C, H, C_init))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (H,), jnp.float32))

    def eigenvalues(self) -> Array:
        """A_N, complex, in rad per unit of time; per sample if the discretization is "none"."""
        A_re_N = REAL_TRANSFORMS[self.real_transform].forward(self.A_re_raw[...])
        if self.clip_eigs:
            A_re_N = jnp.minimum(A_re_N, -SLOWEST_DECAY)
        return as_complex(A_re_N, self.A_im[...])

    def step_sizes(self) -> Array:
        """dt_N, in units of time per sample; 1 if the discretization is "none"."""
        if self.discretization == "none":
            return jnp.ones_like(self.A_im[...])
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def input_matrix(self) -> Array:
        """B_NH, complex, of the continuous system."""
        return as_complex(self.B_ri[..., 0], self.B_ri[..., 1])

    def readout(self) -> Array:
        """C_CHN of y = Re C x, complex: forward, then reverse if bidirectional.

        With conj_sym it is twice the parameter: the conjugate modes add as much again.
        """
        C_CHN = as_complex(self.C_ri[..., 0], self.C_ri[..., 1])
        return 2 * C_CHN if self.conj_sym else C_CHN

    def default_mode(self) -> str:
        return "conv" if self.filtered else "scan"

    def state_shape(self) -> tuple[int, ...]:
        return self.A_im.shape

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        L = v_BLH.shape[1]
        gain_HF = sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale)
        padded = jnp.pad(v_BLH, ((0, 0), (0, steps - L), (0, 0)))
        y_BLH = mimo_conv(padded, *self._discrete(scale), self.readout(), gain_HF)[:, :L]
        return y_BLH + self.D[...][None, None, :] * v_BLH

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        return mimo_scan(v_BLH, *self._discrete(scale), self.readout())

    def run_from(
        self, state: Array | None, v_BLH: Array, lengths_B: Array | None, scale: Scale
    ) -> tuple[Array, Array]:
        z_N, phase_N, B_bar_NH = self._discrete(scale)
        inputs_BL2N = to_modes(v_BLH, B_bar_NH)
        x0_B2N = jnp.zeros_like(inputs_BL2N[:, 0]) if state is None else in_parts(state)
        x_BL2N = scan_parts(z_N, phase_N, inputs_BL2N, x0_B2N)
        y_BLH = read_out(x_BL2N, self.readout()[0])
        return y_BLH, from_parts(state_after(x_BL2N, lengths_B, x0_B2N))

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * scale
        A_bar_N, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        rest_N = lacking(A_bar_N, *exponent(A_N, dt_N, self.discretization))
        B_bar_NH = gain_N[:, None] * self.input_matrix()
        v_BN = from_parts(to_modes(v_BH[:, None], B_bar_NH)[:, 0])
        state = A_bar_N[None, :] * state + (rest_N[None, :] * state + v_BN)
        return state, read_out(in_parts(state)[:, None], self.readout()[0])[:, 0]

    def _discrete(self, scale: Scale) -> tuple[Array, Phase, Array]:
        """(z, phase of z, B_bar)."""
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * scale
        z_N, phase_N = exponent(A_N, dt_N, self.discretization)
        _, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        return z_N, phase_N, gain_N[:, None] * self.input_matrix()
