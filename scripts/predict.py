"""Predict series of a file with the model of a run: `ssm-jax predict`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("predict")
