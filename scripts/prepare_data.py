"""Prepare the data of the Long Range Arena: `ssm-jax prepare`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("prepare")
