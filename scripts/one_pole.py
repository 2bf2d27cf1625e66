"""Train one pole towards a target at a growing distance: `ssm-jax one-pole`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("one-pole")
