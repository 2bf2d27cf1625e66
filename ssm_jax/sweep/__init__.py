"""Sweeps: an experiment at every value of some options and with several seeds.

All commands that share the folder of a search agree on what it tries, and how. `results` reads what
the runs have found into a document for JSON, `tables` shows it.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.check import fault_of
from ssm_jax.config.space import Axis, points_of
from ssm_jax.files import parse_json, write_json
from ssm_jax.options.rows import OPTIONS
from ssm_jax.options.rows import short_names as short_names
from ssm_jax.options.rows import shown as shown

DIVERGED = "diverged.json"  # in the folder of a run that has no result and will have none
PRUNED = "pruned.json"  # of one that a search has ended early; it can be trained to its end
FAILED = "failed.json"  # of one that cannot continue as it is; the next command tries again

Status = Literal["finished", "diverged", "pruned", "failed", "unfinished", "missing"]
ENDS: dict[str, Status] = {
    "summary.json": "finished",
    DIVERGED: "diverged",
    PRUNED: "pruned",
    FAILED: "failed",
}
FOR_GOOD = ("finished", "diverged", "pruned")  # no sweep trains these again
AnyRun = TypeVar("AnyRun", bound="Run")


@dataclass(frozen=True)
class Run:
    """One cell, the swept options by dotted key, with one seed.

    name: its folder in that of the sweep: `alpha=3,beta=0.5,seed=0`.
    given: options that the command of the sweep sets, see `config.override`.
    """

    cell: Mapping[str, Any]
    seed: int
    name: str
    given: tuple[str, ...] = field(default=(), kw_only=True)

    def config(self, cfg: ConfigDict) -> ConfigDict:
        """The experiment of this run, from that of the sweep."""
        cfg = cfg.copy_and_resolve_references()
        config_lib.override(cfg, {**self.cell, "seed": self.seed}, self.given)
        config_lib.note_changes(cfg, self.cell)
        return cfg

    def status(self, cfg: ConfigDict, folder: Path) -> tuple[Status, Mapping[str, Any]]:
        """How it ended in the folder of a sweep of `cfg`, with its summary.json, or the mark of a
        diverged, pruned or failed one. One whose result is damaged has failed.

        An unfinished run can continue; of a failed one somebody has to look at log.txt. Raises
        ValueError if there is a run with other options.
        """
        path, digest = folder / self.name, config_lib.digest(self.config(cfg))
        done = (path / "DONE").exists()  # else its figures are missing
        for name, status in ENDS.items():
            file = path / name
            if not file.exists() or (status == "finished" and not done):
                continue
            try:
                document = parse_json(file.read_text(encoding="utf-8"))
                found = document["config_digest"]
            except (ValueError, KeyError, TypeError):
                error = f"{file} is damaged; delete the folder to run this cell again."
                return "failed", {"error": error}
            self._refuse_other(folder, found, digest)
            return status, document
        return "unfinished" if (path / "LOCK").exists() else "missing", {}

    def check(self, cfg: ConfigDict, folder: Path) -> None:
        """Raise ValueError as `status` does, also where a run has not ended."""
        digest = found = config_lib.digest(self.config(cfg))
        if self.status(cfg, folder)[0] == "unfinished":
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = (folder / self.name / "record.json").read_bytes()
                found = parse_json(record)["config_digest"]
        self._refuse_other(folder, found, digest)

    def _refuse_other(self, folder: Path, found: str, asked: str) -> None:
        if found != asked:
            raise ValueError(
                f"{folder / self.name} holds a run with other options (config {found}, this sweep "
                f"asks for {asked}); choose another --folder, or give the options it was made with."
            )


def runs_of(
    cells: Sequence[Mapping[str, Any]], seeds: Iterable[int], given: Iterable[str] = ()
) -> list[Run]:
    """Every cell with every seed, all cells of the first seed first; `given` as in `Run`.

    The cell {}, alone, is the experiment as it is.

    Raises ValueError for two cells that would have one name, or a seed that JAX would cut.
    """
    seeds, given = list(seeds), tuple(given)
    for seed in seeds:
        if (fault := fault_of("seed", seed, OPTIONS["seed"])) is not None:
            raise ValueError(f"one of {len(seeds)} seeds: {fault}")
    labels = short_names(cells[0])
    names: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        name = ",".join(f"{labels[key]}={shown(value)}" for key, value in cell.items())
        name = name.replace("/", "_")
        if name in names:
            raise ValueError(f"the cells {names[name]} and {cell} would both be called {name}.")
        names[name] = cell
    pairs = [(seed, name) for seed in seeds for name in names]
    return [
        Run(names[name], seed, f"{name},seed={seed}".lstrip(","), given=given)
        for seed, name in pairs
    ]


def by_cell(runs: Sequence[AnyRun]) -> list[list[AnyRun]]:
    """The runs of each cell, in the order of the cells."""
    groups: dict[str, list[AnyRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.cell), []).append(run)
    return list(groups.values())


SAMPLERS = ("optuna", "optuna:tpe", "optuna:random", "optuna:grid")
USUAL = 20  # proposals, if nobody says how many
PLAN = "search.json"
STUDY = "search.db"


@dataclass(frozen=True)
class Search:
    """A search.

    sampler: one of SAMPLERS; pruner: see `pruning.Rule`; trials: proposals of all commands
    together, 0 for as many as usual; seeds: runs of each; storage: the address of a database, ""
    for a file in the folder.
    """

    axes: Mapping[str, Axis]
    sampler: str
    pruner: str
    trials: int
    seeds: Sequence[int]
    storage: str = ""

    @property
    def points(self) -> list[dict[str, Any]]:
        """Those of a grid, in order; [] of another sampler."""
        return list(points_of(self.axes)) if self.sampler.endswith(":grid") else []

    @property
    def size(self) -> int:
        """How many proposals there are."""
        points = len(self.points)
        return min(self.trials or points, points) if points else self.trials or USUAL

    def to_come(self, folder: Path, settings: int) -> int:
        """How many proposals are still to be made, in a folder that has runs of some `settings`.

        Two may be one setting, and what cannot work has no run: only its end says that all are.
        """
        return max(0, self.size - max(settings, read_plan(folder).get("made", 0)))

    def note_end(self, folder: Path) -> None:
        """Note in a folder that all proposals are made."""
        if plan := read_plan(folder):
            write_json(folder / PLAN, {**plan, "made": self.size})

    def agree(self, folder: Path, config_digest: str, study: str) -> dict[str, Any]:
        """The plan in a folder; it is written, with `study` as its name, if there is none.

        ValueError if another search is in the folder, with what differs.
        """
        mine = {
            "sampler": "optuna:tpe" if self.sampler == "optuna" else self.sampler,
            "pruner": self.pruner,
            "seeds": list(self.seeds),
            "space": {key: axis.text for key, axis in self.axes.items()},
            "storage": shown_address(self.storage) or STUDY,
            "config_digest": config_digest,
        }
        path = folder / PLAN
        if not path.exists():
            write_json(path, {"study": study, **mine})
        found = read_plan(folder)
        for key, value in mine.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{folder} holds a search with {key} {found.get(key)}, and here it is {value}; "
                    "give the same, or another --folder."
                )
        return found


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan of the search in a folder; {} where there is none."""
    path = folder / PLAN
    try:
        return dict(parse_json(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError):
        raise ValueError(
            f"{path} is damaged; remove it with search.db: the study is made again from the runs."
        ) from None


def shown_address(address: str) -> str:
    """The address of a database without its password."""
    head, at, host = address.rpartition("@")
    scheme, _, user = head.partition("://")
    return f"{scheme}://{user.partition(':')[0]}@{host}" if at else address
