"""The arguments of constructors: which options they are, and what they may be."""

import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from ssm_jax.options.rows import BOOLS, OPTIONS, POSITIVE, SEED, SHARE, SIZE, Range

_MODEL = {k.removeprefix("model."): row for k, row in OPTIONS.items() if k.startswith("model.")}
# The options of `cfg.model` that are in no layer's or task's own section, by argument.
SHARED = {key: key for key in _MODEL if "." not in key}
SHARED |= {"beta": "beta.init", "learn_beta": "beta.learn", "beta_unit": "beta.unit"}
# What an argument may be, by its name
_ROWS = {key.rpartition(".")[2]: row for key, row in _MODEL.items() if "beta." not in key}
_ROWS |= {name: _MODEL[key] for name, key in SHARED.items()}
_ALLOWED: dict[str, Any] = {
    **{name: row.within or row.choices or type(row.default) for name, row in _ROWS.items()},
    # Arguments that are no options, or not quite the option of their name
    **dict.fromkeys(("n_classes", "vocab_size", "d_input", "n_sets", "order", "width"), SIZE),
    **dict.fromkeys(("length", "channels", "num_features"), SIZE),
    **dict.fromkeys(("skip", "legacy_unsymmetric", "oscillators"), bool),
    "seed": SEED,
    "momentum": SHARE,
    "b_clip": POSITIVE,
}


def parameters_of(constructor: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor by name.

    Of a class, whose own Flax hides behind its metaclass, with the keywords that it hands to its
    bases in **shared.
    """
    if not isinstance(constructor, type):
        return inspect.signature(constructor).parameters
    found: dict[str, inspect.Parameter] = {}
    rest = None  # the name of **shared
    for kind in constructor.__mro__[:-1]:
        if "__init__" in vars(kind):
            _, *parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
            handed_on = found.pop(rest or "", None)
            for p in parameters:
                if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) or handed_on is None:
                    found.setdefault(p.name, p)
            rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
            if rest is None:
                break
    return found


def arguments_of(
    constructor: Callable[..., Any], options: Mapping[str, Any], section: str = ""
) -> dict[str, Any]:
    """Those arguments of a constructor that are options of `cfg.model`: shared, or of a section."""
    parameters = parameters_of(constructor)
    found = {}
    for name in parameters:
        if name in options.get(section, {}):
            value, row = options[section][name], OPTIONS.get(f"model.{section}.{name}")
            found[name] = None if row is not None and value == row.absent else value
        elif name in SHARED:
            head, _, rest = SHARED[name].partition(".")
            found[name] = options[head][rest] if rest else options[head]
    if "beta" in found:
        beta = options["beta"]
        # Where a layer has no filter by default, a fixed beta of 0 is none either.
        idle = not beta["learn"] and beta["init"] == 0 and parameters["beta"].default is None
        if idle or not beta["filter"]:
            found |= {"beta": None} | ({"learn_beta": False} if "learn_beta" in found else {})
    return found


def check(owner: str, arguments: Mapping[str, Any], *others: str) -> None:
    """Raise ValueError for the first argument outside the range, or the choices, of its name.

    `arguments` may be the `locals()` of a constructor: what is no option, or is one of `others`, is
    not looked at.
    """
    may_be_none = ("beta", "learn_beta", "b_clip", "vocab_size", "d_input")
    for name, value in arguments.items():
        if name not in _ALLOWED or name in others or (value is None and name in may_be_none):
            continue
        allowed = _ALLOWED[name]
        if isinstance(allowed, Range):
            if not allowed.holds(value):
                whole = isinstance(value, numbers.Integral) and not isinstance(value, BOOLS)
                kind = "an integer, " if allowed.whole and not whole else ""
                raise ValueError(
                    f"{owner}: {name} must be {kind}{allowed.unlike(value)}, got {value!r}."
                )
        elif isinstance(allowed, tuple):
            check_choice(owner, name, value, allowed)
        elif allowed is bool and not isinstance(value, BOOLS):
            raise ValueError(f"{owner}: {name} must be True or False, got {value!r}.")


def check_choice(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for what is not one of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{owner}: unknown {name} {value!r}; choose one of {', '.join(allowed)}.")
