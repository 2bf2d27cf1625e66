"""TensorFlow Datasets data sets, written and read without TensorFlow: the format array_record.

Only a preparation imports this module; training reads the arrays of `store.py`. Ours are called
ssm_jax_TASK/NAME. They have the examples of a store, one for each row of a split, with

    "tokens", or "pixels", or "first" and "second"    a sequence
    "target"                                          its class
    "number", "first_number", "second_number"         of the example, or document, in the store

and keep the entries of its manifest in metadata.json. So the store can be made of them again, byte
by byte. `import ssm_jax.lra.builders` makes them known to `tfds.builder` and `tfds.data_source`.
"""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssm_jax.data.examples import Content, Images, Pairs, Ragged
from ssm_jax.data.manifest import content_of, sha256_of_all
from ssm_jax.data.store import hashes_of
from ssm_jax.progress import stage

REST = "rest"  # the split of the examples that are in none
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class SequenceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The data set that is in, or to be written to, a folder .../ssm_jax_TASK/NAME/1.0.0."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, path: Path, content: Content | None = None, manifest: Mapping[str, Any] | None = None
    ) -> None:
        self.name = path.parents[1].name
        self._config = tfds.core.BuilderConfig(name=path.parent.name, version=self.VERSION)
        self._content: Any = content
        self._manifest = manifest
        # tfrecord, the default, fails without TensorFlow, and only after everything is generated.
        super().__init__(data_dir=str(path.parents[2]), file_format="array_record")

    def get_default_builder_config(self) -> tfds.core.BuilderConfig:
        return self._config

    def _info(self) -> tfds.core.DatasetInfo:
        # Shuffling would cost the order in which the examples were read or generated.
        about: dict[str, Any] = {"builder": self, "disable_shuffling": True}
        if self._content is not None:
            features = {name: tfds.features.Scalar(np.int64) for name in self._row(0)}
            for name, array in self._content.examples.features(0).items():
                # As bytes: 12,000 rows are written in a second; as integers 2,000.
                features[name] = tfds.features.Tensor(
                    shape=(None,), dtype=array.dtype.type, encoding="bytes"
                )
            features["target"] = tfds.features.ClassLabel(num_classes=self._content.n_classes)
            about["features"] = tfds.features.FeaturesDict(features)
            about["description"] = self._content.detail
            about["metadata"] = tfds.core.MetadataDict(self._manifest)
        return tfds.core.DatasetInfo(**about)

    def _row(self, number: int) -> dict[str, Any]:
        examples = self._content.examples
        row = {**examples.features(number), "target": int(examples.targets[number])}
        if isinstance(examples, Pairs):
            row["first_number"] = int(examples.first[number])
            row["second_number"] = int(examples.second[number])
        return {**row, "number": number}

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        splits, numbers = self._content.splits, np.arange(len(self._content.examples))
        if (rest := np.setdiff1d(numbers, np.concatenate(list(splits.values())))).size:
            splits = {**splits, REST: rest}
        return {split: self._generate_examples(numbers) for split, numbers in splits.items()}

    def _generate_examples(self, numbers: np.ndarray) -> Iterator[tuple[int, dict]]:
        for position, number in enumerate(numbers.tolist()):
            yield position, self._row(number)
            self.advance(1)


def write(path: Path, content: Content, manifest: Mapping[str, Any]) -> None:
    """Write the data set of a store anew; a ValueError if it gives back something else. The caller
    holds a lock on it."""

    def remove() -> None:
        for folder in (path, *path.parent.glob(f"incomplete.*_{path.name}")):
            shutil.rmtree(folder, ignore_errors=True)

    kept = {key: value for key, value in manifest.items() if key != "files"}
    builder = SequenceBuilder(path, content, kept)
    total = sum(numbers.size for numbers in content.splits.values())
    remove()
    tfds.disable_progress_bar()
    try:
        with (
            stage("writing the TFDS data set", total, "examples") as builder.advance,
            contextlib.redirect_stdout(io.StringIO()),  # it prints where it writes, twice
        ):
            builder.download_and_prepare()
        shutil.rmtree(path.parents[2] / "downloads")  # empty: nothing is downloaded
        read(path)
    except (OSError, RuntimeError, ValueError) as error:
        remove()
        for number in _FULL:
            if isinstance(error, RuntimeError) and os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(path)) from None
        raise


def read(path: Path) -> Content:
    """The content of one of our data sets, in memory; a ValueError if it was changed."""
    info = tfds.builder_from_directory(str(path)).info
    manifest = info.metadata
    rows: dict[int, dict[str, Any]] = {}
    splits = {}
    total = sum(split.num_examples for split in info.splits.values())
    with stage("reading the TFDS data set", total, "examples") as advance:
        for split in info.splits:
            numbers = []
            for row in rows_of(path, split):
                numbers.append(row["number"])
                rows[row["number"]] = row
                advance(1)
            splits[split] = np.array(numbers, np.int64)
    splits.pop(REST, None)
    try:
        content = content_of(_examples_of(manifest["kind"], rows), splits, manifest)
        whole = sha256_of_all(hashes_of(content)) == manifest["sha256"]
    except (KeyError, IndexError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is not what was written; delete it and prepare the data again.")
    return content


def _examples_of(kind: str, rows: dict[int, dict[str, Any]]) -> Ragged | Images | Pairs:
    targets = np.array([rows[number]["target"] for number in range(len(rows))], np.uint8)
    if kind == "images":
        pixels = np.empty((len(rows), rows[0]["pixels"].size), np.uint8)
        for number, image in enumerate(pixels):
            image[:] = rows.pop(number)["pixels"]  # Path-X has 3.3 GB
        return Images(pixels, targets)
    if kind == "tokens":
        tokens = [rows[number]["tokens"] for number in range(len(rows))]
        return Ragged.from_rows(zip(tokens, targets.tolist(), strict=True), tokens[0].dtype)
    texts: dict[int, np.ndarray] = {}
    sides = np.empty((2, len(rows)), np.int32)
    for number, row in rows.items():
        for side, name in zip(sides, ("first", "second"), strict=True):
            side[number] = document = row[f"{name}_number"]
            if not np.array_equal(texts.setdefault(document, row[name]), row[name]):
                raise ValueError(f"document {document} is not the same in all pairs")
    documents = Ragged.from_rows(((texts[i], 0) for i in range(len(texts))), texts[0].dtype)
    return Pairs(documents.tokens, documents.offsets, sides[0], sides[1], targets)


def rows_of(path: Path, split: str, raw: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """All examples of a split in order; see `open_split`."""
    source = open_split(path, split, raw)
    # 1,000 at a time: 45 us an example, one at a time 80 us.
    for start in range(0, len(source), 1_000):
        yield from source.__getitems__(range(start, min(start + 1_000, len(source))))


def open_split(path: Path, split: str, raw: Iterable[str] = ()) -> Any:
    """The examples, by number, of a split of any data set in the format array_record; features in
    `raw`, such as images, are left as they are stored."""
    builder = tfds.builder_from_directory(str(path), file_format="array_record")
    decoders = {name: tfds.decode.SkipDecoding() for name in raw}
    return builder.as_data_source(split=split, decoders=decoders or None)
