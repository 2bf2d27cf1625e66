"""S4: a HiPPO state matrix whole, diagonal plus low rank, with tuned frequency bias."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.init.hippo import fout_nplr, legs_nplr
from ssm_jax.init.modes import initial_modes
from ssm_jax.kernels import dplr_kernel, dplr_recurrence, dplr_step
from ssm_jax.kernels.uneven import one_by_one
from ssm_jax.layers.base import Scale
from ssm_jax.layers.inputs import from_ri
from ssm_jax.layers.s4d import ChannelwiseLayer
from ssm_jax.options.arguments import check, check_choice

NPLR_INITS = {"legs": legs_nplr, "fout": fout_nplr}


class S4(ChannelwiseLayer):
    """y = k^(beta) * u + D u, where A = diag(Lambda) - P P^* (S4, arXiv:2111.00396).

    Lambda, P and B are shared by the channels h with equal h mod n_ssm; C, dt, D, the filter and
    the ways to run it are those of `S4D`. Unlike in the official code, C is the plain read-out,
    tied to no length.
    """

    NAME = "S4"
    INITS = tuple(NPLR_INITS)
    UNDAMPED = ("fout",)
    RULES = ("bilinear",)
    KERNELS = dplr_kernel, dplr_recurrence

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_ssm: int = 1,
        init: str = "legs",
        b_clip: float | None = 2.0,
        discretization: str = "bilinear",
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options`, and `StateSpaceLayer`, whose A is Lambda. Besides

        Args:
          d_state: the official one counts conjugates too: its 64 is 32 here.
          init: "legs" or "fout", the HiPPO matrix that Lambda, P and B start as. fout has
            Re Lambda = 0, which the real_transform "exp" cannot take.
          b_clip: Im B starts clipped to +-b_clip, in the basis of Lambda. 2 is the official
            default; the kernel then starts far from that of LegS (OC-27). None: no clip.
        """
        check_choice("S4", "init", init, self.INITS)
        if not isinstance(discretization, str) or discretization != "bilinear":
            raise ValueError(
                f"S4: discretization must be 'bilinear', got {discretization!r}: for a matrix of "
                "this kind only that rule has a closed form. S4D takes the others."
            )
        check("S4", locals(), "n_ssm")
        Lambda_N, P_N, B_N, *_ = NPLR_INITS[init](2 * d_state)
        start = partial(initial_modes, Lambda_N, d_state, n_sets=n_ssm)
        shared |= {"d_state": d_state, "discretization": discretization, "rngs": rngs}
        super().__init__(d_model, start, n_ssm=n_ssm, **shared)
        if b_clip is not None:
            B_N = B_N.real + 1j * np.clip(B_N.imag, -b_clip, b_clip)
        self.P_ri, self.B_ri = (
            nnx.Param(jnp.asarray([np.stack([x.real, x.imag], -1)] * n_ssm, jnp.float32))
            for x in (P_N, B_N)
        )

    def state_matrix(self) -> tuple[Array, Array]:
        """(Lambda_HN, P_HN), complex: A = diag(Lambda) - P P^*, in rad per unit of time.

        Lambda is not the spectrum of A: that of LegS is real.
        """
        return self.of_channels(self.modes()), self.of_channels(from_ri(self.P_ri[...]))

    def input_vector(self) -> Array:  # B_HN, complex
        return self.of_channels(from_ri(self.B_ri[...]))

    def system(self, scale: Scale) -> tuple[tuple[Array, ...], Array, Array]:
        system = (*self.state_matrix(), self.input_vector())
        return system, self.readout(), self.step_sizes() * scale

    def run_uneven(
        self, state, v_BLH, lengths_B, starts_BL, scale, *, side: int
    ) -> tuple[Array, Array]:
        (Lambda_HN, P_HN, B_HN), C_CHN, dt_H = self.system(1.0)

        def step(x_BHN: Array, v_BH: Array, scale_B: Array) -> tuple[Array, Array]:
            def of_one(x_HN: Array, v_H: Array, scale: Array) -> tuple[Array, Array]:
                system = Lambda_HN, P_HN, B_HN, C_CHN[side], dt_H * scale
                x_1HN, y_1H = dplr_step(x_HN[None], v_H[None], *system)
                return x_1HN[0], y_1H[0]

            return jax.vmap(of_one)(x_BHN, v_BH, scale_B)

        return one_by_one(step, state, v_BLH, starts_BL, scale, lengths_B)

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        (Lambda_HN, P_HN, B_HN), C_CHN, dt_H = self.system(scale)
        return dplr_step(state, v_BH, Lambda_HN, P_HN, B_HN, C_CHN[0], dt_H)
