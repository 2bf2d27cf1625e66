"""What can be known of an experiment before it runs: its aliased modes, and whether it fits."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssm_jax.analysis.spectra import NYQUIST
from ssm_jax.analysis.start import share_beyond
from ssm_jax.init import INITS, initial_modes

MOST = 0.5  # share of aliased modes from which a run says so
GIB = 2**30
# Limits of a container, in bytes or "max"
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def aliased_share(model: Mapping[str, Any]) -> float | None:
    """The share of the modes of all channels that start beyond Nyquist, by the options of a model.

    None where it is not known: discrete inits have no dt, bilinear folds no frequency, and a dt of
    the data is not known before.
    """
    init, d_state = model["init"], model["d_state"]
    if init == "legs":  # S5's: equal blocks of it
        init, d_state = "s4d_legs", max(1, d_state // model["s5"]["n_blocks"])
    measured = model["dt_rule"] == "autocorrelation"
    if model["discretization"] != "zoh" or init not in INITS or INITS[init].discrete or measured:
        return None
    modes = initial_modes(init, d_state, alpha=model["alpha"], seed=model["init_seed"])
    highest = model["dt_min" if model["dt_rule"] == "fixed" else "dt_max"]
    y_N, dt = np.abs(modes.A_SN[0].imag), (model["dt_min"], highest)
    return float(share_beyond(y_N, NYQUIST, dt).mean())


def alias_warning(model: Mapping[str, Any]) -> str:
    """A line where most modes alias; "" where they do not."""
    share = aliased_share(model)
    if share is None or share <= MOST:
        return ""
    return (
        f"warning: {share:.0%} of the modes start beyond Nyquist (model.alpha={model['alpha']:g}, "
        f"dt {model['dt_min']:g} to {model['dt_max']:g}) and answer to lower frequencies than "
        "theirs; lower model.alpha or model.dt_max."
    )


def device_memory(device: jax.Device | None = None) -> int | None:
    """Bytes of memory that a device has, of a CPU those of the machine or of its container.

    None where nobody tells.
    """
    device = device or jax.local_devices()[0]
    if (stats := device.memory_stats()) and stats.get("bytes_limit"):
        return int(stats["bytes_limit"])
    if device.platform != "cpu":
        return None
    found = []
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in map(Path, _CGROUPS):
        if path.is_file() and (text := path.read_text().strip()).isdecimal():
            found.append(int(text))
    return min(found, default=None)


def gib(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.1f} MiB"


def size_of(tree: Any) -> int:
    """Bytes of all arrays, or shapes, of a tree."""
    sizes = (int(leaf.size) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    return sum(sizes)


def too_large(needed: int, what: str) -> str:
    """A line where so many bytes are more than a device has; "" where they fit, or none can say."""
    there = device_memory()
    if there is None or needed <= there:
        return ""
    return f"{what} of {gib(needed)} does not fit into the {gib(there)} of memory of a device"


SMALLER = (
    "take a smaller model or --config.batch_size, compute a batch in parts "
    "(--config.train.accumulate), or save memory by --config.model.remat=true and "
    "--config.model.activations=bfloat16."
)
