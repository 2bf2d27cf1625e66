"""ListOps as a TensorFlow Datasets builder that needs no TensorFlow.

Only a preparation imports this module; training reads the arrays of `store.py`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssm_jax.data.listops import N_CLASSES
from ssm_jax.data.ragged import Ragged


class ListOps(tfds.core.GeneratorBasedBuilder):
    """Expressions of nested list operations, as token ids, and their values.

    Args:
      detail: where the data come from, in a line.
      examples: the splits to write; not needed to read.
      data_dir: the data set is in its subfolder list_ops/1.0.0.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        detail: str,
        examples: Mapping[str, Ragged] | None = None,
        data_dir: str | Path,
    ) -> None:
        self.advance: Callable[[int], None] = lambda n: None
        self._detail = detail
        self._examples = examples or {}
        # tfrecord, the default, fails without TensorFlow, and only after everything is generated.
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                # As bytes: 12,000 rows are written in a second; as integers 2,000.
                "tokens": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
                "target": tfds.features.ClassLabel(num_classes=N_CLASSES),
            }
        )
        # Shuffling would cost the order in which the expressions were generated.
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"ListOps of the Long Range Arena; {self._detail}.",
            features=features,
            homepage="https://arxiv.org/abs/2011.04006",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(rows) for split, rows in self._examples.items()}

    def _generate_examples(self, rows: Ragged) -> Iterator[tuple[int, dict]]:
        for index, target in enumerate(rows.targets.tolist()):
            yield index, {"tokens": rows.row(index), "target": target}
            if index % 1_000 == 999:
                self.advance(1_000)


def build(builder: ListOps, advance: Callable[[int], None]) -> None:
    """Write the data set anew. The caller holds a lock on it.

    Args:
      builder: made with its examples.
      advance: told of every 1,000 examples that are encoded.
    """
    folder = Path(builder.data_dir)
    for old in (folder, *folder.parent.glob(f"incomplete.*_{folder.name}")):
        shutil.rmtree(old, ignore_errors=True)
    builder.advance = advance
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where it writes, twice
        builder.download_and_prepare()
    shutil.rmtree(Path(builder.data_dir_root) / "downloads")  # empty: nothing is downloaded


def read(builder: ListOps, split: str) -> Iterator[tuple[bytes, int]]:
    """All (tokens, target) rows of a split in order."""
    source = builder.as_data_source(split=split)
    # 1,000 at a time: 45 us an example, one at a time 80 us.
    for start in range(0, len(source), 1_000):
        for row in source.__getitems__(range(start, min(start + 1_000, len(source)))):
            yield row["tokens"].tobytes(), int(row["target"])
