"""Rainfall and runoff: the flow of a day from a year of weather, in many basins at once.

Source: S4D-FT on CAMELS-US, Wang et al., Water Resour. Res. 61 (2025), arXiv:2501.14980.
"""

from ssm_jax.options.rows import since_0_2
from ssm_jax.tasks import Lazy, Task

_HERE = "ssm_jax.stories.runoff"
RUNOFF = Task(
    open_data=Lazy(f"{_HERE}.data:open_runoff"),
    build_model=Lazy("ssm_jax.tasks.heads:build_network"),
    train_sums=Lazy(f"{_HERE}.task:train_sums"),
    eval_sums=Lazy(f"{_HERE}.task:eval_sums"),
    outputs=Lazy("ssm_jax.tasks.heads:outputs"),
    metrics={"mse": "min", "nse": "max", "kge": "max", "missed_peaks": "min", "loss": "min"},
    summary=Lazy(f"{_HERE}.task:summary"),
    scores=Lazy(f"{_HERE}.task:scores"),
    options={
        "data.runoff.forcing": since_0_2(
            "daymet", "folder of basin_mean_forcing, such as nldas_extended"
        ),
        "data.runoff.basins": since_0_2(
            "", "text file with the ID of a basin in each line; empty: all"
        ),
        "data.runoff.attributes": since_0_2(
            True, "27 attributes of the basin beside the weather of each step"
        ),
        "data.runoff.train": since_0_2(
            "1999-10-01..2007-09-30", "days whose flow is learned",
            source="published: to 2008-09-30",
        ),
        "data.runoff.val": since_0_2("2007-10-01..2008-09-30", "days that choose"),
        "data.runoff.test": since_0_2(
            "1989-10-01..1999-09-30", "days that test", source="as published"
        ),
        "data.runoff.weight": since_0_2(
            "basin", "of squared errors: 1 / (standard deviation of the basin's flow + 0.1 mm)^2",
            choices=("basin", "none"), source="Kratzert et al. 2019",
        ),
    },
    sources=("files", "package", "generated"),
    faults=Lazy(f"{_HERE}.data:faults"),
    network=Lazy("ssm_jax.models:SequenceClassifier"),
)  # fmt: skip

SCRIPT = 0.5**10 / 0.5  # alpha_real with which Re A starts at -0.5^10, as in the published program
UNITS = {"alpha": "model.alpha", "alpha_real": "model.alpha_real", "beta": "model.beta.init"}


def setting(alpha, alpha_real, beta):
    """One setting of the three knobs, as options; a beta of 0 is no filter."""
    values = (alpha, alpha_real, beta)
    return {**dict(zip(UNITS.values(), values, strict=True)), "model.beta.filter": beta != 0}


def sweep():
    """alpha on both parts of A, the published program's 10, and beta at alpha = 1."""
    knobs = [(a, a, 0.0) for a in (1.0, 3.0, 10.0)]
    knobs += [(10.0, SCRIPT, 0.0), (1.0, 1.0, -0.5), (1.0, 1.0, 0.5)]
    return [setting(*each) for each in knobs]
