"""A small classifier, and the same one moved as training would move it."""

import jax
import numpy as np
from flax import nnx

from ssm_jax.analysis.spectra import LayerView, layers_of
from ssm_jax.models import SequenceClassifier


def classifier(depth: int = 2, layer: str = "s4d", **ssm) -> SequenceClassifier:
    return SequenceClassifier(
        n_classes=10,
        vocab_size=18,
        d_model=6,
        depth=depth,
        layer=layer,
        ssm={"d_state": 4, "alpha": 3.0, **ssm},
        rngs=nnx.Rngs(params=jax.random.key(0)),
    )


def moved(model: SequenceClassifier) -> SequenceClassifier:
    """Every trained number of the layers changed, by seed 0."""
    random = np.random.default_rng(0)
    for block in model.blocks:
        for name in ("A_re_raw", "A_im", "dt_raw", "P_ri", "B_ri", "C_ri", "beta"):
            variable = getattr(block.ssm, name, None)
            if isinstance(variable, nnx.Param):
                change = 0.3 * random.normal(size=variable[...].shape)
                variable.set_value(variable[...] + change.astype(np.float32))
    return model


def before_and_after(**options) -> tuple[list[LayerView], list[LayerView]]:
    return layers_of(classifier(**options)), layers_of(moved(classifier(**options)))
