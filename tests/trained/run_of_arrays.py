"""Series of two channels in three classes, and the settings of a tiny run on them."""

from __future__ import annotations

import numpy as np

from ssm_jax.config.load import load_config

_RNG = np.random.default_rng(2)
_Y = np.arange(36) % 3
EXAMPLES = {
    "x_train": 5 + 3 * _RNG.normal(size=(36, 24, 2)) + _Y[:, None, None],
    "y_train": np.array(["ant", "bee", "cow"])[_Y],
    "x_test": 5 + 3 * _RNG.normal(size=(9, 24, 2)) + _Y[:9, None, None],
    "y_test": np.array(["ant", "bee", "cow"])[_Y[:9]],
}


def settings():
    cfg = load_config("arrays")
    cfg.batch_size, cfg.figures = 8, False
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 3
    cfg.train.epochs, cfg.schedule.warmup_steps = 0.0, 2
    cfg.train.steps, cfg.train.eval_every, cfg.checkpoint.keep = 6, 2, 3
    cfg.log.diagnostics, cfg.log.gradient = False, False
    return cfg
