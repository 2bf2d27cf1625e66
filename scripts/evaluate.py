"""Evaluate a checkpoint of a run on a split: `ssm-jax evaluate`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("evaluate")
