"""What is said of an experiment before it runs: what it is, whether it fits, what it compiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from ssm_jax import config as config_lib
from ssm_jax.analysis.spectra import NYQUIST
from ssm_jax.analysis.start import share_beyond
from ssm_jax.config.ending import LESS_MEMORY
from ssm_jax.init import INITS, modes_by_options
from ssm_jax.layers import find_layer
from ssm_jax.progress import say, warn
from ssm_jax.tables import Columns, cells, to_screen
from ssm_jax.training import data_init, numerics
from ssm_jax.training.checkpoint.manifest import flatten
from ssm_jax.training.optim import GroupRow

if TYPE_CHECKING:
    from ssm_jax.training.experiment import Experiment

MOST = 0.5  # share of aliased modes from which a run says so
GIB = 2**30
# Limits of a container, in bytes or "max"
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def aliased_share(model: Mapping[str, Any]) -> float | None:
    """The share of the modes of all channels that start beyond Nyquist, by the options of a model.

    None where it is not known: discrete inits have no dt, bilinear folds no frequency, a dt of the
    data is not known before, and of other layers the start is their own.
    """
    if not hasattr(find_layer(model["layer"]), "INITS"):
        return None
    measured = model["dt_rule"] == "autocorrelation"
    if model["discretization"] != "zoh" or model["init"] not in ("legs", *INITS) or measured:
        return None
    modes = modes_by_options(model, alpha=model["alpha"])
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


def check_split(batch_size: int, accumulate: int, devices: int) -> None:
    """Refuse a batch, or one computed in parts, that does not split over the devices."""
    part = batch_size // accumulate
    if batch_size % devices:
        raise ValueError(
            f"batch_size={batch_size} does not split over {devices} devices; "
            f"use a multiple of {devices}, such as {-(-batch_size // devices) * devices}."
        )
    if part % devices:
        raise ValueError(
            f"a part of {part} sequences (train.accumulate={accumulate}) does not "
            f"split over {devices} devices; use parts of a multiple of {devices}."
        )


def check_memory(experiment: Experiment) -> None:
    """Refuse, before anything is allocated, a state that fits into no device."""
    if line := too_large(size_of(experiment.abstract_state()), "a state"):
        raise ValueError(f"{line}: parameters and two moments each; {LESS_MEMORY}.")


def planned_bytes(program: Any) -> int:
    """Bytes that a compiled program has in memory at a time, as XLA plans; 0: it does not say."""
    if (memory := program.memory_analysis()) is None:
        return 0
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(kept - memory.alias_size_in_bytes + memory.temp_size_in_bytes)


def timed_compile(compile_step: Callable[[], Any], what: str = "") -> tuple[Any, float]:
    """A compiled step and the seconds that took, also in a line if it says what was compiled."""
    start = time.perf_counter()
    step = compile_step()
    seconds = time.perf_counter() - start
    if what:
        say(f"compiled {what} in {seconds:.1f} s.")
    return step, seconds


def describe(experiment: Experiment, measured: data_init.Measured | None = None) -> list[str]:
    """The lines that a person should read before a run starts.

    `measured` is what was found for its first state, None before that.
    """
    cfg, data, steps = experiment.cfg, experiment.dataset, experiment.total_steps
    epochs = steps / experiment.order.steps_per_epoch
    sizes = " / ".join(f"{data.size(split):,}" for split in ("train", "val", "test"))
    notes, lengths = cfg.notes and f": {cfg.notes}", ", ".join(map(str, experiment.padded_lengths))
    return [
        f"{config_lib.title_of(cfg)} (config {config_lib.digest(cfg)}){notes}",
        f"data: {data.provenance.detail}; {sizes} examples, L = {lengths}",
        *data.describe(),
        f"training: {steps:,} steps of {cfg.batch_size} sequences "
        f"({epochs:.1f} epochs), evaluated every {experiment.eval_every:,} steps; the best "
        f"{cfg.train.select_split} {experiment.ranking[0]} chooses the checkpoint"
        + (f", and {cfg.train.patience} without a better one end it" if cfg.train.patience else ""),
        *data_init.announce(cfg, measured),
        f"devices: {experiment.mesh.size} x {experiment.mesh.devices.flat[0].device_kind}"
        + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        *numerics.describe(cfg, numerics.platform_of(experiment.mesh), experiment.paths),
        *filter(None, [alias_warning(cfg.model.to_dict())]),
    ]


def parameter_table(rows: Sequence[GroupRow]) -> Table:
    """The parameter groups and their sum."""
    columns: Columns = {
        "group": lambda row: row.group.name,
        "tensors": lambda row: f"{len(row.paths)}",
        "parameters": lambda row: f"{row.size:,}",
        "learning rate": lambda row: "" if row.group.freeze else f"{row.group.lr:g}",
        "weight decay": lambda row: "" if row.group.freeze else f"{row.group.weight_decay:g}",
        "schedule": lambda row: "" if row.group.freeze else row.group.schedule,
    }
    table = to_screen(columns, cells(columns, rows), title="Parameters", words={0, 5})
    table.add_section()
    tensors, size = sum(len(row.paths) for row in rows), sum(row.size for row in rows)
    table.add_row("all", f"{tensors}", f"{size:,}", "", "", "")
    return table


def print_plan(experiment: Experiment) -> None:
    """Print what a run would be: shapes, parameter groups, memory of the compiled step."""
    state = experiment.abstract_state()
    arrays = {f"batch/{name}": x for name, x in experiment.abstract_batch().items()}
    leaves = flatten(state.params)
    repeated = len({name.split("/")[1] for name in leaves if name.startswith("blocks/")}) - 1
    rows = [
        (name, str(leaf.shape), leaf.dtype.name)
        for name, leaf in (arrays | leaves).items()
        if not name.startswith("blocks/") or name.startswith("blocks/0/")
    ]
    if repeated > 0:
        rows.append((f"blocks/1..{repeated}", "as blocks/0", ""))

    step, seconds = timed_compile(experiment.compile_step)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    shapes = to_screen(("array", "shape", "dtype"), rows, title="Shapes", words={0, 1, 2})
    for shown in (*describe(experiment), shapes, parameter_table(experiment.rows)):
        console.print(shown)
    sizes = [gib(size_of(tree)) for tree in (state, state.params)]
    console.print(f"state: {sizes[0]}, of which parameters {sizes[1]}")
    devices = f"{experiment.mesh.size} device(s)"
    console.print(f"training step: compiled in {seconds:.1f} s for {devices}")
    if (memory := step.memory_analysis()) is not None:  # some backends do not tell
        there = device_memory()
        console.print(
            f"memory per device as XLA plans it: arguments "
            f"{gib(memory.argument_size_in_bytes)}, temporaries "
            f"{gib(memory.temp_size_in_bytes)}" + (f"; a device has {gib(there)}" if there else "")
        )
        if line := too_large(planned_bytes(step), "this training step"):
            warn(f"{line}; {LESS_MEMORY}.")
