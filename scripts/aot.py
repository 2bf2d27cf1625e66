"""Compile an experiment for an accelerator that is not there: `ssm-jax aot`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("aot")
