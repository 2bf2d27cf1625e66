"""What a search tries, and how: all commands that share its folder agree on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm_jax.config.space import Axis, points_of
from ssm_jax.files import parse_json, write_json

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
