"""Choose alpha and beta from the spectrum of the input: `ssm-jax spectrum`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("spectrum")
