"""Waves of 1, 16, 256 and 4,096 rad/s in one signal: which of them a model learns to measure.

Source: Figure 1 of arXiv:2410.02035 and its tuned version.
"""

from ssm_jax import config as config_lib
from ssm_jax.options.rows import Option, since_0_2
from ssm_jax.stories import setting, smoke, story_config
from ssm_jax.tasks import Lazy, Task

_HERE = "ssm_jax.stories.waves.task"
WAVE_REGRESSION = Task(
    open_data=Lazy(f"{_HERE}:open_waves"),
    build_model=Lazy(f"{_HERE}:build_regressor"),
    train_sums=Lazy(f"{_HERE}:regression_sums"),
    eval_sums=Lazy(f"{_HERE}:regression_sums"),
    metrics={"error": "min", "loss": "min"},
    options={
        "model.waves.legacy_unsymmetric": Option(
            False, "the filter that the official program has", source="OC-19"
        ),
        "model.waves.oscillators": since_0_2(False, "LinOSS in the place of S4D"),
    },
    sources=("generated",),
    circular=True,
    network=Lazy(f"{_HERE}:WaveRegressor"),
)

PAIRS = {"baseline": (1.0, 0.0), "low": (0.01, -1.0), "middle": (10.0, 0.5), "high": (100.0, 1.0)}


def get_config(arg=""):
    cfg, pair, size = story_config("waves", arg, pair=tuple(PAIRS))
    cfg.batch_size = 64
    cfg.data.padded_length = 62_832
    cfg.model.d_model, cfg.model.d_state = 16, 4
    cfg.model.alpha, cfg.model.beta.init = PAIRS[pair]
    cfg.model.beta.learn = False
    cfg.train.epochs = 100.0
    cfg.train.eval_batch_size = 500
    cfg.train.select_metric = "loss"
    groups = cfg.optim.groups
    groups.A.match, groups.A_im.match = r"/A_re_raw$", r"/A_im$"
    config_lib.rates(cfg, A=(0.001, 0.0), A_im=(0.1, 0.0), dt=(0.0, 0.0), rest=(0.001, 0.0))
    if size != "full":
        reduce(cfg)
    if size == "smoke":
        smoke(cfg, 40, 8)
        cfg.data.padded_length, cfg.train.eval_batch_size = 8_200, 0
    return cfg


def reduce(cfg):
    cfg.name += ":reduced"
    cfg.notes = (
        "Reduced: 12,288 samples per sequence (published: 62,832), 2,000 steps of 32 at rates 7.8 "
        "times as high (15,600 of 64), 2,000 test examples (10,000)."
    )
    cfg.batch_size = 32
    cfg.data.padded_length = 12_288
    cfg.data.n_val, cfg.data.n_test = 500, 2_000
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 2_000, 100
    # Rate times steps as published: an Im A that always moves one way gets 780 rad/s far.
    config_lib.rates(cfg, A=(0.0078, 0.0), A_im=(0.78, 0.0), dt=(0.0, 0.0), rest=(0.0078, 0.0))
    cfg.checkpoint.every, cfg.log.every = 500, 20


def sweep():
    """The four settings of the official script, as options over `get_config()`."""
    return [setting(*pair) for pair in PAIRS.values()]
