"""Settings of all tests."""

import jax

# An (H,) added to a (B, L, H) by accident is an error, not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")
