"""The random generators of the Long Range Arena: ListOps trees, Pathfinder and Path-X images.

    import numpy as np
    from lra_generators import listops, pathfinder

    draws = listops.Draws(np.random.Philox(0), shorter_than=2000, max_args=10)
    tree = listops.grow(draws, shorter_than=2000, max_depth=10)     # (tokens, value) or None
    images = pathfinder.sketches(np.random.Philox(0), rows=10)      # .pixels (32, 32), .label

All randomness is raw words of a bit generator, which no upgrade of NumPy changes (NEP 19), so a
seed means the same data for ever. The package needs NumPy and Pillow alone, and Numba to be 15
times as fast. `ssm_jax.lra` turns what it draws into data sets.
"""
