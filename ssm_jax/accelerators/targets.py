"""Accelerators for which programs can be compiled on a machine that has none."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

GIB, TB = 2**30, 10**12
MOST_GPUS = 8  # of one host


@dataclass(frozen=True)
class Kind:
    """One kind of device: bytes of its memory, and bytes a second that it can move at best."""

    platform: str
    about: str
    memory: int
    bandwidth: float


# By the makers' data sheets. Of a TPU v4 JAX shows one device for a chip with its two cores.
KINDS = {
    "h100": Kind("gpu", "NVIDIA H100 SXM, 80 GB", 84_929_347_584, 3.35 * TB),
    "h200": Kind("gpu", "NVIDIA H200 SXM, 141 GB", 151_397_597_184, 4.8 * TB),
    "v4": Kind("tpu", "TPU v4", 32 * GIB, 1.228 * TB),
    "v5e": Kind("tpu", "TPU v5e", 16 * GIB, 0.819 * TB),
    "v5p": Kind("tpu", "TPU v5p", 95 * GIB, 2.765 * TB),
    "v6e": Kind("tpu", "TPU v6e", 32 * GIB, 1.64 * TB),
}
NEEDS = {"gpu": ("jax_plugins.xla_cuda12", "jax_cuda12_plugin"), "tpu": ("libtpu",)}
# Read when JAX is imported: nothing is asked of accelerators, and several processes may compile
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


# What the compilers say on stderr where there is no device, which is what is wanted
_NOISE = re.compile(
    r"cudart_stub|InitializeLog\(\)|InitGoogle\(\)|could not determine TPU|Source Location Trace"
    r"|libtpu_init_utils"
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written on stderr, and leave out what compilers say of missing devices."""
    sys.stderr.flush()
    there = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(there, 2)
            os.close(there)
            kept.seek(0)
            lines = kept.read().decode(errors="replace").splitlines()
            for line in lines:
                if not _NOISE.search(line):
                    print(line, file=sys.stderr)


@dataclass(frozen=True)
class Target:
    """A kind of device, in a topology where it is a TPU: h200, v5e:2x2."""

    name: str
    kind: Kind
    topology: str = ""

    @property
    def on_chip(self) -> tuple[int, ...]:
        """Spaces of memory that are on the chip, which its main memory does not see."""
        return (1, 2, 3, 4) if self.kind.platform == "tpu" else ()


def find_target(name: str) -> Target:
    """The target of a name. ValueError: there is none, or not what compiles for it."""
    kind, _, topology = name.partition(":")
    if kind not in KINDS:
        known = ", ".join(kind + _example(kind) for kind in KINDS)
        raise ValueError(f"unknown target {name!r}; choose one of {known}.")
    found = Target(name, KINDS[kind], topology)
    if found.kind.platform == "gpu" and topology:
        raise ValueError(f"target {name!r}: a GPU has no topology; write {kind} and --devices=N.")
    if found.kind.platform == "tpu" and not re.fullmatch(r"\d+x\d+(x\d+)?", topology):
        shape = kind + _example(kind)
        raise ValueError(f"target {name!r} lacks the shape of its topology, as in {shape}.")
    return found


def _example(kind: str) -> str:
    """What follows the name of a kind: a TPU's topology, of two or three axes."""
    return {"gpu": "", "tpu": ":2x2x1" if kind in ("v4", "v5p") else ":2x2"}[KINDS[kind].platform]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require_compiler(target: Target) -> None:
    """ValueError where what compiles for a target is not installed."""
    if not all(map(_installed, NEEDS[target.kind.platform])):
        raise ValueError(
            f"what compiles for {target.name} is not installed; pip install 'ssm-jax[aot]'."
        )


def devices(target: Target, count: int) -> list[Any]:
    """So many devices of a target, for which programs compile and on which none runs.

    ValueError: it has not so many, or its topology is none.
    """
    from jax.experimental import topologies

    if target.kind.platform == "gpu":
        if count > MOST_GPUS:
            raise ValueError(f"{target.name} has {MOST_GPUS} devices at most, got {count}.")
        folder = resources.files("ssm_jax.accelerators")
        found = topologies.get_topology_desc(
            platform="cuda",
            topology_name=target.name,
            target_config=folder.joinpath(f"{target.name}.txtpb").read_text(),
            topology=f"1x1x{count}",
        )
        return list(found.devices)
    options = {"chip_config_name": "megacore"} if target.name.startswith("v4") else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=target.name, **options)
    except Exception as error:
        why = " ".join(str(error).split())
        raise ValueError(f"target {target.name} is no topology of TPUs: {why}.") from error
    if count > len(found.devices):
        raise ValueError(
            f"{target.name} has {len(found.devices)} devices, got {count}; use a larger topology."
        )
    return list(found.devices)[:count]
