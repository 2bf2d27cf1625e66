"""The options of an experiment: a row for each, and the arguments of constructors that they are."""

from ssm_jax.options.arguments import arguments_of as arguments_of
from ssm_jax.options.rows import Option as Option
from ssm_jax.options.rows import Range as Range
