"""Waves: which of four frequencies a model learns first."""
