"""What the state space layer of each block gets as input: its autocorrelation and timescale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.analysis.autocorrelation import autocorrelation, lambda_max
from ssm_jax.analysis.timescale import correlation_facts
from ssm_jax.models import SequenceClassifier
from ssm_jax.training.data_init import CHANNELS, NUMBERS, initialized, layer_inputs, measures
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.runs import open_run

TOLERANCE, STEPS = 1e-2, 200  # of the power iteration


def has_blocks(experiment: Experiment) -> bool:
    """Whether the inputs of its layers can be told: a network of blocks, as most tasks have."""
    model = experiment.model(experiment.abstract_state())
    return isinstance(model, SequenceClassifier)


def untrained(cfg: Any, dataset: Any) -> Experiment:
    """An experiment whose inputs are looked at and that is not trained: few sequences will do."""
    cfg = cfg.copy_and_resolve_references()
    cfg.batch_size = min(cfg.batch_size, dataset.size("train"))
    return Experiment(cfg, dataset)


def new_layers(experiment: Experiment, n: int) -> list[dict[str, Any]]:
    """Of each layer of a new model, whose batch norms take the statistics of n sequences."""
    state = experiment.fresh_state()
    if measures(experiment.cfg):
        state, _ = initialized(experiment, state)
    return list(_facts(experiment, experiment.model(state), n, train=True))


def trained_layers(
    path: Path, n: int, *, step: str = "best", **data: Any
) -> tuple[Experiment, int, list[dict[str, Any]]]:
    """Of each layer of a checkpoint, with its running statistics; the run's experiment, the step.

    `data` are data_dir and files of `open_run`, as are the errors.
    """
    _, experiment, opened = open_run(path, step, **data)
    model = experiment.model(opened.state)
    return experiment, opened.meta.step, list(_facts(experiment, model, n, train=False))


def _facts(experiment: Experiment, model: Any, n: int, *, train: bool) -> Iterator[dict[str, Any]]:
    """`correlation_facts` of each layer, of n training sequences at most, evenly spread, and of at
    most 16 channels; a ValueError if there are no blocks, or a layer gets what is not finite."""
    dataset, options = experiment.dataset, experiment.cfg.model
    channels = np.unique(np.linspace(0, options.d_model - 1, CHANNELS).astype(int))
    most = max(1, NUMBERS // (channels.size * dataset.padded_length))
    size = dataset.size("train")
    chosen = np.unique(np.linspace(0, size - 1, min(n, most, size)).astype(int))
    batch = dataset.gather("train", chosen)
    for number, u_BLH in enumerate(layer_inputs(model, batch, train=train)):
        u_nLC = np.asarray(u_BLH[:, :, channels], np.float32)
        try:
            measured = lambda_max(u_nLC, tolerance=TOLERANCE, max_steps=STEPS)
            r = autocorrelation(u_nLC)
        except ValueError as error:
            raise ValueError(f"what layer {number} gets as input: {error}") from None
        facts = correlation_facts(measured, r, (options.dt_min, options.dt_max))
        yield {"layer": f"blocks/{number}/ssm", **facts}
