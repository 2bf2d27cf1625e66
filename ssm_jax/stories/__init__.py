"""Experiments that show a frequency bias, each with all its parts in one folder."""


def smoke(cfg):
    """Reduce an experiment to a few steps on a few examples."""
    cfg.name = cfg.name.replace(":reduced", ":smoke")
    cfg.notes = "Smoke run: a few steps of the same code. Its numbers mean nothing."
    cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 4, 6, 3
    cfg.checkpoint.every, cfg.log.every, cfg.log.gradient = 3, 1, False
    cfg.figures = False
