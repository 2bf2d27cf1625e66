"""Wave regression: four waves of 1, 16, 256 and 4,096 rad/s; how much of each is in their sum?

    ssm-jax train --config=waves:baseline --workdir=runs/waves
    ssm-jax waves                       # all four settings of the knobs, with figure and table

The argument names the (alpha, beta) of the official script: baseline (1, 0), high (100, 1), low
(0.01, -1), middle (10, 0.5); `sweep()` lists them. Size `full` is the official experiment, 15,600
steps; `reduced` (the default) has fewer samples per sequence, all waves below Nyquist, and fewer
steps. The filter is the symmetric one that the paper means; --config.model.waves.legacy_unsymmetric
gives the one that the official program has in effect (OC-19).
"""

from ssm_jax.stories.waves import get_config, sweep

__all__ = ["get_config", "sweep"]
