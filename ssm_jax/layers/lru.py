"""LRU: one diagonal recurrence with many inputs and outputs, with tuned frequency bias."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.layers.inputs import as_complex, check_rngs, from_ri
from ssm_jax.layers.mimo import MimoLayer
from ssm_jax.options.arguments import check


class LRU(MimoLayer):
    """x_l = Lambda x_{l-1} + gamma B u_l, y = Re C x + D u, of N complex modes (arXiv:2303.06349).

    Lambda = exp(-exp(nu_log) + i exp(theta_log)), and log gamma is a parameter of its own. As in S5
    with init="ring" and discretization="none" a mode is given per sample; there theta is trained
    and not its logarithm, gamma is 1, B and C start as S5's, and conjugate modes are added to y.
    step_scale resamples, see `discretize_none`.

    The parameters have the names of other layers, so that options find them by what they move:
    A_re_raw is nu_log and A_im is theta_log.
    """

    NAME = "LRU"

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """See `S4D.faults`."""
        own = options["lru"]
        if fault := _fault(options["alpha"], own["r_min"], own["r_max"], own["max_phase"]):
            yield f"model.layer='lru' needs {fault}"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = math.pi,
        alpha: float = 1.0,
        beta: ArrayLike | None = None,
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options` and `StateSpaceLayer`. Besides

        Args:
          d_state: modes N, no conjugates, as in the paper.
          r_min, r_max: poles start on a ring with these radii, uniformly by area.
          max_phase: and with angles uniform in (0, max_phase]. It is at most pi: an angle above,
            which the published 2 pi draws too, is that of a conjugate mode, with B and C conjugate.
          alpha: scales the angles at the start; alpha max_phase is at most pi.
          rngs: with a "params" stream.
        """
        check("LRU", locals(), "beta")
        if fault := _fault(alpha, r_min, r_max, max_phase):
            raise ValueError(f"LRU: needs {fault}")
        check_rngs(self.NAME, rngs)
        super().__init__(d_model, d_state=d_state, beta=beta, **shared)
        # Not 0, where gamma would be 0 at r_max = 1
        draws = jax.random.uniform(rngs.params(), (2, d_state), jnp.float32, 1e-6, 1)
        nu_N = -0.5 * jnp.log(r_max**2 - (r_max**2 - r_min**2) * draws[0])
        self.A_re_raw = nnx.Param(jnp.log(nu_N))
        self.A_im = nnx.Param(jnp.log(alpha * max_phase * draws[1]))
        self.gamma_log = nnx.Param(0.5 * jnp.log(-jnp.expm1(-2 * nu_N)))  # sqrt(1 - |Lambda|^2)
        shape = 2 if self.bidirectional else 1, d_model, d_state, 2
        B_ri = jax.random.normal(rngs.params(), (d_state, d_model, 2), jnp.float32)
        self.B_ri = nnx.Param(B_ri / math.sqrt(2 * d_model))
        C_ri = jax.random.normal(rngs.params(), shape, jnp.float32)
        self.C_ri = nnx.Param(C_ri / math.sqrt(d_state))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    def eigenvalues(self) -> Array:
        """log Lambda_N, complex, in rad per sample."""
        return as_complex(-jnp.exp(self.A_re_raw[...]), jnp.exp(self.A_im[...]))

    def input_matrix(self) -> Array:
        """gamma B_NH, complex."""
        gamma_N1 = jnp.exp(self.gamma_log[...])[:, None]
        return from_ri(gamma_N1[..., None] * self.B_ri[...])

    def readout(self) -> Array:
        return from_ri(self.C_ri[...])

    def state_shape(self) -> tuple[int, ...]:
        return self.A_im.shape


def _fault(alpha: float, r_min: float, r_max: float, max_phase: float) -> str:
    if r_min > r_max:
        return f"r_min <= r_max, got r_min={r_min} and r_max={r_max}."
    if alpha * max_phase > math.pi * (1 + 1e-6):
        product = f"alpha={alpha} and max_phase={max_phase:.6g}"
        return f"alpha max_phase to be at most pi, beyond which phases alias; got {product}."
    return ""
