"""A Pathfinder image from its strokes: stamps laid over each other, the brighter one on top."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import ceil

import numpy as np

from ssm_jax.data.pathfinder_drawing import Drawing
from ssm_jax.data.pathfinder_stamps import ANTIALIAS, Strokes, halve

_FILTER = 3  # reach of the Lanczos filter, in pixels


@functools.cache
def _disc_stamps(drawing: Drawing) -> tuple[int, np.ndarray]:
    """Discs as bytes, cut off and filtered as at the edges of an image.

    Returns:
      R, and stamps of 2 R + 1 by 2 R + 1 pixels by the distances, 0..2 R, of the disc's centre from
      the top and from the left.
    """
    # A stamp's edges are beyond the reach of a disc in its middle, and beyond what they change.
    reach = ceil(drawing.marker_radius) + 2 * _FILTER
    width = 2 * reach + 1
    fine = np.arange(ANTIALIAS * width)
    stamps = np.empty((width, width, width, width), np.int32)
    for y in range(width):
        for x in range(width):
            distance = np.add.outer((fine - ANTIALIAS * y) ** 2, (fine - ANTIALIAS * x) ** 2)
            inside = distance <= (ANTIALIAS * drawing.marker_radius) ** 2
            stamps[y, x] = halve(255 * inside.astype(np.uint8), width)
    return reach, stamps


def paint_disc(image: np.ndarray, drawing: Drawing, y: int, x: int) -> None:
    """Lay a disc with its centre at (y, x) over an image (size, size) int32."""
    reach, stamps = _disc_stamps(drawing)
    width = 2 * reach + 1
    # Distance from the stamp's edge: the true one near an edge of the image, else the middle.
    row, column = (max(min(i, reach), i + width - drawing.size) for i in (y, x))
    view = image[y - row : y - row + width, x - column : x - column + width]
    np.maximum(view, stamps[row, column] * drawing.marker_ink, out=view)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Stretch whole numbers to 0..255, halves rounded up."""
    low, high = int(image.min()), int(image.max())
    return ((510 * (image - low) + (high - low)) // (2 * (high - low))).astype(np.uint8)


def render(
    drawing: Drawing,
    stamps: Strokes,
    contours: np.ndarray,
    distractors: np.ndarray,
    discs: Sequence[Sequence[int]],
) -> np.ndarray:
    """An image, (size, size) uint8.

    Args:
      drawing: the parameters.
      stamps: of the image's margin.
      contours, distractors: (n, strokes, 3): y, x and stamp.
      discs: (y, x) of each.
    """
    pad, width = drawing.pad, 2 * stamps.centre + 1
    frame = np.zeros((drawing.size + 2 * pad,) * 2, np.int32)
    for paths, ink in ((contours, drawing.contour_ink), (distractors, drawing.distractor_ink)):
        for y, x, k in paths.reshape(-1, 3).tolist():
            top, left = y + pad - stamps.centre, x + pad - stamps.centre
            view = frame[top : top + width, left : left + width]
            np.maximum(view, stamps.lines[k] * ink, out=view)
    image = frame[pad:-pad, pad:-pad].copy()
    for y, x in discs:
        paint_disc(image, drawing, y, x)
    return to_bytes(image)
