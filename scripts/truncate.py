"""Keep the state of a trained model that counts: `ssm-jax truncate`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("truncate")
