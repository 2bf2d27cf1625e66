"""The data sets of TensorFlow Datasets that are read, in small: features and order of their makers.

They are written by TFDS without TensorFlow. Images are given as files: only TensorFlow packs them.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CIFAR = (25, 10)  # training and test images
COLOURS = np.random.default_rng(3).integers(0, 256, (sum(CIFAR), 32, 32, 3), dtype=np.uint8)
REVIEWS = {
    "train": [(f"review {i} \u00e9", i % 2) for i in range(24)],
    "test": [(f"wire {i}", i % 2) for i in range(24)],
    "unsupervised": [("of no class", -1)],
}
FACES = {"train": 6, "validation": 2, "test": 2}


def packed(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    file.seek(0)
    return file


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("3.0.2")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {s: self._generate_examples(s) for s in ("train", "test")}

    def _generate_examples(self, split):
        start = 0 if split == "train" else CIFAR[0]
        for i in range(CIFAR[split == "test"]):
            image = packed(COLOURS[start + i], "PNG")
            yield i, {"id": f"{split}_{i:05d}", "image": image, "label": (start + i) % 10}


class ImdbReviews(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain_text", version="1.0.0")]  # noqa: RUF012

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["neg", "pos"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in REVIEWS}

    def _generate_examples(self, split):
        for i, (text, label) in enumerate(REVIEWS[split]):
            yield i, {"text": text, "label": label}


class CelebA(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
            "attributes": {"Smiling": np.bool_},
            "landmarks": {"nose_x": np.int64},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in FACES}

    def _generate_examples(self, split):
        start = {"train": 0, "validation": 6, "test": 8}[split]
        for i in range(FACES[split]):
            gray = np.full((218, 178, 3), 12 * (start + i), np.uint8)
            yield (
                i,
                {
                    "image": packed(gray, "JPEG"),
                    "attributes": {"Smiling": True},
                    "landmarks": {"nose_x": 3},
                },
            )


def write(kind, data_dir):
    """Prepare one of them in the format array_record; its folder."""
    tfds.disable_progress_bar()
    builder = kind(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path
