"""Ablation: alpha x beta on images read pixel by pixel, 1,024 steps, with beta fixed in each run.

    ssm-jax prepare image --source=fashion_mnist
    ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation
    ssm-jax sweep --config=ablation/image --folder=runs/full --seeds=3

The data are Fashion-MNIST, padded to 32 x 32; --config.data.source=official is gray CIFAR-10. With
:learned, beta is learned from 0 and alpha alone is swept. Ours, reduced: results/ablation/. At full
size, 75 runs of about 9 minutes each (1.8 steps per second on two CPU cores): not run.
"""

from ssm_jax import config as config_lib

# The highest mode of a channel has the angle alpha pi (N - 1) dt, and dt is log-uniform in
# [0.001, 0.1]: with N = 32 and alpha = 0.1 no channel has a mode beyond a third of Nyquist, with
# alpha = 10 half of all modes are beyond it. ssm-jax spectrum counts them.
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
# Gain at Nyquist (1 + pi)^beta: 0.24, 0.49, 1, 2.0, 4.1
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)

ARGUMENTS = {"size": ("full", "smoke", "reduced"), "beta": ("fixed", "learned")}


def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, **ARGUMENTS)
    cfg = config_lib.default()
    cfg.name, cfg.task = "ablation/image", "image"
    cfg.batch_size = 50
    cfg.data.source = "fashion_mnist"
    cfg.data.padded_length = 1_024
    cfg.data.mean, cfg.data.std = 0.5, 0.5
    cfg.data.n_val = 1_000
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 4, 64, 32
    cfg.model.alpha = 1.0
    cfg.model.beta.learn, cfg.model.beta.init = False, 0.0
    cfg.model.beta.unit = "rad"  # (1 + |s|)^beta as the theory has it, not lra's 1.5^beta at most
    cfg.train.steps, cfg.train.eval_every = 800, 400
    cfg.train.eval_batch_size = 250
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), beta=(0.01, 0.0), rest=(0.01, 0.01))
    cfg.schedule.warmup_steps = 80
    cfg.figures = False  # four for each run of a sweep: --config.figures=true has them
    if chosen["beta"] == "learned":
        cfg.name += ":learned"
        cfg.model.beta.learn = True
    if chosen["size"] == "reduced":
        cfg.name += ":reduced"
        cfg.notes = (
            "Reduced: 2 blocks of 32 channels with 16 modes, 200 steps of 50 images, 4,000 test "
            "images."
        )
        cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 16
        cfg.data.n_test = 4_000
        cfg.train.steps, cfg.train.eval_every = 200, 200
        cfg.schedule.warmup_steps = 20
    return config_lib.smoke(cfg) if chosen["size"] == "smoke" else cfg


def sweep(arg=""):
    """Every alpha with every beta; of a learned beta, every alpha."""
    if config_lib.parse_arg(arg, **ARGUMENTS)["beta"] == "learned":
        return [{"model.alpha": alpha} for alpha in ALPHAS]
    return [{"model.alpha": alpha, "model.beta.init": beta} for alpha in ALPHAS for beta in BETAS]
