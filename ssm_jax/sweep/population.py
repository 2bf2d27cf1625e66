"""The runs of a sweep as populations: runs that differ in numbers alone train as one program.

Which runs these are is known from their configs: what acts at initialization alone, the start of
beta, seeds, learning rates and weight decay may differ. Runs that differ in another option are of
another population, and what is alone is run by itself. A population has a folder,
FOLDER/populations/N, until its members are done: with its states, and a list of the members, so
that the same command goes on with it.
"""

import contextlib
import itertools
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.check import check
from ssm_jax.files import parse_json, write_json
from ssm_jax.lock import Held, Lock
from ssm_jax.progress import say
from ssm_jax.stop import StopRequest
from ssm_jax.sweep import DIVERGED, FAILED, FOR_GOOD, PRUNED, Run
from ssm_jax.sweep.pruning import Rule, idle, rungs_of
from ssm_jax.sweep.runs import Job, check_data, data_options, fault_of_run, run_sweep
from ssm_jax.sweep.standing import validation_curve
from ssm_jax.training import plan
from ssm_jax.training.parent import AT_START
from ssm_jax.training.population.loop import Population
from ssm_jax.training.population.members import Member, Program
from ssm_jax.training.population.programs import program_of
from ssm_jax.training.population.seats import Curves, Pruning
from ssm_jax.training.record import check_sources
from ssm_jax.training.workdir import WorkdirBusy

FREE = {*AT_START, "seed", "data.order_seed", "model.beta.init", "optim.lr"}
FREE |= {"name", "changed", "notes"}
RATES = re.compile(r"optim\.groups\.\w+\.(lr|weight_decay)")
SHARE = 0.9  # of a device's memory that is taken, if no budget is given


@dataclass(frozen=True)
class Size:
    """How large populations are.

    members: at most so many in one; 0: as many as fit into `memory`, in bytes of each device; 0:
    SHARE of what it has. at_once: computed at a time on a device; 0: `programs.usual_at_once`.
    """

    members: int = 0
    memory: int = 0
    at_once: int = 0


def run_populations(
    runs: Sequence[Run], cfg: ConfigDict, job: Job, size: Size, pruner: str = "none"
) -> bool:
    """Run what is not yet done of a sweep, as few programs; see `run_sweep`, as to what it returns.

    First those populations that were begun before, which go on with the `pruner` (`pruning.Rule`)
    that they began with. Members that other processes have are left to them.
    """
    prunes = pruner != "none"
    with StopRequest() as stop:
        waiting = _to_do(runs, cfg, job)
        for folder, names in begun(job.folder):
            there = [run for run in runs if run.name in names]
            if len(there) < len(names):
                say(f"{folder} is a population of another sweep; it is left as it is.")
                continue
            waiting = [run for run in waiting if run.name not in names]
            members = _members(sorted(there, key=lambda run: names.index(run.name)), cfg, job)
            document = _noted(folder)
            if (began := document.get("pruner", "none")) != pruner:
                raise ValueError(
                    f"{folder} holds a population with --pruner={began}, and here it is {pruner}; "
                    "give the same, or another --folder."
                )
            program = program_of([*members.values()], document["rows"], document["at_once"])
            if not _train(members, program, folder, there, job, stop, document):
                return False
        members = _members(waiting, cfg, job)
        groups = grouped(members)
        for line in told(groups):
            say(line)
        for group in groups:
            if stop.requested is not None:
                return False
            if len(group) == 1:
                continue
            program = fitting([*group.values()], size)
            names = list(group)
            for start in range(0, len(names), program.size):
                some = {name: group[name] for name in names[start : start + program.size]}
                named = [run for run in waiting if run.name in some]
                early = {"pruner": pruner, "before": _ended(runs, cfg, job)} if prunes else {}
                if not _train(some, program, None, named, job, stop, early):
                    return False
            jax.clear_caches()
        return run_sweep(runs, cfg, job)


def begun(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders of populations that are not done, with the names of their members."""
    for path in sorted(folder.glob("populations/*/members.json")):
        document = _noted(path.parent)
        if not document.get("done"):
            yield path.parent, list(document["members"])


def _noted(folder: Path) -> dict[str, Any]:
    """What the folder of a population says of it; a ValueError of one line if it is damaged."""
    path = folder / "members.json"
    with contextlib.suppress(ValueError, TypeError):
        document = dict(parse_json(path.read_bytes()))
        if {"members", "rows", "at_once"} <= document.keys():
            return document
    raise ValueError(
        f"{path} is damaged; bring it back, or delete {folder}: its members are trained anew then."
    )


def _to_do(runs: Sequence[Run], cfg: ConfigDict, job: Job) -> list[Run]:
    waiting = []
    for run in runs:
        check_sources(run.config(cfg), job.folder / run.name)
        if run.status(cfg, job.folder)[0] not in FOR_GOOD:
            waiting.append(run)
    return waiting


def _ended(runs: Sequence[Run], cfg: ConfigDict, job: Job) -> list[Any]:
    """The curves on validation of what of a sweep has ended, for good or early."""
    there = [r for r in runs if r.status(cfg, job.folder)[0] in ("finished", "pruned")]
    return [validation_curve(run.config(cfg), job.folder / run.name) for run in there]


def _members(runs: Sequence[Run], cfg: ConfigDict, job: Job) -> dict[str, Member]:
    """The experiments of runs by name, with one data set for all that ask for the same."""
    members: dict[str, Member] = {}
    opened: dict[str, Any] = {}
    for run in runs:
        own = run.config(cfg)
        check(own)
        data = str(data_options(own))
        if data not in opened:
            opened[data] = job.build(own).dataset
        alike = [m for m in members.values() if fixed(m.cfg) == fixed(own)]
        members[run.name] = Member(own, opened[data], alike)
        check_data(run, members[run.name], job.folder)
    return members


def fixed(cfg: ConfigDict) -> dict[str, Any]:
    """The options in which the members of a population agree."""
    flat = config_lib.flatten(cfg)
    free = FREE - ({"seed"} if cfg.data.seed < 0 else set())  # which is then of the data, too
    return {k: v for k, v in flat.items() if k not in free and not RATES.fullmatch(k)}


def grouped(members: Mapping[str, Member]) -> list[dict[str, Member]]:
    """The members of each population."""
    groups: list[dict[str, Member]] = []
    for name, member in members.items():
        for group in groups:
            first = next(iter(group.values()))
            if fixed(first.cfg) == fixed(member.cfg) and first.alike(member):
                group[name] = member
                break
        else:
            groups.append({name: member})
    return groups


def told(groups: Sequence[Mapping[str, Member]]) -> Iterator[str]:
    """A line that says why the runs of a sweep are several populations, if they are."""
    if len(groups) < 2:
        return
    firsts = [fixed(next(iter(group.values())).cfg) for group in groups]
    differ = [key for key in firsts[0] if len({str(each.get(key)) for each in firsts}) > 1]
    sizes = ", ".join(str(len(group)) for group in groups)
    why = ", ".join(differ) or "the structure of their models"
    yield (
        f"{len(groups)} populations, of {sizes} runs, as they differ in {why}: one program takes "
        "other starts, seeds and rates alone."
    )


def fitting(members: Sequence[Member], size: Size) -> Program:
    """The program for as many of the members as fit, whose step is compiled."""
    budget = size.memory or int(SHARE * (plan.device_memory() or 0))
    some = min(size.members or len(members), len(members))
    while True:
        program = program_of(members, some, size.at_once)
        program.planned = program.planned_bytes()
        fits = not budget or program.planned <= budget
        said = f"{some} of {len(members)} members at a time"
        takes = f"{plan.gib(program.planned)} a device, as planned"
        say(f"population: {said}; {takes}{'' if fits else f', of {plan.gib(budget)}'}.")
        if fits or some == 1:
            return program
        some = max(1, min(some - 1, int(some * budget / program.planned)))


def _train(
    members: Mapping[str, Member],
    program: Program,
    folder: Path | None,
    runs: Sequence[Run],
    job: Job,
    stop: StopRequest,
    early: Mapping[str, Any],
) -> bool:
    """Train one population, in its folder or in a new one; False if stopped, with all saved.

    `early` has its "pruner", if it has one, and the curves of runs that ended "before" it.
    """
    start = time.monotonic()
    by_name = {run.name: run for run in runs}
    facts = {"members": len(members), "rows": program.size, "at_once": program.at_once}
    for member in members.values():
        member.population = facts

    def failed(name: str, error: Exception) -> bool:
        if isinstance(error, WorkdirBusy):
            say(f"{name}: {error}")
            return True
        mark, fault = DIVERGED, str(error)
        if not isinstance(error, FloatingPointError):
            if (known := fault_of_run(error)) is None:
                return False
            mark, fault = FAILED, known
        say(f"{name}: {'diverged' if mark == DIVERGED else fault}")
        note(name, mark, error=fault)
        return True

    def note(name: str, mark: str, **what: Any) -> None:
        run, digest = by_name[name], config_lib.digest(members[name].cfg)
        options = {"options": dict(run.cell), "seed": run.seed}
        write_json(job.folder / name / mark, {**what, "config_digest": digest, **options})

    def pruned(name: str, step: int, why: str) -> None:
        note(name, PRUNED, error=why, step=step)
        say(f"{name}: pruned at step {step:,}: {why}")

    def choose(curves: Curves, live: Collection[str]) -> dict[str, str]:
        return rule.chosen(curves, live, early["before"])

    first = program.first
    rungs = rungs_of(first.total_steps, first.eval_every)
    rule = Rule(early.get("pruner", "none"), first.ranking[1], rungs)  # type: ignore[arg-type]
    pruning = Pruning(choose, pruned, lambda name: (job.folder / name / PRUNED).exists())

    with contextlib.ExitStack() as files:
        if folder is None:
            folder = _new_folder(job.folder)
            files.enter_context(Lock(folder / "LOCK"))
            listed = {name: config_lib.digest(member.cfg) for name, member in members.items()}
            write_json(folder / "members.json", {**facts, "members": listed, **early})
        else:
            try:
                files.enter_context(Lock(folder / "LOCK"))
            except Held as held:
                say(f"{folder} is trained by {held}.")
                return True
        for name in members:
            (job.folder / name).mkdir(parents=True, exist_ok=True)
            (job.folder / name / FAILED).unlink(missing_ok=True)
        commands = {name: job.command(run) for name, run in by_name.items()}
        say(f"{folder.parent.name}/{folder.name}: {len(members)} members; log.txt of each tells")
        known = len(members) + sum(map(bool, early.get("before", ())))
        if why := idle(rule.kind, known, first.total_steps, first.eval_every):
            say(f"{why}.")
        with Population(
            members, program, folder / "checkpoints", job.folder, commands, stop,
            begin=job.begin, failed=failed, pruning=pruning if rule.kind != "none" else None,
        ) as population:  # fmt: skip
            if not population.run():
                return False
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        write_json(folder / "members.json", {**_noted(folder), "done": True})
        seconds = time.monotonic() - start
        say(f"{folder.parent.name}/{folder.name}: done after {seconds:.0f} s")
    return True


def _new_folder(folder: Path) -> Path:
    """The next folder of a population, which this process alone has made."""
    for number in itertools.count(1):
        path = folder / "populations" / str(number)
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError
