"""Trained models without training: the numbers of a start, moved, and what it is built from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_jax import config as config_lib
from ssm_jax.config.load import load_config
from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.tasks import kept
from ssm_jax.trained import Trained
from ssm_jax.trained.opening import Weights

MEAN, STD = (3.0, -20.0), (2.0, 0.5)
S4 = {"layer": "s4", "init": "legs", "discretization": "bilinear", "dt_transform": "exp"}
S5 = {"layer": "s5", "init": "legs"}
CAUSAL = {"bidirectional": False, "beta.filter": False, "beta.learn": False}


def preprocessing(head, *, vocab_size=None, length=24, horizon=0, **changes):
    """Of two channels, or of tokens; three classes, or two targets."""
    classes = ("ant", "bee", "cow") if head == "classification" else ()
    targets = () if classes else ("one", "two")
    forecast = head == "forecasting"
    fields = {
        "head": head,
        "channels": ("token",) if vocab_size else ("two", "one"),
        "mean": () if vocab_size else MEAN,
        "std": () if vocab_size else STD,
        "targets": targets,
        # Of a forecast those of the channels, in the order of the targets
        "target_mean": () if classes else (MEAN[::-1] if forecast else (100.0, 7.0)),
        "target_std": () if classes else (STD[::-1] if forecast else (10.0, 3.0)),
        "classes": classes,
        "vocab_size": vocab_size,
        "missing": "refuse",
        "horizon": horizon,
        "relative": forecast,
        "padded_length": length,
    }
    return Preprocessing(**{**fields, **changes})


def trained(head="classification", *, vocab_size=None, length=24, horizon=0, missing="refuse", **o):
    """A model of `configs/arrays.py:HEAD` none of whose numbers is 0 or 1; options of cfg.model."""
    p = preprocessing(head, vocab_size=vocab_size, length=length, horizon=horizon, missing=missing)
    cfg = load_config(f"arrays:{head}")
    small = {"d_model": 4, "d_state": 3, "depth": 2, **o}
    config_lib.override(cfg, {f"model.{key}": value for key, value in small.items()})
    built_from = {
        "n_classes": len(p.classes) or len(p.targets) * max(horizon, 1),
        "vocab_size": vocab_size,
        "d_input": None if vocab_size else 2,
        "padded_length": length,
        "preprocessing": kept(p),
    }
    return Trained(cfg, built_from, moved(Weights(cfg, built_from)), provenance(cfg))


def provenance(cfg):
    from ssm_jax.training.record import PROVENANCE, made_by, setup_digest

    data = {"fingerprint": "none", "detail": "none"}
    found = {**made_by(["test"]), "seed": 0, "data": data, "step": 3, "metrics": {}}
    found |= {"config_digest": config_lib.digest(cfg), "setup_digest": setup_digest(cfg)}
    assert found.keys() >= set(PROVENANCE)
    return found


def moved(weights):
    """The model of a start, with other norms, running statistics and filters."""
    from ssm_jax.tasks import find_task, stand_in

    build, options = find_task(weights.cfg.task).build_model, weights.cfg.model.to_dict()
    network = build(stand_in(weights.built_from), options, nnx.Rngs(params=jax.random.key(1)))
    rng, filtered = np.random.default_rng(0), network.blocks[0].ssm.filtered

    def other(path, variable):
        name, shape = path[-1], variable[...].shape
        if name in ("scale", "bias", "mean") or (name == "beta" and filtered):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)
        return jnp.asarray(rng.uniform(0.5, 2, shape), jnp.float32) if name == "var" else None

    for path, variable in nnx.iter_graph(network):
        if isinstance(variable, nnx.Variable) and (value := other(path, variable)) is not None:
            variable[...] = value
    return network


SERIES_OF = {  # by the size of the vocabulary
    None: [np.array(MEAN) + np.random.default_rng(9).normal(size=(n, 2)) for n in (24, 24, 24)],
    6: [np.arange(n) % 6 for n in (24, 7)],
}
