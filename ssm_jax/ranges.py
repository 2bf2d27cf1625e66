"""The checks of `options`, under the name that the layers import; it goes when they do."""

from ssm_jax.options import POSITIVE, SIZE, Range, check, check_choice, divides

__all__ = ["POSITIVE", "SIZE", "Range", "check", "check_choice", "divides"]
