"""The runs of a sweep: their order, names, configs and commands."""

from pathlib import Path

import pytest

from ssm_jax import config
from ssm_jax.sweep import runs_of, short_names
from ssm_jax.sweep.runs import Job

CELLS = [{"model.alpha": alpha, "model.beta.init": beta} for alpha in (0.1, 3.0) for beta in (0.5,)]


def test_all_cells_of_the_first_seed_come_first():
    assert [run.name for run in runs_of(CELLS, (7, 8))] == [
        "alpha=0.1,beta=0.5,seed=7",
        "alpha=3,beta=0.5,seed=7",
        "alpha=0.1,beta=0.5,seed=8",
        "alpha=3,beta=0.5,seed=8",
    ]


def test_a_run_is_the_experiment_with_its_cell_and_seed():
    cfg = config.default()
    before = config.digest(cfg)
    own = runs_of(CELLS, (7,))[1].config(cfg.lock())
    changed = {
        key: value
        for key, value in config.flatten(own).items()
        if value != config.flatten(cfg)[key]
    }
    assert changed == {"model.alpha": 3.0, "model.beta.init": 0.5, "seed": 7}
    assert config.digest(cfg) == before


def test_the_command_of_a_run_makes_it_by_itself():
    run = runs_of(CELLS, (7,))[0]
    job = Job(Path("runs"), Path("data"), None, "e.py:x", {"batch_size": 8}, [])
    assert job.command(run) == [
        "scripts/train.py",
        "--config=e.py:x",
        "--config.batch_size=8",
        "--config.model.alpha=0.1",
        "--config.model.beta.init=0.5",
        "--config.seed=7",
        "--workdir=runs/alpha=0.1,beta=0.5,seed=7",
    ]


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
    with pytest.raises(ValueError, match=r"last of 4 seeds: seed=4294967296 is out of range"):
        runs_of(CELLS, range(2**32 - 2, 2**32 + 2))
