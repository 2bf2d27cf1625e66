"""What a run does when something of it is lost or changed between two starts, or a disk is full."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny import assert_same_run, tiny_experiment

from benchmarks.damage import starved
from ssm_jax.stop import StopRequest
from ssm_jax.training import loop, restart
from ssm_jax.training.checkpoint import io as step_folder
from ssm_jax.training.checkpoint.io import list_steps
from ssm_jax.training.checkpoint.manifest import CheckpointError
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.record import read_record
from ssm_jax.training.run import OpenRun, Request
from ssm_jax.training.runs.evaluate import evaluate_run

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


def test_best_step_that_a_full_disk_refused_is_written_when_there_is_room(
    experiment, reference, tmp_path, monkeypatch, caplog
):
    """Step 20 is the best; its save fails three times, the later saves do not."""
    write, left = step_folder.write, [FULL] * 3

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


def copy_of_another_run(step: Path, path: Path) -> None:
    """A sound checkpoint of step 20 whose options are not the run's, and whose metric is better."""
    meta, described = step_folder.read_meta(step)
    metrics = {**meta.metrics, "accuracy": 1.0}
    other = dataclasses.replace(
        meta, step=20, identity={**meta.identity, "seed": 9}, metrics=metrics
    )
    step_folder.write(path, step_folder.read_arrays(step, described), other).result()


@pytest.mark.parametrize("fate", ["deleted", "flipped", "another step", "another run"])
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
    if fate == "another run":
        copy_of_another_run(trained / "checkpoints/60", best)
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


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "LOCK"
    }


@pytest.fixture(scope="module")
def stopped(experiment, tmp_path_factory) -> Path:
    """The folder of a run that was stopped at step 42; nobody changes it."""
    path = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.MonkeyPatch.context() as patch:

        def poll(self: StopRequest, step: int) -> bool:
            self.requested = "SIGTERM" if step == 42 else None
            return step == 42

        patch.setattr(StopRequest, "poll", poll)
        assert loop.train_and_evaluate(experiment, path) == loop.EXIT_STOPPED
    return path


@pytest.fixture
def copy(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def doubled(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def reordered(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_run(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config_digest": "0" * 12}))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("metrics.jsonl", Path.unlink),
        ("metrics.jsonl", reordered),
        ("metrics.jsonl", halved),
        ("timing.jsonl", halved),
        ("diagnostics/20.npz", flip_a_bit),
    ],
)
def test_a_log_that_is_not_the_runs_stops_it_and_there_are_two_ways_on(
    experiment, reference, copy, name, spoil
):
    spoil(copy / name)
    before = snapshot(copy)
    spoilt = before.get(name)
    with pytest.raises(restart.RunDamaged) as error:
        loop.train_and_evaluate(experiment, copy)
    assert str(error.value).startswith(f"{copy / name} ")
    assert "--accept_log" in str(error.value) and "--fresh" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert snapshot(copy) == before

    assert loop.train_and_evaluate(experiment, copy, Request(accept_log=True)) == loop.EXIT_DONE
    assert summary_of(copy)["test"] == summary_of(reference)["test"]
    if spoilt is not None:
        assert snapshot(copy)[f"{name}.damaged"] == spoilt
    theirs = read_metrics(reference / "metrics.jsonl")
    rows = read_metrics(copy / "metrics.jsonl")
    assert [row for row in rows if row["step"] > 42] == [r for r in theirs if r["step"] > 42]
    assert all(row in theirs for row in rows)
    if spoil is halved and name == "metrics.jsonl":
        assert rows[:4] == theirs[:4], "the undamaged part of the log is kept"


def test_fresh_keeps_what_was_there_and_begins_anew(experiment, reference, copy, capsys):
    halved(copy / "metrics.jsonl")
    before = snapshot(copy)
    assert loop.train_and_evaluate(experiment, copy, Request(fresh=True)) == loop.EXIT_DONE
    assert_same_run(copy, reference)
    assert snapshot(copy / "old-1") == before
    assert "what it had left is in" in capsys.readouterr().err


def test_a_doubled_or_longer_log_and_a_torn_line_are_cut_without_a_word(
    experiment, reference, copy, capsys
):
    """All of it is behind the checkpoint, as after kill -9."""
    doubled(copy / "metrics.jsonl")
    with (copy / "timing.jsonl").open("ab") as file:
        file.write(b'{"step": 43, "ki')
    assert loop.train_and_evaluate(experiment, copy) == loop.EXIT_DONE
    assert_same_run(copy, reference)
    assert "warning" not in capsys.readouterr().err.lower()


def test_a_checkpoint_of_an_older_version_knows_nothing_of_the_log(
    experiment, reference, copy, monkeypatch
):
    read = step_folder.read_meta

    def without_stamps(path):
        meta, described = read(path)
        meta.extra.pop("files", None)
        return meta, described

    monkeypatch.setattr(step_folder, "read_meta", without_stamps)
    assert loop.train_and_evaluate(experiment, copy) == loop.EXIT_DONE
    assert_same_run(copy, reference)


@pytest.mark.parametrize("other", [{}, {"seed": 5}], ids=["same options", "another seed"])
def test_lost_checkpoints_beside_a_log_stop_the_run(experiment, data_dir, copy, other):
    shutil.rmtree(copy / "checkpoints")
    before = snapshot(copy)
    command = tiny_experiment(data_dir, log__diagnostics=True, **other) if other else experiment
    with pytest.raises(restart.RunDamaged, match=r"but no checkpoint.*--fresh to start anew"):
        loop.train_and_evaluate(command, copy)
    assert snapshot(copy) == before


def test_a_run_ended_before_its_first_save_begins_again_without_a_word(
    experiment, reference, tmp_path, monkeypatch, capsys
):
    write = step_folder.write

    def killed(path, arrays, meta):
        raise KeyboardInterrupt

    monkeypatch.setattr(step_folder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(experiment, tmp_path / "run")
    assert read_metrics(tmp_path / "run/metrics.jsonl")
    monkeypatch.setattr(step_folder, "write", write)
    capsys.readouterr()
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert_same_run(tmp_path / "run", reference)
    assert "warning" not in capsys.readouterr().err.lower()


def test_first_save_is_noted_in_the_record(stopped, reference):
    for path in (stopped, reference):
        assert read_record(path / "record.json")["saved"] == 14


@pytest.mark.parametrize("fate", ["missing", "halved", "flipped", "another run's", "a folder"])
def test_a_record_that_is_lost_or_damaged_is_made_again_at_the_start(
    experiment, reference, copy, data_dir, capsys, fate
):
    record = copy / "record.json"
    whole = json.loads(record.read_text())
    if fate == "halved":
        halved(record)
    elif fate == "flipped":
        record.write_text(record.read_text().replace('"python": "3', '"python": "4'))
    else:
        record.unlink()
    if fate == "another run's":
        content = {k: v for k, v in whole.items() if k != "crc32"}
        content["config_digest"] = "0" * 12
        record.write_text(json.dumps(content))
    if fate == "a folder":
        record.mkdir()
    with pytest.raises((ValueError, FileNotFoundError)):
        evaluate_run(copy, data_dir=data_dir)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:  # noticed before the first step, not after the last one
        patch.setattr(OpenRun, "train", lambda self, state, start: False)
        assert loop.train_and_evaluate(experiment, copy) == loop.EXIT_STOPPED
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1 and "made again from this command" in told[0]
    again = json.loads(record.read_text())
    for key in ("config", "config_digest", "setup_digest", "seed", "data", "versions"):
        assert again[key] == whole[key]
    assert (copy / "record.json.damaged").exists() == (fate != "missing")
    if fate != "missing":
        return
    assert loop.train_and_evaluate(experiment, copy) == loop.EXIT_DONE
    assert_same_run(copy, reference)
    assert "warning" not in capsys.readouterr().err


def test_a_finished_run_with_a_damaged_result_is_tested_again(
    experiment, reference, tmp_path, capsys
):
    for number, (name, spoil) in enumerate(
        [
            ("summary.json", flip_a_bit),
            ("summary.json", Path.unlink),
            ("DONE", halved),
            ("DONE", of_another_run),
            ("DONE", Path.unlink),
        ]
    ):
        path = Path(shutil.copytree(reference, tmp_path / f"{number}"))
        spoil(path / name)
        capsys.readouterr()
        assert loop.train_and_evaluate(experiment, path) == loop.EXIT_DONE
        assert_same_run(path, reference)
        assert snapshot(path)["DONE"] == snapshot(reference)["DONE"]
        told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert len(told) == (0 if (name, spoil) == ("DONE", Path.unlink) else 1)
        assert loop.train_and_evaluate(experiment, path) == loop.EXIT_DONE
        assert "finished" in capsys.readouterr().err


def test_a_finished_run_says_what_of_it_is_damaged_and_keeps_its_result(
    experiment, data_dir, reference, tmp_path, capsys
):
    path = Path(shutil.copytree(reference, tmp_path / "run"))
    shutil.rmtree(path / "checkpoints")  # to save room
    (path / "timing.jsonl").unlink()
    doubled(path / "metrics.jsonl")
    before = snapshot(path)
    assert loop.train_and_evaluate(experiment, path) == loop.EXIT_DONE
    [told] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "metrics.jsonl has" in told and "(and 1 more files)" in told
    with pytest.raises(restart.RunDamaged, match=r"its record\.json is that of another run"):
        loop.train_and_evaluate(tiny_experiment(data_dir, seed=1), path)
    (path / "summary.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint to test again"):
        loop.train_and_evaluate(experiment, path)
    del before["summary.json"]
    assert snapshot(path) == before


def test_another_result_in_the_place_of_the_summary_is_kept(experiment, trained, reference, capsys):
    """As when the best checkpoint is lost after the summary was written, and before DONE."""
    shutil.copy(reference / "summary.json", trained / "summary.json")
    shutil.rmtree(trained / "checkpoints/20")
    assert loop.train_and_evaluate(experiment, trained) == loop.EXIT_DONE
    assert summary_of(trained)["best_lost"]["step"] == 20
    kept = (trained / "summary.json.old").read_bytes()
    assert kept == (reference / "summary.json").read_bytes()
    assert "summary.json.old" in capsys.readouterr().err


def test_a_test_result_that_only_done_has_is_kept(experiment, reference, tmp_path, capsys):
    path = Path(shutil.copytree(reference, tmp_path / "run"))
    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints/20")
    assert loop.train_and_evaluate(experiment, path) == loop.EXIT_DONE
    assert summary_of(path)["best_lost"]["step"] == 20
    assert (path / "DONE.old").read_bytes() == (reference / "DONE").read_bytes()
    assert "DONE.old" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "number"),
    [("metrics.jsonl", 7), (".npz", 2), ("record.json", 2), ("DONE", 1)],
)
def test_a_full_disk_stops_with_what_was_saved_and_the_same_command_goes_on(
    experiment, reference, tmp_path, name, number
):
    outcome, line = starved(experiment, tmp_path / "run", reference, name, number)
    if name == "record.json":  # that a step is saved can be noted at the next save
        assert outcome == "survived, the same result"
    else:
        assert outcome == "stopped, then the same result" and "No space left" in line
    assert_same_run(tmp_path / "run", reference)
    assert read_record(tmp_path / "run/record.json")["saved"] == 14
