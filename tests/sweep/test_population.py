"""A population: its members are the single runs of their options, bit for bit on a CPU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_population import files_of, tiny_config

from ssm_jax import config as config_lib
from ssm_jax.commands.sweep_runs import planned
from ssm_jax.stop import StopRequest
from ssm_jax.sweep import Run, runs_of
from ssm_jax.sweep import population as sweep_population
from ssm_jax.sweep.population import Size, begun, fitting, grouped, run_populations, told
from ssm_jax.sweep.runs import Job
from ssm_jax.training import loop, restart
from ssm_jax.training.checkpoint.io import list_steps
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.population.loop import Population
from ssm_jax.training.population.members import Member
from ssm_jax.training.population.programs import InTurn
from ssm_jax.training.population.states import States
from ssm_jax.training.runs.evaluate import evaluate_run
from ssm_jax.training.workdir import Workdir, WorkdirBusy

pytestmark = pytest.mark.optimized  # rounding is what is tested
LR, DECAY = "optim.groups.rest.lr", "optim.groups.rest.weight_decay"
# Of seeds of their own, so of orders of their own; the third diverges at its first step.
RUNS = [
    Run({"model.alpha": 1.0}, 0, "a"),
    Run({"model.alpha": 3.0, "model.beta.init": 0.3, "model.dt_max": 0.02}, 1, "b"),
    Run({"model.alpha": 2e38}, 2, "c"),
]
RATES = [
    Run({LR: 0.1, DECAY: 0.05}, 0, "large"),
    Run({LR: 0.0, DECAY: 0.0}, 0, "none"),
    Run({LR: 1e-3, DECAY: 0.0, "model.alpha": 2e38}, 0, "infinite"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """The folder of a population that nobody disturbed."""
    return trained(tmp_path_factory.mktemp("whole"), data_dir)


def trained(folder: Path, data_dir: Path) -> Path:
    job = Job(folder, data_dir, None, "e.py", {}, [])
    assert run_populations(RUNS, tiny_config(), job, Size())
    return folder


def test_members_are_the_single_runs_of_their_options_bit_for_bit(
    whole, tmp_path, data_dir, compile_once
):
    """One of them diverges, which changes no bit of the others."""
    cfg = tiny_config()
    assert [run.status(cfg, whole)[0] for run in RUNS] == ["finished", "finished", "diverged"]
    for run in RUNS:
        job = Job(tmp_path, data_dir, None, "e.py", {}, [])
        alone = tmp_path / run.name
        if run.name == "c":
            with pytest.raises(FloatingPointError, match="not finite at step 1"):
                loop.train_and_evaluate(job.build(run.config(cfg)), alone)
        else:
            assert loop.train_and_evaluate(job.build(run.config(cfg)), alone) == 0
        found, expected = files_of(whole / run.name), files_of(alone)
        # Of its states a member keeps the best and the last, a single run the last but one, too.
        more = {name.split("/")[1] for name in expected.keys() - found.keys()}
        assert found.keys() <= expected.keys() and len(more) <= 1, run.name
        assert [name for name in found if found[name] != expected[name]] == [], run.name


def test_members_with_orders_of_their_own_have_batches_of_several_lengths(tmp_path, data_dir):
    """At one step one member's batch is shorter than another's, also that of the diagnostics."""
    cfg = tiny_config()
    cfg.data.buckets, cfg.log.gradient, cfg.train.steps = 2, True, 4
    runs = [Run({}, seed, f"seed{seed}") for seed in (0, 4)]
    job = Job(tmp_path, data_dir, None, "e.py", {}, [])
    orders = [job.build(run.config(cfg)).order for run in runs]
    assert [order.batch(0)[1] for order in orders] == [12, 24]
    assert run_populations(runs, cfg, job, Size())
    assert loop.train_and_evaluate(job.build(runs[1].config(cfg)), tmp_path / "alone") == 0
    found, expected = files_of(tmp_path / "seed4"), files_of(tmp_path / "alone")
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_member_is_an_ordinary_run(whole, data_dir):
    summary = json.loads((whole / "b/summary.json").read_text())
    found = evaluate_run(whole / "b", data_dir=data_dir)
    assert found["accuracy"] == summary["test"]["accuracy"]
    record = json.loads((whole / "b/record.json").read_text())
    assert record["population"] == {"members": 3, "rows": 3, "at_once": 1}
    assert record["config"]["model.alpha"] == 3.0 and record["saved"] == 12
    assert not list(begun(whole)) and not (whole / "populations/1/checkpoints").exists()


class Stopped(Member):
    """Members of which the first asks to stop at its sixth batch."""

    def train_batches(self, start):
        for number, batch in enumerate(super().train_batches(start), start=start + 1):
            if number == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def test_stopped_and_killed_it_goes_on_bit_for_bit(whole, tmp_path, data_dir, monkeypatch):
    """Stopped on request, then killed after logs were written and before the states were."""
    job, cfg = Job(tmp_path, data_dir, None, "e.py", {}, []), tiny_config()
    monkeypatch.setattr("ssm_jax.sweep.population.Member", Stopped)
    assert run_populations(RUNS, cfg, job, Size()) is False
    monkeypatch.undo()
    ((folder, names),) = begun(tmp_path)
    assert names == list("abc") and max(list_steps(folder / "checkpoints")) < 9
    assert not (tmp_path / "a/checkpoints").exists() and not (tmp_path / "a/DONE").exists()

    class Killed(BaseException):
        pass

    save = States.save

    def die(self, step, **ways):
        if step >= 10:
            for _, _, run in self.live:
                run.save(step, None)
            raise Killed
        save(self, step, **ways)

    monkeypatch.setattr(States, "save", die)
    with pytest.raises(Killed):
        run_populations(RUNS, cfg, job, Size())
    monkeypatch.undo()
    experiment, noted = job.build(RUNS[0].config(cfg)), (folder / "members.json").read_bytes()
    restart._check_beginning(experiment, Workdir(tmp_path / "a"))  # alone it may begin anew
    (folder / "members.json").write_bytes(noted[:20])
    with pytest.raises(ValueError, match=r"members\.json is damaged; bring it back, or delete"):
        run_populations(RUNS, cfg, job, Size())
    (folder / "members.json").write_bytes(noted)
    trained(tmp_path, data_dir)
    for name in "abc":
        found, expected = files_of(tmp_path / name), files_of(whole / name)
        assert found.keys() == expected.keys()
        assert [key for key in found if found[key] != expected[key]] == [], name


def test_rates_and_all_members_at_once_are_the_same_within_rounding(
    tmp_path, data_dir, monkeypatch, capsys
):
    """Members that have ended, or diverged, change nothing in the rows of the others."""
    cfg = tiny_config()

    def chosen(rule, curves, live, before):
        assert set(live) <= {"large", "none"} and rule.kind == "median"
        return {"none": "so the test says"} if curves["none"][-1][0] == 6 and "none" in live else {}

    monkeypatch.setattr("ssm_jax.sweep.pruning.Rule.chosen", chosen)
    job = Job(tmp_path, data_dir, None, "e.py", {}, [])
    assert run_populations(RATES, cfg, job, Size(at_once=3), "median")
    assert "ends no run early: it needs 6 runs, and has 3" in capsys.readouterr().err
    assert (tmp_path / "infinite/diverged.json").exists()
    assert json.loads((tmp_path / "none/pruned.json").read_text())["step"] == 6
    loop.train_and_evaluate(job.build(RATES[0].config(cfg)), tmp_path / "alone")
    rows, expected = (
        read_metrics(tmp_path / name / "metrics.jsonl") for name in ("large", "alone")
    )
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        if row["kind"] != "diagnostics":
            assert row["loss"] == pytest.approx(other["loss"], rel=2e-5)
            assert row["accuracy"] == other["accuracy"]


def members_of(data_dir, runs) -> dict[str, Member]:
    dataset = Job(data_dir, data_dir, None, "e.py", {}, []).build(tiny_config()).dataset
    members: dict[str, Member] = {}
    for run in runs:
        members[run.name] = Member(run.config(tiny_config()), dataset, [*members.values()][:1])
    return members


def test_first_states_are_those_of_single_runs_by_one_program(data_dir):
    members = members_of(data_dir, RUNS)
    for member in members.values():
        found = member.fresh_state()
        expected = jax.jit(Experiment(member.cfg, member.dataset)._first_state)()
        for a, b in zip(*map(_leaves, (found, expected)), strict=True):
            assert a.tobytes() == b.tobytes()
        assert member._compiled is members["a"]._compiled and len(member._compiled) == 1


def test_members_that_others_are_training_are_left_to_them(tmp_path, data_dir):
    """Also where these are all of them, so that there is no state at all."""
    members, left = members_of(data_dir, RUNS[:2]), []

    def failed(name, error):
        left.append((name, type(error)))
        return True

    program = InTurn([*members.values()], 2)
    with (
        Workdir(tmp_path / "a"),
        Workdir(tmp_path / "b"),
        Population(
            members, program, tmp_path / "states", tmp_path, {"a": [], "b": []}, StopRequest(),
            failed=failed,
        ) as population,
    ):  # fmt: skip
        assert population.run()
    assert left == [("a", WorkdirBusy), ("b", WorkdirBusy)]


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_what_differs_otherwise_is_another_population_and_named(data_dir):
    runs = [*RUNS[:2], Run({"model.depth": 2}, 0, "deep"), Run({"model.depth": 2}, 1, "deep1")]
    groups = grouped(members_of(data_dir, runs))
    assert [list(group) for group in groups] == [["a", "b"], ["deep", "deep1"]]
    (line,) = told(groups)
    assert line.startswith("2 populations, of 2, 2 runs, as they differ in model.depth: ")
    assert not list(told(groups[:1]))


def test_members_of_another_structure_have_programs_of_their_own(data_dir):
    """S5 at a fixed beta of 0 has no filter, and the arrays of one with a filter."""
    cfg, job = tiny_config(), Job(data_dir, data_dir, None, "e.py", {}, [])
    config_lib.override(cfg, {"model.layer": "s5", "model.beta.learn": False})
    runs = runs_of([{"model.beta.init": beta} for beta in (0.0, 0.5, 1.0)], [0])
    members = sweep_population._members(runs, cfg, job)
    assert [list(group) for group in grouped(members)] == [
        ["beta=0,seed=0"],
        ["beta=0.5,seed=0", "beta=1,seed=0"],
    ]
    none, some, more = members.values()
    alone = Experiment(some.cfg, some.dataset)
    shapes = some.abstract_state(), some.key, some.abstract_batch()
    found, expected = (str(jax.make_jaxpr(e.gradient())(*shapes)) for e in (some, alone))
    assert found == expected
    assert none._compiled is not some._compiled and more._compiled is some._compiled


def test_members_of_a_seed_have_its_data_where_those_have_the_seed_of_the_run(data_dir):
    job, cfg = Job(data_dir, data_dir, None, "e.py", {}, []), tiny_config()
    cfg.data.seed = -1
    runs = runs_of([{"model.alpha": 1.0}, {"model.alpha": 3.0}], (0, 1))
    members = sweep_population._members(runs, cfg, job)
    for run in runs:
        alone = job.build(run.config(cfg)).dataset.fingerprint
        assert members[run.name].dataset.fingerprint == alone, run.name
    assert len({member.dataset.fingerprint for member in members.values()}) == 2


def test_as_many_members_as_fit_into_the_memory_that_the_program_states(data_dir, monkeypatch):
    monkeypatch.setattr(InTurn, "planned_bytes", lambda self: 50 + 100 * self.rows)
    members = [*members_of(data_dir, RUNS).values()]
    assert fitting(members, Size(memory=350)).rows == 3
    assert fitting(members, Size(memory=349)).rows == 2
    assert fitting(members, Size(memory=350, members=1)).rows == 1
    assert fitting(members, Size(memory=10)).rows == 1


def test_seeds_share_the_order_of_the_batches_unless_each_is_to_have_its_own(capsys):
    words = ["--config=listops_small", "--folder=x", "--seeds=2"]
    (command,), _ = ((*each.values(),) for each in planned([*words, "--population"], ""))
    assert command.cfg.data.order_seed == command.overrides["data.order_seed"] == 0
    (command,), _ = (
        (*each.values(),) for each in planned([*words, "--population", "--own_order"], "")
    )
    assert command.cfg.data.order_seed == -1
    listed = [*words[:2], "--seeds=3,5", "--population"]
    (command,), ((_, runs),) = ((*each.values(),) for each in planned(listed, ""))
    assert {run.config(command.cfg).data.order_seed for run in runs} == {3}, "that of the first"
    with pytest.raises(SystemExit):
        planned([*words, "--own_order"], "")
    assert "--own_order goes with --population" in capsys.readouterr().err
