"""Train an experiment, or make a sweep, as jobs of a scheduler: `ssm-jax launch`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("launch")
