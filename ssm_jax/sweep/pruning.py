"""Which runs are not worth their last steps, by the validation curves of all.

Two rules with nothing to train or to store: a function of curves, for runs side by side as for the
members of a population.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Curve = Sequence[tuple[int, float]]  # (step, value on validation), in the order of the steps
RULES = ("median", "asha", "none")
STARTUP = 5  # curves that the median needs: that of two runs says nothing
FACTOR = 3  # of the runs that reach a rung one in so many goes on


@dataclass(frozen=True)
class Rule:
    """When a run ends early.

    kind: "median": its best value so far is worse than the median of the others at this step
      (Golovin et al. 2017, Vizier, 3.2.2, as Optuna has it). "asha": at a rung it is not among the
      best 1 / FACTOR of those that have come there (Li et al. 2020, arXiv:1810.05934). "none".
    better: "max" or "min".
    rungs: steps at which "asha" decides.
    """

    kind: Literal["median", "asha", "none"]
    better: Literal["max", "min"]
    rungs: tuple[int, ...] = ()

    def prunes(self, curve: Curve, others: Iterable[Curve]) -> str:
        """Why a run should end at the last point of its curve; "" if it should go on.

        `others` are the curves of the runs to compare with: for "median" those that trained to
        their end, since all were good enough to; for "asha" all that have begun. A value that is
        not finite is the worst.
        """
        if not curve or self.kind == "none":
            return ""
        return (self._median if self.kind == "median" else self._asha)(curve, list(others))

    def chosen(
        self, curves: Mapping[str, Curve], live: Collection[str], before: Sequence[Curve] = ()
    ) -> dict[str, str]:
        """Of members that train side by side those of the `live` ones that end now, and why.

        All have come to this evaluation before one is judged, and by the curves of all others, also
        of those that have ended: "asha" is successive halving (Jamieson and Talwalkar 2016), and
        for "median" one that has ended counts with its last value. `before` are curves of runs that
        have ended before.
        """
        found = {}
        for name in live:
            others = [curve for other, curve in curves.items() if other != name]
            if why := self.prunes(curves[name], [*others, *before]):
                found[name] = why
        return found

    def _median(self, curve: Curve, others: list[Curve]) -> str:
        step = curve[-1][0]
        there = [v for v in (_last_until(each, step) for each in others) if v is not None]
        if len(there) < STARTUP:
            return ""
        best = max(self._merit(value) for _, value in curve)
        middle = statistics.median(map(self._merit, there))
        if best >= middle:
            return ""
        best_shown, middle_shown = self._apart(best, middle)
        return f"its best {best_shown} is worse than the median {middle_shown}"

    def _asha(self, curve: Curve, others: list[Curve]) -> str:
        before = curve[-2][0] if len(curve) > 1 else -1
        step, value = curve[-1]
        for rung in (rung for rung in self.rungs if before < rung <= step):
            if not math.isfinite(value):
                return f"{value} at step {step:,}"
            there = (_first_from(each, rung) for each in others)
            merits = [self._merit(value), *(self._merit(v) for v in there if v is not None)]
            kept = max(1, len(merits) // FACTOR)
            if merits[0] < sorted(merits, reverse=True)[kept - 1]:
                return f"{value:.4g} is not among the best {kept} of {len(merits)} at step {rung:,}"
        return ""

    def _merit(self, value: float) -> float:
        """A number that is larger for a better value."""
        if not math.isfinite(value):
            return -math.inf
        return value if self.better == "max" else -value

    def _apart(self, *merits: float) -> list[str]:
        """Two values that differ, in as many digits as show it."""
        values = [merit if self.better == "max" else -merit for merit in merits]
        texts = ([f"{value:.{digits}g}" for value in values] for digits in range(4, 18))
        return next(pair for pair in texts if pair[0] != pair[1])


def idle(kind: str, runs: int, total: int, every: int) -> str:
    """Why a rule ends none of so many runs of `total` steps; "" if it may end some."""
    if kind == "median" and runs <= STARTUP:
        return f"--pruner=median ends no run early: it needs {STARTUP + 1} runs, and has {runs}"
    if kind == "median" and every >= total:
        return (
            "--pruner=median ends no run early: the first evaluation is the last; give a smaller "
            "--config.train.eval_every"
        )
    if kind == "asha" and not rungs_of(total, every):
        return (
            f"--pruner=asha ends no run early: of {total:,} steps, evaluated every {every:,}, none "
            f"is a rung; give --config.train.eval_every={max(1, total // FACTOR)} or less, or more "
            "steps"
        )
    return ""


def rungs_of(total: int, every: int) -> tuple[int, ...]:
    """The rungs of a run of `total` steps: total / FACTOR^k, down to its first evaluation."""
    rungs = []
    while (total := total // FACTOR) >= every:
        rungs.append(total)
    return tuple(sorted(rungs))


def _last_until(curve: Curve, step: int) -> float | None:
    """The value at a step; of a curve that has none there, the last before."""
    return next((value for at, value in reversed(curve) if at <= step), None)


def _first_from(curve: Curve, step: int) -> float | None:
    """The value with which a run came to a rung."""
    return next((value for at, value in curve if at >= step), None)
