"""S4D with tuned frequency bias: alpha at initialization, beta on the spectrum of the kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.modes import INITS
from ssm_jax.kernels import s4d_kernel
from ssm_jax.kernels.discretize import DISCRETIZE, exponent, lacking
from ssm_jax.kernels.recurrence import s4d_anticausal, s4d_recurrence
from ssm_jax.layers.base import ChannelwiseLayer, Scale
from ssm_jax.layers.filter import Knob
from ssm_jax.layers.inputs import from_ri


class S4D(ChannelwiseLayer):
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
    INITS = INITS

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
        """Make a layer. See `StateSpaceLayer` for the other arguments.

        Args:
          d_state: complex modes N of each channel.
          n_ssm: distinct sets of eigenvalues S; divides d_model (OC-6).
          init: a key of `init.modes.INITS`; its input vector B is absorbed in C, which starts as
            B times a complex normal. Or the eigenvalues themselves, complex, (N,) or (S, N), with
            B = 1: in rad per unit of time, or log A_bar if discretization is "none".
          init_seed: of the inits that draw; the layers of a network start with the same ones.
          input_norm: "lru": the input of a mode is multiplied by sqrt(1 - |A_bar|^2), from the
            present eigenvalues, as at the start of LRU (arXiv:2303.06349). Needs discretization
            "none".
          skip: D is trained; False: there is none, which a Knob of zeros stands for.
        """
        arguments = dict(locals())
        self.set_options(arguments)
        if input_norm == "lru" and discretization != "none":
            raise ValueError(
                f"S4D: input_norm='lru' normalizes modes given per sample; with "
                f"discretization={discretization!r} the step does that. Use input_norm='none'."
            )
        if not isinstance(init, str) and not alpha == alpha_real == 1:
            raise ValueError(
                f"S4D: alpha={alpha} and alpha_real={alpha_real} scale named inits only; "
                "scale the given eigenvalues instead."
            )
        self.input_norm = input_norm
        modes = self.initial_modes(init, d_state, n_ssm, arguments)
        self.set_system(modes.A_SN, d_model, arguments)
        C_ri = self.draw_readout(d_state, rngs)
        self.C_ri = nnx.Param(_times(C_ri, modes.B_SN.real, modes.B_SN.imag))
        D_H = jax.random.normal(rngs.params(), (d_model,), jnp.float32)
        self.D = nnx.Param(D_H) if skip else Knob(jnp.zeros_like(D_H))

    def eigenvalues(self) -> Array:
        """A_HN, complex, in rad per unit of time; per sample if the discretization is "none"."""
        return self.of_channels(self.modes())

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional; B and input_norm are in it."""
        C_CHN = from_ri(self.C_ri[...])
        if self.input_norm == "none":
            return C_CHN
        one_minus_square_HN = -jnp.expm1(2 * self.eigenvalues().real)
        # At |A_bar| = 1 the root has no derivative.
        return C_CHN * jnp.sqrt(jnp.maximum(one_minus_square_HN, 1e-12))[None]

    def kernels(self) -> tuple[Callable, Callable, Callable]:
        functions = (s4d_kernel, s4d_recurrence, s4d_anticausal)
        kernel, recurrence, ahead = (
            functools.partial(f, discretization=self.discretization) for f in functions
        )
        return kernel, recurrence, ahead

    def system(self, scale: Scale) -> tuple[tuple[Array], Array, Array]:
        return (self.eigenvalues(),), self.readout(), self.step_sizes() * scale

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        (A_HN,), C_CHN, dt_H = self.system(scale)
        A_bar_HN, gain_HN = DISCRETIZE[self.discretization](A_HN, dt_H[:, None])
        rest_HN = lacking(A_bar_HN, *exponent(A_HN, dt_H[:, None], self.discretization))
        added_BHN = rest_HN[None] * state + gain_HN[None] * v_BH[:, :, None]
        state = A_bar_HN[None] * state + added_BHN
        return state, 2 * jnp.sum((C_CHN[0][None] * state).real, axis=-1)


def _times(C_ri: Array, B_re_SN: ArrayLike, B_im_SN: ArrayLike) -> Array:
    """C B for the set of each channel, as reals; B = 1 leaves C bit for bit."""
    H = C_ri.shape[1]
    B_re, B_im = (
        jnp.tile(part, (H // part.shape[0], 1))[None]
        for part in (jnp.asarray(B_re_SN, jnp.float32), jnp.asarray(B_im_SN, jnp.float32))
    )
    C_re, C_im = C_ri[..., 0], C_ri[..., 1]
    return jnp.stack([C_re * B_re - C_im * B_im, C_re * B_im + C_im * B_re], axis=-1)
