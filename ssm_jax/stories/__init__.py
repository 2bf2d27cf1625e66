"""Experiments that show a frequency bias, each with all its parts in one folder."""


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
