"""Studies of initialization from the autocorrelation of the inputs: `ssm-jax autocorrelation`.

Each part is a file with `measure()`, its numbers as JSON can hold them, and `describe(results)`,
lines about them; PART_figure of `plots.autocorrelation` draws it.
"""

PARTS = ("bound", "memory", "conditioning")
