"""Where eigenvalues and timescales start, as functions of plain numbers."""

from ssm_jax.init.hippo import fout_nplr, legs, legs_nplr
from ssm_jax.init.modes import INITS, initial_modes, modes_by_options
from ssm_jax.init.parameters import DT_TRANSFORMS, REAL_TRANSFORMS, inverse_softplus, log_uniform
from ssm_jax.init.ptd import legs_ptd

__all__ = [
    "DT_TRANSFORMS", "INITS", "REAL_TRANSFORMS", "fout_nplr", "initial_modes",
    "inverse_softplus", "legs", "legs_nplr", "legs_ptd", "log_uniform", "modes_by_options",
]  # fmt: skip
