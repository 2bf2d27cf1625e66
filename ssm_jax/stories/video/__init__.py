"""Video prediction: a fast and a slow digit, and which of them a state space model follows.

Source: the appendix of arXiv:2410.02035, on the network of arXiv:2310.19694.
"""

from ssm_jax import config as config_lib
from ssm_jax.options.rows import COUNT, POSITIVE, SIZE, Range, since_0_2
from ssm_jax.stories import setting, smoke, story_config
from ssm_jax.tasks import Lazy, Task

_HERE = "ssm_jax.stories.video"
CELLS = ("convs5", "s5", "convlstm")
VIDEO = Task(
    open_data=Lazy(f"{_HERE}.data:open_videos"),
    build_model=Lazy(f"{_HERE}.task:build_predictor"),
    train_sums=Lazy(f"{_HERE}.task:train_sums"),
    eval_sums=Lazy(f"{_HERE}.task:eval_sums"),
    metrics={"forced_mse": "min", "loss": "min"},  # those that models with a filter have too
    options={
        "data.video.canvas": since_0_2(64, "rows and columns of a frame", SIZE, unit="pixels"),
        "data.video.digit": since_0_2(28, "rows and columns of a digit", SIZE, unit="pixels"),
        "data.video.fast": since_0_2(
            3.0, "speed of one digit; 1 is 0.15 of the way in a frame", POSITIVE
        ),
        "data.video.slow": since_0_2(0.3, "speed of the other digit", POSITIVE),
        "data.video.colours": since_0_2(
            3, "channels of a frame, which digits take in turn", Range(1, 3, whole=True)
        ),
        "data.video.context": since_0_2(100, "true frames before a roll-out", SIZE, unit="frames"),
        "data.video.horizon": since_0_2(400, "predicted frames", SIZE, unit="frames"),
        "model.video.cell": since_0_2("convs5", "over time; s5: of each pixel", choices=CELLS),
        "model.video.window": since_0_2(
            3, "pixels of a convolution of the cell, odd", SIZE,
            when={"model.video.cell": ("convs5", "convlstm")},
        ),
        "model.video.width": since_0_2(
            64,
            "features of the encoder at full size; twice, four times as many at 1/2 and 1/4",
            SIZE,
        ),
        "model.video.groups": since_0_2(
            32, "of group norms, or their largest divisor in common with the channels", SIZE
        ),
        "model.video.chunk": since_0_2(
            0, "frames of states at a time, without a filter; 0: all", COUNT
        ),
        "model.video.l1": since_0_2(
            0.5,
            "share of the absolute error in the loss; the rest is of the squared error",
            Range(0, 1),
        ),
        "model.video.loss_beta": since_0_2(
            0.0, "exponent of a filter of the error over time, in training", Range(-4, 4)
        ),
    },
    sources=("mnist5k", "fashion_mnist", "mnist", "blobs"),
    network=Lazy(f"{_HERE}.model:VideoPredictor"),
    faults=Lazy(f"{_HERE}.data:faults"),
    summary=Lazy(f"{_HERE}.task:summary"),
)  # fmt: skip

ALPHAS, BETAS = (0.1, 1.0, 10.0, 100.0), (-1.0, 0.0, 1.0)
# d_model and d_state of a cell, by the d_model of ConvS5
EQUAL = {
    "s5": {256: (336, 168), 128: (168, 84), 32: (42, 21)},
    "convlstm": {256: (160, 80), 128: (80, 40), 32: (20, 10)},
}
DIGITS = {"coloured": (3.0, 0.3), "gray": (1.0, 1.0)}


def get_config(arg=""):
    knobs = {"cell": CELLS, "digits": tuple(DIGITS), "frames": ("300", "600")}
    cfg, cell, digits, frames, size = story_config("video", arg, **knobs)
    if frames == "600" and size != "full":
        raise ValueError("video:600 is of the full size alone: give video:600,full.")
    cfg.batch_size = 8
    cfg.data.source = "mnist5k"
    cfg.data.padded_length = int(frames)
    cfg.data.video.fast, cfg.data.video.slow = DIGITS[digits]
    cfg.data.video.colours = 3 if digits == "coloured" else 1
    width = 256 if frames == "300" else 128
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 8, width, width // 2
    cfg.model.init, cfg.model.real_transform = "legs", "none"
    cfg.model.beta.learn, cfg.model.beta.filter = False, False
    cfg.model.dt_min, cfg.model.dt_max = 1e-3, 1e-1
    cfg.model.video.cell = cell
    cfg.optim.groups.A.optional = cell == "convlstm"  # which has no A
    cfg.model.remat = True
    cfg.train.steps, cfg.train.eval_every = 300_000, 10_000
    cfg.train.select_metric = "loss"
    cfg.optim.b2 = 0.95
    rate = 1e-3 if frames == "300" and cell != "convlstm" else 5e-4
    every = (rate, 1e-5)
    config_lib.rates(cfg, A=every, dt=every, rest=every)
    cfg.schedule.warmup_steps = 5_000
    cfg.checkpoint.every, cfg.log.every, cfg.log.gradient = 5_000, 100, False
    cfg.log.diagnostics = False
    if size != "full":
        reduce(cfg)
    equal_parameters(cfg, cell)
    if size == "smoke":
        smoke(cfg, 8, 4)
        cfg.data.source, cfg.schedule.warmup_steps = "blobs", 2
        cfg.data.video.canvas, cfg.data.video.digit, cfg.data.padded_length = 16, 7, 6
        cfg.data.video.context, cfg.data.video.horizon = 3, 3
        cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 8, 4
        cfg.model.video.width, cfg.model.video.groups = 4, 2
    return cfg


def reduce(cfg):
    cfg.name += ":reduced"
    cfg.notes = (
        "Reduced: frames of 32 x 32 pixels, digits of 14, 40 frames, 2 blocks of 32 channels "
        "(published: 64 x 64, 28, 300 or 600, 8 blocks of 256 or 128), an encoder of 8 to 32 "
        "features (64 to 256), 800 steps of 2 videos (300,000 of 8), and the squared error alone "
        "as the loss."
    )
    cfg.batch_size = 2
    cfg.data.padded_length = 40
    cfg.data.video.canvas, cfg.data.video.digit = 32, 14
    cfg.data.video.context, cfg.data.video.horizon = 40, 40
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 2_000, 32, 128
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 16
    cfg.model.video.width, cfg.model.video.groups = 8, 8
    # With the absolute error a fast digit stays black for as long as its next place is guesswork:
    # the median of a pixel is black. So few steps do not bring it further.
    cfg.model.video.l1 = 0.0
    cfg.model.remat = False
    cfg.train.steps, cfg.train.eval_every, cfg.train.eval_batch_size = 800, 200, 16
    # With the absolute error, and at 3e-3, the tanh saturates: all frames stay black for good.
    every = (1e-3, 1e-5)
    config_lib.rates(cfg, A=every, dt=every, rest=every)
    cfg.schedule.warmup_steps = 100
    cfg.checkpoint.every, cfg.log.every = 200, 10


def equal_parameters(cfg, cell):
    """Give another cell as many parameters as the ConvS5 of the same config, within 4 %: S5 has
    more channels and modes, ConvLSTM with its four gates has fewer."""
    if cell in EQUAL:
        cfg.model.d_model, cfg.model.d_state = EQUAL[cell][cfg.model.d_model]


def sweep():
    """The grid of alpha and beta, as options over `get_config()`; a beta of 0 is no filter."""
    cells = [setting(alpha, beta) for alpha in ALPHAS for beta in BETAS]
    return [{**cell, "model.beta.filter": cell["model.beta.init"] != 0} for cell in cells]
