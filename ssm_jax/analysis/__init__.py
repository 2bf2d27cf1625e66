"""What a model has learned, and what its inputs are like: spectra, eigenvalues, autocorrelation."""

from ssm_jax.analysis.autocorrelation import lambda_max as lambda_max
