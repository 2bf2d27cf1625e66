"""A trained model as one .safetensors file, with all that it takes to build it in the header."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as tensor_bytes

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json, replace_atomically
from ssm_jax.trained.model import Trained
from ssm_jax.training.checkpoint import manifest
from ssm_jax.training.record import config_of, sources_of, without_folders
from ssm_jax.training.step import split

if TYPE_CHECKING:
    from ssm_jax.trained.opening import Weights

SUFFIX = ".safetensors"
KEY = "ssm_jax"  # of the header's one entry, JSON: several would come in any order
FORMAT = 1


def arrays_of(network: nnx.Module) -> dict[str, np.ndarray]:
    """The numbers of a network by name, such as params.blocks.0.ssm.A_im."""
    _, params, stats = split(network)
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


def load_tensors(path: Path, weights_of: "Callable[[Any, Mapping[str, Any]], Weights]") -> Trained:
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
    weights = weights_of(cfg, said["built_from"])
    found = {name.replace(".", "/"): array for name, array in arrays.items()}
    if lines := weights.misfits(found):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise ValueError(f"{path} is not the model that its header describes: {lines[0]}{more}.")
    return Trained(cfg, weights.built_from, weights.filled(found), origin)
