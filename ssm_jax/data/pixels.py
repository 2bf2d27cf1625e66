"""What the readers of image files return, and image files themselves."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssm_jax.files import printable

if TYPE_CHECKING:
    from PIL.Image import Image


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


def decoded(
    data: bytes, kind: str, mode: str, size: tuple[int, int], *, at_most: bool = False
) -> Image:
    """An image in memory.

    Args:
      data: its file.
      kind: "PNG" or "JPEG".
      mode: what its pixels become, "L" or "RGB".
      size: (W, H) that it must have; nothing of another size is decoded.
      at_most: smaller ones are right too.

    Raises:
      ValueError: if it is none, or of another size; the text goes on after the file's name.
    """
    # Imported here: training has no use for it. Not `Image.open`, which warns of large images on
    # standard error and goes on.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    opener = {"PNG": PngImageFile, "JPEG": JpegImageFile}[kind]
    try:
        with opener(io.BytesIO(data)) as image:
            found = image.size
            smaller = at_most and found[0] <= size[0] and found[1] <= size[1]
            if found == size or smaller:
                return image.convert(mode)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"is not a whole {kind} image ({printable(str(error))})") from None
    raise ValueError(
        "has {} x {} pixels, ".format(*found)
        + ("expected at most {} x {}" if at_most else "expected {} x {}").format(*size)
    )
