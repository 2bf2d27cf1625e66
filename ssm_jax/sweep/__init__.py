"""Sweeps: one experiment at every value of some options and with several seeds."""
