"""Pathfinder images, against the procedure written directly and against published-code statistics."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from math import atan2, pi

import numpy as np
import pathfinder_oracle as oracle
import pytest
from scipy import stats

from ssm_jax.data import pathfinder_core as core
from ssm_jax.data.pathfinder_drawing import PATHFINDER32, PATHX
from ssm_jax.data.pathfinder_generator import Spec, _empty_frames, generate_shard, sketches
from ssm_jax.data.pathfinder_render import paint_disc
from ssm_jax.data.pathfinder_stamps import CHANCE, DEGREES, strokes

MARGINS = [(PATHFINDER32, 1), (PATHX, 2), (PATHX, 3)]


def degree(o):
    return (o - 180) * np.pi / 180


@pytest.fixture(scope="module")
def small():
    """300 images of 32 px: 3 s without numba."""
    return list(sketches(Spec(seed=1, n_images=300), 0))


@pytest.fixture(scope="module")
def large():
    return list(sketches(Spec(seed=1, n_images=8, size=128), 0))


@pytest.mark.parametrize(("drawing", "margin"), MARGINS)
def test_every_stamp_is_the_line_drawn_directly(drawing, margin):
    s = strokes(drawing, margin, True)
    shape = s.lines.shape[1:]
    for k in range(0, len(s.lines), 1 if drawing.size == 32 else 7):
        angle = degree(k) if k < DEGREES else oracle.flip(atan2(*s.targets[k - DEGREES]))
        line, mask = oracle.line_and_mask(shape, [s.centre] * 2, angle, drawing, margin)
        np.testing.assert_array_equal(s.lines[k], np.rint(255 * line))
        np.testing.assert_array_equal(s.masks[k], np.rint(255 * mask))


@pytest.mark.parametrize(("drawing", "margin", "count"), [(*m, n) for m, n in zip(MARGINS, (330, 6, 0), strict=True)])
def test_upstream_never_starts_with_so_many_of_360_orientations(drawing, margin, count):
    """Counted with cv2.dilate itself: 330 at 32 px, and at 128 px 6 and 0."""
    assert (strokes(drawing, margin, True).n_taps == 0).sum() == count
    assert (strokes(drawing, margin, False).n_taps == 0).sum() == 0


@pytest.mark.parametrize(("drawing", "margin"), MARGINS)
def test_the_first_contour_starts_where_its_line_fits_into_the_core(drawing, margin):
    s = strokes(drawing, margin, True)
    edge = np.ones((drawing.size, drawing.size))
    edge[1:-1, 1:-1] = 0
    for o in range(0, DEGREES, 1 if drawing.size == 32 else 15):
        expected = oracle.start_tails(edge, degree(o), drawing, margin, first=True)
        top, bottom, left, right = s.tails[o]
        tails = [(y, x) for y in range(top, bottom) for x in range(left, right)]
        assert (tails if s.n_taps[o] else []) == expected


def replay(sketch, drawing, check):
    """Go through an image's strokes, with floats; `check` sees the state before each of them.

    Returns:
      The image of the strokes and discs before it is stretched to bytes.
    """
    size, margin = drawing.size, sketch.margin
    targets = strokes(drawing, margin, True).targets
    mask, image = np.zeros((size, size)), np.zeros((size, size))
    mask[[0, -1]] = mask[:, [0, -1]] = 1
    length = drawing.stroke_length
    for group, ink in ((sketch.contours[None], drawing.contour_ink), (sketch.distractors[:, None], drawing.distractor_ink)):
        for paths in group:
            angles, pivots, pending = {}, {}, {}
            for step in range(paths.shape[1]):
                for c, path in enumerate(paths):
                    y, x, k = path[step].tolist()
                    if step == 0:
                        angles[c] = angle = degree(k)
                        head = oracle.move([y, x], angle, length)
                        pivots[c] = oracle.move(head, oracle.flip(angle), length + margin)
                        check("start", sketch, mask, path[step], angle, c)
                    else:
                        ends, pivot = oracle.next_ends(mask, pivots[c], angles[c], drawing, margin)
                        check("extend", sketch, mask, path[step - 1], (pivots[c], ends), (y, x))
                        pivots[c], angles[c] = pivot, atan2(y - pivot[0], x - pivot[1])
                        assert [y - pivot[0], x - pivot[1]] == targets[k - DEGREES].tolist()
                        angle = oracle.flip(angles[c])
                    line, occupied = oracle.line_and_mask((size, size), [y, x], angle, drawing, margin)
                    image = np.maximum(image, line * ink)
                    if step:
                        assert (mask + occupied).max() < 1.8
                        mask = np.maximum(mask, pending[c])
                    pending[c] = occupied
            mask = np.maximum(mask, pending[len(paths) - 1])
    for centre in sketch.discs:
        image = np.maximum(image, drawing.marker_ink * oracle.disc_image(size, centre, drawing.marker_radius))
    return image


def check_against(drawing):
    """Compares free tails, and end points with their chances, with the generator's own."""

    def check(what, sketch, mask, before, extra, where):
        s = strokes(drawing, sketch.margin, True)
        frames = _empty_frames(drawing, sketch.margin).copy()
        inner = slice(drawing.pad, -drawing.pad)
        frames[0, inner, inner] = np.rint(255 * mask)
        if what == "start":
            if where == 0 and before[0] not in sketch.contours[:, 0, 0]:
                free = core.free_places(s, frames[0], before[2])
                expected = oracle.start_tails(mask, extra, drawing, sketch.margin, first=False)
                assert [(p // drawing.size, p % drawing.size) for p in free.tolist()] == expected
                assert (before[0], before[1]) in expected
            return
        pivot, ends = extra
        frames[1, inner, inner] = np.rint(255 * oracle.dilate(mask, oracle.disc(sketch.margin)))
        y, x = core.next_pivot(s, np.array(pivot), before[2])
        chances = core.chances(s, frames[1], y, x, before[2])
        ours = {(y + dy, x + dx): c for (dy, dx), c in zip(s.targets.tolist(), chances, strict=True) if c}
        theirs = {end: chance for end, chance in ends.items() if chance > 1e-9}
        assert ours.keys() == theirs.keys()
        assert where in ours
        for end, chance in ours.items():
            assert abs(chance / chances.sum() - theirs[end]) < 1e-5

    return check
