"""What a model has learned: its spectra, and the figures of a run."""
