"""S4D with tuned frequency bias: alpha at initialization, beta on the spectrum of the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init import DT_TRANSFORMS, log_uniform
from ssm_jax.init.modes import INITS, initial_modes
from ssm_jax.init.transforms import REAL_TRANSFORMS
from ssm_jax.kernels import fft_conv, s4d_kernel, sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZATIONS, DISCRETIZE, exponent, lacking
from ssm_jax.kernels.recurrence import s4d_anticausal, s4d_recurrence
from ssm_jax.layers.base import Scale, StateSpaceLayer
from ssm_jax.layers.filter import Knob
from ssm_jax.layers.inputs import as_complex
from ssm_jax.options import check_choice, divides

INPUT_NORMS = ("none", "lru")


class S4D(StateSpaceLayer):
    """y = k^(beta) * u + D u, with one kernel per channel, or two that look back and ahead.

    By default the parametrization of the official code of "Tuning Frequency Bias of State Space
    Models" (arXiv:2410.02035), OC-1..OC-12: A = -exp(A_re_raw) + i A_im, shared by the channels h
    with equal h mod n_ssm; B = 1; C complex normal; dt per channel; D outside the filter. alpha
    acts on A_im at initialization only.

    It runs as a convolution, as a parallel scan (mode="scan"), or from a state on: `prefill` takes
    many steps, `step` one. All give the same outputs. The latter three need beta = 0, and those
    that take a state need a layer that does not look ahead: see `filter.py`.
    """

    NAME = "S4D"
    INITS = tuple(INITS)

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """Lines about options of `cfg.model` that do not go together."""
        if options["s4d"]["input_norm"] == "lru" and options["discretization"] != "none":
            yield "model.s4d.input_norm=lru needs model.discretization=none."

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_ssm: int = 1,
        init: str | ArrayLike = "s4d_lin",
        init_seed: int = 0,
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        real_transform: str = "exp",
        input_norm: str = "none",
        beta: float | None = 0.0,
        learn_beta: bool | None = None,
        beta_unit: str = "lra",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_transform: str = "softplus",
        discretization: str = "zoh",
        bidirectional: bool = True,
        skip: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        horizon: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Args:
          d_model: channels H.
          d_state: complex modes N kept per channel; their conjugates come on top, so the real order
            is 2N (OC-1).
          n_ssm: distinct sets of eigenvalues S; divides d_model (OC-6).
          init: a key of `init.diagonal.INITS`; its input vector B is absorbed in C, which starts as
            B times a complex normal. Or the eigenvalues themselves, complex, (N,) or (S, N), with
            B = 1: in rad per unit of time, or log A_bar if discretization is "none".
          init_seed: of the inits that draw; the layers of a network start with the same ones.
          alpha, alpha_real: factors on Im A and Re A of a named init, at initialization.
          real_transform: Re A as a function of A_re_raw, a key of `init.real_part.REAL_TRANSFORMS`.
          input_norm: "lru": the input of a mode is multiplied by sqrt(1 - |A_bar|^2), from the
            present eigenvalues, as at the start of LRU (arXiv:2303.06349). Only for "none" below.
          beta: start value of the filter's exponent, for every channel. None: no filter, and
            the layer has a state form wherever it is compiled.
          learn_beta: beta is a parameter (OC-10), or a Knob that stays. None: a parameter, if there
            is a filter.
          beta_unit: the unit of frequency in (1 + |s|)^beta: "lra", "hz_1e4" or "rad".
          dt_min, dt_max: dt starts log-uniform between them, in units of time per sample.
          dt_transform: dt = "softplus" or "exp" of the stored parameter (OC-5).
          discretization: "zoh", "bilinear", or "none" for eigenvalues that are given per sample:
            there is no dt then, and the three options above are not read.
          bidirectional: add a kernel on the future inputs, with its own C and the same A, dt and
            beta.
          skip: D is trained; False: there is none, which a Knob of zeros stands for.
          dropout: rate on the output; tie_dropout: one draw for all time steps.
          horizon: run as if inputs were padded with zeros to this many steps. The filter lives on
            the circle of twice the padded length, so outputs depend on it. None: an input's length.
          rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its set, or an init that the discretization or the
            real_transform cannot take.
        """
        for name, value, allowed in (
            ("discretization", discretization, DISCRETIZATIONS),
            ("input_norm", input_norm, INPUT_NORMS),
        ):
            check_choice("S4D", name, value, allowed)
        self.set_options(
            d_model=d_model,
            d_state=d_state,
            init_seed=init_seed,
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
            skip=skip,
            dropout=dropout,
            tie_dropout=tie_dropout,
            horizon=horizon,
        )
        if not divides(n_ssm, d_model):
            raise ValueError(f"S4D: n_ssm={n_ssm} must divide d_model={d_model}.")
        if input_norm == "lru" and discretization != "none":
            raise ValueError(
                f"S4D: input_norm='lru' normalizes modes given per sample; with "
                f"discretization={discretization!r} the step does that. Use input_norm='none'."
            )
        H, N, C = d_model, d_state, 2 if bidirectional else 1
        self.input_norm = input_norm
        self.discretization = discretization

        if not isinstance(init, str) and not alpha == alpha_real == 1:
            raise ValueError(
                f"S4D: alpha={alpha} and alpha_real={alpha_real} scale named inits only; "
                "scale the given eigenvalues instead."
            )
        modes = initial_modes(
            init,
            N,
            n_sets=n_ssm,
            seed=init_seed,
            alpha=alpha,
            alpha_real=alpha_real,
            discretization=discretization,
            owner="S4D",
        )
        A_re_raw = REAL_TRANSFORMS[real_transform].inverse(modes.A_SN.real)
        self.A_re_raw = nnx.Param(jnp.asarray(A_re_raw, jnp.float32))
        self.A_im = nnx.Param(jnp.asarray(modes.A_SN.imag, jnp.float32))
        if discretization != "none":
            dt_H = log_uniform(rngs.params(), (H,), dt_min, dt_max)
            self.dt_raw = nnx.Param(DT_TRANSFORMS[dt_transform][1](dt_H))
        # E|C|^2 = 1: variance 1/2 in either part (OC-4)
        C_ri = jax.random.normal(rngs.params(), (C, H, N, 2), jnp.float32) * jnp.sqrt(
            jnp.float32(0.5)
        )
        self.C_ri = nnx.Param(_times(C_ri, modes.B_SN.real, modes.B_SN.imag))
        D_H = jax.random.normal(rngs.params(), (H,), jnp.float32)
        self.D = nnx.Param(D_H) if skip else Knob(jnp.zeros_like(D_H))

    def eigenvalues(self) -> Array:
        """A_HN, complex, in rad per unit of time; per sample if the discretization is "none"."""
        A_re_SN = REAL_TRANSFORMS[self.real_transform].forward(self.A_re_raw[...])
        A_SN = as_complex(A_re_SN, self.A_im[...])
        return jnp.tile(A_SN, (self.D.shape[0] // A_SN.shape[0], 1))

    def step_sizes(self) -> Array:
        """dt_H, in units of time per sample; 1 if the discretization is "none"."""
        if self.discretization == "none":
            return jnp.ones_like(self.D[...])
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional; B and input_norm are in it."""
        C_CHN = as_complex(self.C_ri[..., 0], self.C_ri[..., 1])
        if self.input_norm == "none":
            return C_CHN
        one_minus_square_HN = -jnp.expm1(2 * self.eigenvalues().real)
        # At |A_bar| = 1 the root has no derivative.
        return C_CHN * jnp.sqrt(jnp.maximum(one_minus_square_HN, 1e-12))[None]

    def state_shape(self) -> tuple[int, ...]:
        return self.C_ri.shape[1:3]

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        A_HN, C_CHN, dt_H = self._system(scale)
        k_CHL = s4d_kernel(A_HN, C_CHN, dt_H, steps, self.discretization)
        return fft_conv(
            v_BLH,
            k_CHL[0],
            reverse_kernel_HL=k_CHL[1] if self.bidirectional else None,
            gain_HF=sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale),
            skip_H=self.D[...],
        )

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        A_HN, C_CHN, dt_H = self._system(scale)
        rule = self.discretization
        y_BLH, _ = s4d_recurrence(v_BLH, A_HN, C_CHN[0], dt_H, discretization=rule)
        if self.bidirectional:
            y_BLH += s4d_anticausal(v_BLH, A_HN, C_CHN[1], dt_H, discretization=rule)
        return y_BLH

    def run_from(
        self, state: Array | None, v_BLH: Array, lengths_B: Array | None, scale: Scale
    ) -> tuple[Array, Array]:
        A_HN, C_CHN, dt_H = self._system(scale)
        rule = self.discretization
        return s4d_recurrence(v_BLH, A_HN, C_CHN[0], dt_H, state, lengths_B, discretization=rule)

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        A_HN, C_CHN, dt_H = self._system(scale)
        A_bar_HN, gain_HN = DISCRETIZE[self.discretization](A_HN, dt_H[:, None])
        rest_HN = lacking(A_bar_HN, *exponent(A_HN, dt_H[:, None], self.discretization))
        added_BHN = rest_HN[None] * state + gain_HN[None] * v_BH[:, :, None]
        state = A_bar_HN[None] * state + added_BHN
        return state, 2 * jnp.sum((C_CHN[0][None] * state).real, axis=-1)

    def _system(self, scale: Scale) -> tuple[Array, Array, Array]:
        """A, C, dt."""
        return self.eigenvalues(), self.readout(), self.step_sizes() * scale


def _times(C_ri: Array, B_re_SN: ArrayLike, B_im_SN: ArrayLike) -> Array:
    """C B for the set of each channel, as reals; B = 1 leaves C bit for bit."""
    H = C_ri.shape[1]
    B_re, B_im = (
        jnp.tile(part, (H // part.shape[0], 1))[None]
        for part in (jnp.asarray(B_re_SN, jnp.float32), jnp.asarray(B_im_SN, jnp.float32))
    )
    C_re, C_im = C_ri[..., 0], C_ri[..., 1]
    return jnp.stack([C_re * B_re - C_im * B_im, C_re * B_im + C_im * B_re], axis=-1)
