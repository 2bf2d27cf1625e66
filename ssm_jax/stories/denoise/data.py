"""Images as long sequences, flattened row by row; stripes disturb them in evaluation alone.

Source: image denoising of arXiv:2410.02035.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.prepare import DataPaths, found_in_tfds
from ssm_jax.stories.denoise.images import (
    ARCHIVE,
    Images,
    celeba,
    expected,
    photographs,
    prepared_celeba,
)

NOISE_STREAM = 1 << 32  # past the streams of the crops


class DenoiseDataset(Dataset):
    """Colour images of `size` (height, width), flattened row by row. `gather` returns

    "inputs": float32 (B, L, 3) in [-1, 1], L = height * width;
    "noise": float32 (B, 3), amplitudes of stripes by channel, uniform in [0, 2 * amplitude): the
      unit is that of the inputs, where black to white is 2. A function of the seed and example.
    """

    def __init__(
        self, images: Images, size: tuple[int, int], *, source: str, amplitude: float, seed: int
    ) -> None:
        self.height, self.width = size
        provenance = Provenance(source, images.detail, images.sha256)
        super().__init__("denoise", self.height * self.width, provenance)
        self._images = images
        self.rows = {}
        for i, split in enumerate(SPLITS):
            drawn = 2 * amplitude * uniform(seed, NOISE_STREAM + i, 3 * len(images.rows[split]))
            self.rows[split] = drawn.reshape(-1, 3).astype(np.float32)

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        indices = self.check(split, indices)
        pixels = np.array([self._images.pixels(split, i) for i in indices.tolist()])
        pixels_BL3 = pixels.reshape(len(indices), self.padded_length, 3).astype(np.float32)
        inputs_BL3 = pixels_BL3 / np.float32(127.5) - 1
        return {"inputs": inputs_BL3, "noise": self.rows[split][indices]}


def open_denoise(options: Mapping[str, Any], paths: DataPaths) -> DenoiseDataset:
    """The images that a checked `cfg.data` asks for; files are CelebA's."""
    own, source, seed = options["denoise"], options["source"], options["seed"]
    size = own["height"], own["width"]
    if options["padded_length"] != size[0] * size[1]:
        raise ValueError(
            f"data.padded_length={options['padded_length']} must be the pixels of an image, "
            f"data.denoise.height * width = {size[0] * size[1]}."
        )
    counts = {split: options[f"n_{split}"] for split in SPLITS}
    if source == "photographs":
        if paths.files is not None:
            raise ValueError(
                f"{paths.files} is only read with data.source=official, and it is photographs; "
                "change one of the two."
            )
        images = photographs(size, counts, seed)
    elif paths.look_only and paths.files is None:
        images = expected(size, counts)
    elif source == "tfds":
        images = prepared_celeba(found_in_tfds(paths.find_tfds("celeb_a"), "celeb_a"), size, counts)
    elif paths.files is None:
        raise FileNotFoundError(
            f"CelebA cannot be downloaded; give {ARCHIVE} or its folder with --from=PATH, or "
            "take the photographs of the package with --config.data.source=photographs."
        )
    else:
        images = celeba(paths.files, size, counts)
    return DenoiseDataset(images, size, source=source, amplitude=own["amplitude"], seed=seed)
