"""See a frequency bias strengthened, weakened and reversed: `ssm-jax denoise`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("denoise")
