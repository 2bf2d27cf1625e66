"""Files for schedulers, made from thin templates: each calls one command, which resumes.

Which machine takes which run is the scheduler's business: the index in its array is the number of
the run. A template has `@option@` where a value goes; its line is left out if there is no value.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

INDEX = {  # what a scheduler calls the number of a run
    "slurm": "$SLURM_ARRAY_TASK_ID",
    "k8s": "$(JOB_COMPLETION_INDEX)",
    "sky": "$SKYPILOT_JOB_RANK",
}


@dataclass(frozen=True)
class Work:
    """What is launched: `ssm-jax train WORDS`, or jobs of `ssm-jax sweep WORDS`.

    target: the folder of the run, or of the sweep; jobs: how many a sweep has, 0: it is none;
    shared: each of them takes what is free in the folder, and not the run of its number.
    """

    words: tuple[str, ...]
    target: Path
    jobs: int = 0
    shared: bool = False

    @property
    def command(self) -> list[str]:
        return ["ssm-jax", "sweep" if self.jobs else "train", *self.words]

    @property
    def report(self) -> str:
        """The command that writes the tables of a sweep, for a shell."""
        return shlex.join([*self.command, "--report_only"])

    def line(self, engine: str) -> str:
        """The command of one process, for the shell of an engine."""
        number = f" --run={INDEX[engine]}" if self.jobs and not self.shared else ""
        return shlex.join(self.command) + number

    @property
    def name(self) -> str:
        """A name that every engine takes: small letters, digits and hyphens."""
        text = re.sub(r"[^a-z0-9]+", "-", f"ssm-{self.target.name.lower()}")
        return text[:50].strip("-")


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with its values; lines of a value that is None are left out.

    ValueError: a value is more than one line.
    """
    for name, value in values.items():
        if value is not None and len(str(value).splitlines()) > 1:
            raise ValueError(f"{name} has a line break, {str(value)!r}; give it in one line.")
    lines = []
    for line in resources.files(__name__).joinpath(template).read_text().splitlines():
        names = re.findall(r"@([a-z_]+)@", line)
        if all(values[name] is not None for name in names):
            lines.append(re.sub(r"@([a-z_]+)@", lambda found: str(values[found[1]]), line))
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    """A value as YAML reads it in quotes; it knows no pairs of escapes, as JSON has for emoji."""
    return json.dumps(value, ensure_ascii=False)


def slurm(work: Work, options: Mapping[str, Any], log: Path) -> str:
    """The script of a job of SLURM, or of an array of them, whose output goes to `log`."""
    most = f"%{options['at_once']}" if options["at_once"] else ""
    values = {name: options[name] for name in ("nodes", "processes", "gpus", "cpus", "mem")}
    values |= {name: options[name] for name in ("time", "options")}
    values["array"] = f"0-{work.jobs - 1}{most}" if work.jobs else None
    values |= {"name": work.name, "log": _output(log), "command": work.line("slurm")}
    return filled("slurm.sbatch", values)


def tables(work: Work, options: Mapping[str, Any], log: Path) -> str:
    """The script of the job that writes the tables of a sweep: one processor, no GPU."""
    values = dict.fromkeys(("array", "gpus", "cpus", "mem", "time"))
    values |= {"nodes": 1, "processes": 1, "options": options["options"], "command": work.report}
    values |= {"name": f"{work.name}-tables", "log": _output(log)}
    return filled("slurm.sbatch", values)


def _output(log: Path) -> str:
    """A path for --output: SLURM replaces %j and such, which are meant in the name alone."""
    return shlex.quote(f"{str(log.parent).replace('%', '%%')}/{log.name}")


def k8s(work: Work, options: Mapping[str, Any], file: Path) -> str:
    """An Indexed Job of Kubernetes: a pod for each run of a sweep, or for each host of one run."""
    _below(work.target, options["mount"])
    limits = {"nvidia.com/gpu": options["gpus"], "cpu": options["cpus"]}
    limits |= {"memory": options["mem"]}
    # In a command $(NAME) is expanded, and $$ is a $
    words = [word.replace("$", "$$") for word in work.command]
    if work.jobs and not work.shared:
        words.append(f"--run={INDEX['k8s']}")
    values = {
        "name": work.name,
        "count": work.jobs,
        "at_once": min(options["at_once"] or work.jobs, work.jobs),
        "nodes": options["nodes"],
        "command": _quoted(words),
        "report": work.report if work.jobs else None,
        "limits": _quoted({key: str(value) for key, value in limits.items() if value}),
        **{name: _quoted(options[name]) for name in ("image", "mount", "volume")},
    }
    return filled("k8s-sweep.yaml" if work.jobs else "k8s-run.yaml", values)


def sky(work: Work, options: Mapping[str, Any], file: Path) -> str:
    """A managed job of SkyPilot, to be launched as often as there are runs."""
    _below(work.target, options["mount"])
    volume = options["volume"]
    bucket = re.match(r"[a-z0-9]+://", volume) is not None
    values = {
        "name": work.name,
        "nodes": options["nodes"],
        "image": options["image"] and _quoted(f"docker:{options['image']}"),
        "mount": _quoted(options["mount"]),
        "volume": None if bucket else _quoted(volume),
        "bucket": _quoted(volume) if bucket else None,
        "command": work.line("sky"),
        "submit": sky_submit(work, file),
        "report": work.report if work.jobs else None,
        **{name: options[name] and _quoted(str(options[name])) for name in ("cpus", "mem")},
        "gpus": options["gpus"] and _quoted(options["gpus"]),
    }
    return filled("sky.yaml", values)


def sky_submit(work: Work, file: Path) -> str:
    """The command that launches a file of `sky`."""
    many = ["--num-jobs", str(work.jobs)] if work.jobs else []
    return shlex.join(["sky", "jobs", "launch", *many, file.as_posix()])


def _below(target: Path, mount: str) -> None:
    """Refuse a folder that a pod would lose with itself."""
    where = PurePosixPath(mount) / target.as_posix()
    if not where.is_relative_to(mount) or ".." in where.parts:
        raise ValueError(
            f"{target} is not in {mount}, where the shared storage is mounted; give a path in it, "
            "or a relative one, or another --mount."
        )
