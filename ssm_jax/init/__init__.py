"""Where eigenvalues and timescales start, as functions of plain numbers."""

from ssm_jax.init.diagonal import s4d_lin
from ssm_jax.init.timescale import inverse_softplus, log_uniform

__all__ = ["inverse_softplus", "log_uniform", "s4d_lin"]
