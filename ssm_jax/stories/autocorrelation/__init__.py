"""Studies of initialization from the autocorrelation of the inputs: `ssm-jax autocorrelation`.

Each part is a file with `measure()`, its numbers as JSON can hold them, and `describe(results)`,
lines about them; PART_figure of `plots.autocorrelation` draws it.
"""

from collections.abc import Iterable
from typing import Any

PARTS = ("bound", "memory", "conditioning")


def cells(lengths: Iterable[int]) -> list[dict[str, Any]]:
    """Four rules for dt x Re A in {-1/2, 0} at each length L, as options of an experiment.

    The rules are 1 / L, that of the autocorrelation, 1 / sqrt(L), and S4's, log-uniform in
    [0.001, 0.1]. With model.real_transform=clip nothing else differs.
    """
    found = []
    for L in lengths:
        rules = (
            ("fixed", 1 / L),
            ("autocorrelation", 1e-3),
            ("fixed", L**-0.5),
            ("log_uniform", 1e-3),
        )
        for rule, dt in rules:
            for real in (1.0, 0.0):
                cell = {"data.padded_length": L, "model.dt_rule": rule, "model.dt_min": dt}
                found.append(cell | {"model.alpha_real": real})
    return found
