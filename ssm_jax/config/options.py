"""Every option of an experiment, once, with unit, range and source.

An experiment file calls `default()`, changes some values and returns the ConfigDict. It may not add
a key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

# Options that change what is shown or kept, never a number of the run: they may differ when a run
# goes on.
COSMETIC = ("name", "notes", "log", "checkpoint", "figures", "reference")


def default() -> ConfigDict:
    """Every option with its default. These reproduce no experiment; `configs/` has those."""
    cfg = ConfigDict()
    cfg.name = "unnamed"  # shown in logs and results
    cfg.notes = ""  # what is reduced or else not as published; shown, and kept in every result
    cfg.task = "listops"  # a key of ssm_jax.tasks.TASKS
    cfg.seed = 0  # of parameters, dropout and the order of the data, 0..2^32-1
    cfg.batch_size = 32  # examples per step over all devices, >= 1

    cfg.data = ConfigDict()
    cfg.data.source = "generated"  # or official | sample | fashion_mnist | photographs | stand_in
    cfg.data.seed = 0  # of what is generated, 0..2^32-1; not read for official data
    cfg.data.n_train = 0  # examples made, or used of those there are (evenly spread); 0: all, or
    cfg.data.n_val = 0  # as many as officially
    cfg.data.n_test = 0
    cfg.data.padded_length = 2_048  # L of a batch, with the end-of-sequence token (LRA: 2,048)
    cfg.data.buckets = 1  # lengths L, L/2, L/4, ... a batch may have, >= 1; 1: always L
    cfg.data.mean = 0.0  # real inputs become (p - mean) / std; in units of full white
    cfg.data.std = 1.0  # > 0
    cfg.data.listops = ConfigDict()  # of generated expressions
    cfg.data.listops.shorter_than = 2_000  # tokens: kept are strictly shorter ones (LRA: 2,000) ...
    cfg.data.listops.longer_than = 500  # ... that are strictly longer (LRA: 500)
    cfg.data.listops.max_depth = 10  # nesting, 2..10 (LRA: 10)
    cfg.data.listops.max_args = 10  # operands of one operator, 2..10 (LRA: 10)
    cfg.data.text = ConfigDict()
    cfg.data.text.vocab = "char"  # char (S4) | byte (LRA)
    cfg.data.text.min_freq = 15  # characters rarer in training are unknown, >= 1 (S4: 15)
    cfg.data.text.val_fraction = 0.0  # of training, 0..0.5; 0: val is test, as published
    cfg.data.image = ConfigDict()
    cfg.data.image.n_held_out = 5_000  # training images for validation, 1..49,999 (S4: 5,000)
    cfg.data.pathfinder = ConfigDict()
    cfg.data.pathfinder.upstream = True  # generate with the original's border behaviour
    cfg.data.pathfinder.allow_mismatch = False  # accept official files that are not 200,000 images

    cfg.data.denoise = ConfigDict()
    cfg.data.denoise.height = 2_048  # pixels, >= 1; height * width is data.padded_length
    cfg.data.denoise.width = 128  # pixels, >= 1
    cfg.data.denoise.amplitude = 0.5  # of stripes, at most, >= 0; in units of full white

    cfg.model = ConfigDict()
    cfg.model.layer = "s4d"  # s4d | s5 | s4: a key of ssm_jax.layers.LAYERS
    cfg.model.depth = 6  # residual blocks, >= 1
    cfg.model.d_model = 128  # channels H, >= 1
    cfg.model.d_state = 64  # complex modes N kept per channel, >= 1 (OC-1: conjugates come on top)
    cfg.model.n_ssm = 1  # distinct sets of eigenvalues, a divisor of d_model (OC-6); not in s5
    cfg.model.init = "s4d_lin"  # a key of ssm_jax.init.INITS; in s5 also legs; in s4 legs | fout
    cfg.model.init_seed = 0  # of the inits that draw (ring, dfout), 0..2^32-1; not in s4
    cfg.model.alpha = 1.0  # factor on Im A at initialization, > 0 (OC-2: freqscale)
    cfg.model.alpha_real = 1.0  # factor on Re A at initialization, >= 0; 0: modes without damping
    cfg.model.real_transform = "exp"  # Re A: exp | softplus | relu | clip | stable | none (OC-3)
    cfg.model.beta = ConfigDict()  # exponent of the Sobolev filter (1 + s)^beta
    cfg.model.beta.learn = True  # learned per channel, or fixed at init (OC-10: learned)
    cfg.model.beta.init = 0.0  # start value, -4..4 (OC-10: 0)
    cfg.model.beta.unit = "lra"  # of s: lra | hz_1e4 | denoise | rad (kernels/filter.py)
    cfg.model.dt_min = 1e-3  # time units per sample, > 0; dt starts log-uniform in [dt_min, dt_max]
    cfg.model.dt_max = 1e-1
    cfg.model.dt_transform = "softplus"  # dt = softplus(p) | exp(p) (OC-5: softplus in LRA)
    cfg.model.discretization = "zoh"  # zoh | bilinear (in s4: this) | none (ring, dfout: no dt)
    cfg.model.bidirectional = True  # a second kernel looks ahead (LRA: yes, in all tasks)
    cfg.model.norm = "batch"  # batch | layer
    cfg.model.norm_momentum = 0.1  # weight of a batch in the running statistics, 0..1 (torch: 0.1)
    cfg.model.norm_padding = True  # padded steps count in the statistics of a batch (OC-15: yes)
    cfg.model.prenorm = True  # norm before the layer, and a final norm; or after the residual sum
    cfg.model.final_norm = True  # with prenorm: a norm behind the last block (S4: yes; S5: no)
    cfg.model.gate = "glu"  # glu (S4) | half_glu1 | half_glu2 (S5)
    cfg.model.dropout = 0.0  # rate, 0..1, at the three places of OC-14
    cfg.model.tie_dropout = True  # one mask for all time steps of a channel
    cfg.model.pool = "mean"  # last | mean | first | sum, over the unpadded steps
    cfg.model.activations = "float32"  # float32 | bfloat16: of the residual stream, GELU and gate
    cfg.model.remat = False  # compute blocks again in the backward pass: less memory, more time
    cfg.model.s4d = ConfigDict()  # options of s4d alone
    cfg.model.s4d.input_norm = "none"  # none | lru: input times sqrt(1 - |A_bar|^2) (ring, dfout)
    cfg.model.s5 = ConfigDict()  # options of s5 alone
    cfg.model.s5.n_blocks = 1  # equal blocks of A at initialization, a divisor of d_state
    cfg.model.s5.C_init = "lecun_normal"  # or trunc_standard_normal | complex_normal (OC-26)
    cfg.model.s5.conj_sym = True  # store half of the conjugate pairs; False: all of them
    cfg.model.s5.clip_eigs = False  # keep Re A at most -1e-4
    cfg.model.s4 = ConfigDict()  # options of s4 alone
    cfg.model.s4.b_clip = 2.0  # Im B starts within +-b_clip, >= 0; 0: no clip (OC-27: 2)

    cfg.model.waves = ConfigDict()  # options of the model of the task waves
    cfg.model.waves.legacy_unsymmetric = False  # the filter that the official program has (OC-19)

    cfg.train = ConfigDict()
    cfg.train.epochs = 0.0  # length of training: give epochs or steps, the other stays 0
    cfg.train.steps = 0
    cfg.train.accumulate = 1  # parts of a batch that are computed in turn, a divisor of batch_size
    cfg.train.eval_every = 0  # steps between evaluations; 0: at the end of every epoch
    cfg.train.eval_batch_size = 0  # examples; 0: batch_size
    cfg.train.select_metric = "accuracy"  # of an evaluation; names the best one; one of the task
    cfg.train.select_split = "val"  # train | val; the test split is read once, at the end

    cfg.reference = ConfigDict()  # a run far below what was published early on says so
    cfg.reference.epoch = 0.0  # at this epoch ...
    cfg.reference.accuracy = 0.0  # ... the published validation accuracy, 0..1; 0: none
    cfg.reference.margin = 0.1  # how far below it is far, 0..1

    cfg.optim = ConfigDict()  # AdamW
    cfg.optim.b1 = 0.9  # 0..1
    cfg.optim.b2 = 0.999  # 0..1
    cfg.optim.eps = 1e-8  # > 0
    cfg.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
    cfg.optim.groups = ConfigDict()  # every parameter belongs to exactly one group
    for name, match in (
        ("A", r"/(A_re_raw|A_im|P_ri)$"),
        ("A_im", r"$^"),
        ("B", r"/B_ri$"),
        ("dt", r"/dt_raw$"),
        ("beta", r"/beta$"),
        ("norm", r"(^|/)norm/(scale|bias)$"),
        ("rest", ""),
    ):
        group = ConfigDict()
        group.match = match  # regular expression, searched in blocks/0/ssm/C_ri; "": all others
        group.optional = name not in ("A", "rest")  # may match nothing (A_im: to divide A)
        group.lr = 1e-3  # peak learning rate, >= 0
        group.weight_decay = 0.0  # decoupled (AdamW), >= 0
        group.schedule = "cosine"  # cosine: with warmup, as cfg.schedule says | constant
        cfg.optim.groups[name] = group

    cfg.schedule = ConfigDict()  # factor on the learning rates: linear warmup, then a cosine
    cfg.schedule.warmup_steps = 0  # >= 0
    cfg.schedule.total_steps = 0  # step at which the cosine reaches 0; 0: the last step of training
    cfg.schedule.clamp = True  # stay at 0 past total_steps; False: rise again, as officially

    cfg.checkpoint = ConfigDict()
    cfg.checkpoint.every = 1_000  # steps between saves, >= 1; evaluations save as well
    cfg.checkpoint.keep = 2  # newest checkpoints kept, >= 1; the best one is kept besides

    cfg.log = ConfigDict()
    cfg.log.every = 50  # steps between lines of metrics.jsonl, >= 1
    cfg.log.diagnostics = True  # variation, energy, pole drift by band at every evaluation ...
    cfg.log.gradient = True  # ... and where the poles' gradient comes from: a step more (T1, T2)

    cfg.figures = True  # draw the figures at the end
    return cfg


def rates(cfg: ConfigDict, **groups: tuple[float, float]) -> None:
    """Set (learning rate, weight decay) of parameter groups; B and norms not named are as rest."""
    for name in ("B", "norm"):
        groups.setdefault(name, groups["rest"])
    for name, (lr, weight_decay) in groups.items():
        cfg.optim.groups[name].lr = lr
        cfg.optim.groups[name].weight_decay = weight_decay


def smoke(cfg: ConfigDict) -> ConfigDict:
    """The same experiment for a few steps of few sequences of its own length, with two blocks.

    Where the data are official files, a stand-in takes their place and says so.
    """
    cfg.name += ":smoke"
    cfg.notes = "Smoke run: a few steps of the same code. Its accuracy means nothing."
    if cfg.data.source != "generated":
        cfg.data.source = "stand_in"
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 48, 8, 8
    cfg.batch_size = 4
    cfg.model.depth = 2
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 20, 10
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 5, 20
    if cfg.data.padded_length * cfg.model.d_model > 2_048 * 128:
        cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 2, 6, 3
        cfg.data.n_val, cfg.data.n_test = 4, 4
    cfg.checkpoint.every = 5
    cfg.log.every, cfg.log.gradient = 1, False
    return cfg


def parse_arg(arg: str, **choices: tuple[str, ...]) -> dict[str, str]:
    """The mini-argument behind a config's colon, `file.py:smoke` or `file.py:arm=s4d,smoke`.

    Args:
      arg: comma-separated words; a word is `name=value`, or a value that one option alone has.
      **choices: the allowed values of each option, the first being its default.

    Returns:
      The value of each option.

    Raises:
      ValueError: for a word that no option has, or an option given twice.
    """
    values = {name: allowed[0] for name, allowed in choices.items()}
    given: set[str] = set()
    for word in filter(None, arg.split(",")):
        name, _, value = word.rpartition("=")
        names = [n for n, allowed in choices.items() if value in allowed and name in ("", n)]
        if len(names) != 1:
            listed = "; ".join(f"{n}: {', '.join(allowed)}" for n, allowed in choices.items())
            raise ValueError(f"unknown config argument {word!r}; choose from {listed}.")
        if names[0] in given:
            raise ValueError(f"config argument {names[0]!r} is given twice in {arg!r}.")
        given.add(names[0])
        values[names[0]] = value
    return values


def flatten(cfg: ConfigDict) -> dict[str, Any]:
    """The leaves of a config by dotted key: {"model.alpha": 3.0, ...}, sorted by key."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: ConfigDict) -> None:
        for key in sorted(node.keys()):
            value = node[key]
            if isinstance(value, ConfigDict):
                visit(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    visit("", cfg)
    return flat


def identity(cfg: ConfigDict) -> dict[str, Any]:
    """The flat options that a run's numbers depend on: all but the cosmetic ones."""
    return {k: v for k, v in flatten(cfg).items() if k.split(".")[0] not in COSMETIC}


def digest(cfg: ConfigDict) -> str:
    """Twelve hex digits that name the numbers of a run: SHA-256 over `identity`."""
    text = json.dumps(identity(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
