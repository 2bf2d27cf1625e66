"""S4D with tuned frequency bias: alpha at initialization, beta on the spectrum of the kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.init import inverse_softplus, log_uniform, s4d_lin
from ssm_jax.kernels import fft_conv, s4d_kernel, sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZATIONS
from ssm_jax.kernels.frequency import BETA_UNITS
from ssm_jax.layers.dropout import dropout as apply_dropout

DT_TRANSFORMS = {"softplus": (jax.nn.softplus, inverse_softplus), "exp": (jnp.exp, jnp.log)}


class Knob(nnx.Variable):
    """A number of the forward pass that is not trained; populations may differ in it."""


class S4D(nnx.Module):
    """y = k^(beta) * u + D u, with one kernel per channel, or two that look back and ahead.

    Parametrization of the official code of "Tuning Frequency Bias of State Space Models"
    (arXiv:2410.02035), OC-1..OC-12: A = -exp(log_neg_A_re) + i A_im, shared by the channels h with
    equal h mod n_ssm; B = 1; C complex normal; dt per channel; D outside the filter. alpha acts on
    A_im at initialization only.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_ssm: int = 1,
        alpha: float = 1.0,
        beta: float = 0.0,
        learn_beta: bool = True,
        beta_unit: str = "lra",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_transform: str = "softplus",
        discretization: str = "zoh",
        bidirectional: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        rngs: nnx.Rngs,
    ):
        """Args:
          d_model: channels H.
          d_state: complex modes N kept per channel; their conjugates come on top, so the real order
            is 2N (OC-1).
          n_ssm: distinct sets of eigenvalues; divides d_model (OC-6).
          alpha: factor on Im A at initialization, positive.
          beta: start value of the filter's exponent, for every channel; 0 is no filter.
          learn_beta: beta is a parameter (OC-10), or a Knob that stays.
          beta_unit: the unit of frequency in (1 + |s|)^beta: "lra", "hz_1e4" or "rad".
          dt_min, dt_max: dt starts log-uniform between them, in units of time per sample.
          dt_transform: dt = "softplus" or "exp" of the stored parameter (OC-5).
          discretization: "zoh" or "bilinear".
          bidirectional: add a kernel on the future inputs, with its own C and the same A, dt and
            beta.
          dropout: rate on the output; tie_dropout: one draw for all time steps.
          rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its set.
        """
        for name, value, allowed in (
            ("beta_unit", beta_unit, BETA_UNITS),
            ("dt_transform", dt_transform, tuple(DT_TRANSFORMS)),
            ("discretization", discretization, DISCRETIZATIONS),
        ):
            if value not in allowed:
                raise ValueError(
                    f"S4D: unknown {name} {value!r}; choose one of {', '.join(allowed)}."
                )
        if n_ssm < 1 or d_model % n_ssm:
            raise ValueError(f"S4D: n_ssm={n_ssm} must divide d_model={d_model}.")
        H, N, C = d_model, d_state, 2 if bidirectional else 1
        self.beta_unit = beta_unit
        self.dt_transform = dt_transform
        self.discretization = discretization
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.tie_dropout = tie_dropout

        A_N = s4d_lin(N, alpha)
        shape = (n_ssm, N)
        log_neg_A_re = jnp.asarray(jnp.log(-A_N.real), jnp.float32)
        self.log_neg_A_re = nnx.Param(jnp.broadcast_to(log_neg_A_re, shape))
        self.A_im = nnx.Param(jnp.broadcast_to(jnp.asarray(A_N.imag, jnp.float32), shape))
        dt_H = log_uniform(rngs.params(), (H,), dt_min, dt_max)
        self.dt_raw = nnx.Param(DT_TRANSFORMS[dt_transform][1](dt_H))
        # E|C|^2 = 1: variance 1/2 in either part (OC-4)
        C_ri = jax.random.normal(rngs.params(), (C, H, N, 2), jnp.float32) * jnp.sqrt(
            jnp.float32(0.5)
        )
        self.C_ri = nnx.Param(C_ri)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (H,), jnp.float32))
        self.beta = (nnx.Param if learn_beta else Knob)(jnp.full((H,), beta, jnp.float32))

    def eigenvalues(self) -> Array:
        """A_HN, complex, in rad per unit of time."""
        A_SN = -jnp.exp(self.log_neg_A_re[...]) + 1j * self.A_im[...]
        return jnp.tile(A_SN, (self.D.shape[0] // A_SN.shape[0], 1))

    def step_sizes(self) -> Array:
        """dt_H, in units of time per sample."""
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional."""
        return self.C_ri[..., 0] + 1j * self.C_ri[..., 1]

    def __call__(
        self, u_BLH: Array, lengths_B: Array | None = None, *, key: Array | None = None
    ) -> Array:
        """Apply the layer.

        Args:
          u_BLH: real input.
          lengths_B: int; steps from lengths_B on are padding and are set to zero first. None: no
            padding.
          key: of the dropout; None: no dropout.

        Returns:
          y_BLH.
        """
        L = u_BLH.shape[1]
        if lengths_B is not None:
            u_BLH = jnp.where(real_steps(lengths_B, L)[:, :, None], u_BLH, jnp.zeros_like(u_BLH))
        k_CHL = s4d_kernel(
            self.eigenvalues(), self.readout(), self.step_sizes(), L, self.discretization
        )
        y_BLH = fft_conv(
            u_BLH,
            k_CHL[0],
            reverse_kernel_HL=k_CHL[1] if self.bidirectional else None,
            gain_HF=sobolev_gain(self.beta[...], 2 * L, self.beta_unit),
        )
        y_BLH = y_BLH + self.D[...][None, None, :] * u_BLH
        return apply_dropout(y_BLH, self.dropout, key, tied=self.tie_dropout)


def real_steps(lengths_B: Array, length: int) -> Array:
    """Boolean (B, L): true where a step is not padding."""
    return jnp.arange(length, dtype=lengths_B.dtype)[None, :] < lengths_B[:, None]
