"""A sweep of four cells, of which two diverge: a config file for scripts/sweep.py."""

from ssm_jax import config as config_lib


def get_config(arg=""):
    """Four steps of a model of one block on short expressions."""
    config_lib.parse_arg(arg)
    cfg = config_lib.default()
    cfg.name = "tiny_sweep"
    cfg.batch_size = 8
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 100, 20, 20
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 3, 24
    cfg.data.padded_length = 24
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 2
    cfg.model.bidirectional = False
    cfg.train.steps, cfg.train.eval_every = 4, 2
    cfg.figures, cfg.log.diagnostics = False, False
    return cfg


def sweep():
    """Frequencies of pi 2e38 rad are infinite in float32: the first loss is not finite."""
    return [
        {"model.beta.init": beta, "model.alpha": alpha}
        for beta in (0.0, 0.5)
        for alpha in (1.0, 2e38)
    ]
