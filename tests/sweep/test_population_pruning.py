"""Members that a rule ends early: who, what is left of them, and that it is so after any kill."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_population import files_of, tiny_config

from ssm_jax.files import parse_json
from ssm_jax.sweep import Run
from ssm_jax.sweep.population import Size, begun, run_populations
from ssm_jax.sweep.results import document_of
from ssm_jax.sweep.runs import Job
from ssm_jax.sweep.standing import line_of, progress_of
from ssm_jax.training import loop
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.population.programs import AtOnce
from ssm_jax.training.population.seats import Seat
from ssm_jax.training.population.states import States

RUNS = [Run({"optim.beta1": 0.9}, seed, f"m{seed}") for seed in range(6)]
RUNGS = (1, 3)  # of 9 steps, evaluated at each


def asha_config():
    cfg = tiny_config()
    cfg.train.steps, cfg.train.eval_every, cfg.log.diagnostics = 9, 1, False
    return cfg


def trained(folder: Path, data_dir: Path, pruner: str = "asha", **size: int) -> Path:
    job = Job(folder, data_dir, None, "e.py", {}, [])
    assert run_populations(RUNS, asha_config(), job, Size(**size), pruner)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """A population that nobody disturbed; beside it what kills would have left of it."""
    root = tmp_path_factory.mktemp("runs")
    save, export, left = States.save, Seat.export, []

    def saved(self, step, **ways):
        save(self, step, **ways)
        if step == 5:
            self.store.wait()
            shutil.copytree(root / "whole", root / "later")

    def exported(self, states):
        export(self, states)
        left.append(self.name)
        if len(left) == 2:  # the first of four is marked, the second has its checkpoints
            shutil.copytree(root / "whole", root / "between")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "save", saved)
        patch.setattr(Seat, "export", exported)
        return trained(root / "whole", data_dir)


def ends(folder: Path) -> dict[str, tuple]:
    found = {run.name: run.status(asha_config(), folder) for run in RUNS}
    return {name: (end, document.get("step")) for name, (end, document) in found.items()}


def test_halving_leaves_the_best_on_validation_at_each_rung(whole):
    """Of six two go on at the first step, of those one at the third."""
    curves = {
        run.name: {row["step"]: row["loss"] for row in read_metrics(path, "val")}
        for run in RUNS
        if (path := whole / run.name / "metrics.jsonl")
    }
    left, expected = sorted(curves), {}
    for rung, kept in zip(RUNGS, (2, 1), strict=True):
        ordered = sorted(left, key=lambda name: curves[name][rung])
        expected |= {name: ("pruned", rung) for name in ordered[kept:]}
        left = ordered[:kept]
    assert ends(whole) == expected | {left[0]: ("finished", None)}
    for name, (end, step) in ends(whole).items():
        assert max(curves[name]) == (step or 9)
        assert (whole / name / "summary.json").exists() == (end == "finished"), "no test for others"


def test_it_is_told_as_of_a_search(whole):
    cfg = asha_config()
    progress = progress_of(RUNS, whole, cfg)
    assert line_of(progress).startswith("6 runs: 1 finished, 5 pruned; best m")
    assert {run.step for run in progress.runs} == {1, 3, 9}
    document = document_of(RUNS, whole, cfg, [])
    (cell,), (remark,) = document["cells"], document["remarks"]
    assert remark.endswith(
        ": a mean of the 1 of 6 seeds that validation did not end early, which flatters."
    )
    assert cell["n"] == 1 and len(cell["pruned"]) == 5 and not cell["missing"]
    name = next(name for name, (_, step) in ends(whole).items() if step == 3)
    mark = parse_json((whole / name / "pruned.json").read_text())
    assert mark["error"].endswith("is not among the best 1 of 2 at step 3")
    assert mark["seed"] == int(name[1]) and "at step 3" in (whole / name / "log.txt").read_text()


@pytest.mark.parametrize("left", ["between", "later"])
def test_killed_and_resumed_the_same_members_end_with_the_same_bits(whole, data_dir, left):
    folder = whole.parent / left
    if left == "later":
        assert [names for _, names in begun(folder)] == [[run.name for run in RUNS]]
        with pytest.raises(ValueError, match=r"with --pruner=asha, and here it is median; give"):
            trained(folder, data_dir, "median")
    trained(folder, data_dir)
    assert ends(folder) == ends(whole)
    for run in RUNS:
        found, expected = files_of(folder / run.name), files_of(whole / run.name)
        assert found.keys() == expected.keys()
        assert [key for key in found if found[key] != expected[key]] == [], run.name
        marks = [where / run.name / "pruned.json" for where in (folder, whole)]
        assert not marks[0].exists() or marks[0].read_text() == marks[1].read_text()


def test_the_others_are_single_runs_and_a_pruned_one_can_be_trained_to_its_end(
    whole, tmp_path, data_dir, compile_once
):
    """The winner, and a member that was stopped at step 1, bit for bit."""
    job, order = Job(tmp_path, data_dir, None, "e.py", {}, []), sorted(ends(whole).items())
    for step, name in ((None, "finished"), (1, "pruned")):
        run = next(run for run in RUNS if (run.name, (name, step)) in order)
        experiment = job.build(run.config(asha_config()))
        assert loop.train_and_evaluate(experiment, tmp_path / run.name) == 0
        if name == "pruned":
            shutil.copytree(whole / run.name, tmp_path / "on")
            assert loop.train_and_evaluate(experiment, tmp_path / "on") == 0
        found = files_of(tmp_path / "on" if name == "pruned" else whole / run.name)
        expected = files_of(tmp_path / run.name)
        assert found["metrics"] == expected["metrics"]
        assert [key for key in found if found[key] != expected.get(key, found[key])] == []


def test_of_several_populations_the_next_is_judged_by_the_last_too(tmp_path, data_dir, capsys):
    """Three at a time: of the first one goes on, of the second who is among the best two of six."""
    trained(tmp_path, data_dir, members=3)
    assert capsys.readouterr().err.count(" pruned at step 1: ") >= 2 + 1
    documents = [
        parse_json((tmp_path / f"populations/{n}/members.json").read_text()) for n in (1, 2)
    ]
    assert [len(document["before"]) for document in documents] == [0, 3]
    first = {name: ends(tmp_path)[name] for name in ("m0", "m1", "m2")}
    assert sorted(end for end, _ in first.values()) == ["finished", "pruned", "pruned"]
    at_one = {
        run.name: read_metrics(tmp_path / run.name / "metrics.jsonl", "val")[0]["loss"]
        for run in RUNS
    }
    best = sorted(at_one, key=at_one.__getitem__)[:2]
    for name in ("m3", "m4", "m5"):
        assert (ends(tmp_path)[name] != ("pruned", 1)) == (name in best)


@pytest.mark.parametrize("last", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_computed_together_they_give_their_rows_back_and_go_on_with_the_same_bits(
    whole, tmp_path, data_dir, last
):
    """Six rows, then two, then one; also from step 1, in six, or from step 2, in two."""
    step, save, used = AtOnce.step, States.save, set()

    def stepped(self, state, live, seats, batches):
        used.add((self.size, len(live)))
        return step(self, state, live, seats, batches)

    def saved(self, step, **ways):
        save(self, step, **ways)
        if step == last:
            self.store.wait()
            shutil.copytree(tmp_path / "whole", tmp_path / "left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "save", saved)
        patch.setattr(AtOnce, "step", stepped)
        trained(tmp_path / "whole", data_dir, at_once=6)
    assert used == {(6, 6), (2, 2), (1, 1)}
    assert ends(tmp_path / "whole") == ends(whole)
    for run in RUNS:
        pairs = (
            read_metrics(at / run.name / "metrics.jsonl") for at in (tmp_path / "whole", whole)
        )
        for row, other in zip(*pairs, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=2e-5)
    trained(tmp_path / "left", data_dir, at_once=6)
    for run in RUNS:
        found, expected = (files_of(tmp_path / at / run.name) for at in ("left", "whole"))
        assert found.keys() == expected.keys()
        assert [key for key in found if found[key] != expected[key]] == [], run.name
