"""What the folders of a sweep's runs say, also while the runs go on."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json
from ssm_jax.sweep import ENDS, Run, runs_of
from ssm_jax.sweep.pruning import Curve
from ssm_jax.training.logs import read_metrics


def runs_in(
    folder: Path, keys: Sequence[str], given: Iterable[str] = (), known: Collection[str] = ()
) -> Iterator[Run]:
    """The runs of a folder whose cells have these options, but those whose names are `known`.

    `given` as in `Run`. A folder is such a run if it is called what its record says, or the mark of
    one that ended before it had a record.
    """
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name in known:
            continue
        for name in ("record.json", *ENDS):
            try:
                told = parse_json((path / name).read_text(encoding="utf-8"))
                options = {"seed": told["seed"], **told.get("config", told.get("options", {}))}
                cell = {key: options[key] for key in keys}
                (run,) = runs_of([cell], [options["seed"]], given)
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                continue  # it is not there, or damaged, or of another sweep
            if run.name == path.name:
                yield run
                break


def validation_curve(cfg: ConfigDict, run: Path) -> Curve:
    """The evaluations of a run so far, by the value that chooses its best checkpoint."""
    split, (metric, _) = cfg.train.select_split, config_lib.ranking_of(cfg)
    rows = read_metrics(run / "metrics.jsonl", "train_eval" if split == "train" else split)
    return [(row["step"], float(row[metric])) for row in rows if metric in row]
