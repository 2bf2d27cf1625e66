"""Explain a checkpoint: what its layers do to frequencies: `ssm-jax analyze`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("analyze")
