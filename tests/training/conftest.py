"""What the tests of the loop share."""

import pytest
from tiny import tiny_experiment

from ssm_jax.training import loop
from ssm_jax.training.experiment import Experiment


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder for prepared data, shared by the tests of a process."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def experiment(data_dir) -> Experiment:
    """60 steps, evaluated at 20, 40 and 60; restarts within a process compile nothing again."""
    return tiny_experiment(data_dir, log__diagnostics=True)


@pytest.fixture(scope="session")
def reference(experiment, tmp_path_factory):
    """The folder of an undisturbed run of `experiment`; nobody changes it."""
    path = tmp_path_factory.mktemp("runs") / "reference"
    assert loop.train_and_evaluate(experiment, path) == loop.EXIT_DONE
    return path
