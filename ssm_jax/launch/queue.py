"""Jobs in the queue of SLURM: giving them to it, and following them to their end."""

import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssm_jax.files import parse_json, write_json
from ssm_jax.progress import say, warn

EVERY_S = 5.0  # between two looks into the queue
PATIENCE_S = 600.0  # for a queue that does not answer
JOBS = "jobs.json"
WAITS = {  # of a job that has not ended
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"),
    *("COMPLETING", "STAGE_OUT", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
}


class Job(NamedTuple):
    """A job, or an array of them: its number, its name, and what its output is in."""

    id: str
    name: str
    log: str


class Silent(RuntimeError):  # noqa: N818 - it reads as what happened
    """The queue does not answer."""


def find_sbatch() -> None:
    """Refuse, with a ValueError, a machine from which nothing can be submitted."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "sbatch is not on the path; call this on a login node of a SLURM cluster, or give "
            "--nosubmit to write the files alone."
        )


def submit(script: Path, *, after: str = "") -> str:
    """Give a script to the queue, to start once the job `after` has ended; its number.

    ValueError with the words of sbatch if it refuses.
    """
    wait = [f"--dependency=afterany:{after}"] if after else []
    done = _call(["sbatch", "--parsable", *wait, str(script)])
    if done.returncode or not done.stdout.strip():
        raise ValueError(f"sbatch refuses {script.name}: {_said(done)}")
    return done.stdout.strip().partition(";")[0]  # with the name of the cluster behind it


def cancel(job: str) -> None:
    """Take a job out of the queue."""
    _call(["scancel", job])


def keep(folder: Path, jobs: Sequence[Job]) -> None:
    """Note the jobs of a folder, so that the same command finds them."""
    write_json(folder / JOBS, {"jobs": [job._asdict() for job in jobs]})


def kept(folder: Path) -> list[Job]:
    """The jobs of a folder that are still in the queue."""
    try:
        noted = [Job(**job) for job in parse_json((folder / JOBS).read_text())["jobs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return noted if any(state in WAITS for state in states_of(noted).values()) else []


def states_of(jobs: Sequence[Job]) -> dict[str, str]:
    """The state of each job that the queue knows, and of each of an array: 12_3 is RUNNING.

    The queue forgets a job some minutes after its end.
    """
    found: dict[str, str] = {}
    for job in jobs:  # one by one: of several, an unknown one is no fault
        columns = ["--noheader", "--array", "--states=all", "--format=%i|%T|%j"]
        done = _call(["squeue", f"--jobs={job.id}", *columns])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise Silent(f"squeue fails: {_said(done)}")
        for line in done.stdout.splitlines():
            number, state, name = line.split("|", 2)
            if name == job.name:  # numbers begin anew where a cluster is set up again
                found[number] = state
    return found


def follow(jobs: Sequence[Job]) -> list[str]:
    """Say what becomes of the jobs until all have ended; those that have not completed.

    A queue that does not answer is asked again, for PATIENCE_S seconds.
    """
    states: dict[str, str] = {}
    shown, answered = "", time.monotonic()
    numbers = ", ".join(job.id for job in jobs)
    say(f"following {numbers}; Ctrl-C leaves them alone, and the same command finds them again.")
    while True:
        try:
            found, answered = states_of(jobs), time.monotonic()
        except Silent as error:
            warn(f"{error}; asking again.")
            if time.monotonic() - answered > PATIENCE_S:
                raise
            time.sleep(EVERY_S)
            continue
        # One that the queue has forgotten is done; as what, its last state says if that was an end
        gone = {number: "ENDED" for number, state in states.items() if state in WAITS}
        states |= gone | found
        counts = Counter(states[number].lower() for number in states)
        line = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        if line != shown:
            say(f"{time.strftime('%H:%M:%S')}  {line or 'not in the queue'}")
            shown = line
        if not any(state in WAITS for state in found.values()):
            return [number for number, state in states.items() if state != "COMPLETED"]
        time.sleep(EVERY_S)


def log_of(jobs: Sequence[Job], number: str) -> str:
    """What the output of a job, or of one of an array, is in."""
    array, _, task = number.partition("_")
    log = next(job.log for job in jobs if job.id == array)
    name = Path(log).name.replace("%A", array).replace("%j", array).replace("%a", task)
    return str(Path(log).with_name(name))


def _call(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not on the path; it belongs to SLURM.") from None


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command of SLURM complained of, in one line."""
    lines = [re.sub(r"^\w+: error: ", "", line) for line in done.stderr.splitlines()]
    return " ".join(" ".join(lines).split()) or json.dumps(done.stdout)
