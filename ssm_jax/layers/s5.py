"""S5: one diagonal SSM with many inputs and outputs, with tuned frequency bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.init import DT_TRANSFORMS, log_uniform
from ssm_jax.init.diagonal import INITS, initial_modes
from ssm_jax.init.mimo import C_INITS, EIGENBASES, input_matrix, output_matrix, real_basis
from ssm_jax.init.real_part import REAL_TRANSFORMS
from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZATIONS, DISCRETIZE, exponent
from ssm_jax.kernels.frequency import BETA_UNITS
from ssm_jax.kernels.mimo import mimo_conv, mimo_scan, read_out, to_modes
from ssm_jax.kernels.multiplier import from_parts, in_parts, lacking
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.scan import scan_parts, state_after
from ssm_jax.kernels.sharding import on_any_mesh
from ssm_jax.layers.dropout import dropout as apply_dropout
from ssm_jax.layers.exponent import filter_exponent
from ssm_jax.layers.padding import without_padding
from ssm_jax.layers.state_form import MODES, Scale, require_state_form

SLOWEST_DECAY = 1e-4  # of clip_eigs


class S5(nnx.Module):
    """x' = A x + B u, y = Re C x + D u: H channels in and out, N complex modes (arXiv:2208.04933).

    The filter of "Tuning Frequency Bias of State Space Models" (arXiv:2410.02035) can act on every
    output channel: y = gain^(beta) * Re C x + D u. alpha acts on the initial Im A only.

    It runs as a parallel scan, as a convolution (mode="conv"; the only way with a filter), or from
    a state on: `prefill` takes many steps, `step` one. All give the same outputs.
    """

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
          rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its set, or an init that the discretization or the
            real_transform cannot take.
        """
        for name, value, allowed in (
            ("init", init, tuple({**EIGENBASES, **INITS})),
            ("C_init", C_init, C_INITS),
            ("beta_unit", beta_unit, BETA_UNITS),
            ("dt_transform", dt_transform, tuple(DT_TRANSFORMS)),
            ("discretization", discretization, DISCRETIZATIONS),
            ("real_transform", real_transform, tuple(REAL_TRANSFORMS)),
        ):
            if value not in allowed:
                raise ValueError(
                    f"S5: unknown {name} {value!r}; choose one of {', '.join(allowed)}."
                )
        halves = 1 if conj_sym else 2
        if n_blocks < 1 or d_state < 1 or d_state % (halves * n_blocks):
            raise ValueError(
                f"S5: d_state={d_state} must be a positive multiple of {halves} n_blocks with "
                f"conj_sym={conj_sym}; n_blocks is {n_blocks}."
            )
        H, N, J, C = d_model, d_state, n_blocks, 2 if bidirectional else 1
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.real_transform = real_transform
        self.filtered = beta is not None
        self.beta_unit = beta_unit
        self.dt_transform = dt_transform
        self.discretization = discretization
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.tie_dropout = tie_dropout

        # The part of a block that is half of its conjugate pairs, in a real basis of its order.
        A_JN, _, discrete = initial_modes(
            "s4d_legs" if init == "legs" else init,
            N // (halves * J),
            n_sets=J,
            alpha=alpha,
            alpha_real=alpha_real,
            seed=init_seed,
        )
        if discrete != (discretization == "none"):
            given, use = ("sample", "") if discrete else ("unit of time", "one other than ")
            raise ValueError(
                f"S5: init {init!r} gives eigenvalues per {given}, which "
                f"discretization={discretization!r} cannot take; use {use}'none'."
            )
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
        self.beta = filter_exponent("S5", H, beta, learn_beta)

    def eigenvalues(self) -> Array:
        """A_N, complex, in rad per unit of time; per sample if the discretization is "none"."""
        A_re_N = REAL_TRANSFORMS[self.real_transform].forward(self.A_re_raw[...])
        if self.clip_eigs:
            A_re_N = jnp.minimum(A_re_N, -SLOWEST_DECAY)
        return A_re_N + 1j * self.A_im[...]

    def step_sizes(self) -> Array:
        """dt_N, in units of time per sample; 1 if the discretization is "none"."""
        if self.discretization == "none":
            return jnp.ones_like(self.A_im[...])
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def input_matrix(self) -> Array:
        """B_NH, complex, of the continuous system."""
        return self.B_ri[..., 0] + 1j * self.B_ri[..., 1]

    def readout(self) -> Array:
        """C_CHN of y = Re C x, complex: forward, then reverse if bidirectional.

        With conj_sym it is twice the parameter: the conjugate modes add as much again.
        """
        C_CHN = self.C_ri[..., 0] + 1j * self.C_ri[..., 1]
        return 2 * C_CHN if self.conj_sym else C_CHN

    @on_any_mesh("BLH")
    def __call__(
        self,
        u_BLH: Array,
        lengths_B: Array | None = None,
        *,
        key: Array | None = None,
        mode: str | None = None,
        step_scale: Scale = 1.0,
        horizon: int | None = None,
    ) -> Array:
        """Apply the layer.

        Args:
          u_BLH: real input.
          lengths_B: int; steps from lengths_B on are padding and are set to zero first. None: no
            padding.
          key: of the dropout; None: no dropout.
          mode: "scan", which needs beta = 0, or "conv" by FFT. None: "conv" if the layer was made
            with a filter, else "scan".
          step_scale: factor on dt, positive: 0.5 for a signal sampled twice as densely. The filter
            follows: |s| per sample is divided by it.
          horizon: run as if the input were padded with zeros to this many steps. The filter lives
            on the circle of twice the padded length, so its outputs depend on it. None: L.

        Returns:
          y_BLH.

        Raises:
          ValueError: for an unknown mode or a horizon below L.
          NoStateForm: for mode="scan" with a filter.
        """
        L = u_BLH.shape[1]
        n = L if horizon is None else horizon
        if mode is None:
            mode = "conv" if self.filtered else "scan"
        if mode not in MODES:
            raise ValueError(f"S5: unknown mode {mode!r}; choose one of {', '.join(MODES)}.")
        if n < L:
            raise ValueError(f"S5: horizon={n} must be at least the input's length {L}.")
        u_BLH = without_padding(u_BLH, lengths_B)
        system = *self._discrete(step_scale), self.readout()
        if mode == "scan":
            self._require_state("mode='scan'")
            y_BLH = mimo_scan(u_BLH, *system)
        else:
            gain_HF = sobolev_gain(self.beta[...], 2 * n, self.beta_unit, step_scale)
            padded = jnp.pad(u_BLH, ((0, 0), (0, n - L), (0, 0)))
            y_BLH = mimo_conv(padded, *system, gain_HF)[:, :L]
        y_BLH += self.D[...][None, None, :] * u_BLH
        return apply_dropout(y_BLH, self.dropout, key, tied=self.tie_dropout)

    def initial_state(self, batch_size: int) -> Array:
        """The state before the first step: complex zeros x_BN."""
        return jnp.zeros((batch_size, self.A_im.shape[0]), jnp.complex64)

    @on_any_mesh("BN", "BLH")
    def prefill(
        self,
        u_BLH: Array,
        lengths_B: Array | None = None,
        *,
        state: Array | None = None,
        step_scale: Scale = 1.0,
    ) -> tuple[Array, Array]:
        """Many steps at once, without dropout: the state after the last real one, and all outputs.

        Args:
          u_BLH, lengths_B, step_scale: as in the call.
          state: x_BN before the first step; None: zero.

        Raises:
          NoStateForm: if the layer is bidirectional or has a filter.
        """
        self._require_state("prefill")
        u_BLH = without_padding(u_BLH, lengths_B)
        z_N, phase_N, B_bar_NH = self._discrete(step_scale)
        x0_B2N = in_parts(self.initial_state(u_BLH.shape[0]) if state is None else state)
        x_BL2N = scan_parts(z_N, phase_N, to_modes(u_BLH, B_bar_NH), x0_B2N)
        y_BLH = read_out(x_BL2N, self.readout()[0]) + self.D[...][None, None, :] * u_BLH
        return from_parts(state_after(x_BL2N, lengths_B, x0_B2N)), y_BLH

    @on_any_mesh("BN", "BH")
    def step(self, state: Array, u_BH: Array, *, step_scale: Scale = 1.0) -> tuple[Array, Array]:
        """One step, without dropout: (state, y_BH), as `jax.lax.scan` wants it.

        Raises:
          NoStateForm: if the layer is bidirectional or has a filter.
        """
        self._require_state("step")
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * step_scale
        A_bar_N, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        rest_N = lacking(A_bar_N, *exponent(A_N, dt_N, self.discretization))
        B_bar_NH = gain_N[:, None] * self.input_matrix()
        v_BN = from_parts(to_modes(u_BH[:, None], B_bar_NH)[:, 0])
        state = A_bar_N[None, :] * state + (rest_N[None, :] * state + v_BN)
        y_BH = read_out(in_parts(state)[:, None], self.readout()[0])[:, 0]
        return state, y_BH + self.D[...][None, :] * u_BH

    def _discrete(self, step_scale: Scale) -> tuple[Array, Phase, Array]:
        """(z, phase of z, B_bar)."""
        A_N, dt_N = self.eigenvalues(), self.step_sizes() * step_scale
        z_N, phase_N = exponent(A_N, dt_N, self.discretization)
        _, gain_N = DISCRETIZE[self.discretization](A_N, dt_N)
        return z_N, phase_N, gain_N[:, None] * self.input_matrix()

    def _require_state(self, what: str) -> None:
        require_state_form(
            "S5",
            what,
            bidirectional=self.bidirectional,
            filtered=self.filtered,
            beta_H=self.beta[...],
        )
