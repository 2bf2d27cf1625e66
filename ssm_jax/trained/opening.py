"""A trained model from the folder of a run, without its data, or as one .safetensors file.

The header of the file has all that it takes to build the model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as tensor_bytes

from ssm_jax import config as config_lib
from ssm_jax.files import default_data_dir, local_path, parse_json, replace_atomically
from ssm_jax.tasks import find_task, stand_in
from ssm_jax.trained.model import Trained
from ssm_jax.training import step as step_lib
from ssm_jax.training.checkpoint import manifest
from ssm_jax.training.experiment import build
from ssm_jax.training.record import (
    PROVENANCE,
    config_of,
    identity_of,
    read_record,
    sources_of,
    without_folders,
)
from ssm_jax.training.runs import choose_step, open_checkpoint
from ssm_jax.training.workdir import Workdir, run_and_step

SUFFIX = ".safetensors"
KEY = "ssm_jax"  # of the header's one entry, JSON: several would come in any order
FORMAT = 1


class Weights:
    """The part of an experiment that is its model; see `runs.Restorable`."""

    def __init__(self, cfg: Any, built_from: Mapping[str, Any], fingerprint: str = "") -> None:
        self.cfg, self.built_from, task = cfg, dict(built_from), find_task(cfg.task)
        self.identity = identity_of(cfg, fingerprint)
        self.ranking = config_lib.ranking_of(cfg)
        self.parts = ("ema",) if cfg.train.select_ema else ("params", "stats")
        options, dataset = cfg.model.to_dict(), stand_in(built_from)

        def make() -> nnx.Module:
            return task.build_model(dataset, options, nnx.Rngs(params=jax.random.key(0)))

        self.graphdef, params, stats = step_lib.split(nnx.eval_shape(make))
        self.state = {"params": params, "stats": stats}

    def abstract_state(self) -> dict[str, Any]:
        return {"ema": self.state} if self.cfg.train.select_ema else self.state

    def chosen(self, state: Mapping[str, Any]) -> Any:
        return state["ema"] if self.cfg.train.select_ema else state

    def model(self, state: Mapping[str, Any]) -> Any:
        """The model with these numbers."""
        return step_lib.evaluated(self.graphdef, state["params"], state["stats"])

    def misfits(self, arrays: Mapping[str, np.ndarray]) -> list[str]:
        """A line for each array, by path in the state, that is missing or not the model's."""
        return manifest.differences(manifest.describe(arrays), manifest.flatten(self.state))

    def filled(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The model with these arrays, all of which fit."""
        leaves = [jnp.asarray(arrays[path]) for path in manifest.flatten(self.state)]
        return self.model(jax.tree.unflatten(jax.tree.structure(self.state), leaves))


def arrays_of(network: nnx.Module) -> dict[str, np.ndarray]:
    """The numbers of a network by name, such as params.blocks.0.ssm.A_im."""
    _, params, stats = step_lib.split(network)
    table = manifest.flatten({"params": params, "stats": stats})
    return {path.replace("/", "."): np.ascontiguousarray(leaf) for path, leaf in table.items()}


def save_tensors(trained: Trained, path: Path) -> None:
    """Write a model, bit for bit; the file is the old one or the complete new one."""
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} does not fit: the file of a model is NAME{SUFFIX}.")
    document = {
        "format": FORMAT,
        "config": config_lib.flatten(trained.cfg),
        "built_from": trained.built_from,
        "provenance": without_folders(trained.provenance),
        "sources": sources_of(trained.cfg, path.absolute().parent),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {KEY: json.dumps(document)}
    replace_atomically(path, tensor_bytes(arrays_of(trained.network), header))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a .safetensors file and its header; a ValueError for one that is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; give a file that Trained.save wrote.")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()  # a list; the file itself is no mapping
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, TypeError) as error:  # a type that NumPy lacks is the latter
        raise ValueError(f"{path} cannot be read ({error}); write it anew.") from error


def load_tensors(path: Path) -> Trained:
    """The model in a file of `save_tensors`."""
    arrays, header = read_tensors(path)
    if KEY not in header:
        raise ValueError(
            f"{path} is no model of ssm_jax; weights of PyTorch are read by ssm_jax.from_torch."
        )
    said = parse_json(header[KEY])
    parts = ("format", "config", "built_from", "provenance")
    if lacking := [part for part in parts if not isinstance(said, Mapping) or part not in said]:
        raise ValueError(f"{path} has a header without {', '.join(lacking)}; write it anew.")
    if said["format"] != FORMAT:
        raise ValueError(
            f"{path} has the format {said['format']}, this version reads {FORMAT}; use the version "
            f"of ssm_jax that wrote it, {said['provenance']['versions']['ssm_jax']}."
        )
    origin = said["provenance"]
    cfg = config_of({**origin, **said}, path)
    weights = Weights(cfg, said["built_from"])
    found = {name.replace(".", "/"): array for name, array in arrays.items()}
    if lines := weights.misfits(found):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise ValueError(f"{path} is not the model that its header describes: {lines[0]}{more}.")
    return Trained(cfg, weights.built_from, weights.filled(found), origin)


def load(
    path: str | Path,
    step: str | int = "best",
    *,
    data_dir: str | Path | None = None,
    files: str | Path | None = None,
) -> Trained:
    """The trained model of a run, or of a file that `Trained.save` wrote.

    The run is only read, so it may be going on meanwhile, and its data are not opened: its record
    has what the model read of them. `data_dir` and `files` are for a run of an older version, whose
    record has not.

    Args:
      path: the folder of a run, WORKDIR/checkpoints/STEP, or FILE.safetensors.
      step: "best", "newest" or a number. If the best is damaged, the next best with a warning.

    Raises:
      FileNotFoundError: there is no run, no checkpoint, or no data.
      ValueError: the record is not of this version, or there is no such step.
      CheckpointError: the checkpoint is damaged.
    """
    path = local_path(path)
    if path.suffix == SUFFIX:
        return load_tensors(path)
    path, asked = run_and_step(path, str(step))
    workdir = Workdir(path)
    record = read_record(workdir.record)
    choose_step(workdir.checkpoints, asked)  # before anything is built
    cfg, built_from = config_of(record, workdir.record), record.get("built_from")
    if built_from is None:
        if data_dir is None and files is None:
            raise ValueError(
                f"{path} was recorded without what its model reads of the data; give data_dir= (or "
                "files=), the data that `ssm-jax evaluate` opens."
            )
        data = default_data_dir() if data_dir is None else Path(data_dir)
        own = None if files is None else Path(files)
        experiment = build(cfg, data_dir=data, files=own, to_read=True)
        if (built_from := experiment.built_from) is None:
            raise ValueError(
                f"the model in {path} is built from more of its data than a record can hold; open "
                "it with ssm_jax.training.runs.open_run."
            )
    weights = Weights(cfg, built_from, record["data"]["fingerprint"])
    opened = open_checkpoint(weights, workdir.checkpoints, asked)
    origin = {key: record[key] for key in PROVENANCE}
    origin |= {"step": opened.meta.step, "metrics": config_lib.as_result(cfg, opened.meta.metrics)}
    return Trained(cfg, weights.built_from, weights.model(opened.state), origin)
