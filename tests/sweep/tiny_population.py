"""The config of the tests of populations, and all that the numbers of a run are written in."""

import json
from pathlib import Path

from ssm_jax import config as config_lib
from ssm_jax.training.checkpoint.io import list_steps, read_arrays, read_meta


def tiny_config():
    cfg = config_lib.default()
    cfg.name = "tiny_population"
    cfg.batch_size = 8
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 100, 20, 20
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 3, 24
    cfg.data.padded_length = 24
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 2
    cfg.model.dropout, cfg.model.bidirectional = 0.1, False
    cfg.train.steps, cfg.train.eval_every = 12, 3
    cfg.train.select_metric = "loss"
    cfg.schedule.warmup_steps = 2
    cfg.checkpoint.every, cfg.log.every = 2, 2
    cfg.figures, cfg.log.gradient = False, False
    return cfg


def files_of(run: Path) -> dict[str, bytes]:
    """All that the numbers of a run are written in; what made them, and when, left out."""
    found = {"metrics": (run / "metrics.jsonl").read_bytes()}
    found |= {file.name: file.read_bytes() for file in (run / "diagnostics").glob("*.npz")}
    for folder in (run / "checkpoints", run / "crash"):
        for step in list_steps(folder) if folder.is_dir() else ():
            meta, leaves = read_meta(folder / str(step))
            arrays = read_arrays(folder / str(step), leaves)
            place = f"{folder.name}/{step}"
            found |= {f"{place}/{name}": array.tobytes() for name, array in arrays.items()}
            found[place] = repr((meta.best, meta.metrics, meta.extra["window"])).encode()
    told = ("command", "git")  # who edits a file while a test goes on changes the second
    for name in ("summary.json", "crash/report.json"):
        if (run / name).exists():
            document = json.loads((run / name).read_text())
            found[name] = repr({k: v for k, v in document.items() if k not in told}).encode()
    return found
