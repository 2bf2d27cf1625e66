"""Run an experiment at every value of the options that its file sweeps: `ssm-jax sweep`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("sweep")
