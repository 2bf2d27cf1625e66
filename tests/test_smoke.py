"""Every experiment trains: some steps of a block of each task at its own length."""

import json

import pytest
from test_lra_configs import TASKS, experiment

from ssm_jax.training import loop
from ssm_jax.training.experiment import build


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


# ListOps is trained by its own command in test_scripts.py.
@pytest.mark.parametrize(
    ("task", "arm"),
    [*((task, "s4d_ft") for task in TASKS[1:]), ("listops", "s4"), ("listops", "s5")],
)
def test_the_smoke_run_of_an_experiment_ends_with_a_result(task, arm, data_dir, tmp_path):
    cfg = experiment(task, f"{arm},smoke")
    cfg.figures, cfg.model.depth, cfg.train.steps, cfg.train.eval_every = False, 1, 4, 2
    # Two batches each: an image of Path-X takes a tenth of a second to draw
    cfg.data.n_train = cfg.data.n_val = cfg.data.n_test = 2 * cfg.batch_size
    cfg.log.diagnostics = arm != "s4d_ft"  # of S4D in test_scripts.py
    assert loop.train_and_evaluate(build(cfg, data_dir=data_dir), tmp_path) == loop.EXIT_DONE
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == cfg.train.steps
    assert summary["data"]["source"] in ("generated", "stand_in")
    assert ("STAND-IN" in summary["data"]["detail"]) == (summary["data"]["source"] == "stand_in")
