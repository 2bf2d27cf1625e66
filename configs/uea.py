"""The benchmark of LinOSS, Log-NCDE and others in JAX: six sets of the UEA archive, and PPG-DaLiA.

    ssm-jax train --config=uea:EigenWorms,s4d_ft --from=Multivariate_ts --workdir=runs/worms
    ssm-jax sweep uea:Heartbeat,s4d uea:Heartbeat,s4d_ft --from=Multivariate_ts
        --seeds=2345,3456,4567,5678,6789 --folder=runs/heartbeat
    ssm-jax train --config=uea:PPG,s4d --from=PPG_FieldStudy --workdir=runs/ppg
    ssm-jax train --config=uea:BasicMotions,s5 --from=aeon-1.6.0-py3-none-any.whl --workdir=runs/b

The published protocol (docs/benchmark.md says where ours departs): all series of a set, without
repetitions, in 70 : 15 : 15 by the seed; Adam at a constant rate, an evaluation every 1,000 steps,
an end after 11 without a better one; inputs as they are. Variants differ in the layer alone, at the
point chosen for LinOSS: s4d_ft, s4d, s5, or any other layer as it is by default (lru, linoss,
dlinoss, s4, FILE.py:NAME). `published` is the point that was chosen for the layer itself.
The sets of packages (configs/packaged.py) have the same protocol, at a point that nobody chose.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants

SEEDS = (2345, 3456, 4567, 5678, 6789)
# Rate, depth, width, state, elapsed time: of LinOSS (tk-rusch/linoss, arXiv:2410.03943) ...
POINTS = {
    "EigenWorms": (1e-3, 2, 128, 64, True),
    "EthanolConcentration": (1e-5, 4, 16, 16, False),
    "Heartbeat": (1e-3, 6, 16, 16, True),
    "MotorImagery": (1e-5, 2, 128, 16, False),
    "SelfRegulationSCP1": (1e-4, 6, 128, 256, True),
    "SelfRegulationSCP2": (1e-5, 6, 64, 256, True),
    "PPG": (1e-3, 6, 16, 64, True),
}
# ... and of S5, with its blocks (experiment_configs/repeats of Benjamin-Walker/log-neural-cdes). Of
# the state S5 keeps one of each conjugate pair.
S5 = {
    "EigenWorms": (1e-3, 2, 128, 256, True, 8),
    "EthanolConcentration": (1e-5, 2, 128, 16, True, 8),
    "Heartbeat": (1e-3, 4, 128, 16, False, 4),
    "MotorImagery": (1e-3, 6, 16, 64, False, 4),
    "SelfRegulationSCP1": (1e-3, 6, 128, 16, False, 8),
    "SelfRegulationSCP2": (1e-4, 2, 16, 64, True, 2),
    "PPG": (1e-3, 6, 16, 256, True, 8),
}
LRU = {  # and of LRU
    "EigenWorms": (1e-3, 6, 128, 16, True),
    "EthanolConcentration": (1e-4, 2, 128, 16, False),
    "Heartbeat": (1e-4, 6, 128, 256, False),
    "MotorImagery": (1e-3, 6, 64, 256, False),
    "SelfRegulationSCP1": (1e-3, 2, 64, 16, False),
    "SelfRegulationSCP2": (1e-3, 2, 64, 16, True),
    "PPG": (1e-3, 6, 16, 256, True),
}
PACKAGED = (
    *("BasicMotions", "JapaneseVowels", "PLAID", "ACSF1", "OSULeaf", "ArrowHead", "GunPoint"),
    *("ItalyPowerDemand", "PickupGestureWiimoteZ"),
)
VARIANTS = ("s4d_ft", "s4d", "s5")


def get_config(arg=""):
    known = {"set": (*POINTS, *PACKAGED), "variant": VARIANTS, "point": ("equal", "published")}
    name, variant, point = config_lib.parse_arg(arg, **variants.with_layers(arg, **known)).values()
    cfg = config_lib.default("per_step" if name == "PPG" else "classification")
    cfg.name = f"uea/{name}:{variant.rpartition(':')[2]}" + (
        ":published" if point == "published" else ""
    )
    cfg.seed, cfg.data.seed = SEEDS[0], -1
    data, model = cfg.data.arrays, cfg.model
    cfg.data.source, cfg.data.padded_length = "package" if name in PACKAGED else "files", 0
    data.standardize = "none"
    if name == "PPG":  # has one split for all seeds
        model.pool, cfg.train.select_metric = "none", "mse"
    else:
        data.set, data.split, data.val, data.test = name, "merged", 0.15, 0.15
    rate, *sizes, state, data.elapsed = POINTS.get(name, (1e-3, 4, 64, 64, False))
    if variant == "s4d_ft":
        model.alpha = 3.0
    else:
        model.beta.learn, model.beta.filter = False, False
    if variant == "s5":
        of_s5(model)
    elif variant not in known["variant"]:
        config_lib.override(cfg, {"model.layer": variant})
    if variant == "linoss" and name == "SelfRegulationSCP2":
        model.linoss.scheme = "imex"  # the better of the two on this set alone
    if point == "published":
        rate, sizes, state = at_published(cfg, name, variant)
    (model.depth, model.d_model), model.d_state = sizes, state
    model.bidirectional, model.final_norm, model.norm_padding = False, False, False
    model.norm_momentum = 0.01  # Equinox counts the other way, 0.99
    model.dropout, model.tie_dropout = 0.05, False
    once = rate, 0.0
    config_lib.rates(cfg, A=once, dt=once, beta=once, rest=once)
    cfg.optim.groups.norm.freeze = True  # no scale and no bias
    cfg.schedule.shape = "constant"
    cfg.train.steps, cfg.train.eval_every, cfg.train.patience = 100_000, 1_000, 11
    elsewhere = name == "EigenWorms" and point == "published" and variant != "linoss"
    cfg.batch_size = 4 if name in ("EigenWorms", "PPG") and not elsewhere else 32
    cfg.log.every = 100
    return cfg


def of_s5(model):
    """Set what S5 has apart from its size."""
    model.layer, model.init = "s5", "legs"
    model.real_transform, model.dt_transform = "none", "exp"


def at_published(cfg, name, variant):
    """Rate, depth and width, and state of the point that was chosen for a layer itself."""
    points: dict[str, dict[str, tuple]] = {"s5": S5, "lru": LRU, "linoss": POINTS}
    own = points.get(variant, {})
    if name not in own:
        raise ValueError(
            f"{variant} has no published point for {name}; without `published` it is at LinOSS's."
        )
    rate, depth, width, state, cfg.data.arrays.elapsed, *blocks = own[name]
    if blocks:
        cfg.model.s5.n_blocks, state = blocks[0], state // 2
    return rate, (depth, width), state


def sweep():
    """The published search, 162 points."""
    return [
        {
            "optim.lr": rate, "model.depth": depth, "model.d_model": width,
            "model.d_state": state, "data.arrays.elapsed": elapsed,
        }
        for rate in (1e-3, 1e-4, 1e-5)
        for depth in (2, 4, 6)
        for width in (16, 64, 128)
        for state in (16, 64, 256)
        for elapsed in (False, True)
    ]  # fmt: skip
