"""See what alpha and beta do to the peaks of a flow: `ssm-jax runoff`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("runoff")
