"""Examples as a TensorFlow Datasets data set, written and read without TensorFlow.

Only a preparation imports this module; training reads the arrays of `store.py`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssm_jax.data.examples import Made


class LongSequences(tfds.core.GeneratorBasedBuilder):
    """The examples of one task: their features by name, and "target".

    Args:
      made: what to write; its splits and feature names are needed to read, too.
      data_dir: the data set is in its subfolder long_sequences/1.0.0.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, made: Made, data_dir: Path) -> None:
        self.advance: Callable[[int], None] = lambda n: None
        self._made = made
        # tfrecord, the default, fails without TensorFlow, and only after everything is generated.
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        made = self._made
        features = {
            # As bytes: 12,000 rows are written in a second; as integers 2,000.
            name: tfds.features.Tensor(shape=(None,), dtype=row.dtype.type, encoding="bytes")
            for name, row in made.examples.features(0).items()
        }
        features["target"] = tfds.features.ClassLabel(num_classes=made.n_classes)
        # Shuffling would cost the order in which the examples were read or generated.
        return tfds.core.DatasetInfo(
            builder=self,
            description=made.detail,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(n) for split, n in self._made.splits.items()}

    def _generate_examples(self, numbers: np.ndarray) -> Iterator[tuple[int, dict]]:
        examples = self._made.examples
        for position, number in enumerate(numbers.tolist()):
            target = int(examples.targets[number])
            yield position, {**examples.features(number), "target": target}
            if position % 1_000 == 999:
                self.advance(1_000)


def build(builder: LongSequences, advance: Callable[[int], None]) -> None:
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
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it writes, twice
            builder.download_and_prepare()
    except (OSError, RuntimeError) as error:
        for half in (folder, *folder.parent.glob(f"incomplete.*_{folder.name}")):
            shutil.rmtree(half, ignore_errors=True)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            if isinstance(error, RuntimeError) and os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(folder)) from None
        raise
    shutil.rmtree(Path(builder.data_dir_root) / "downloads")  # empty: nothing is downloaded


def read(builder: LongSequences, split: str) -> Iterator[dict[str, Any]]:
    """All examples of a split in order: arrays by name, and "target"."""
    source = builder.as_data_source(split=split)
    # 1,000 at a time: 45 us an example, one at a time 80 us.
    for start in range(0, len(source), 1_000):
        yield from source.__getitems__(range(start, min(start + 1_000, len(source))))
