"""What a run does when something of it is lost or changed between two starts, or a disk is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny import assert_same_run

from ssm_jax.train import loop, step_folder
from ssm_jax.train.evaluate import evaluate_run
from ssm_jax.train.logs import read_metrics
from ssm_jax.train.meta import CheckpointError
from ssm_jax.train.step_folder import list_steps

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def trained(reference, tmp_path) -> Path:
    """The folder of a run with all of its steps done, of which no result is written yet.

    Its checkpoints are those of steps 20 (the best), 56 and 60.
    """
    path = Path(shutil.copytree(reference, tmp_path / "run"))
    for name in ("summary.json", "DONE"):
        (path / name).unlink()
    return path


def summary_of(path: Path) -> dict:
    return json.loads((path / "summary.json").read_text())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("failing", [1, 3])
def test_best_step_that_a_full_disk_refused_is_written_when_there_is_room(
    experiment, reference, tmp_path, monkeypatch, caplog, failing
):
    """Step 20 is the best; its save fails a number of times, the later saves do not."""
    write, left = step_folder.write, [FULL] * failing

    def full(path, arrays, meta):
        if meta.step == 20 and left:
            raise left.pop()
        return write(path, arrays, meta)

    monkeypatch.setattr(step_folder, "write", full)
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert_same_run(tmp_path / "run", reference)
    assert list_steps(tmp_path / "run/checkpoints") == [20, 56, 60]
    assert "best_lost" not in summary_of(tmp_path / "run")
    assert "step 20, the best so far, is written now" in caplog.text


def test_best_step_that_was_never_saved_gives_way_to_the_next_best(
    experiment, reference, tmp_path, monkeypatch, capsys
):
    write = step_folder.write

    def full(path, arrays, meta):
        if meta.step == 20:
            raise FULL
        return write(path, arrays, meta)

    monkeypatch.setattr(step_folder, "write", full)
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    metrics = [(path / "metrics.jsonl").read_bytes() for path in (tmp_path / "run", reference)]
    assert metrics[0] == metrics[1]
    assert summary_of(tmp_path / "run")["best"]["step"] == 40
    assert summary_of(tmp_path / "run")["best_lost"]["step"] == 20
    assert capsys.readouterr().err.count("the checkpoint of step 20") == 1


@pytest.mark.parametrize("fate", ["deleted", "flipped", "another step"])
def test_best_step_that_is_lost_gives_way_to_the_next_best_and_all_say_so(
    experiment, data_dir, trained, capsys, fate
):
    """Of steps 40 and 60, equal to 20 on validation, only 60 is still on the disk."""
    best = trained / "checkpoints/20"
    if fate == "flipped":
        flip_a_bit(largest_file(best / "state"))
    else:
        shutil.rmtree(best)
    if fate == "another step":
        shutil.copytree(trained / "checkpoints/56", best)
    assert loop.train_and_evaluate(experiment, trained) == loop.EXIT_DONE
    rows = {row["step"]: row for row in read_metrics(trained / "metrics.jsonl", "val")}
    summary = summary_of(trained)
    assert summary["best"] == {"step": 60, "value": rows[60]["accuracy"]}
    assert summary["best_lost"].keys() == {"step", "value", "reason"}
    assert (summary["best_lost"]["step"], summary["best_lost"]["value"]) == (
        20,
        rows[20]["accuracy"],
    )
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.startswith("warning: ") and "step 20" in line]) == 1
    found = evaluate_run(trained, data_dir=data_dir)
    assert found["step"] == 60 and found["accuracy"] == summary["test"]["accuracy"]
    assert "next best after step 20, which is lost" in found["chosen_as"]
    assert "warning: the checkpoint of step 20" in capsys.readouterr().err


def test_a_folder_that_holds_another_step_is_damaged(experiment, data_dir, reference, trained):
    checkpoints = trained / "checkpoints"
    shutil.rmtree(checkpoints / "60")
    shutil.copytree(checkpoints / "20", checkpoints / "60")
    with pytest.raises(CheckpointError, match=r"step 60 .* is damaged: it holds step 20"):
        evaluate_run(trained, step="60", data_dir=data_dir)
    assert loop.train_and_evaluate(experiment, trained) == loop.EXIT_DONE
    assert_same_run(trained, reference)
    assert (checkpoints / "60.corrupt").is_dir()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_has_the_name_of_a_step_and_is_none_is_set_aside(experiment, reference, trained, kind):
    checkpoints = trained / "checkpoints"
    shutil.rmtree(checkpoints / "60")
    if kind == "file":
        (checkpoints / "60").write_text("mine")
    else:
        (checkpoints / "60").symlink_to(trained / "nowhere")
    assert loop.train_and_evaluate(experiment, trained) == loop.EXIT_DONE
    assert_same_run(trained, reference)
    assert os.path.lexists(checkpoints / "60.corrupt")
