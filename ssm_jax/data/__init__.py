"""Data sets: generated or read, prepared once as memory-mapped arrays, loaded by batch number."""
