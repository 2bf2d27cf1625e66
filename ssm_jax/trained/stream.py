"""A trained model step by step: the state of each layer, and of the pool, is all it remembers."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.layers.base import NoStateForm
from ssm_jax.trained.predict import has_filter, in_units, layers_of, plain

if TYPE_CHECKING:
    from ssm_jax.trained.model import Trained


class Stream:
    """A causal model that takes one step of B sequences after the other.

    What it says after n steps is what `Trained.predict` says of the first n, to float32's rounding
    at any n; of a forecast, what it says when it sees all of them. A step is compiled once, with
    the weights as constants.

    NoStateForm, a ValueError: the model looks ahead or has a filter; it says how to train one that
    does not.
    """

    def __init__(self, trained: "Trained", batch_size: int = 1) -> None:
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(
                f"batch_size={batch_size} must be a whole number of sequences, from 1."
            )
        network, self.preprocessing = trained.network, trained.preprocessing
        _refuse(network, self.preprocessing)
        network = plain(network)
        for layer in layers_of(network):
            _keep_transition(layer)
        self.batch_size, self._fresh = batch_size, lambda: network.initial_state(batch_size)
        tokens = trained.built_from.get("d_input") is None
        self._shape = (batch_size,) if tokens else (batch_size, trained.built_from["d_input"])
        self._type = np.int32 if tokens else np.float32
        self._vocab_size: Any = trained.built_from.get("vocab_size")
        self.state: Any = self._fresh()
        shapes = jax.eval_shape(self._fresh), jax.ShapeDtypeStruct(self._shape, self._type)
        self._step = jax.jit(network.step, donate_argnums=0).lower(*shapes).compile()

    def reset(self) -> None:
        """Forget all steps."""
        self.state = self._fresh()

    def step(self, x: ArrayLike) -> np.ndarray:
        """Take a step (C,) or (B, C), of tokens () or (B,), in the user's units.

        Returns what `Trained.predict` gives, for each sequence: (B, K) logits or numbers, or (B,
        horizon, K). Without the first axis, if the step had none.
        """
        x = np.asarray(x)
        single = x.ndim < len(self._shape)
        if single and self.batch_size == 1:
            x = x[None]
        if x.shape != self._shape:
            alone = f"{self._shape[1:]} or " * (self.batch_size == 1)
            got = np.shape(x[0]) if single and self.batch_size == 1 else x.shape
            raise ValueError(f"a step must have the shape {alone}{self._shape}, got {got}.")
        u, p = self._checked(x), self.preprocessing
        self.state, output = self._step(self.state, u)
        found = np.asarray(output)
        if p is not None:
            found = in_units(p, found, u if p.relative and p.horizon else None)
        return found[0] if single else found

    def _checked(self, x: np.ndarray) -> np.ndarray:
        """A step as the network sees it."""
        if self._type == np.int32:
            if x.dtype.kind not in "iu" or x.min() < 0 or x.max() >= (self._vocab_size or np.inf):
                raise ValueError(
                    f"a step of tokens must be ids 0..{self._vocab_size - 1}, got {x}."
                )
            return x.astype(np.int32)
        if x.dtype.kind not in "biuf":
            raise ValueError(f"a step must be real numbers, got {x.dtype}.")
        if not np.isfinite(x).all():
            raise ValueError(
                f"a step must be finite, got {x}; a stream cannot interpolate, as it has not seen "
                "the next step: fill it in."
            )
        return x.astype(np.float32) if self.preprocessing is None else self.preprocessing.inputs(x)


def _keep_transition(layer: Any) -> None:
    """Have a layer compute once what every step takes of its parameters: XLA does not fold it."""
    if hasattr(layer, "transition"):
        kept = _transition(*nnx.split(layer))
        layer.transition = lambda scale: kept


@functools.partial(jax.jit, static_argnums=0)
def _transition(graphdef: nnx.GraphDef, numbers: Any) -> tuple[jax.Array, ...]:
    with jax.numpy_dtype_promotion("standard"):
        return nnx.merge(graphdef, numbers).transition(1.0)


def _refuse(network: Any, preprocessing: Preprocessing | None) -> None:
    """Raise NoStateForm if a model has no steps, with the options that would give it some."""
    options = []
    layers = layers_of(network)
    if preprocessing is not None and preprocessing.by_series:
        options.append(("sees whole series", "--config.data.arrays.standardize=training"))
    if preprocessing is not None and preprocessing.elapsed:
        options.append(("knows how much of a series is over", "--config.data.arrays.elapsed=false"))
    if preprocessing is not None and preprocessing.decorrelation:
        options.append(("decorrelates whole series", "--config.data.arrays.decorrelate=0"))
    if any(layer.bidirectional for layer in layers):
        options.append(("looks ahead", "--config.model.bidirectional=false"))
    if any(map(has_filter, layers)):
        options.append(("has a filter", "--config.model.beta.filter=false"))
    if options:
        why, how = (" and ".join(words) for words in zip(*options, strict=True))
        raise NoStateForm(f"this model {why}, so it has no steps; train one with {how}.")
    if not hasattr(network, "initial_state"):
        raise NoStateForm(
            f"{type(network).__name__} has no steps: it lacks initial_state and step."
        )
