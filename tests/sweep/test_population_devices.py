"""A population split over four devices is that of one device, from any save on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_population import files_of, tiny_config

from ssm_jax.files import parse_json
from ssm_jax.sweep import Run
from ssm_jax.sweep.population import Size, run_populations
from ssm_jax.sweep.runs import Job
from ssm_jax.training.checkpoint.io import list_steps, read_arrays, read_meta
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.population.states import States

# Five, which four devices do not divide; each with seed and order of its own.
RUNS = [Run({"model.alpha": 1.0 + seed}, seed, f"m{seed}") for seed in range(5)]
SAVED = 4  # the step after which a process is lost


def small_config():
    cfg = tiny_config()
    cfg.train.steps, cfg.log.diagnostics = 6, False
    return cfg


def trained(folder: Path, data_dir: Path, left: Path | None = None) -> Path:
    """The folder of the population; what a kill after SAVED would have left of it is in `left`."""
    save = States.save

    def copied(self, step, **ways):
        save(self, step, **ways)
        if step == SAVED and left is not None:
            self.store.wait()
            shutil.copytree(folder, left)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "save", copied)
        job = Job(folder, data_dir, None, "e.py", {}, [])
        assert run_populations(RUNS, small_config(), job, Size(at_once=5))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data_dir):
    """Of one device and of four the whole, and what was left of each after SAVED."""
    root = tmp_path_factory.mktemp("runs")
    trained(root / "one", data_dir, root / "left_by_one")
    words = [sys.executable, __file__, str(root), str(data_dir)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return root


def assert_same_within_rounding(found: Path, expected: Path) -> None:
    for run in RUNS:
        rows, others = (read_metrics(at / run.name / "metrics.jsonl") for at in (found, expected))
        assert len(rows) == len(others) > 0
        for row, other in zip(rows, others, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-6)
        for step in list_steps(expected / run.name / "checkpoints"):
            at = [where / run.name / "checkpoints" / str(step) for where in (found, expected)]
            states = [read_arrays(path, read_meta(path)[1]) for path in at]
            for name, right in states[1].items():
                np.testing.assert_allclose(states[0][name], right, rtol=1e-5, atol=2e-6)


def test_four_devices_train_the_members_of_one(folders):
    assert_same_within_rounding(folders / "four", folders / "one")
    document = parse_json((folders / "four/populations/1/members.json").read_text())
    assert (document["rows"], document["at_once"]) == (5, 5), "as asked, not as they were divided"


def test_lost_on_four_devices_it_goes_on_there_bit_for_bit(folders):
    for run in RUNS:
        found, expected = (
            files_of(folders / "again" / run.name),
            files_of(folders / "four" / run.name),
        )
        assert found.keys() == expected.keys()
        assert [key for key in found if found[key] != expected[key]] == [], run.name


def test_what_one_device_has_saved_goes_on_on_four_and_the_reverse(folders, data_dir):
    assert_same_within_rounding(folders / "left_by_one", folders / "one")
    assert_same_within_rounding(trained(folders / "left_by_four", data_dir), folders / "four")


def main(root: Path, data_dir: Path) -> None:
    """What four devices do: the whole, what was left of it, and what one device has left."""
    import jax

    jax.config.update("jax_num_cpu_devices", 4)
    trained(root / "four", data_dir, root / "left_by_four")
    shutil.copytree(root / "left_by_four", root / "again")
    trained(root / "again", data_dir)
    trained(root / "left_by_one", data_dir)
    first = Job(root, data_dir, None, "e.py", {}, []).build(small_config())
    assert first.mesh.size == 4


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
