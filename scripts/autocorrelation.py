"""Measure what the inputs' autocorrelation asks of a new layer: `ssm-jax autocorrelation`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("autocorrelation")
