"""A trained model with all that it takes to use it."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.tasks import Task, find_task
from ssm_jax.tasks.facts import Facts
from ssm_jax.trained.predict import Predictor, softmax

if TYPE_CHECKING:
    from ssm_jax.trained.stream import Stream


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
        from ssm_jax.trained.stream import Stream

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
