"""Time a population against the same runs one by one, compilation included.

    python -m benchmarks.population --config=denoise --out=results/population/denoise.json

Members are seeds of one setting. Measured are whole commands: `sweep --population`, the sweep
without it (one process, which keeps its programs), and one `train` that compiles its own, times the
members. Programs that share the machine change the seconds on the clock, those of the processor
hardly.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import of_children
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main
from ssm_jax.training.record import write_result

WAYS = ("population", "sweep", "train")


def measured(words: list[str]) -> dict[str, float]:
    """Seconds of a command of `ssm-jax`: on the clock, and of the processor."""
    call = [sys.executable, "-c", "from ssm_jax.commands import main; main()", *words]
    before, start = of_children(), time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True)
    wall, processor = time.perf_counter() - start, of_children() - before
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return {"wall_s": round(wall, 1), "processor_s": round(processor, 1)}


def row_of(way: str, members: int, config: str, options: list[str], data: Path) -> dict[str, Any]:
    """What so many members cost: of `train` one is measured and multiplied."""
    with tempfile.TemporaryDirectory() as folder:
        if way == "train":
            words = ["train", f"--config={config}", f"--workdir={folder}/run", "--compiled=off"]
        else:
            words = ["sweep", config, f"--seeds={members}", f"--folder={folder}/runs"]
            words += ["--population"] * (way == "population")
        found = measured([*words, *options, f"--data_dir={data}"])
    if way == "train":
        found = {name: round(members * seconds, 1) for name, seconds in found.items()}
    return {"way": way, "members": members, **found}


def main(argv: list[str]) -> int:
    flags = (
        Flag("config", "an experiment that is run as it is"),
        Flag("members", "numbers of members", "9,25"),
        Flag("ways", "which to measure", ",".join(WAYS)),
        Flag("steps", "of training", 20, int, least=1),
        Flag("out", "file for the figures", kind=Path),
        cli.DATA_DIR,
    )
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    steps = values["steps"]
    options = [
        "--config.train.epochs=0", f"--config.train.steps={steps}", "--config.figures=false",
        f"--config.train.eval_every={steps}", "--config.log.diagnostics=false",
        f"--config.schedule.warmup_steps={min(5, steps - 1)}",
    ]  # fmt: skip
    rows = []
    for members in map(int, values["members"].split(",")):
        for way in values["ways"].split(","):
            rows.append(row_of(way, members, values["config"], options, values["data_dir"]))
            print(rows[-1], flush=True)
            words = ["benchmarks/population.py", *argv]
            facts = {"name": values["config"], "seed": 0, "steps": steps}
            write_result(values["out"], {**facts, "rows": rows}, words)
    return 0


if __name__ == "__main__":
    run_main(main)
