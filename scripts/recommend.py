"""Advise on the initialization for given inputs, or say why not: `ssm-jax recommend`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("recommend")
