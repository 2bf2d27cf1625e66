"""Train one experiment, or continue it: `ssm-jax train`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("train")
