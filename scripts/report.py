"""Print the table of the Long Range Arena: `ssm-jax report`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("report")
