"""S4: the HiPPO-LegS state matrix whole, diagonal plus low rank, with tuned frequency bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.init import DT_TRANSFORMS, log_uniform
from ssm_jax.init.hippo import fout_nplr, legs_nplr
from ssm_jax.init.modes import initial_modes
from ssm_jax.init.transforms import REAL_TRANSFORMS
from ssm_jax.kernels import fft_conv, sobolev_gain
from ssm_jax.kernels.dplr import dplr_kernel, dplr_step
from ssm_jax.kernels.recurrence import dplr_anticausal, dplr_recurrence
from ssm_jax.layers.base import Scale, StateSpaceLayer
from ssm_jax.layers.inputs import as_complex
from ssm_jax.options import check_choice, divides

NPLR_INITS = {"legs": legs_nplr, "fout": fout_nplr}


class S4(StateSpaceLayer):
    """y = k^(beta) * u + D u, where A = diag(Lambda) - P P^* (S4, arXiv:2111.00396).

    Lambda, P and B are shared by the channels h with equal h mod n_ssm; C, dt, D and the filter are
    those of `S4D`, and so are the ways to run it: as a convolution, as a scan (mode="scan"), or
    from a state on (`prefill`, `step`). Unlike in the official code, C is the plain read-out, tied
    to no length. alpha acts on the initial Im Lambda only.
    """

    NAME = "S4"
    INITS = tuple(NPLR_INITS)
    UNDAMPED = ("fout",)
    RULES = ("bilinear",)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_ssm: int = 1,
        init: str = "legs",
        b_clip: float | None = 2.0,
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        real_transform: str = "exp",
        beta: float | None = 0.0,
        learn_beta: bool | None = None,
        beta_unit: str = "lra",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_transform: str = "exp",
        discretization: str = "bilinear",
        bidirectional: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        horizon: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Args:
          d_model: channels H.
          d_state: complex modes N kept per channel; their conjugates come on top, so the real order
            is 2N. The official d_state counts both: its 64 is 32 here.
          n_ssm: distinct sets of Lambda, P and B; divides d_model.
          init: "legs" or "fout", the HiPPO matrix that Lambda, P and B start as. fout has
            Re Lambda = 0, which the real_transform "exp" cannot take.
          b_clip: Im B starts clipped to +-b_clip, in the basis of Lambda. 2 is the official
            default; the kernel then starts far from that of LegS (OC-27). None: no clip, and the
            layer starts as the HiPPO system itself.
          alpha, alpha_real: factors on Im Lambda and Re Lambda at initialization.
          real_transform: Re Lambda as a function of A_re_raw, a key of
            `init.real_part.REAL_TRANSFORMS`.
          beta: start value of the filter's exponent, for every channel. None: no filter, and
            the layer has a state form wherever it is compiled.
          learn_beta: beta is a parameter, or a Knob that stays. None: a parameter, if there
            is a filter.
          beta_unit: the unit of frequency in (1 + |s|)^beta: "lra", "hz_1e4" or "rad".
          dt_min, dt_max: dt starts log-uniform between them, in units of time per sample.
          dt_transform: dt = "exp" or "softplus" of the stored parameter.
          discretization: "bilinear", the one rule under which A_bar is found in closed form.
          bidirectional: add a kernel on the future inputs, with its own C.
          dropout: rate on the output; tie_dropout: one draw for all time steps.
          horizon: run as if inputs were padded with zeros to this many steps. The filter lives on
            the circle of twice the padded length, so outputs depend on it. None: an input's length.
          rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its set, or an init that the real_transform cannot take.
        """
        check_choice("S4", "init", init, self.INITS)
        if not isinstance(discretization, str) or discretization != "bilinear":
            raise ValueError(
                f"S4: discretization must be 'bilinear', got {discretization!r}: for a matrix of "
                "this kind only that rule has a closed form. S4D takes the others."
            )
        self.set_options(
            d_model=d_model,
            d_state=d_state,
            b_clip=b_clip,
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
        if not divides(n_ssm, d_model):
            raise ValueError(f"S4: n_ssm={n_ssm} must divide d_model={d_model}.")
        H, N, C = d_model, d_state, 2 if bidirectional else 1

        Lambda_N, P_N, B_N, _ = NPLR_INITS[init](2 * N)
        if b_clip is not None:
            B_N = B_N.real + 1j * np.clip(B_N.imag, -b_clip, b_clip)
        modes = initial_modes(Lambda_N, N, n_sets=n_ssm, alpha=alpha, alpha_real=alpha_real)
        A_re_raw_SN = REAL_TRANSFORMS[real_transform].inverse(modes.A_SN.real)

        def param(of_set: np.ndarray) -> nnx.Param:
            return nnx.Param(jnp.asarray(np.stack([of_set] * n_ssm), jnp.float32))

        self.A_re_raw = nnx.Param(jnp.asarray(A_re_raw_SN, jnp.float32))
        self.A_im = nnx.Param(jnp.asarray(modes.A_SN.imag, jnp.float32))
        self.P_ri = param(np.stack([P_N.real, P_N.imag], axis=-1))
        self.B_ri = param(np.stack([B_N.real, B_N.imag], axis=-1))
        dt_H = log_uniform(rngs.params(), (H,), dt_min, dt_max)
        self.dt_raw = nnx.Param(DT_TRANSFORMS[dt_transform][1](dt_H))
        C_ri = jax.random.normal(rngs.params(), (C, H, N, 2), jnp.float32)
        self.C_ri = nnx.Param(C_ri * jnp.sqrt(jnp.float32(0.5)))  # E|C|^2 = 1
        self.D = nnx.Param(jax.random.normal(rngs.params(), (H,), jnp.float32))

    def state_matrix(self) -> tuple[Array, Array]:
        """(Lambda_HN, P_HN), complex: A = diag(Lambda) - P P^*, in rad per unit of time.

        Lambda is not the spectrum of A: that of LegS is real.
        """
        A_re_SN = REAL_TRANSFORMS[self.real_transform].forward(self.A_re_raw[...])
        return self._of_channels(as_complex(A_re_SN, self.A_im[...])), self._of_channels(
            _complex(self.P_ri[...])
        )

    def input_vector(self) -> Array:
        """B_HN, complex."""
        return self._of_channels(_complex(self.B_ri[...]))

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional."""
        return _complex(self.C_ri[...])

    def step_sizes(self) -> Array:
        """dt_H, in units of time per sample."""
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def state_shape(self) -> tuple[int, ...]:
        return self.C_ri.shape[1:3]

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        system, C_CHN, dt_H = self._system(scale)
        k_CHL = dplr_kernel(*system, C_CHN, dt_H, steps)
        return fft_conv(
            v_BLH,
            k_CHL[0],
            reverse_kernel_HL=k_CHL[1] if self.bidirectional else None,
            gain_HF=sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale),
            skip_H=self.D[...],
        )

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        system, C_CHN, dt_H = self._system(scale)
        y_BLH, _ = dplr_recurrence(v_BLH, *system, C_CHN[0], dt_H)
        if self.bidirectional:
            y_BLH += dplr_anticausal(v_BLH, *system, C_CHN[1], dt_H)
        return y_BLH

    def run_from(
        self, state: Array | None, v_BLH: Array, lengths_B: Array | None, scale: Scale
    ) -> tuple[Array, Array]:
        system, C_CHN, dt_H = self._system(scale)
        return dplr_recurrence(v_BLH, *system, C_CHN[0], dt_H, state, lengths_B)

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        system, C_CHN, dt_H = self._system(scale)
        return dplr_step(state, v_BH, *system, C_CHN[0], dt_H)

    def _system(self, scale: Scale) -> tuple[tuple[Array, Array, Array], Array, Array]:
        """((Lambda, P, B), C, dt)."""
        system = (*self.state_matrix(), self.input_vector())
        return system, self.readout(), self.step_sizes() * scale

    def _of_channels(self, of_sets: Array) -> Array:
        """(S, N) to (H, N): channel h has set h mod S."""
        return jnp.tile(of_sets, (self.D.shape[0] // of_sets.shape[0], 1))


def _complex(x_ri: Array) -> Array:
    return as_complex(x_ri[..., 0], x_ri[..., 1])
