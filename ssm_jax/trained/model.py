"""A trained model with all that it takes to use it, on whole series or step by step."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.layers.base import NoStateForm
from ssm_jax.tasks import Facts, Task, find_task
from ssm_jax.trained.predict import Predictor, has_filter, in_units, layers_of, plain, softmax


@dataclass(frozen=True, repr=False)
class Trained:
    """A network with its numbers, its config, and what maps a user's arrays to its inputs and back.

    `network` is the nnx module itself: call it, differentiate it, or build it into another. What
    follows takes and gives NumPy arrays in a user's units.
    """

    cfg: ConfigDict
    built_from: Facts  # what the network was built from, besides the config
    network: Any
    provenance: Mapping[str, Any]  # of the run, with "step" and its "metrics"

    def __repr__(self) -> str:
        steps = f"step {self.provenance.get('step')}"
        return f"<Trained {self.cfg.name}: {self.head}, {self.cfg.model.layer}, {steps}>"

    @functools.cached_property
    def task(self) -> Task:
        return find_task(self.cfg.task)

    @functools.cached_property
    def preprocessing(self) -> Preprocessing | None:
        """Of a user's series; None: inputs are what the network sees."""
        found = self.built_from.get("preprocessing")
        return None if found is None else Preprocessing.of_json(found)

    @property
    def head(self) -> str:
        """ "classification", "regression", "per_step" or "forecasting"; "values": any other."""
        if self.preprocessing is not None:
            return self.preprocessing.head
        return "classification" if self.task.predict is not None else "values"

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        if self.head != "classification":
            return ()
        named = () if self.preprocessing is None else self.preprocessing.classes
        return named or tuple(map(str, range(self.built_from["n_classes"])))

    def require_series(self) -> None:
        """ValueError: the network says by `takes_series = False` that its inputs are no series."""
        if not getattr(self.network, "takes_series", True):
            raise ValueError(f"a model of {self.cfg.task} predicts no series; call its network.")

    @functools.cached_property
    def _predictor(self) -> Predictor:
        self.require_series()
        paired = bool(self.built_from.get("paired"))
        padded_length = self.built_from["padded_length"]
        return Predictor(self.network, self.preprocessing, padded_length, paired=paired)

    def predict(
        self, x: np.ndarray | Sequence[Any], *, batch_size: int = 32
    ) -> np.ndarray | list[np.ndarray]:
        """Logits (n, K) of classes, or values in the user's units.

        Numbers are (n, K), numbers of each step (n, L, K), forecasts (n, horizon, K). Series are
        padded to powers of two and cut into batches, for each of which shapes the network is
        compiled once; the result depends on neither, up to float32's rounding.

        Args:
          x: (n, L, C), (n, L) of one channel or of token ids, or a list of series (L, C) or (L,) of
            any lengths, for which numbers of each step come as a list. In a user's units if the
            model has a `preprocessing`, else as the network sees them. Of pairs of token sequences
            (n, 2, L), or a list of pairs. A forecast is made from the last `padded_length` steps.
          batch_size: series at once, at most.

        Raises:
          ValueError: a series does not fit the model; the message has its number.
        """
        return self._predictor(x, batch_size)

    def probabilities(self, x: np.ndarray | Sequence[Any], **options: Any) -> np.ndarray:
        """The probabilities (n, K) of `classes`; a ValueError for a model without classes."""
        if not self.classes:
            raise ValueError(f"a model of {self.cfg.task} has no classes; use predict.")
        return softmax(np.asarray(self.predict(x, **options)))

    def labels(self, x: np.ndarray | Sequence[Any], **options: Any) -> np.ndarray:
        """The name (n,) of the most probable class of each series."""
        return np.array(self.classes)[self.probabilities(x, **options).argmax(axis=-1)]

    def stream(self, batch_size: int = 1) -> "Stream":
        """The model as a recurrence that takes one step after the other; see `Stream`."""
        self.require_series()
        return Stream(self, batch_size)

    def truncated(self, d_state: int) -> "Trained":
        """The model whose layers keep `d_state` modes, by balanced truncation.

        A stored mode holds a pair of complex poles or one real pole. Every channel (in S5 the
        layer) keeps as many real states as fit, those with the largest Hankel singular values:
        `ssm_jax.analysis.hankel` says of which system. Its transfer function changes by at most
        twice the sum of the others; behind a filter, times the filter's gain. The result is a model
        like any other. It stores n_ssm = d_model sets of eigenvalues, in S4 without the low rank.

        ValueError: another kind of layer, as many modes or more, or a pole of radius 1 or more.
        """
        from ssm_jax.trained.truncation import truncated

        return truncated(self, d_state)

    def save(self, path: str | Path) -> None:
        """Write the model as one .safetensors file, which `ssm_jax.load` reads bit for bit."""
        from ssm_jax.trained.opening import save_tensors

        save_tensors(self, Path(path))


class Stream:
    """A causal model that takes one step of B sequences after the other.

    What it says after n steps is what `Trained.predict` says of the first n, to float32's rounding
    at any n; of a forecast, what it says when it sees all of them. A step is compiled once, with
    the weights as constants.

    NoStateForm, a ValueError: the model looks ahead or has a filter; it says how to train one that
    does not.
    """

    def __init__(self, trained: Trained, batch_size: int = 1) -> None:
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
