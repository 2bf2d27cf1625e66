"""Random Pathfinder images by the procedure of the Pathfinder challenge, as the Long Range Arena
used it: Pathfinder at 32 x 32 and Path-X at 128 x 128 pixels.

Two dashed contours wind through an image; a disc marks an end of one, another disc the other end of
the same contour (label 1) or the far end of the other one (label 0). Shorter dashed distractors
fill the rest. Upstream sets no seed, so its files cannot be made again, only others with the same
distribution.
"""

import functools
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from lra_generators.strokes import (
    CHANCE,
    DEGREES,
    PATHFINDER32,
    PATHX,
    Strokes,
    render,
    strokes,
)

VERSION = 1  # raise it whenever the same words would give other images
DRAWINGS = {drawing.size: drawing for drawing in (PATHFINDER32, PATHX)}
_BLOCK = 1 << 15  # words of 64 bits drawn at once


class Sketch(NamedTuple):
    """One image and how it came about. A stroke is (y, x, stamp)."""

    pixels: np.ndarray  # (size, size) uint8
    label: int  # 1 if both discs are on one contour
    margin: int  # around its strokes, in pixels
    contours: np.ndarray  # (2, strokes, 3)
    distractors: np.ndarray  # those that fit, (n, strokes, 3)
    discs: tuple[list[int], list[int]]  # (y, x) of the two
    attempts: int  # at the two contours


def sketches(
    bits: np.random.BitGenerator,
    rows: int,
    size: int = 32,
    upstream: bool = True,
    draw: Callable[..., tuple[int, int]] | None = None,
) -> Iterator[Sketch]:
    """Images drawn one after the other from the raw 64-bit words of `bits`.

    Upstream's cv2.dilate keeps most contours from starting (330 of 360 orientations at 32 px), and
    so 1.2 of 5 distractors fit. With `upstream` off 4.7 do, which is another task. `draw` is
    draw_image or its compiled form, by default the faster.
    """
    draw, drawing = draw or compiled(), DRAWINGS[size]
    words, at = np.empty(0, np.int64), np.zeros(1, np.int64)

    def refill() -> None:
        nonlocal words
        words, at[0] = bits.random_raw(_BLOCK).astype("<u8").view("<u4").astype(np.int64), 0

    def below(n: int) -> int:
        if at[0] == len(words):
            refill()
        return _below(words, at, n)

    for _ in range(rows):
        label = below(2)
        margin = drawing.margins[below(len(drawing.margins))]
        stamps = strokes(drawing, margin, upstream)
        contours = np.zeros((2, drawing.contour_length, 3), np.int64)
        distractors = np.zeros((drawing.n_distractors, drawing.distractor_length, 3), np.int64)
        attempts, placed = 0, -1
        while placed < 0:
            more, placed = draw(words, at, stamps, contours, distractors)
            attempts += more
            if placed < 0:
                refill()  # the unread words are lost
        origin = below(2)
        terminal = origin if label else 1 - origin
        ends = contours[origin, 0, :2].tolist(), contours[terminal, -1, :2].tolist()
        pixels = render(drawing, stamps, contours, distractors[:placed], ends)
        yield Sketch(pixels, label, margin, contours, distractors[:placed], ends, attempts)


# From here on: the inner loop, one image from random words and stamps. Numba compiles it where it
# is installed; its numbers are whole or are rounded at once, so the images are the same in every
# bit. `y`, `x` are pixels of the image, which may lie outside it by up to `pad`; arrays called
# frames have that many more pixels on each side: the mask of what is occupied, and the mask
# dilated. at[0] is the first unread word; a pivot is the centre of the circle on which the next
# stroke ends, and a path the strokes of some contours, (contours, strokes, 3).

Array = np.ndarray
_TRIES = 3  # for a place of a stroke
_CONTOUR_TRIES = 5  # for a distractor
_COLLISION = 459  # the sum of two masks that is too much: upstream's 1.8
_DEAD_END = int(1e-4 * 255 * CHANCE)  # chances of all end points together
_FREE = 76  # masks are bytes; upstream calls a pixel free up to 0.3
_FULL = 0.99  # of all pixels; then upstream places no distractor


def _below(words: Array, at: Array, n: int) -> int:
    """A whole number 0..n - 1 from a word of 32 bits, biased by n / 2**32; n < 2**31."""
    at[0] += 1
    return int((words[at[0] - 1] * n) >> 32)


def _overlap(s: Strokes, frame: Array, masks: Array, y: Any, x: Any, k: Any) -> tuple[Array, Array]:
    """The pixels of a frame under the mask of stamp `k` at (y, x), and those of the mask."""
    wider = masks.shape[1] // 2 - s.centre  # a dilated one
    top, bottom, left, right = s.boxes[k, 0], s.boxes[k, 1], s.boxes[k, 2], s.boxes[k, 3]
    bottom, right = bottom + 2 * wider, right + 2 * wider
    y, x = y + s.pad - s.centre - wider, x + s.pad - s.centre - wider
    return frame[y + top : y + bottom, x + left : x + right], masks[k, top:bottom, left:right]


def _add(s: Strokes, frames: Array, stroke: Array) -> None:
    """Mark a stroke as occupied."""
    view, mask = _overlap(s, frames[0], s.masks, stroke[0], stroke[1], stroke[2])
    view[:] = np.maximum(view, mask)
    view, mask = _overlap(s, frames[1], s.grown, stroke[0], stroke[1], stroke[2])
    view[:] = np.maximum(view, mask)


def next_ends(s: Strokes, grown: Array, pivot: Array, k: int) -> tuple[int, int, Array]:
    """The pivot (y, x) after stamp `k`; the chance of each end point around it, 0..255 CHANCE."""
    y, x = ceil(pivot[0] + s.steps[k, 0]), ceil(pivot[1] + s.steps[k, 1])
    rows, columns = y + s.pad + s.targets[:, 0], x + s.pad + s.targets[:, 1]
    return y, x, s.chances[k] * (255 - grown.ravel()[rows * grown.shape[1] + columns])


def _extend(
    words: Array, at: Array, s: Strokes, frames: Array, pivot: Array, before: Array, stroke: Array
) -> bool:
    """Choose the stroke after the stroke `before`, and move the pivot to it, if there is one."""
    y, x, chances = next_ends(s, frames[1], pivot, before[2])
    edges = np.cumsum(chances)
    if edges[-1] < _DEAD_END:
        return False
    for _ in range(_TRIES):
        j = np.searchsorted(edges, _below(words, at, edges[-1]), side="right")
        head_y, head_x, k = y + s.targets[j, 0], x + s.targets[j, 1], DEGREES + j
        view, mask = _overlap(s, frames[0], s.masks, head_y, head_x, k)
        if (view + mask).max() < _COLLISION:
            stroke[0], stroke[1], stroke[2] = head_y, head_x, k
            pivot[0], pivot[1] = y, x
            return True
    return False


def _grow(words: Array, at: Array, s: Strokes, frames: Array, pivots: Array, path: Array) -> bool:
    """Choose the strokes after the first of each contour, in turn, if they all fit."""
    for step in range(1, path.shape[1]):
        for c in range(path.shape[0]):
            before = path[c, step - 1]
            if not _extend(words, at, s, frames, pivots[c], before, path[c, step]):
                return False
            # A stroke is in nobody's way before the next one of its contour is there.
            _add(s, frames, before)
    _add(s, frames, path[-1, -1])  # upstream forgets that of the other contour
    return True


def _begin(s: Strokes, y: int, x: int, o: int, pivot: Array, stroke: Array) -> bool:
    """Put a first stroke at (y, x); whether its head and its pivot are in the image."""
    head_y, head_x = ceil(y + s.heads[o, 0]), ceil(x + s.heads[o, 1])
    pivot[0], pivot[1] = ceil(head_y + s.pivots[o, 0]), ceil(head_x + s.pivots[o, 1])
    stroke[0], stroke[1], stroke[2] = y, x, o
    ends = (head_y, head_x, pivot[0], pivot[1])
    return min(ends) >= 0 and max(ends) < s.size


def _begin_two(words: Array, at: Array, s: Strokes, pivots: Array, path: Array) -> bool:
    """The first strokes of both contours; the second one may be anywhere in the image."""
    for _ in range(_TRIES):
        o = _below(words, at, DEGREES)
        top, bottom, left, right = s.tails[o, 0], s.tails[o, 1], s.tails[o, 2], s.tails[o, 3]
        if s.n_taps[o] == 0 or top >= bottom or left >= right:
            return False
        place = _below(words, at, (bottom - top) * (right - left))
        y, x = top + place // (right - left), left + place % (right - left)
        if _begin(s, y, x, o, pivots[0], path[0, 0]):
            break
    else:
        return False
    for _ in range(_TRIES):
        o, around = _below(words, at, DEGREES), _below(words, at, DEGREES)
        y = round(path[0, 0, 0] + s.second[around, 0])
        x = round(path[0, 0, 1] + s.second[around, 1])
        if _begin(s, y, x, o, pivots[1], path[1, 0]):
            return True
    return False


def free_places(s: Strokes, mask: Array, o: int) -> Array:
    """The pixels where a distractor of orientation `o` may start, y * size + x ascending."""
    busy = np.full(mask.shape, s.beyond, np.uint8)
    window = busy[s.pad : s.pad + s.size, s.pad : s.pad + s.size]
    window[:] = mask[s.pad : s.pad + s.size, s.pad : s.pad + s.size] > _FREE
    taken = np.full((s.size, s.size), window.mean() > _FULL, np.uint8)
    for t in range(s.n_taps[o]):
        y, x = s.pad + s.taps[o, t, 0], s.pad + s.taps[o, t, 1]
        taken |= busy[y : y + s.size, x : x + s.size]
    return np.flatnonzero(taken == 0)


def _begin_distractor(
    words: Array, at: Array, s: Strokes, mask: Array, pivot: Array, stroke: Array
) -> bool:
    """The first stroke of a distractor, where it is free."""
    for _ in range(_TRIES):
        o = _below(words, at, DEGREES)
        if s.n_taps[o] == 0:
            return False
        places = free_places(s, mask, o)
        if places.size == 0:
            return False
        place = places[_below(words, at, places.size)]
        if _begin(s, place // s.size, place % s.size, o, pivot, stroke):
            return True
    return False


def draw_image(
    words: Array, at: Array, s: Strokes, contours: Array, distractors: Array
) -> tuple[int, int]:
    """Choose the strokes of one image: write the path of the two contours, and the distractors.

    Returns:
      The attempts at two contours; the distractors that fit, or -1 if the words have run out before
      there were two contours.
    """
    enough = 12 + 6 * contours.shape[1]
    enough += _CONTOUR_TRIES * len(distractors) * (6 + 3 * distractors.shape[1])
    pivots = np.zeros((2, 2), np.int64)
    frames = s.empty.copy()
    attempts, found = 0, False
    while not found:
        if at[0] + enough > len(words):
            return attempts, -1
        attempts += 1
        if _begin_two(words, at, s, pivots, contours):
            found = _grow(words, at, s, frames, pivots, contours)
            if not found:
                frames[:] = s.empty
    placed = 0
    for _ in range(len(distractors)):
        for _ in range(_CONTOUR_TRIES):
            path = distractors[placed : placed + 1]
            if _begin_distractor(words, at, s, frames[0], pivots[0], path[0, 0]):
                trial = frames.copy()
                if _grow(words, at, s, trial, pivots, path):
                    frames, placed = trial, placed + 1
                    break
    return attempts, placed


@functools.cache
def compiled() -> Callable[..., tuple[int, int]]:
    """`draw_image`, by numba if it is installed: 40 times as fast, after 15 s the first time."""
    try:
        import numba.extending  # here: it takes a second
    except ImportError:
        return draw_image
    for function in (
        *(_below, _overlap, _add, next_ends, _extend, _grow),
        *(_begin, _begin_two, free_places, _begin_distractor),
    ):
        numba.extending.register_jitable(function)
    try:
        return numba.njit(cache=True)(draw_image)
    except RuntimeError:  # nowhere to keep the compiled code
        return numba.njit(draw_image)
