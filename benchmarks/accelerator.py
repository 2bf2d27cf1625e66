"""Show on an accelerator, in some minutes, that the numbers are right and what they cost.

    python -m benchmarks.accelerator --folder=runs/gpu --minutes=8        # make gpu

In this order, each kept in FOLDER/results.json as soon as it is known, with the commit and device:

    layers      every way to run a layer, against a float64 loop in NumPy
    training    50 steps of a small model: on the accelerator, on the CPU, and there in float64
    steps       a step of ListOps at full size: bytes moved and time, next to the floor
    population  members that train as one program: steps of members per second
    table       forward and backward of one layer at several lengths
    large       a step of the longer tasks
    listops     training of ListOps at full size for the minutes that remain, then a checkpoint

A second call goes on with what is missing, and with the training. Where JAX has no accelerator the
CPU takes its place, with small batches, and the record says so. Exit 0 if all that was measured
is within its bounds, 1 if not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main
from ssm_jax.files import write_json

FLAGS = (
    Flag("folder", "keeps the results and the run of ListOps", Path("runs/gpu"), Path),
    Flag("minutes", "to take in all, start-up included", 8.0, float),
    Flag("only", "parts to do, such as layers,training; if not given, all", ""),
    Flag("again", "measure again what is there", False, bool),
    cli.DATA_DIR,
)
PARTS = ("layers", "training", "steps", "population", "table", "large", "listops")
STEPS = 50
ARMS = ("s4d_ft", "s4d", "s4", "s5")
ERROR = 1e-4  # of a layer's outputs, relative rms, over at most 2,048 steps
DRIFT = 1e-3  # of a loss within STEPS, relative to float64
OVER_FLOOR = 2.0  # a step's time over that of its bytes at the device's bandwidth
BATCH_ON_CPU = 8  # of ListOps
SECONDS_TO_STOP = 40  # a run needs them to save its last checkpoint

Item = tuple[str, str, Callable[[], dict[str, Any]]]  # part, name, measurement


def items(on_cpu: bool, data_dir: Path) -> Iterator[Item]:
    """What there is to measure but for the training of ListOps, the most telling first."""
    from benchmarks import accuracy, layers, steps
    from ssm_jax.config.load import load_config

    for kind in accuracy.OPTIONS:
        for length in (1, 257) if on_cpu else (1, 257, 2_048):
            yield "layers", f"{kind} L={length}", _call(accuracy.layer_errors, kind, length)
    for arm in ARMS:
        yield "training", arm, _call(losses, arm)

    def step_of(task: str, arm: str) -> Item:
        cfg = load_config(f"lra/{task}:{arm}")
        if on_cpu:
            cfg.batch_size = steps.CPU_BATCHES[task]
        part = "steps" if task == "listops" else "large"
        return part, f"{task}:{arm}", _call(steps.measure_step, cfg, 3 if on_cpu else 20)

    for arm in ARMS:
        yield step_of("listops", arm)
    for members in (1, 2) if on_cpu else (1, 4, 16, 64):
        yield "population", f"{members} members", _call(population, members, data_dir)
    for kind in ("s4d", "s4", "s5"):
        for length in (1_024,) if on_cpu else (1_024, 2_048, 4_096, 16_384):
            sizes = (4 if on_cpu else 32, length, 128, 64, 3 if on_cpu else 20)
            yield "table", f"{kind} L={length}", _call(layers.measure_layer, kind, *sizes)
    for task in () if on_cpu else ("image", "pathx"):
        yield step_of(task, "s4d_ft")


def _call(function: Callable[..., dict[str, Any]], *arguments: Any) -> Callable[[], dict[str, Any]]:
    return lambda: function(*arguments)


def losses(arm: str) -> dict[str, Any]:
    """Losses of the same steps three times, and how far each is from those in float64."""
    from benchmarks.measure import in_fresh_process

    exact = in_fresh_process(train, arm, "cpu", True)
    found = {"cpu": in_fresh_process(train, arm, "cpu", False), "here": train(arm)}
    scale = max(map(abs, exact))  # of the losses: they end near 0
    drifts = {
        where: max(abs(a - b) for a, b in zip(path, exact, strict=True)) / scale
        for where, path in found.items()
    }
    return {"arm": arm, "steps": STEPS, "drift": drifts, "float64": exact, **found}


def train(arm: str, platform: str = "", x64: bool = False) -> list[float]:
    """The losses of STEPS steps of a small model without dropout on one random batch.

    platform: where, if not on the default one. x64: in float64, from the float32 parameters.
    """
    import jax
    import numpy as np

    from benchmarks.steps import on_random_data
    from ssm_jax import config as config_lib
    from ssm_jax.config.load import load_config
    from ssm_jax.training.step import make_train_step

    if platform:
        jax.config.update("jax_platforms", platform)
    jax.config.update("jax_enable_x64", x64)
    cfg = load_config(f"lra/listops:{arm}", {"model.dropout": 0.0, "batch_size": 8})
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 16
    cfg.data.padded_length, cfg.train.patience = 256, 0
    config_lib.rates(cfg, A=(1e-3, 0.0), dt=(1e-3, 0.0), rest=(1e-3, 0.0))
    cfg.schedule.shape, cfg.schedule.warmup_steps = "constant", 0
    experiment = on_random_data(cfg)
    wide = {np.dtype("float32"): np.float64, np.dtype("complex64"): np.complex128}
    state = jax.tree.map(
        lambda x: x.astype(wide.get(x.dtype, x.dtype)) if x64 else x, experiment.fresh_state()
    )
    step = jax.jit(make_train_step(experiment.gradient(), experiment.tx, frozen=experiment.frozen))
    batch = experiment.place_batch(experiment.dataset.gather("train", np.arange(8)))
    found = []
    with jax.set_mesh(experiment.mesh):
        for _ in range(STEPS):
            state, metrics = step(state, experiment.key, batch)
            found.append(float(metrics["loss"]))
    return found


def population(members: int, data_dir: Path) -> dict[str, Any]:
    """What a command takes that trains members as one program, start-up and compilation included,
    and the updates of members per second over all of it."""
    from benchmarks.population import row_of

    steps = 200
    options = [f"--config.train.steps={steps}", "--config.train.epochs=0"]
    options += [f"--config.train.eval_every={steps}", "--config.figures=false"]
    options += ["--config.log.diagnostics=false"]
    way = "population" if members > 1 else "train"  # a population of one is a run
    row = row_of(way, members, "listops_small", options, data_dir)
    return {**row, "steps": steps, "updates_per_s": round(members * steps / row["wall_s"], 1)}


def faults(part: str, row: dict[str, Any], on_cpu: bool) -> list[str]:
    """What of a measurement is beyond its bounds."""
    if part == "layers":
        bad = [way for way in ("conv", "scan", "prefill", "step") if not row[way] < ERROR]
        return [f"{way} is off by {row[way]:.1e} (at most {ERROR:g})" for way in bad]
    if part == "training" and not row["drift"]["here"] < DRIFT:
        return [f"losses drift by {row['drift']['here']:.1e} (at most {DRIFT:g})"]
    if part == "steps" and not on_cpu and not row["over_bytes"] < OVER_FLOOR:
        return [f"takes {row['over_bytes']} times its bytes' time (at most {OVER_FLOOR:g})"]
    return []


def main(argv: list[str]) -> int:
    values = cli.load_flags(argv, flags=FLAGS, about=__doc__ or "")
    asked = [word for word in values["only"].split(",") if word] or list(PARTS)
    if unknown := [part for part in asked if part not in PARTS]:
        raise ValueError(f"--only={values['only']}: no part {unknown[0]}; {', '.join(PARTS)}.")
    end = time.monotonic() + 60 * values["minutes"]
    folder = values["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    # The run of ListOps is a process of its own, beside this one on the same device
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from ssm_jax.training.record import made_by

    on_cpu = jax.default_backend() == "cpu"
    about = made_by(["python", "-m", "benchmarks.accelerator", *argv])
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}")
    if on_cpu:
        print("JAX has no accelerator here; the CPU takes its place, with small batches.")
    path = folder / "results.json"
    kept = [] if values["again"] else _kept(path, about)
    rows = {(row["part"], row["name"]): row for row in kept}
    for part, name, measure in items(on_cpu, values["data_dir"]):
        if part not in asked or (part, name) in rows:
            continue
        if time.monotonic() > end - SECONDS_TO_STOP:
            print(f"no time for {part} {name}: the same command goes on from here.")
            continue
        start = time.monotonic()
        try:
            found = measure()
            bad = faults(part, found, on_cpu)
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            found, bad = {}, [f"{type(error).__name__}: {str(error).splitlines()[0]}"]
        took = round(time.monotonic() - start, 1)
        row = {**found, "part": part, "name": name, "faults": bad, "seconds": took}
        rows[part, name] = row
        write_json(path, {"rows": list(rows.values()), **about})
        print(f"{part} {name}: {'; '.join(bad) or 'within its bounds'} ({took} s)", flush=True)
    if "listops" in asked:
        _train_until(end, folder / "listops", values["data_dir"], on_cpu)
    return 1 if any(row["faults"] for row in rows.values()) else 0


def _kept(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier call measured with the same code on the same device."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    same = all(before[key] == about[key] for key in ("git", "devices", "versions"))
    if not same:
        print(f"{path} is of other code or another device; all is measured again.")
    return [row for row in before["rows"] if not row["faults"]] if same else []


def _train_until(end: float, workdir: Path, data_dir: Path, on_cpu: bool) -> None:
    """Train ListOps and stop it, its checkpoint saved, when the time is over."""
    from benchmarks.resume import train_command

    remaining = end - time.monotonic() - SECONDS_TO_STOP
    if remaining < SECONDS_TO_STOP:
        print("no time for listops: the same command goes on from here.")
        return
    command = train_command(["--config=lra/listops", f"--data_dir={data_dir}"], workdir)
    # Its batch on a CPU is that of a run of its own: a folder keeps its options
    command += [f"--config.batch_size={BATCH_ON_CPU}"] if on_cpu else []
    run = subprocess.Popen(command)
    try:
        run.wait(remaining)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGTERM)
        run.wait()
    print(f"listops: exit {run.returncode} (75: stopped, its checkpoint saved), {workdir}")


if __name__ == "__main__":
    run_main(main)
