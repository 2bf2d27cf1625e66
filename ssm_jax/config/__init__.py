"""Options of an experiment: their rows, checks, files and command lines."""

from ssm_jax.config.options import (
    COSMETIC,
    default,
    digest,
    flatten,
    identity,
    parse_arg,
    rates,
    smoke,
)

__all__ = [
    "COSMETIC",
    "default",
    "digest",
    "flatten",
    "identity",
    "parse_arg",
    "rates",
    "smoke",
]
