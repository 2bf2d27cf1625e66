"""What the tests of `ssm-jax launch` launch: e.py in their folder."""

CONFIG = """
from ssm_jax import config as config_lib

def get_config(arg=""):
    cfg = config_lib.default()
    cfg.name = "small"
    cfg.train.steps = 4
    return cfg

def sweep():
    return [{"model.alpha": alpha} for alpha in (1.0, 3.0, 10.0)]
"""
RUN = ("--config=e.py", "--workdir=runs/a")
SWEEP = ("--sweep", "--config=e.py", "--folder=runs/My Sweep")
POD = ("--image=ssm:1", "--volume=disk")
