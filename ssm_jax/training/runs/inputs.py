"""What the state space layer of each block gets as input: its autocorrelation and timescale."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ssm_jax import config as config_lib
from ssm_jax.analysis.autocorrelation import autocorrelation, lambda_max
from ssm_jax.analysis.timescale import correlation_facts, range_in_use, root_mean_square
from ssm_jax.layers import find_layer
from ssm_jax.models import SequenceClassifier
from ssm_jax.training.data_init import (
    CHANNELS,
    NUMBERS,
    STEPS,
    TOLERANCE,
    initialized,
    layer_inputs,
    measures,
)
from ssm_jax.training.experiment import Experiment


def has_blocks(experiment: Experiment) -> bool:
    """Whether the inputs of its layers can be told: a network of blocks, as most tasks have."""
    model = experiment.model(experiment.abstract_state())
    return isinstance(model, SequenceClassifier)


def untrained(cfg: Any, dataset: Any) -> Experiment:
    """An experiment whose inputs are looked at and that is not trained: few sequences will do."""
    size = min(cfg.batch_size, dataset.size("train"))
    return Experiment(config_lib.altered(cfg, {"batch_size": size}), dataset)


def new_layers(experiment: Experiment, n: int) -> list[dict[str, Any]]:
    """Of each layer of a new model, whose batch norms take the statistics of n sequences."""
    state = experiment.fresh_state()
    if measures(experiment.cfg):
        state, _ = initialized(experiment, state)
    return list(_facts(experiment, experiment.model(state), n, train=True))


def trained_layers(experiment: Experiment, state: Any, n: int) -> list[dict[str, Any]]:
    """Of each layer of a state that was trained, with its running statistics."""
    return list(_facts(experiment, experiment.model(state), n, train=False))


def _facts(experiment: Experiment, model: Any, n: int, *, train: bool) -> Iterator[dict[str, Any]]:
    """`correlation_facts` of each layer, of n training sequences at most, evenly spread, and of at
    most 16 channels; a ValueError if there are no blocks, or a layer gets what is not finite."""
    dataset, options = experiment.dataset, experiment.cfg.model
    channels = np.unique(np.linspace(0, options.d_model - 1, CHANNELS).astype(int))
    most = max(1, NUMBERS // (channels.size * dataset.padded_length))
    size = dataset.size("train")
    chosen = np.unique(np.linspace(0, size - 1, min(n, most, size)).astype(int))
    batch = dataset.gather("train", chosen)
    has_dt = hasattr(find_layer(options.layer), "INITS") and options.discretization != "none"
    for number, u_BLH in enumerate(layer_inputs(model, batch, train=train)):
        u_nLC = np.asarray(u_BLH[:, :, channels], np.float32)
        try:
            measured = lambda_max(u_nLC, tolerance=TOLERANCE, max_steps=STEPS)
            r = autocorrelation(u_nLC)
        except ValueError as error:
            raise ValueError(f"what layer {number} gets as input: {error}") from None
        facts = correlation_facts(measured, r, None)
        if has_dt:
            dt = range_in_use(facts, options, number)
            facts["dt_layer"] = [*dt, root_mean_square(dt)]
        yield {"layer": f"blocks/{number}/ssm", **facts}
