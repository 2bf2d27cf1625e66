"""The space of a search: of each option a range or a list of values, as people write them."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssm_jax.config.argv import convert
from ssm_jax.options.rows import shown

DIGITS = 4  # of a number that a search draws: its folder's name then says it exactly


@dataclass(frozen=True)
class Axis:
    """The values that a search may give to one option.

    values: all there are, in their order; () for a range of numbers from `low` to `high`, which
    may be drawn evenly in their logarithm.
    """

    key: str
    text: str  # as it was written
    kind: type
    values: tuple[Any, ...] = ()
    low: Any = 0.0
    high: Any = 0.0
    log: bool = False

    def ends(self) -> tuple[Any, ...]:
        """Those values that tell whether all can be had."""
        return self.values or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.values if self.values else bool(self.low <= value <= self.high)

    def fit(self, value: Any) -> Any:
        """A value that was drawn, with no more digits than a folder's name shows."""
        if self.values or self.kind is int:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


def axis_of(key: str, given: Any, kind: type) -> Axis:
    """An axis as a flag or a search() has it; `kind` is the type of the option.

        0.1..10         a number between two; whole where the option is
        0.1..10:log     evenly in the logarithm
        0.1..10:log:5   five values from the first to the last
        s4d,s4,s5       one of a list; in a file also a list or a tuple

    A ValueError says what does not fit, with the option.
    """
    text = given if isinstance(given, str) else ",".join(map(shown, given))
    try:
        if isinstance(given, str) and ".." in given and kind in (int, float):
            return _range(key, given, kind)
        words = given.split(",") if isinstance(given, str) else given
        values = [convert(word, kind) if isinstance(word, str) else word for word in words]
        values = [float(v) if kind is float and type(v) is int else v for v in values]
        if wrong := [value for value in values if type(value) is not kind]:
            raise ValueError(f"{wrong[0]!r} is no {kind.__name__}")
        if len(set(values)) < len(values) or not values:
            raise ValueError("it names a value twice" if values else "it has no values")
    except (ValueError, TypeError) as error:
        raise ValueError(f"search of {key}={text} does not fit: {error}.") from None
    return Axis(key, text, kind, tuple(values))


def _range(key: str, text: str, kind: type) -> Axis:
    ends, *words = text.split(":")
    low, high = (convert(word, kind) for word in ends.split("..", 1))
    log = words[:1] == ["log"]
    counts = words[log:]
    if counts[1:] or (counts and not counts[0].isdecimal()):
        raise ValueError("write LOW..HIGH, LOW..HIGH:log, or either with a number of values, :5")
    if not low < high:
        raise ValueError(f"{shown(low)} is not below {shown(high)}")
    if log and low <= 0:
        raise ValueError("a logarithm needs numbers above 0")
    if not counts:
        return Axis(key, text, kind, (), low, high, log)
    if (count := int(counts[0])) < 2:
        raise ValueError("a range has two values at least")
    one, other = (math.log(low), math.log(high)) if log else (low, high)
    even = [one + (other - one) * i / (count - 1) for i in range(count)]
    drawn = [math.exp(v) if log else v for v in even]
    if kind is int:
        return Axis(key, text, kind, tuple(dict.fromkeys(map(round, drawn))))
    inner = [float(f"{v:.{DIGITS}g}") for v in drawn[1:-1]]
    values = tuple(dict.fromkeys((low, *inner, high)))
    return Axis(key, text, kind, values)


def points_of(axes: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """Every point of a grid. ValueError for an axis that is a range without a number of values."""
    lists = {}
    for axis in axes.values():
        whole = axis.kind is int and not axis.log
        lists[axis.key] = axis.values or (range(axis.low, axis.high + 1) if whole else ())
        if not lists[axis.key]:
            raise ValueError(
                f"a grid needs the values of {axis.key}, and {axis.text} is a range; say how many, "
                f"{axis.text}:5, or list them."
            )
    for point in itertools.product(*lists.values()):
        yield dict(zip(lists, point, strict=True))
