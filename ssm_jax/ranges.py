"""What numbers and switches may be, by name: in constructors, and in the options that feed them."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)  # below it float32 arithmetic has only 0


class Range(NamedTuple):
    """Finite numbers between two bounds; `str` says which, behind "must be"."""

    low: float
    high: float = math.inf
    above: bool = False  # low itself is out
    below: bool = False  # high itself is out
    whole: bool = False  # integers alone

    def holds(self, value: Any) -> bool:
        """Whether a value is such a number, and finite and inside when rounded to float32."""
        if isinstance(value, bool | np.bool_ | str | bytes) or np.ndim(value):
            return False
        if self.whole and not isinstance(value, numbers.Integral):
            return False
        try:
            with np.errstate(over="ignore", under="ignore"):
                number, rounded = float(value), float(np.float32(value))
        except (TypeError, ValueError, OverflowError):
            return False
        above = not self.above or rounded >= self.low + _SMALLEST
        below = not self.below or rounded < self.high
        return math.isfinite(rounded) and self.low <= number <= self.high and above and below

    def __str__(self) -> str:
        if self.above and self.low == 0:
            low = "positive"
        else:
            low = f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.high < math.inf:
            return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"
        return low if self.whole else f"{low} and finite"


SIZE = Range(1, whole=True)
POSITIVE = Range(0, above=True)
SWITCH = (True, False)
OPTIONAL = ("beta", "learn_beta", "b_clip", "vocab_size", "d_input")  # None: there is none

RANGES: dict[str, Range | tuple] = {
    **dict.fromkeys(("d_model", "d_state", "depth", "n_classes", "vocab_size", "d_input"), SIZE),
    **dict.fromkeys(("n_sets", "order", "width", "length", "channels", "num_features"), SIZE),
    "seed": Range(0, 2**32 - 1, whole=True),
    "init_seed": Range(0, 2**32 - 1, whole=True),
    "alpha": POSITIVE,
    "alpha_real": Range(0),
    "beta": Range(-4, 4),
    "b_clip": POSITIVE,
    "dt_min": POSITIVE,
    "dt_max": POSITIVE,
    "dropout": Range(0, 1, below=True),
    "norm_momentum": Range(0, 1),
    "momentum": Range(0, 1),
    **dict.fromkeys(("bidirectional", "tie_dropout", "skip", "conj_sym", "clip_eigs"), SWITCH),
    **dict.fromkeys(("norm_padding", "prenorm", "final_norm", "remat", "learn_beta"), SWITCH),
    "legacy_unsymmetric": SWITCH,
}


def check(owner: str, **values: Any) -> None:
    """Pass values that are in the range of their name.

    Raises:
      ValueError: for the first other one: the owner, the name, what it must be, and what it is.
    """
    for name, value in values.items():
        allowed = RANGES[name]
        if value is None and name in OPTIONAL:
            continue
        if isinstance(allowed, Range):
            if not allowed.holds(value):
                kind = "an integer, " if allowed.whole and not _is_integer(value) else ""
                raise ValueError(f"{owner}: {name} must be {kind}{allowed}, got {value!r}.")
        elif not isinstance(value, bool | np.bool_):
            raise ValueError(f"{owner}: {name} must be True or False, got {value!r}.")


def check_choice(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Pass a member of a set of words.

    Raises:
      ValueError: for another value.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{owner}: unknown {name} {value!r}; choose one of {', '.join(allowed)}.")


def divides(part: Any, whole: int) -> bool:
    """Whether a value is a positive integer without remainder in another."""
    return SIZE.holds(part) and whole % part == 0


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)
