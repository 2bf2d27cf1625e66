"""The options of `cfg.data`."""

from typing import Any

from ssm_jax import config


def options(**changes: Any) -> dict[str, Any]:
    """The default ones with some changes; a key such as text__vocab is of a task's section."""
    cfg = config.default().data
    cfg.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return cfg.to_dict()
