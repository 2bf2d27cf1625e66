"""The runs of a sweep: their order, names, configs and commands."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from ssm_jax import config
from ssm_jax.commands.sweep_runs import seeds_of
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.data.dataset import Provenance
from ssm_jax.sweep import runs as sweep_runs
from ssm_jax.sweep import runs_of, short_names
from ssm_jax.sweep.runs import Job
from ssm_jax.training.record import run_record

CELLS = [{"model.alpha": alpha, "model.beta.init": beta} for alpha in (0.1, 3.0) for beta in (0.5,)]


def test_all_cells_of_the_first_seed_come_first():
    assert [run.name for run in runs_of(CELLS, (7, 8))] == [
        "alpha=0.1,beta=0.5,seed=7",
        "alpha=3,beta=0.5,seed=7",
        "alpha=0.1,beta=0.5,seed=8",
        "alpha=3,beta=0.5,seed=8",
    ]


def test_seeds_are_counted_or_listed(capsys):
    assert [*seeds_of("3", 5)] == [5, 6, 7]
    assert [*seeds_of("2345,6789", 5)] == [2345, 6789] and [*seeds_of("8,", 5)] == [8]
    for text, said in {"0": "at least 1", "1,1": "different seeds", "a,2": "whole number"}.items():
        with pytest.raises(SystemExit):
            seeds_of(text, 0)
        assert said in capsys.readouterr().err


def test_a_run_is_the_experiment_with_its_cell_and_seed():
    cfg = config.default()
    before = config.digest(cfg)
    own = runs_of(CELLS, (7,))[1].config(cfg.lock())
    changed = {
        key: value
        for key, value in config.flatten(own).items()
        if value != config.flatten(cfg)[key]
    }
    assert changed.pop("changed") == "alpha = 3, beta = 0.5"  # beside the name in figures
    assert changed == {"model.alpha": 3.0, "model.beta.init": 0.5, "seed": 7}
    assert config.digest(cfg) == before


@pytest.mark.parametrize("error", [MemoryError, jax.errors.JaxRuntimeError])
def test_a_run_without_memory_has_failed_and_a_bug_is_none(error, tmp_path, monkeypatch):
    """The other cells of a sweep may be smaller."""

    def fail(*_, **__):
        raise error(said)

    monkeypatch.setattr(sweep_runs, "train_and_evaluate", fail)
    monkeypatch.setattr(Job, "build", lambda self, cfg: None)
    run, job = runs_of(CELLS, (7,))[0], Job(tmp_path, tmp_path, None, "e.py", {}, [])
    said = "RESOURCE_EXHAUSTED: Out of memory: 9 bytes."
    assert sweep_runs.run_one(run, config.default(), job) == "failed"
    known = json.loads((tmp_path / run.name / "failed.json").read_text())
    assert known["error"] == f"out of memory: {said}"
    said = "INTERNAL: a bug"
    if error is not MemoryError:
        with pytest.raises(error):
            sweep_runs.run_one(run, config.default(), job)


def test_a_run_whose_data_are_not_those_of_the_others_is_refused(tmp_path, monkeypatch):
    """By whatever command; where options of the data are swept, or its seed is, they may differ."""
    cfg, trained = config.default(), []
    cells = [{"model.alpha": 1.0, "data.n_test": n} for n in (8, 9)]
    cells.append({"model.alpha": 3.0, "data.n_test": 8})
    monkeypatch.setattr(sweep_runs, "train_and_evaluate", lambda _, path, __: trained.append(path))
    job = Job(tmp_path, tmp_path, None, "e.py", {}, [])

    def experiment(own, fingerprint):
        dataset = SimpleNamespace(fingerprint=fingerprint, provenance=Provenance("files", "b", ""))
        return SimpleNamespace(cfg=own, dataset=dataset)

    for data_seed, refused in ((0, {(2, 0), (0, 1), (2, 1)}), (-1, {(2, 0)})):
        cfg.data.seed = data_seed
        first, *others = runs_of(cells, (0, 1))
        record = run_record(first.config(cfg), {"fingerprint": "1", "detail": "a"}, [], tmp_path)
        (tmp_path / first.name).mkdir(exist_ok=True)
        (tmp_path / first.name / "record.json").write_text(json.dumps(record))
        for run in others:
            monkeypatch.setattr(Job, "build", lambda self, own: experiment(own, "1"))
            assert sweep_runs.run_one(run, cfg, job) == "finished"
            monkeypatch.setattr(Job, "build", lambda self, own: experiment(own, "2"))
            if (cells.index(run.cell), run.seed) in refused:
                said = f"{first.name} has other data, 1 \\(a\\), than {run.name} would have, 2 "
                with pytest.raises(ValueError, match=said):
                    sweep_runs.run_one(run, cfg, job)
            else:
                assert sweep_runs.run_one(run, cfg, job) == "finished"
    assert len(trained) == 2 * 5 + 2 + 4


def test_the_command_of_a_run_makes_it_by_itself(monkeypatch):
    monkeypatch.delenv("SSM_JAX_DATA_DIR", raising=False)
    run = runs_of(CELLS, (7,))[0]
    job = Job(Path("runs"), Path("data"), None, "e.py:x", {"batch_size": 8}, [])
    assert job.command(run) == [
        "ssm-jax",
        "train",
        "--config=e.py:x",
        "--config.batch_size=8",
        "--config.model.alpha=0.1",
        "--config.model.beta.init=0.5",
        "--config.seed=7",
        "--workdir=runs/alpha=0.1,beta=0.5,seed=7",
    ]
    asked = replace(job, data_dir=Path("elsewhere"), files=Path("x.npz")).command(run)
    assert asked[-3:-1] == ["--data_dir=elsewhere", "--from=x.npz"]


def test_a_swept_rate_scales_what_the_command_line_did_not_give(tmp_path):
    """And the command of a run makes the same run."""
    path = tmp_path / "e.py"
    path.write_text(
        "from ssm_jax import config\n"
        "def get_config():\n"
        "    cfg = config.default()\n"
        "    cfg.train.steps = 1\n"
        "    config.rates(cfg, A=(0.001, 0.0), dt=(0.004, 0.0), rest=(0.008, 0.0))\n"
        "    return cfg\n"
        "def sweep():\n"
        "    return [{'optim.lr': 0.016}, {'optim.lr': 0.002}]\n"
    )
    overrides = {"optim.groups.A.lr": 0.5}
    cfg = load_config(str(path), overrides)
    job = Job(tmp_path, tmp_path, None, str(path), overrides, [])
    for run, factor in zip(
        runs_of(load_sweep(str(path), cfg, overrides), (0,), overrides), (2.0, 0.25), strict=True
    ):
        own = run.config(cfg)
        groups = own.optim.groups
        assert [groups[g].lr for g in ("A", "dt", "rest", "norm")] == [
            0.5, 0.004 * factor, 0.008 * factor, 0.008 * factor,
        ]  # fmt: skip
        given = [word for word in job.command(run) if word.startswith("--config.")]
        words = [word.removeprefix("--config.").split("=") for word in given]
        values = {key: type(config.flatten(cfg)[key])(value) for key, value in words}
        assert config.identity(load_config(str(path), values)) == config.identity(own)
    overrides = {"optim.groups.rest.lr": 0.1}
    with pytest.raises(ValueError, match=r"optim\.groups\.rest\.lr=0\.1 are one rate"):
        load_sweep(str(path), load_config(str(path), overrides), overrides)


def test_options_that_would_share_a_name_keep_theirs():
    assert short_names(["model.beta.init", "optim.groups.rest.lr"]) == {
        "model.beta.init": "beta",
        "optim.groups.rest.lr": "rest.lr",
    }
    same = ["model.seed", "data.seed"]
    assert short_names(same) == {key: key for key in same}


def test_cells_that_would_share_a_folder_are_refused():
    with pytest.raises(ValueError, match="both be called alpha=1"):
        runs_of([{"model.alpha": 1.0}, {"model.alpha": 1 + 1e-9}], (0,))


def test_seeds_that_jax_would_cut_are_refused_before_the_first_run():
    assert runs_of(CELLS, range(2**32 - 2, 2**32))[-1].seed == 2**32 - 1
    with pytest.raises(ValueError, match=r"one of 4 seeds: seed=4294967296 is out of range"):
        runs_of(CELLS, range(2**32 - 2, 2**32 + 2))
