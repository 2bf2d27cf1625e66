"""A run to load models of; its data are gone when it has ended."""

import numpy as np
import pytest
from run_of_arrays import EXAMPLES, settings

from ssm_jax.training import loop
from ssm_jax.training.experiment import build
from ssm_jax.training.runs.evaluate import evaluate_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(folder of a run of 6 steps, evaluated at 2, 4 and 6; its evaluation on the test split)"""
    folder = tmp_path_factory.mktemp("arrays")
    data = {"data_dir": folder / "data", "files": folder / "mine.npz"}
    np.savez(data["files"], **EXAMPLES)
    experiment = build(settings(), **data)
    assert loop.train_and_evaluate(experiment, folder / "run") == loop.EXIT_DONE
    result = evaluate_run(folder / "run", split="test", **data)
    data["files"].unlink()
    return folder / "run", result
