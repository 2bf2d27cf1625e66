"""Flax NNX modules: parameters, and one call into the kernels."""

import inspect
from typing import Any

from ssm_jax import outside
from ssm_jax.layers.base import NoStateForm
from ssm_jax.layers.linoss import DLinOSS, LinOSS
from ssm_jax.layers.lru import LRU
from ssm_jax.layers.s4 import S4
from ssm_jax.layers.s4d import S4D
from ssm_jax.layers.s5 import S5
from ssm_jax.options.arguments import SHARED, parameters_of
from ssm_jax.options.rows import OPTIONS, Option

LAYERS: dict[str, Any] = {
    "s4d": S4D, "s4": S4, "s5": S5, "lru": LRU, "linoss": LinOSS, "dlinoss": DLinOSS,
}  # fmt: skip

__all__ = [
    "LAYERS", "LRU", "S4", "S4D", "S5", "DLinOSS", "LinOSS", "NoStateForm", "find_layer",
    "layer_options", "section_of",
]  # fmt: skip

_CALL = "__call__(self, u_BLH, lengths_B=None, *, key=None)"


def find_layer(name: str) -> Any:
    """The class of a layer; ValueError if there is none.

    The name is a key of LAYERS, an entry point of the group ssm_jax.layers, or FILE.py:NAME of a
    class with `__init__(d_model, *, rngs)` and `__call__(u_BLH, lengths_B=None, *, key=None)`.
    """
    if not isinstance(name, str):
        raise ValueError(f"unknown layer {name!r}; choose one of {', '.join(LAYERS)}.")
    layer = outside.find("layer", name, LAYERS)
    takes = parameters_of(layer) if isinstance(layer, type) else {}
    first = next(iter(takes.values()), None)
    named = first is not None and first.name == "d_model" and first.kind != first.KEYWORD_ONLY
    if not named or "rngs" not in takes:
        raise ValueError(f"layer {name}: it must be a class with __init__(d_model, *, rngs).")
    if name not in LAYERS and (fault := _fault_of_call(layer)):
        raise ValueError(f"layer {name} {fault}; give it {_CALL}.")
    return layer


def _fault_of_call(layer: type) -> str:
    """Why a block cannot call a layer of this class; "" if it can."""
    found = next((vars(kind)["__call__"] for kind in layer.__mro__ if "__call__" in vars(kind)), 0)
    if not callable(found):
        return "has no __call__"
    try:
        takes = inspect.signature(found)
    except (TypeError, ValueError):  # of what is not written in Python
        return ""
    try:
        takes.bind("self", "u_BLH", "lengths_B", key=None)
    except TypeError:
        return f"has __call__{takes}"
    return ""


def section_of(name: str) -> str:
    """The section of `cfg.model` with the options that a layer alone has."""
    return name.rpartition(":")[2]


def layer_options(name: str) -> dict[str, Option]:
    """The rows of the options that a layer alone has, by key.

    They are its keywords that no other option gives, as far as their defaults are numbers, words,
    truths or tuples; a class attribute OPTIONS may have rows with more than a default. ValueError
    for an argument that cannot be an option.
    """
    section, layer = f"model.{section_of(name)}", find_layer(name)
    if any(key == section or key.startswith(f"{section}.") for key in OPTIONS):
        raise ValueError(f"layer {name}: {section} has options of ssm_jax; rename the class.")
    said, rows = dict(getattr(layer, "OPTIONS", {})), {}
    for argument, parameter in parameters_of(layer).items():
        default, unnamed = parameter.default, (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if argument in ("d_model", "rngs", "horizon", *SHARED) or parameter.kind in unnamed:
            continue
        if default is inspect.Parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY:
            needs = "a default" if default is inspect.Parameter.empty else "to be a keyword"
            raise ValueError(f"layer {name}: its argument {argument} needs {needs}.")
        if type(default) in (bool, int, float, str, tuple) and default == default:  # no NaN
            row = said.pop(argument, Option(default, f"an argument of {layer.__name__}"))
            if not isinstance(row, Option):
                raise ValueError(f"layer {name}: OPTIONS has {row!r} for {argument}, no Option.")
            rows[f"{section}.{argument}"] = row._replace(default=default)
    for left in said:
        why = "no option of its own" if left in parameters_of(layer) else "no argument"
        raise ValueError(f"layer {name}: OPTIONS has {left}, which is {why}.")
    return rows
