"""The command aot: programs for accelerators, compiled where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ssm_jax.accelerators import targets
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag

WIDTH = 150  # where the output is no terminal: the kernels' names fit


def aot(argv: list[str], called: Sequence[str] = ("ssm-jax", "aot")) -> int:
    """Compile the steps of an experiment for an accelerator that is not there; show what they do.

        ssm-jax aot --config=lra/listops:s4d_ft --target=h200
        ssm-jax aot --config=lra/pathx:s4 --target=v5e:2x2 --devices=4 --out=pathx.json

    Shows memory, bytes moved and the time that those take at best, floating-point operations,
    kernels, FFTs, products with their precision, messages between devices, and what moves most.
    Nothing runs and no data are needed. Targets: h100, h200, and TPUs by their topology (v4:2x2x1,
    v5e:2x2, v5p:2x2x1, v6e:2x2). The extra `aot` has the compilers: pip install 'ssm-jax[aot]'.
    """
    os.environ.update(targets.ENVIRONMENT)  # reading the config imports JAX
    flags = (
        Flag("target", "h100, h200, or a TPU with its topology, v5e:2x2"),
        Flag("devices", "devices over which the batch is split", 1, int, least=1),
        Flag("steps", "which steps to compile", "both", choices=("both", "train", "eval")),
        Flag("members", "of a population, all at once; 0: one run", 0, int, least=0),
        Flag("out", "file for the figures", kind=Path, writes="file", endings=(".json",)),
        Flag("hlo", "file for the optimized HLO; each step has its own", kind=Path, writes="file"),
        cli.DATA_DIR,
        cli.FROM,
    )
    with targets.quiet():
        command = cli.load(argv, flags=flags, about=aot.__doc__)
    values = command.values
    if not values["target"]:
        cli.fail("--target is missing; give an accelerator, such as --target=h200.")
    target = targets.find_target(values["target"])
    targets.require_compiler(target)
    from rich.console import Console

    from ssm_jax.accelerators import planned
    from ssm_jax.training.record import write_result

    steps = ("train", "eval") if values["steps"] == "both" else (values["steps"],)
    where = {"data_dir": values["data_dir"], "files": values["from"]}
    ways = {"steps": steps, "members": values["members"], **where}
    with targets.quiet():
        found, texts = planned.planned(command.cfg, target, values["devices"], **ways)
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, highlight=False, markup=False)
    for part in planned.shown(found):
        console.print(part)
    if (to := values["out"]) is not None:
        write_result(to, found, [*called, *argv])
    if (to := values["hlo"]) is not None:
        for name, text in texts.items():
            to.with_suffix(f".{name}{to.suffix}").write_text(text, encoding="utf-8")
    if line := planned.beyond_memory(found, target):
        raise RuntimeError(line)
    return 0
