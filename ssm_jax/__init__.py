"""State space models whose frequency bias is a choice: alpha at the start, beta in training.

The names below are imported when they are first used, so that `import ssm_jax` takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssm_jax.config.load import load_config
    from ssm_jax.init import initial_modes
    from ssm_jax.kernels import (
        circular_gain,
        diagonal_scan,
        discrete_transfer_function,
        discretize_bilinear,
        discretize_zoh,
        dplr_anticausal,
        dplr_kernel,
        dplr_recurrence,
        dplr_step,
        fft_conv,
        pair_sensitivity,
        pole_sensitivity,
        s4d_anticausal,
        s4d_kernel,
        s4d_recurrence,
        sobolev_frequency,
        sobolev_gain,
        transfer_function,
    )
    from ssm_jax.layers import S4, S4D, S5
    from ssm_jax.models import SequenceClassifier
    from ssm_jax.training.loop import train

__version__ = "0.1.0"
__all__ = [
    "S4",
    "S4D",
    "S5",
    "SequenceClassifier",
    "circular_gain",
    "diagonal_scan",
    "discrete_transfer_function",
    "discretize_bilinear",
    "discretize_zoh",
    "dplr_anticausal",
    "dplr_kernel",
    "dplr_recurrence",
    "dplr_step",
    "fft_conv",
    "initial_modes",
    "load_config",
    "pair_sensitivity",
    "pole_sensitivity",
    "s4d_anticausal",
    "s4d_kernel",
    "s4d_recurrence",
    "sobolev_frequency",
    "sobolev_gain",
    "train",
    "transfer_function",
]

# Where a name is, if not in kernels
_HOMES = {
    "S4": "layers",
    "S4D": "layers",
    "S5": "layers",
    "SequenceClassifier": "models",
    "initial_modes": "init",
    "load_config": "config.load",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ssm_jax' has no attribute {name!r}")
    value = getattr(import_module(f"ssm_jax.{_HOMES.get(name, 'kernels')}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
