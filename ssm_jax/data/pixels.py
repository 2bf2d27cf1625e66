"""What the readers of image files return."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pixels(NamedTuple):
    """Grey images and their classes, in the order of the official files.

    Attributes:
      train_pixels: uint8 (n, L), the rows of each image one after the other.
      train_targets: uint8 (n,), the class of each image.
      test_pixels: uint8 (m, L).
      test_targets: uint8 (m,).
      detail: one line, what was read and its sha256.
    """

    train_pixels: np.ndarray
    train_targets: np.ndarray
    test_pixels: np.ndarray
    test_targets: np.ndarray
    detail: str
