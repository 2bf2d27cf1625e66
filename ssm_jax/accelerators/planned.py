"""The train and eval step of an experiment as a target would run them: figures, and a table."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ssm_jax import config as config_lib
from ssm_jax.accelerators import program as program_lib
from ssm_jax.accelerators import targets
from ssm_jax.accelerators.program import Product, Program
from ssm_jax.accelerators.targets import Target
from ssm_jax.config.ending import LESS_MEMORY
from ssm_jax.kernels.devices import DATA_AXIS
from ssm_jax.tables import to_screen
from ssm_jax.training import plan
from ssm_jax.training.experiment import build
from ssm_jax.training.numerics import product_of
from ssm_jax.training.plan import planned_bytes, timed_compile
from ssm_jax.training.population.members import Member
from ssm_jax.training.population.programs import AtOnce

MOVERS = 12  # kernels that are listed
STEPS = {"train": "the training step", "eval": "the evaluation"}
COMPILERS = {"gpu": ("jax-cuda12-plugin", "jax-cuda12-pjrt"), "tpu": ("libtpu",)}


def mesh_of(target: Target, count: int) -> Mesh:
    """So many devices of a target, over which the batch is split."""
    found = np.array(targets.devices(target, count))
    return Mesh(found, (DATA_AXIS,), axis_types=(AxisType.Auto,))


def planned(
    cfg: Any,
    target: Target,
    count: int = 1,
    *,
    data_dir: Path,
    files: Path | None = None,
    steps: tuple[str, ...] = ("train", "eval"),
    members: int = 0,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a config's steps do on devices of a target, and their optimized HLO, each by name.

    `members`: of a population of so many, all at once, split over the devices.

    The data need not be there. ValueError for a batch that does not split over the devices;
    RuntimeError where a compiler refuses a step, as it takes more memory than a device has.
    """
    experiment = build(
        cfg, data_dir=data_dir, files=files, look_only=True, mesh=mesh_of(target, count)
    )
    found: dict[str, Any] = {
        "name": config_lib.title_of(cfg),
        "config_digest": config_lib.digest(cfg),
        "layer": str(cfg.model.layer),
        "batch_size": cfg.batch_size,
        "length": experiment.dataset.padded_length,
        "target": target.name,
        "accelerator": target.kind.about,
        "accelerators": count,
        "bandwidth": target.kind.bandwidth,
        "memory": target.kind.memory,
        "compilers": {name: metadata.version(name) for name in COMPILERS[target.kind.platform]},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    if members:
        member = Member(cfg, experiment.dataset, mesh=experiment.mesh)
        population = AtOnce([member], members, members)
        found["members"] = population.rows
    texts = {}
    for name in steps:
        try:
            compile_step = functools.partial(experiment.compile_step, training=name == "train")
            if members:
                compile_step = functools.partial(population.compiled, training=name == "train")
            step, seconds = timed_compile(compile_step)
        except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise RuntimeError(f"{_too_large(STEPS[name], target)}; {LESS_MEMORY}.") from error
        texts[name] = step.as_text()
        program = program_lib.read(texts[name], on_chip=target.on_chip)
        found[name] = {**described(program, target), **memory_of(step)}
        found[name]["compile_s"] = round(seconds, 1)
    return found, texts


def memory_of(step: Any) -> dict[str, int]:
    """Bytes of a device that XLA plans for a compiled step."""
    memory = step.memory_analysis()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "planned_bytes": planned_bytes(step),
    }


def described(program: Program, target: Target) -> dict[str, Any]:
    """A program as numbers: what each device does at each call."""
    platform = target.kind.platform
    products = Counter[str]()
    for product in program.products:
        products[precision_of(product, platform)] += product.times
    collectives: dict[str, dict[str, int]] = {}
    for message in program.collectives:
        row = collectives.setdefault(message.opcode, {"times": 0, "bytes": 0})
        row["times"] += message.times
        row["bytes"] += message.times * message.nbytes
    return {
        "bytes_moved": program.moved,
        "floor_ms": round(1e3 * program.moved / target.kind.bandwidth, 4),
        "kernels": program.launches,
        "kernels_in_text": len(program.kernels),
        "flops": sum(program.flops.values()),
        "flops_of": dict(program.flops),
        "ffts": program.ffts,
        "products": dict(products),
        "collectives": collectives,
        "loops": program.loops,
        "unknown_loops": program.unknown_loops,
        "movers": movers_of(program)[:MOVERS],
    }


def movers_of(program: Program) -> list[dict[str, Any]]:
    """What moves memory, most first: kernels of one line of Python that write the same are one."""
    found: dict[Any, dict[str, Any]] = {}
    for kernel in program.kernels:
        name = re.sub(r"[.\d]+$", "", kernel.name)
        arrays = [f"{array.dtype}{list(array.dims)}" for array in kernel.arrays[:4]]
        about = {"kernel": name, "source": kernel.source, "arrays": arrays}
        empty = {"bytes": 0, "times": 0, **about, "operation": kernel.operation}
        row = found.setdefault(str(about), empty)
        row["bytes"] += kernel.moved
        row["times"] += kernel.times
    return sorted(found.values(), key=lambda row: -row["bytes"])


def precision_of(product: Product, platform: str) -> str:
    """The type of a product's numbers, and what is made of float32: "float32 as TF32"."""
    if product.dtype not in ("f32", "c64"):
        return {"bf16": "bfloat16", "f16": "float16"}.get(product.dtype, product.dtype)
    name = {"f32": "float32", "c64": "complex64"}[product.dtype]
    if product.precision not in ("default", "high", "highest"):  # an algorithm
        return f"{name} {product.precision}"
    made_of = product_of(product.precision, platform)
    return f"{name} in full" if made_of == "float32" else f"{name} as {made_of}"


def _too_large(what: str, target: Target, needed: int | None = None) -> str:
    size = f" of {plan.gib(needed)}" if needed else ""
    there, kind = plan.gib(target.kind.memory), target.name.partition(":")[0]
    return f"{what}{size} does not fit into the {there} of memory of one {kind}"


def beyond_memory(found: Mapping[str, Any], target: Target) -> str:
    """A line where a step is planned to take more than a device has; "" where all fit."""
    for name, what in STEPS.items():
        needed = found.get(name, {}).get("planned_bytes", 0)
        if needed > target.kind.memory:
            return f"{_too_large(what, target, needed)}; {LESS_MEMORY}."
    return ""


def shown(found: Mapping[str, Any]) -> Iterator[Any]:
    """What a person reads of `planned`: a line, a table of the steps, and one of the movers."""
    count, steps = found["accelerators"], [name for name in STEPS if name in found]
    who = f"{found['members']} members of " if "members" in found else ""
    yield (
        f"{who}{found['name']} (config {found['config_digest']}): batch {found['batch_size']}, "
        f"L = {found['length']:,}, on {count} x {found['accelerator']}; per device and call"
    )
    rows = {
        "bytes moved": lambda s: plan.gib(s["bytes_moved"]),
        f"floor at {found['bandwidth'] / targets.TB:g} TB/s": lambda s: f"{s['floor_ms']:.3f} ms",
        "kernels": lambda s: f"{s['kernels']:,}",
        "temporaries": lambda s: plan.gib(s["temp_bytes"]),
        f"planned, of {plan.gib(found['memory'])}": lambda s: plan.gib(s["planned_bytes"]),
        "floating-point operations": lambda s: f"{s['flops'] / 1e9:,.2f} G",
        "of products": lambda s: f"{s['flops_of'].get('products', 0) / 1e9:,.2f} G",
        "FFTs of a library": lambda s: f"{s['ffts']}",
        "products": lambda s: _counts(s["products"]),
        "collectives": lambda s: _counts({k: v["times"] for k, v in s["collectives"].items()}),
        "bytes of collectives": lambda s: plan.gib(
            sum(row["bytes"] for row in s["collectives"].values())
        ),
        "loops turn": lambda s: ", ".join(map(str, s["loops"])) or "none",
        "of unknown length": lambda s: f"{s['unknown_loops']}",
        "compiled in": lambda s: f"{s['compile_s']:.1f} s",
    }
    table = [(name, *(way(found[step]) for step in steps)) for name, way in rows.items()]
    yield to_screen(("", *(STEPS[name].removeprefix("the ") for name in steps)), table, words={0})
    for name in steps[:1]:
        movers = [
            (
                f"{row['bytes'] / 2**20:,.0f} MiB",
                f"{row['times']}",
                f"{row['bytes'] / found[name]['bytes_moved']:.1%}",
                row["source"] or row["operation"][-40:],
                row["kernel"],
                ", ".join(row["arrays"][:2]),
            )
            for row in found[name]["movers"]
        ]
        head = ("moved", "times", "share", "source", "kernel", "writes")
        title = f"What moves most in {STEPS[name]}"
        yield to_screen(head, movers, title=title, words={3})


def _counts(found: Mapping[str, int]) -> str:
    return "\n".join(f"{count:,} {name}" for name, count in sorted(found.items())) or "none"
