"""Several runs of one experiment under different settings, and what they show together."""
