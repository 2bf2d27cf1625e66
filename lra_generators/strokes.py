"""The strokes of a Pathfinder image, drawn once: a contour is a chain of them.

A stroke is a line from its tail, or from its head back to its tail, drawn twice as fine and halved
by Pillow's Lanczos filter in bytes, with its mask, the line made fatter by the margin that other
strokes must keep. A contour's first stroke has one of 360 orientations; every other ends on one of
the 18 to 49 pixels of a circle. So all strokes are a few hundred stamps.

The procedure is that of the Pathfinder challenge, arXiv:1805.08315; the parameters are those of the
hard level of the Long Range Arena, arXiv:2011.04006, in the docstrings of its Pathfinder data sets
over the defaults of that program. Coordinates are (y, x) in pixels, angles in radians from x to y.
"""

import functools
from collections.abc import Iterable, Sequence
from math import atan2, ceil, cos, floor, pi, sin
from typing import NamedTuple

import numpy as np

DEGREES = 360  # orientations of a first stroke, whole degrees from -180
CHANCE = 1 << 16  # of going straight on; a turn has a smaller one
ANTIALIAS = 2  # stamps are drawn that much finer
_FILTER = 3  # reach of the Lanczos filter, in pixels


class Drawing(NamedTuple):
    """Upstream's parameters. Lengths are in pixels, inks in one arbitrary unit of brightness."""

    size: int  # of the square image
    stroke_length: int
    thickness: float  # of a line
    margins: tuple[int, ...]  # kept free around a line; one is drawn per image
    seed_distance: int  # between the origins of the two contours
    marker_radius: float  # of the two discs
    contour_length: int  # strokes
    distractor_length: int  # strokes
    n_distractors: int  # asked for; many do not fit
    continuity: float  # the chance of a turn by d is cos(continuity * d)**2
    contour_ink: int
    distractor_ink: int
    marker_ink: int

    @property
    def pad(self) -> int:
        """Pixels around the window that a stamp or a circle of end points may reach."""
        return 3 * self.stroke_length + 4 * max(self.margins) + 4


# Distractors are brighter than contours at 32 px, where upstream forgets the factor 0.75 for them.
PATHFINDER32 = Drawing(32, 2, 0.5, (1,), 7, 1.5, 14, 4, 5, 1.0, 3, 4, 2)
PATHX = Drawing(128, 5, 1.5, (2, 3), 20, 3.0, 14, 4, 8, 1.8, 9, 9, 10)


class Strokes(NamedTuple):
    """The n stamps of one margin: the 360 first strokes, drawn from the tail, then those that end
    on the circle, drawn from the head. Displacements are float64 (y, x), other numbers int64;
    images are int16, so that sums of two do not overflow."""

    size: int  # as pad, see Drawing
    pad: int
    centre: int  # where in a stamp its starting point is, on both axes
    empty: np.ndarray  # mask and dilated mask, with the pad, of an image without strokes
    lines: np.ndarray  # (n, D, D), 0..255
    masks: np.ndarray  # (n, D, D), 0..255
    grown: np.ndarray  # masks dilated by the margin, (n, D + 2 margin, D + 2 margin)
    boxes: np.ndarray  # first and last + 1 row and column of a mask that is not all 0, (n, 4)
    heads: np.ndarray  # from the tail of a first stroke to its head, (360, 2)
    pivots: np.ndarray  # from its head to its pivot, (360, 2)
    steps: np.ndarray  # from a stroke's pivot to the next one's, (n, 2)
    targets: np.ndarray  # from a pivot to the end points on its circle, whole, (C, 2)
    chances: np.ndarray  # of these, after a stroke, 0..CHANCE, (n, C)
    second: np.ndarray  # from the first contour's tail to the second's, (360, 2)
    tails: np.ndarray  # first and last + 1 row and column where the first contour may start
    taps: np.ndarray  # the pixels, from a stroke's tail, that must be free for it, (360, T, 2)
    n_taps: np.ndarray  # how many of them there are, (360,); 0 where upstream never starts
    beyond: int  # 1 if pixels outside the image are not free, 0 if nobody looks there


def dilate(image: np.ndarray, radius: int) -> np.ndarray:
    """Maximum over a disc, on a frame wider by the radius on each side."""
    height, width = image.shape
    out = np.zeros((height + 2 * radius, width + 2 * radius), image.dtype)
    for y, x in np.ndindex(2 * radius + 1, 2 * radius + 1):
        if (y - radius) ** 2 + (x - radius) ** 2 <= radius**2:
            view = out[y : y + height, x : x + width]
            np.maximum(view, image, out=view)
    return out


def _shifts(angles: Iterable[float], distance: float) -> np.ndarray:
    """Displacements. Added to a position they are rounded up, and only then: with the rounding
    errors of upstream's coordinates, 14 + 4 * cos(120 degrees) is 12 and 8 + 4 * cos(120 degrees)
    is 7."""
    return np.array([(distance * sin(angle), distance * cos(angle)) for angle in angles])


def _halve(image: np.ndarray, size: int) -> np.ndarray:
    """Shrink bytes to (size, size) as Pillow does."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def _stamp(drawing: Drawing, margin: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A stroke from the centre in a direction, and its mask, (D, D) uint8."""
    from PIL import Image, ImageDraw

    reach = drawing.stroke_length + ceil(drawing.thickness) + margin
    centre, wide = reach * ANTIALIAS, margin * ANTIALIAS
    ((y, x),) = _shifts([angle], drawing.stroke_length * ANTIALIAS)
    canvas = Image.new("L", (2 * centre + 1, 2 * centre + 1))
    ends = [(centre, centre), (ceil(centre + x), ceil(centre + y))]
    ImageDraw.Draw(canvas).line(ends, fill=255, width=round(drawing.thickness * ANTIALIAS))
    line = np.asarray(canvas)
    fat = np.ascontiguousarray(dilate(line, wide)[wide:-wide, wide:-wide])
    return _halve(line, 2 * reach + 1), _halve(fat, 2 * reach + 1)


@functools.cache
def strokes(drawing: Drawing, margin: int, upstream: bool) -> Strokes:
    """All stamps of one margin (0.1 s).

    A first stroke fits where its taps are free: those pixels of its mask that are 255, cut off at
    L + margin, all one pixel too far down and to the right. Where all taps are outside at some
    corner of the image cv2.dilate leaves -1.8e308, which upstream takes for a full image, so that
    it never starts so; and it looks at those taps only that are inside. If not `upstream`, all taps
    must be inside the image.
    """
    length, size, pad = drawing.stroke_length, drawing.size, drawing.pad
    radius = length + margin
    first = [(degree - 180) * pi / 180 for degree in range(DEGREES)]
    around = [k / radius for k in range(ceil(2 * pi * radius))]
    targets = sorted({(floor(radius * sin(a)), floor(radius * cos(a))) for a in around})
    later = [atan2(y, x) for y, x in targets]
    angles = first + later
    opposite = [a + pi if a < 0 else a - pi for a in angles]  # from -pi to pi
    stamps = [_stamp(drawing, margin, a) for a in first + opposite[DEGREES:]]
    lines, masks = map(np.array, zip(*stamps, strict=True))
    edge = np.full((size, size), 255, np.int16)
    edge[1:-1, 1:-1] = 0
    grown_edge = dilate(edge, margin)[margin:-margin, margin:-margin]
    used = [np.argwhere(mask) for mask in masks]
    turns = np.abs(np.subtract.outer(angles, later))
    turns = np.minimum(np.minimum(turns, 2 * pi - turns) * drawing.continuity, pi / 2)
    taps = [np.argwhere(mask == 255) - mask.shape[0] // 2 + 1 for mask in masks[:DEGREES]]
    taps = [t[np.abs(t).max(axis=1) <= radius] for t in taps]
    # All taps of the first contour are in the core of the image.
    low, high = 2 * drawing.seed_distance, size - 2 * drawing.seed_distance
    tails = [np.stack([low - t.min(0), high - t.max(0)], axis=1).ravel() for t in taps]
    if upstream:
        corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        inside = [all((t * c >= 0).all(axis=1).any() for c in corners) for t in taps]
        taps = [t if fits else t[:0] for t, fits in zip(taps, inside, strict=True)]
    padded = np.zeros((DEGREES, max(map(len, taps)), 2), np.int64)
    for row, t in zip(padded, taps, strict=True):
        row[: len(t)] = t
    return Strokes(
        size=size,
        pad=pad,
        centre=masks.shape[1] // 2,
        empty=np.array([np.pad(edge, pad), np.pad(grown_edge, pad, constant_values=255)]),
        lines=lines.astype(np.int16),
        masks=masks.astype(np.int16),
        grown=np.array([dilate(mask, margin) for mask in masks], np.int16),
        boxes=np.array([np.stack([u.min(0), u.max(0) + 1], axis=1).ravel() for u in used]),
        heads=_shifts(first, length),
        pivots=_shifts(opposite[:DEGREES], radius),
        steps=_shifts(angles, length + 2 * margin),
        targets=np.array(targets),
        chances=np.rint(CHANCE * np.cos(turns) ** 2).astype(np.int64),
        second=_shifts(first, drawing.seed_distance),
        tails=np.array(tails),
        taps=padded,
        n_taps=np.array([len(t) for t in taps]),
        beyond=int(not upstream),
    )


@functools.cache
def _disc(drawing: Drawing, width: int, y: int, x: int) -> np.ndarray:
    """A disc at (y, x) of a square, cut off and filtered as at the edges of an image, in bytes."""
    fine = np.arange(ANTIALIAS * width)
    distance = np.add.outer((fine - ANTIALIAS * y) ** 2, (fine - ANTIALIAS * x) ** 2)
    inside = distance <= (ANTIALIAS * drawing.marker_radius) ** 2
    return _halve(255 * inside.astype(np.uint8), width).astype(np.int32)


def paint_disc(image: np.ndarray, drawing: Drawing, y: int, x: int) -> None:
    """Lay a disc with its centre at (y, x) over an image (size, size) int32."""
    # A square's edges are beyond the reach of a disc in its middle, and beyond what they change.
    reach = ceil(drawing.marker_radius) + 2 * _FILTER
    width = 2 * reach + 1
    # Distance from the square's edge: the true one near an edge of the image, else the middle.
    row, column = (max(min(i, reach), i + width - drawing.size) for i in (y, x))
    view = image[y - row : y - row + width, x - column : x - column + width]
    np.maximum(view, _disc(drawing, width, row, column) * drawing.marker_ink, out=view)


def render(
    drawing: Drawing,
    stamps: Strokes,
    contours: np.ndarray,
    distractors: np.ndarray,
    discs: Sequence[Sequence[int]],
) -> np.ndarray:
    """An image, (size, size) uint8, of contours, distractors (n, strokes, 3) and discs (y, x)."""
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
    low, high = int(image.min()), int(image.max())
    # Stretched to 0..255, halves rounded up
    return ((510 * (image - low) + (high - low)) // (2 * (high - low))).astype(np.uint8)
