"""State space models whose frequency bias is a choice: alpha at the start, beta in training.

The names below are imported when they are first used, so that `import ssm_jax` takes milliseconds.
"""

# ruff: noqa: F401, F403

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssm_jax.config.load import load_config
    from ssm_jax.init import initial_modes
    from ssm_jax.kernels import *
    from ssm_jax.layers import LRU, S4, S4D, S5, DLinOSS, LinOSS
    from ssm_jax.models import SequenceClassifier
    from ssm_jax.trained import from_torch, load
    from ssm_jax.training.loop import train

__version__ = "0.1.0"

_NAMES = {
    "layers": "DLinOSS LRU LinOSS S4 S4D S5",
    "models": "SequenceClassifier",
    "init": "initial_modes",
    "config.load": "load_config",
    "trained": "from_torch load",
    "training.loop": "train",
    "kernels": "fft_conv diagonal_scan exponent discretize_bilinear discretize_zoh "
    "s4d_kernel s4d_recurrence dplr_kernel dplr_recurrence dplr_step anticausal "
    "transfer_function discrete_transfer_function pole_sensitivity pair_sensitivity "
    "sobolev_frequency sobolev_gain circular_gain",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssm_jax' has no attribute {name!r}")
    value = getattr(import_module(f"ssm_jax.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
