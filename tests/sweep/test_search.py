"""A search in one process, its training played: what is proposed, what ends it, what it says."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
from dataclasses import replace

import played_search
import pytest

from ssm_jax.commands.sweep import sweep

SPACE = "--search.model.dropout=0..0.5"


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A function that gives the command in a folder with e.py, and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.py").write_text(played_search.CONFIG)
    played_search.play(monkeypatch.setattr)

    def run(*argv, folder="out", sampler="optuna"):
        return sweep(["--config=e.py", f"--folder={folder}", f"--sampler={sampler}", *argv])

    return run


def document(tmp_path, folder="out"):
    return json.loads((tmp_path / folder / "sweep.json").read_text())


def ends(found):
    """Of each run how it ended, and its value on validation."""
    return {run["name"]: (run["status"], run["validation"]) for run in found["runs"]}


def test_a_search_that_is_stopped_proposes_what_it_would_have(search, tmp_path, monkeypatch):
    argv = (SPACE, "--trials=14")
    assert search(*argv, folder="whole") == 0
    calls = []

    def told(experiment, path, request):
        calls.append(path.name)
        asked = len(calls) in (3, 13)

        def watching(step, value):
            if asked and step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return request.watch(step, value)

        return played_search.train(experiment, path, replace(request, watch=watching))

    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", told)
    assert [search(*argv) for _ in range(3)] == [75, 75, 0]
    assert len(calls) == 14 + 2
    found = ends(document(tmp_path))
    assert found == ends(document(tmp_path, "whole"))
    assert {"finished", "pruned"} == {end for end, _ in found.values()}
    best = document(tmp_path)["cells"][0]
    assert best["validation"]["mean"] == max(v["accuracy"] for _, v in found.values() if v)

    calls.clear()
    assert search(*argv) == 0 and calls == [], "what is done is not done again"
    (tmp_path / "out/search.db").unlink()
    assert search(*argv) == 0 and calls == [], "the folder is the ledger"
    assert search(SPACE, "--trials=15") == 0 and len(calls) == 1


def test_a_diverged_run_is_a_proposal_that_was_tried_and_a_failed_one_is_tried_again(
    search, tmp_path, monkeypatch, capsys
):
    damaged = []

    def train(experiment, path, request):
        if experiment.cfg.model.alpha == 2 and not damaged:
            damaged.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path / "LOCK"))
        return played_search.train(experiment, path, request)

    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", train)
    argv = ("--search.model.alpha=9.5,2,1", "--pruner=none", "--seeds=2")
    assert search(*argv, sampler="optuna:grid") == 1
    assert "alpha=2,seed=0 failed; look into its log.txt" in capsys.readouterr().err
    assert search(*argv, sampler="optuna:grid") == 0
    cells = {cell["options"]["model.alpha"]: cell for cell in document(tmp_path)["cells"]}
    assert {alpha: cell["n"] for alpha, cell in cells.items()} == {1.0: 2, 2.0: 2, 9.5: 0}
    assert cells[9.5]["diverged"] == [0] and list(cells) == [1.0, 2.0, 9.5], "best first"
    assert cells[1.0]["validation"]["mean"] == pytest.approx(0.9 * 9 / 11 + 0.0005)


def test_a_grid_has_each_point_once_and_grows_with_trials(search, tmp_path):
    argv = ("--search.model.alpha=0.1..10:log:3", "--search.model.dropout=0,0.2", "--pruner=none")
    assert search(*argv, "--trials=4", sampler="optuna:grid") == 0
    assert search(*argv, sampler="optuna:grid") == 0
    found = document(tmp_path)
    assert len(found["cells"]) == 6 and len(found["runs"]) == 6
    assert (tmp_path / "out/sweep.png").exists(), "of a grid of two there is a heat map"
    assert {run["status"] for run in found["runs"]} == {"finished", "diverged"}
    assert search(*argv, "--report_only", sampler="optuna:grid") == 0


def test_the_command_in_the_results_has_no_password(search, tmp_path):
    assert search("--trials=1") == 0
    assert search("--report_only", "--storage=postgresql://me:secret@host/db") == 0
    assert search("--report_only", "--storage", "postgresql://me:secret@host/db") == 0
    assert "postgresql://me@host/db" in document(tmp_path)["command"]
    with pytest.raises(ValueError, match="storage=postgresql://me@host"):
        search("--trials=1", "--storage", "postgresql://me:secret@host/db", folder="out/new")
    assert json.loads((tmp_path / "out/new/command.json").read_text())["argv"][-1] == "--trials=1"
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes(), file


def test_what_cannot_go_together_is_passed_over(search, tmp_path, capsys):
    argv = ("--search.model.alpha_real=0,1", "--search.model.real_transform=exp,relu")
    assert search(*argv, "--search.model.alpha=1", sampler="optuna:grid") == 0
    said = capsys.readouterr().err
    assert "real_transform=exp,seed=0 is passed over: model.real_trans" in said
    assert said.count("--pruner=median ends no run early: it needs 6 runs, and has 4") == 1
    assert len(document(tmp_path)["runs"]) == 3
    assert all(run["status"] == "finished" for run in document(tmp_path)["runs"])


@pytest.mark.parametrize(
    ("sampler", "argv", "ends"),
    [
        ("optuna", (SPACE, "--seeds=2", "--trials=7"), "12 runs: 10 finished, 2 pruned; best"),
        ("optuna:random", ("--search.model.alpha=1,2", "--trials=8"), "2 runs: 2 finished; best"),
        ("optuna:grid", ("--search.model.alpha=9.5,1", "--seeds=2"), "3 runs: 2 fin.*, 1 diverged"),
        (
            "optuna:grid",
            (
                "--search.model.alpha_real=0,1", "--search.model.real_transform=exp,relu",
                "--search.model.alpha=1",
            ),
            "3 runs: 3 finished; best",
        ),
    ],
)  # fmt: skip
def test_no_run_of_a_search_that_is_over_is_missing(search, tmp_path, capsys, sampler, argv, ends):
    """The other seeds of what was pruned or diverged, what was proposed twice, and passed over."""
    assert search(*argv, sampler=sampler) == 0
    shown, said = capsys.readouterr()
    assert "missing" not in shown
    lines = [line for line in said.splitlines() if " runs: " in line]
    assert re.match(ends, lines[-1]) or sampler == "optuna:random", "where the last was known"
    if any(word.startswith("--seeds") for word in argv):
        assert all("waiting" in line for line in lines[:-1]), "with the next seeds"
    assert sweep(["--status", "--folder=out"]) == 0
    assert re.match(ends, capsys.readouterr().out)


def test_a_search_whose_proposals_are_all_passed_over_says_why(search):
    argv = ("--search.model.alpha_real=0", "--search.model.real_transform=exp")
    argv += ("--search.model.alpha=1",)
    fault = r"^all proposals \(1\) were passed over: model\.real_trans.*; change the search, and"
    for _ in range(2):
        with pytest.raises(ValueError, match=fault) as refused:
            search(*argv, sampler="optuna:grid")
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ValueError, match="has no run of this search"):
        search(*argv, "--report_only", sampler="optuna:grid")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sampler=optuna", "--trials=1", "--pruner=asha"], "holds a search with pruner none"),
        (["--sampler=optuna", "--search.model.alpha=1..2"], "with space {'model.alpha': '0.1..10"),
        (["--sampler=optuna:grid"], "say how many, 0.1..10:log:5, or list them"),
        (["--search.model.alpha=1..2"], "--search.model.alpha is of a search; give --sampler"),
        (["--seeds=2"], "--pruner is of a search; give --sampler=optuna or --population too."),
        (["--sampler=optuna", "--storage=nonsense"], "--storage=nonsense cannot be used"),
        (["--sampler=optuna", "--config.model.alpha=1"], "is given and is searched"),
    ],
)
def test_wrong_input_is_one_line(search, tmp_path, argv, words):
    if "holds" in words or "space" in words:
        assert search("--pruner=none", "--trials=1") == 0
        known = (tmp_path / "out/command.json").read_bytes()
    with pytest.raises(ValueError) as caught:
        sweep(["--config=e.py", "--folder=out", "--pruner=none", *argv])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    if "holds" in words or "space" in words:
        assert (tmp_path / "out/command.json").read_bytes() == known


def test_without_optuna_a_line_says_what_to_install(search, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("search", "study"):
        monkeypatch.delitem(sys.modules, f"ssm_jax.sweep.{name}", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'ssm-jax\[search\]'"):
        search("--trials=1")


def test_a_folder_of_other_options_stops_the_search(search, tmp_path):
    assert search("--search.model.alpha=1", "--trials=1", sampler="optuna:grid") == 0
    summary = tmp_path / "out/alpha=1,seed=0/summary.json"
    summary.write_text(summary.read_text().replace('"config_digest": "', '"config_digest": "x'))
    (tmp_path / "out/search.db").unlink()
    with pytest.raises(ValueError, match="holds a run with other options"):
        search("--search.model.alpha=1", "--trials=1", sampler="optuna:grid")
