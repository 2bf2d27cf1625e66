"""See which waves a model learns under four settings of alpha and beta: `ssm-jax waves`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("waves")
