"""The command launch: the same commands, as jobs of a scheduler."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, split
from ssm_jax.files import check_writable, replace_atomically
from ssm_jax.launch import Work, k8s, queue, sky, sky_submit, slurm, tables

ENGINES = ("slurm", "k8s", "sky")
ITS_OWN = ("run", "report_only", "status", "dry_run", "fresh")  # or not to be repeated

FLAGS = (
    Flag("sweep", "a job for each run of the sweep; else one run", False, bool),
    Flag("out", "where the files go; if not given, beside the runs", kind=Path),
    Flag("nodes", "hosts of one run", 1, int, least=1),
    Flag("gpus", "GPUs of each host: 4, or h200:4 where the engine has kinds"),
    Flag("cpus", "processor cores of each process", kind=int, least=1),
    Flag("mem", "memory of each host, as the engine writes it: 64G (slurm), 64Gi (k8s)"),
    Flag("at_once", "jobs of a sweep that run at the same time; else all", kind=int, least=1),
    Flag("workers", "jobs that share a sweep: each takes what is free", kind=int, least=1),
    Flag("processes", "slurm: processes of a run on each host", 1, int, least=1),
    Flag("time", "slurm: limit of a job; one that is stopped by it is queued again"),
    Flag("options", "slurm: more options of sbatch, '--partition=gpu --account=me'"),
    Flag("submit", "slurm: submit the jobs; --nosubmit writes the files alone", True, bool),
    Flag("follow", "slurm: say what becomes of the jobs until they have ended", False, bool),
    Flag("image", "k8s, sky: container image in which ssm-jax is installed"),
    Flag("volume", "k8s: persistent volume claim; sky: volume, or bucket (s3://...)"),
    Flag("mount", "k8s, sky: where that is mounted, and the command runs", "/work"),
)
OF_SLURM = ("processes", "time", "options", "submit", "follow")
ELSEWHERE = ("image", "volume", "mount")


def launch(argv: list[str], called: Sequence[str] = ("ssm-jax", "launch")) -> int:
    """Train an experiment, or make a sweep, as jobs of SLURM, Kubernetes or SkyPilot.

        ssm-jax launch slurm --config=lra/listops --workdir=runs/a --gpus=1 --time=12:00:00
        ssm-jax launch slurm --sweep --config=ablation/image --folder=runs/b --gpus=1 --follow
        ssm-jax launch k8s --config=lra/listops --workdir=runs/a --image=ssm:1 --volume=runs
        ssm-jax launch sky --config=lra/listops --workdir=runs/a --gpus=H200:1 --volume=runs

    All that is no flag of launch is for `ssm-jax train`, or with --sweep for `ssm-jax sweep`, whose
    --help has it; it is checked here, before anything waits in a queue. Each job calls that same
    command, which resumes: a job that is stopped (exit code 75: its time limit, preemption) goes
    back into the queue, one with wrong input (2) or that has diverged (1) does not. Job number i of
    a sweep makes run number i; a last job writes the tables. With --workers=N, and for a search or
    a population, the jobs share the folder and take what is free, as commands given by hand may.
    The folder must be on storage that all hosts share, which launch cannot know.

    slurm: FOLDER.slurm has the scripts and the output. The same command, given again, follows jobs
    that are still in the queue and does not submit them twice.
    """
    engine = (argv or [""])[0]
    if {"--help", "-h"} & set(argv):
        cli.load_flags(["--help"], flags=FLAGS, about=launch.__doc__)
    if engine not in ENGINES:
        asked = f"{engine!r} is no engine" if engine else "no engine given"
        cli.fail(f"{asked}; choose one of {', '.join(ENGINES)}.")
    mine, words = split(argv[1:], FLAGS)
    values = cli.load_flags(mine, flags=FLAGS, about=launch.__doc__)
    _fitting(engine, values, words)
    work = _work(words, values)
    usual = ".slurm" if engine == "slurm" else f".{engine}.yaml"
    out = values["out"] or _beside(work.target, usual)
    if engine == "slurm":
        return _slurm(work, values, out)
    check_writable(out, "file")
    make = k8s if engine == "k8s" else sky
    text = make(work, values, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, text)
    submit = (
        sky_submit(work, out) if engine == "sky" else f"kubectl apply -f {shlex.quote(str(out))}"
    )
    print(f"{out} is written; submit it:\n  {submit}")
    if work.jobs:
        print(f"At the end, where the storage is mounted:\n  {work.report}")
    return 0


def _fitting(engine: str, values: Mapping[str, Any], words: Sequence[str]) -> None:
    """End with a line where flags do not fit the engine, or each other."""
    usual = {flag.name: flag.default for flag in FLAGS}
    for name in ELSEWHERE if engine == "slurm" else OF_SLURM:
        if values[name] != usual[name]:
            given = f"no{name}" if values[name] is False else name
            cli.fail(f"--{given} is not for {engine}; leave it out.")
    for name in ("image", "volume"):
        if engine != "slurm" and not values[name] and (name, engine) != ("image", "sky"):
            about = next(flag.help for flag in FLAGS if flag.name == name)
            cli.fail(f"--{name} is missing; give it ({about}).")
    if engine == "k8s" and values["gpus"] and not values["gpus"].isdecimal():
        cli.fail(f"--gpus={values['gpus']} does not fit: k8s takes a number.")
    if not re.fullmatch(r"/[\w./-]+", values["mount"]):
        cli.fail(f"--mount={values['mount']} does not fit: it must be a whole path, as /work.")
    if values["sweep"] and values["nodes"] * values["processes"] > 1:
        cli.fail("--nodes and --processes are for one run; in a sweep each run is one process.")
    for name in ("at_once", "workers"):
        if values[name] and not values["sweep"]:
            cli.fail(f"--{name} is for a sweep; give --sweep, or leave it out.")
    if values["at_once"] and engine == "sky":
        cli.fail("--at_once is not for sky; leave it out.")
    if values["follow"] and not values["submit"]:
        cli.fail("--follow and --nosubmit are both given; leave one out.")
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name in ITS_OWN:
            cli.fail(f"--{name} is not for a job that is repeated; leave it out.")


def _work(words: list[str], asked: Mapping[str, Any]) -> Work:
    """What the words launch; where they are wrong the process ends as the command itself would."""
    if asked["sweep"]:
        from ssm_jax.commands.sweep_runs import planned
        from ssm_jax.sweep import shown_address

        commands, parts = planned(words, launch.__doc__)
        values = next(iter(commands.values())).values
        if (address := values["storage"]) != (shown := shown_address(address)):
            cli.fail(
                "--storage has a password, which others could read in the scripts; give "
                f"--storage={shown}, and the password in ~/.pgpass, where PostgreSQL looks for it."
            )
        # Of these the runs are known, or begin, together
        shared = bool(asked["workers"] or values.get("sampler") or values.get("population"))
        many = sum(len(runs) for _, runs in parts.values())
        jobs = (asked["workers"] or 1) if shared else many
        return Work(tuple(words), values["folder"], jobs, shared)
    from ssm_jax.commands.train import read

    if any(re.match("--(folder|seeds)(=|$)", word) for word in words):
        cli.fail("--folder and --seeds are for a sweep; give --sweep, or --workdir for one run.")
    workdir = read(words, launch.__doc__).values["workdir"]
    if workdir is None:
        cli.fail("--workdir is missing; give the folder of the run, such as --workdir=runs/a.")
    return Work(tuple(words), workdir)


def _beside(target: Path, ending: str) -> Path:
    if target.name in ("", ".."):
        target = Path(os.path.abspath(target))
    return target.with_name((target.name or "root") + ending)


def _slurm(work: Work, values: Mapping[str, Any], out: Path) -> int:
    """Write the scripts, submit them unless they are in the queue, follow them if asked."""
    check_writable(out, "folder")
    if values["submit"]:
        queue.find_sbatch()
    out = out.absolute()
    log = out / ("%A_%a.log" if work.jobs else "%j.log")
    scripts = {"runs" if work.jobs else "run": (slurm(work, values, log), log)}
    if work.jobs:
        scripts["tables"] = tables(work, values, out / "tables.log"), out / "tables.log"
    jobs = queue.kept(out) if values["submit"] else []
    if jobs:
        numbers = " and ".join(job.id for job in jobs)
        print(
            f"{numbers} of {out.name} is still in the queue, and not submitted again.", flush=True
        )
    else:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, (text, _) in scripts.items():
                replace_atomically(out / f"{name}.sbatch", text)
            jobs = _submit(work, out, scripts) if values["submit"] else []
        except BaseException:
            if made:
                shutil.rmtree(out, ignore_errors=True)
            with contextlib.suppress(OSError):  # what is not empty is others' by now
                for folder in made[1:]:
                    folder.rmdir()
            raise
    if not values["submit"]:
        print(f"{out} is written; submit it:\n  {_by_hand(out, list(scripts))}")
        return 0
    return _followed(work, jobs) if values["follow"] else 0


def _submit(work: Work, out: Path, scripts: Mapping[str, tuple[str, Path]]) -> list[queue.Job]:
    """Give the scripts to the queue, each to wait for the one before: all, or none."""
    jobs: list[queue.Job] = []
    try:
        for name, (_, log) in scripts.items():
            number = queue.submit(out / f"{name}.sbatch", after=jobs[-1].id if jobs else "")
            title = work.name + ("-tables" if name == "tables" else "")
            jobs.append(queue.Job(number, title, str(log)))
        queue.keep(out, jobs)
    except BaseException:
        for job in reversed(jobs):
            queue.cancel(job.id)
        raise
    for job, name in zip(jobs, scripts, strict=True):
        many = f" {work.jobs} times" if name == "runs" else ""
        print(f"job {job.id}: {name}.sbatch{many}; its output is in {job.log}", flush=True)
    return jobs


def _by_hand(out: Path, names: Sequence[str]) -> str:
    """The commands that submit the scripts of a folder."""
    first, *last = [shlex.quote(str(out / f"{name}.sbatch")) for name in names]
    if not last:
        return f"sbatch {first}"
    return f"sbatch --dependency=afterany:$(sbatch --parsable {first}) {last[0]}"


def _followed(work: Work, jobs: Sequence[queue.Job]) -> int:
    """Follow jobs to their end; 0 if all of them have completed."""
    bad = queue.follow(jobs)
    for number in bad:
        print(
            f"error: job {number} has not completed; see {queue.log_of(jobs, number)}.",
            file=sys.stderr,
        )
    if work.jobs and (table := work.target / "sweep.md").exists():
        print(table.read_text(encoding="utf-8"), end="")
    return 1 if bad else 0
