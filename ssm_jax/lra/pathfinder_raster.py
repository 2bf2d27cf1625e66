"""The inner loop of the Pathfinder generator: one image, from random numbers and stamps.

With numba the same code is compiled; its numbers are whole or are rounded at once, so the images
are the same in every bit. `y`, `x` are pixels of the image, which may lie outside it by up to
`pad`; arrays called frames have that many more pixels on each side: the mask of what is occupied,
and the mask dilated. `i` is the first unread random word; a stroke is (y, x, stamp), a pivot the
centre of the circle on which the next stroke ends, and a path the strokes of some contours,
(contours, strokes, 3).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from ssm_jax.lra.pathfinder_stamps import CHANCE, DEGREES, FREE, Strokes

_numba: Any = None
with contextlib.suppress(ImportError):  # the one place that asks for numba
    import numba.extending

    _numba = numba


def compilable(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that numba may compile; without numba everything stays as it is."""
    return function if _numba is None else _numba.extending.register_jitable(function)


Array = np.ndarray
_TRIES = 3  # for a place of a stroke
_CONTOUR_TRIES = 5  # for a distractor
_COLLISION = 459  # the sum of two masks that is too much: upstream's 1.8
_DEAD_END = int(1e-4 * 255 * CHANCE)  # chances of all end points together
_FULL = 0.99  # of all pixels; then upstream places no distractor


@compilable
def _below(words: Array, i: int, n: int) -> int:
    """A whole number 0..n - 1 from a word of 32 bits; n < 2**31."""
    return int((words[i] * n) >> 32)


@compilable
def _add(frames: Array, s: Strokes, stroke: Array) -> None:
    """Mark a stroke as occupied."""
    k = stroke[2]
    y, x = stroke[0] + s.pad - s.centre, stroke[1] + s.pad - s.centre
    top, bottom, left, right = s.boxes[k, 0], s.boxes[k, 1], s.boxes[k, 2], s.boxes[k, 3]
    view = frames[0, y + top : y + bottom, x + left : x + right]
    view[:] = np.maximum(view, s.masks[k, top:bottom, left:right])
    bottom, right = bottom + 2 * s.margin, right + 2 * s.margin
    y, x = y - s.margin, x - s.margin
    view = frames[1, y + top : y + bottom, x + left : x + right]
    view[:] = np.maximum(view, s.grown[k, top:bottom, left:right])


@compilable
def next_pivot(s: Strokes, pivot: Array, k: int) -> tuple[int, int]:
    """The pivot after stamp `k`."""
    return ceil(pivot[0] + s.steps[k, 0]), ceil(pivot[1] + s.steps[k, 1])


@compilable
def chances(s: Strokes, grown: Array, y: int, x: int, k: int) -> Array:
    """The chance of each end point around the pivot (y, x) after stamp `k`, 0..255 CHANCE."""
    rows, columns = y + s.pad + s.targets[:, 0], x + s.pad + s.targets[:, 1]
    return s.chances[k] * (255 - grown.ravel()[rows * grown.shape[1] + columns])


@compilable
def _extend(
    words: Array, i: int, s: Strokes, frames: Array, pivot: Array, before: Array, stroke: Array
) -> tuple[int, bool]:
    """Choose the stroke after the stroke `before`, and move the pivot to it, if there is one."""
    y, x = next_pivot(s, pivot, before[2])
    edges = np.cumsum(chances(s, frames[1], y, x, before[2]))
    if edges[-1] < _DEAD_END:
        return i, False
    for _ in range(_TRIES):
        j = np.searchsorted(edges, _below(words, i, edges[-1]), side="right")
        i += 1
        head_y, head_x, k = y + s.targets[j, 0], x + s.targets[j, 1], DEGREES + j
        top, bottom, left, right = s.boxes[k, 0], s.boxes[k, 1], s.boxes[k, 2], s.boxes[k, 3]
        from_y, from_x = head_y + s.pad - s.centre, head_x + s.pad - s.centre
        view = frames[0, from_y + top : from_y + bottom, from_x + left : from_x + right]
        if (view + s.masks[k, top:bottom, left:right]).max() < _COLLISION:
            stroke[0], stroke[1], stroke[2] = head_y, head_x, k
            pivot[0], pivot[1] = y, x
            return i, True
    return i, False


@compilable
def _grow(
    words: Array, i: int, s: Strokes, frames: Array, pivots: Array, path: Array
) -> tuple[int, bool]:
    """Choose the strokes after the first of each contour, in turn, if they all fit."""
    for step in range(1, path.shape[1]):
        for c in range(path.shape[0]):
            before = path[c, step - 1]
            i, found = _extend(words, i, s, frames, pivots[c], before, path[c, step])
            if not found:
                return i, False
            # A stroke is in nobody's way before the next one of its contour is there.
            _add(frames, s, before)
    _add(frames, s, path[-1, -1])  # upstream forgets that of the other contour
    return i, True


@compilable
def _begin(s: Strokes, y: int, x: int, o: int, pivot: Array, stroke: Array) -> bool:
    """Put a first stroke at (y, x); whether its head and its pivot are in the image."""
    head_y, head_x = ceil(y + s.heads[o, 0]), ceil(x + s.heads[o, 1])
    pivot[0], pivot[1] = ceil(head_y + s.pivots[o, 0]), ceil(head_x + s.pivots[o, 1])
    stroke[0], stroke[1], stroke[2] = y, x, o
    ends = (head_y, head_x, pivot[0], pivot[1])
    return min(ends) >= 0 and max(ends) < s.size


@compilable
def _begin_two(words: Array, i: int, s: Strokes, pivots: Array, path: Array) -> tuple[int, bool]:
    """The first strokes of both contours; the second one may be anywhere in the image."""
    found = False
    for _ in range(_TRIES):
        o = _below(words, i, DEGREES)
        top, bottom, left, right = s.tails[o, 0], s.tails[o, 1], s.tails[o, 2], s.tails[o, 3]
        if s.n_taps[o] == 0 or top >= bottom or left >= right:
            return i + 1, False
        place = _below(words, i + 1, (bottom - top) * (right - left))
        i += 2
        y, x = top + place // (right - left), left + place % (right - left)
        found = _begin(s, y, x, o, pivots[0], path[0, 0])
        if found:
            break
    if not found:
        return i, False
    for _ in range(_TRIES):
        o, around = _below(words, i, DEGREES), _below(words, i + 1, DEGREES)
        i += 2
        y = round(path[0, 0, 0] + s.second[around, 0])
        x = round(path[0, 0, 1] + s.second[around, 1])
        if _begin(s, y, x, o, pivots[1], path[1, 0]):
            return i, True
    return i, False


@compilable
def free_places(s: Strokes, mask: Array, o: int) -> Array:
    """The pixels where a distractor of orientation `o` may start, y * size + x ascending."""
    busy = np.full(mask.shape, s.beyond, np.uint8)
    window = busy[s.pad : s.pad + s.size, s.pad : s.pad + s.size]
    window[:] = mask[s.pad : s.pad + s.size, s.pad : s.pad + s.size] > FREE
    taken = np.full((s.size, s.size), window.mean() > _FULL, np.uint8)
    for t in range(s.n_taps[o]):
        y, x = s.pad + s.taps[o, t, 0], s.pad + s.taps[o, t, 1]
        taken |= busy[y : y + s.size, x : x + s.size]
    return np.flatnonzero(taken == 0)


@compilable
def _begin_distractor(
    words: Array, i: int, s: Strokes, mask: Array, pivot: Array, stroke: Array
) -> tuple[int, bool]:
    """The first stroke of a distractor, where it is free."""
    for _ in range(_TRIES):
        o = _below(words, i, DEGREES)
        i += 1
        if s.n_taps[o] == 0:
            return i, False
        places = free_places(s, mask, o)
        if places.size == 0:
            return i, False
        place = places[_below(words, i, places.size)]
        i += 1
        if _begin(s, place // s.size, place % s.size, o, pivot, stroke):
            return i, True
    return i, False


def draw_image(
    words: Array, i: int, s: Strokes, empty: Array, contours: Array, distractors: Array
) -> tuple[int, int, int]:
    """Choose the strokes of one image.

    Args:
      words: random words of 32 bits, int64.
      i: the first unread of them.
      s: the stamps.
      empty: the frames of an image of which only the margin is occupied, (2, size + 2 pad, size +
        2 pad) int16.
      contours: written, the path of the two contours.
      distractors: written, (n, strokes, 3).

    Returns:
      The next unread word; the attempts at two contours; the distractors that fit, or -1 if the
      words have run out before there were two contours.
    """
    enough = 12 + 6 * contours.shape[1]
    enough += _CONTOUR_TRIES * len(distractors) * (6 + 3 * distractors.shape[1])
    pivots = np.zeros((2, 2), np.int64)
    frames = empty.copy()
    attempts, found = 0, False
    while not found:
        if i + enough > len(words):
            return i, attempts, -1
        attempts += 1
        i, found = _begin_two(words, i, s, pivots, contours)
        if found:
            i, found = _grow(words, i, s, frames, pivots, contours)
            if not found:
                frames[:] = empty
    placed = 0
    for _ in range(len(distractors)):
        for _ in range(_CONTOUR_TRIES):
            path = distractors[placed : placed + 1]
            i, found = _begin_distractor(words, i, s, frames[0], pivots[0], path[0, 0])
            if not found:
                continue
            trial = frames.copy()
            i, found = _grow(words, i, s, trial, pivots, path)
            if found:
                frames = trial
                placed += 1
                break
    return i, attempts, placed


@functools.cache
def compiled() -> Callable[..., tuple[int, int, int]]:
    """`draw_image`, by numba if it is installed: 40 times as fast, after 15 s the first time."""
    if _numba is None:
        return draw_image
    try:
        return _numba.njit(cache=True)(draw_image)
    except RuntimeError:  # nowhere to keep the compiled code
        return _numba.njit(draw_image)
