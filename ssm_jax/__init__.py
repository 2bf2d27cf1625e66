"""State space models in JAX whose frequency bias is a choice: alpha at initialization, beta in training."""

__version__ = "0.1.0"
