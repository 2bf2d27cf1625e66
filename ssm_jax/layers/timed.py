"""Layers whose modes are given per unit of time: A by its real and imaginary part, and steps dt."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.parameters import DT_TRANSFORMS, REAL_TRANSFORMS, log_uniform
from ssm_jax.kernels.arrays import known_values
from ssm_jax.layers import inputs
from ssm_jax.layers.base import StateSpaceLayer
from ssm_jax.options.arguments import check


class TimedLayer(StateSpaceLayer):
    """x' = A x + B u, discretized with a trained dt."""

    def __init__(
        self,
        d_model: int,
        n_steps: int,
        modes: Callable[..., np.ndarray],
        *,
        d_state: int = 64,
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        real_transform: str = "exp",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_transform: str = "exp",
        discretization: str = "zoh",
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make A and n_steps step sizes; see `ssm_jax.options` and `StateSpaceLayer`. Besides

        Args:
          modes: makes A, complex, of alpha, alpha_real, discretization and owner, as
            `init.modes.initial_modes` takes them, once all options are checked.
          discretization: with "none", for eigenvalues per sample, there is no dt.
          rngs: with a "params" stream.
        """
        name = self.NAME
        check(name, locals())
        inputs.check_rngs(name, rngs)
        super().__init__(d_model, d_state=d_state, **shared)
        self.real_transform = real_transform
        self.dt_transform = dt_transform
        self.discretization = discretization
        A = modes(alpha=alpha, alpha_real=alpha_real, discretization=discretization, owner=name)
        A_re_raw = REAL_TRANSFORMS[real_transform][1](A.real)
        self.A_re_raw = nnx.Param(jnp.asarray(A_re_raw, jnp.float32))
        self.A_im = nnx.Param(jnp.asarray(A.imag, jnp.float32))
        if discretization != "none":
            dt = log_uniform(rngs.params(), (n_steps,), dt_min, dt_max)
            self.dt_raw = nnx.Param(DT_TRANSFORMS[dt_transform][1](dt))

    def modes(self) -> Array:
        """A as it is stored: complex, in rad per unit of time, or per sample if no dt."""
        A_re = REAL_TRANSFORMS[self.real_transform][0](self.A_re_raw[...])
        return inputs.as_complex(A_re, self.A_im[...])

    def step_sizes(self) -> Array:
        """dt_H, in S5 dt_N, in units of time per sample; 1 if the discretization is "none"."""
        if self.discretization == "none":
            return jnp.ones(self.state_shape()[:1], self.D[...].dtype)
        return DT_TRANSFORMS[self.dt_transform][0](self.dt_raw[...])

    def set_step_sizes(self, dt: ArrayLike) -> None:
        """Start from these dt, positive, in units of time per sample: one, or one for each step.

        ValueError: the discretization is "none", and there is no dt; or these are no such numbers.
        """
        if self.discretization == "none":
            raise ValueError(f"{self.NAME}: discretization='none' has no dt that could be set.")
        shape = self.dt_raw.shape
        if np.shape(dt) not in ((), (1,), shape):
            raise ValueError(f"{self.NAME}: dt must be one number or {shape}, got {np.shape(dt)}.")
        if (known := known_values(dt)) is not None:
            with np.errstate(over="ignore"):
                narrow = known.astype(np.float32)  # in which it is kept
            if (wrong := known[~((narrow > 0) & np.isfinite(narrow))]).size:
                raise ValueError(f"{self.NAME}: dt must be positive and finite, got {wrong[0]:g}.")
        dt_H = jnp.broadcast_to(jnp.asarray(dt, jnp.float32), shape)
        self.dt_raw = nnx.Param(DT_TRANSFORMS[self.dt_transform][1](dt_H))
