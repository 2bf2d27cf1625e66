"""See whether alpha moves what LinOSS learns, on four sets: `ssm-jax linoss`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("linoss")
