"""State space models whose frequency bias is a choice: alpha at the start, beta in training."""

__version__ = "0.1.0"
