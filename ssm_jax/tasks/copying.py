"""Copying: say M symbols again, in order, when all of them are past.

    step      0 .. M - 1    M .. L - M - 1    L - M .. L - 1
    input     symbols       0, the blank      A - 1, the marker
    answer                                    the symbols

Of A tokens the ids 1 .. A - 2 are symbols. The loss and the accuracy are of the last M steps alone.

Theirs: this layout, of the code of S4 (arXiv:2111.00396) after arXiv:1511.06464. Its defaults are
100 blanks, M = 10, A = 10, 10,000 training and 1,000 evaluation examples. RTF (arXiv:2405.06147)
runs it with no blank, M = 1,024 and A = 64, so that L = 2,048, for 50 epochs in batches of 8. Ours:
that code draws new training examples in each epoch, here they are the same ones; validation and
test have 1,000 each; and the symbols come from Philox.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.prepare import DataPaths
from ssm_jax.options.rows import SIZE, Range, since_0_2
from ssm_jax.tasks import Lazy, Task

COUNTS = {"train": 10_000, "val": 1_000, "test": 1_000}
BLANK = 0
_FAMILY = 4  # of the random streams, and the next two; other users of a seed have others


class CopyingDataset(Dataset):
    """Symbols to be copied; an example is a function of the seed, the split and its number.

    `gather` returns "inputs", int32 tokens (B, L), and "targets", int32 (B, M): the tokens that
    belong to the last M steps.
    """

    paired, d_input = False, None

    def __init__(
        self, length: int, memorize: int, tokens: int, counts: Mapping[str, int], seed: int
    ) -> None:
        """Of L = `length` steps, M = `memorize` and A = `tokens`; `counts` of 0 are COUNTS."""
        self.memorize, self.n_classes, self.vocab_size, self._seed = memorize, tokens, tokens, seed
        self.rows = {split: np.arange(counts[split] or COUNTS[split]) for split in SPLITS}
        about = {"form": 1, "length": length, "memorize": memorize, "tokens": tokens, "seed": seed}
        detail = (
            f"{memorize:,} symbols of {tokens - 2} kinds, {length - 2 * memorize:,} blanks, seed "
            f"{seed}"
        )
        super().__init__("copying", length, Provenance.generated(detail, about))

    def symbols(self, split: str, number: int) -> np.ndarray:
        """The M tokens of an example, int32."""
        words = philox(self._seed, number, _FAMILY + SPLITS.index(split)).random_raw(self.memorize)
        return (1 + words % np.uint64(self.n_classes - 2)).astype(np.int32)

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        numbers, M = self.check(split, indices), self.memorize
        targets = np.zeros((numbers.size, M), np.int32)
        for row, number in zip(targets, numbers.tolist(), strict=True):
            row[:] = self.symbols(split, number)
        inputs = np.full((numbers.size, self.padded_length), BLANK, np.int32)
        inputs[:, :M], inputs[:, -M:] = targets, self.n_classes - 1
        return {"inputs": inputs, "targets": targets}

    def facts(self, split: str) -> dict[str, float]:
        """ "chance_accuracy": the expected accuracy of any answer that does not know the input."""
        return {"chance_accuracy": 1 / (self.n_classes - 2)}


def open_copying(data: Mapping[str, Any], paths: DataPaths) -> CopyingDataset:
    """The examples that a config asks for; no files are read."""
    if paths.files is not None:
        raise ValueError("copying is generated: give no files.")
    counts = {split: data[f"n_{split}"] for split in SPLITS}
    return CopyingDataset(
        data["padded_length"], **data["copying"], counts=counts, seed=data["seed"]
    )


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    least = 2 * data["copying"]["memorize"]
    if data["padded_length"] < least:
        yield (
            f"data.padded_length={data['padded_length']} cannot hold "
            f"data.copying.memorize={data['copying']['memorize']} symbols and as many markers; use "
            f"at least {least}."
        )


_HEADS = "ssm_jax.tasks.heads"
COPYING = Task(
    open_data=open_copying,
    build_model=Lazy(f"{_HEADS}:build_per_step"),
    train_sums=Lazy(f"{_HEADS}:last_steps_train_sums"),
    eval_sums=Lazy(f"{_HEADS}:last_steps_eval_sums"),
    metrics={"accuracy": "max", "loss": "min"},
    options={
        "data.copying.memorize": since_0_2(
            10, "symbols M to copy; data.padded_length is 2 M and the blanks", SIZE
        ),
        "data.copying.tokens": since_0_2(
            10, "ids A: the blank, A - 2 symbols, the marker", Range(3, whole=True)
        ),
    },
    sources=("generated",),
    faults=_faults,
    network=Lazy("ssm_jax.models:SequenceClassifier"),
)
