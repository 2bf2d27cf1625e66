"""What several seeds say: half of the 95 % interval of a mean, and of differences."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def deviation(
    values: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.stdev
) -> float:
    """The standard deviation, by default of a sample; NaN where one of the values is not finite.

    A metric may be NaN (KGE of constant forecasts), on which `statistics` ends in a traceback.
    """
    return of(values) if all(map(math.isfinite, values)) else math.nan


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # here: it takes a tenth of a second

    return float(stdtrit(len(values) - 1, 0.975)) * deviation(values) / len(values) ** 0.5


def welch(one: tuple[float | None, int], other: tuple[float | None, int]) -> float | None:
    """Half of the 95 % interval of the difference of two means, by Welch's t.

    Each is a population standard deviation and the number of values. None: one has no spread.
    """
    parts = []
    for std, n in (one, other):
        if std is None or n < 2:
            return None
        parts.append((std**2 / (n - 1), n - 1))  # the squared error of the mean, and its freedom
    total = sum(square for square, _ in parts)
    if not total:
        return 0.0
    from scipy.special import stdtrit

    freedom = total**2 / sum(square**2 / free for square, free in parts)
    return float(stdtrit(freedom, 0.975)) * total**0.5


def paired(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, Any] | None:
    """The mean of one - other over the seeds that both have, {"mean", "half_width", "n"}.

    Seeds share the order of the data and the kind of start, so that a difference within a seed
    varies less than the runs do. None for fewer than two such seeds.
    """
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    width = half_width(differences)
    if width is None:
        return None
    mean = statistics.fmean(differences)
    return {"mean": mean, "half_width": width, "n": len(differences)}
