"""Experiments that show a frequency bias, each with all its parts in one folder."""

import re

from ssm_jax import config as config_lib


def story_config(task, arg, **knobs):
    """A default config and what `arg` chooses of the values of the knobs, and of the size."""
    chosen = config_lib.parse_arg(arg, **knobs, size=("reduced", "full", "smoke"))
    cfg = config_lib.default()
    cfg.task = task
    # A name says what the argument says: cells of a sweep have other knobs.
    named = [word for word in re.split("[,=]", arg) if any(word in v for v in knobs.values())]
    cfg.name = ":".join([task, *named])
    return cfg, *chosen.values()


def setting(alpha, beta):
    """One pair of the two knobs, as options of an experiment by dotted key."""
    return {"model.alpha": alpha, "model.beta.init": beta}


def smoke(cfg, n_train, n_eval):
    """Reduce an experiment to a few steps on a few examples."""
    cfg.name = cfg.name.replace(":reduced", ":smoke")
    cfg.notes = "Smoke run: a few steps of the same code. Its numbers mean nothing."
    cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 4, 6, 3
    cfg.checkpoint.every, cfg.log.every, cfg.log.gradient = 3, 1, False
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = n_train, n_eval, n_eval
    cfg.figures = False
