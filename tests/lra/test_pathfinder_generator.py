"""Pathfinder images, against the procedure written directly and statistics of the original."""

import hashlib
import importlib.util
from math import atan2

import numpy as np
import pathfinder_oracle as oracle
import pytest
from scipy import stats

from lra_generators import pathfinder as core
from lra_generators.strokes import CHANCE, DEGREES, PATHFINDER32, PATHX, paint_disc, strokes
from ssm_jax.data.draws import philox
from ssm_jax.lra.pathfinder_generator import _FAMILY, Spec, generate_shard

MARGINS = [(PATHFINDER32, 1), (PATHX, 2), (PATHX, 3)]


def degree(o):
    return (o - 180) * np.pi / 180


def sketches(spec, shard, draw=None):
    """The images of a shard, with what they were made of."""
    bits = philox(spec.seed, shard, _FAMILY)
    return core.sketches(bits, spec.rows(shard), spec.size, spec.upstream, draw)


@pytest.fixture(scope="module")
def small():
    """200 images of 32 px: 2.5 s without numba."""
    return list(sketches(Spec(seed=1, n_images=200), 0))


@pytest.fixture(scope="module")
def large():
    return list(sketches(Spec(seed=1, n_images=6, size=128), 0))


@pytest.mark.parametrize(("drawing", "margin"), MARGINS)
def test_every_stamp_is_the_line_drawn_directly(drawing, margin):
    s = strokes(drawing, margin, True)
    shape = s.lines.shape[1:]
    for k in range(0, len(s.lines), 1 if drawing.size == 32 else 7):
        angle = degree(k) if k < DEGREES else oracle.flip(atan2(*s.targets[k - DEGREES]))
        line, mask = oracle.line_and_mask(shape, [s.centre] * 2, angle, drawing, margin)
        np.testing.assert_array_equal(s.lines[k], np.rint(255 * line))
        np.testing.assert_array_equal(s.masks[k], np.rint(255 * mask))


@pytest.mark.parametrize(
    ("drawing", "margin", "count"), [(PATHFINDER32, 1, 330), (PATHX, 2, 6), (PATHX, 3, 0)]
)
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


def replay(sketch, p):
    """Draw an image again, stroke by stroke with floats, and compare every choice with its list.

    Returns:
      The image, not yet stretched to bytes.
    """
    size, m = p.size, sketch.margin
    s = strokes(p, m, True)
    frames = s.empty.copy()
    window = slice(p.pad, -p.pad)
    mask, image = np.zeros((size, size)), np.zeros((size, size))
    mask[[0, -1]] = mask[:, [0, -1]] = 1
    groups = [(sketch.contours, p.contour_ink)]
    groups += [(distractor[None], p.distractor_ink) for distractor in sketch.distractors]
    for number, (paths, ink) in enumerate(groups):
        last = [None] * len(paths)  # pivot, angle and mask of each one's last stroke
        for step in range(paths.shape[1]):
            for c, path in enumerate(paths):
                y, x, k = path[step].tolist()
                frames[:, window, window] = np.rint(255 * mask)
                if step == 0:
                    angle = drawn = degree(k)
                    head = oracle.move([y, x], angle, p.stroke_length)
                    pivot = oracle.move(head, oracle.flip(angle), p.stroke_length + m)
                    if number > 0:
                        tails = oracle.start_tails(mask, angle, p, m, first=False)
                        places = core.free_places(s, frames[0], k).tolist()
                        assert [divmod(place, size) for place in places] == tails
                        assert (y, x) in tails
                else:
                    pivot, angle, occupied = last[c]
                    ends, pivot_after = oracle.next_ends(mask, pivot, angle, p, m)
                    frames[1, window, window] = np.rint(255 * oracle.dilate(mask, oracle.disc(m)))
                    k = path[step - 1, 2]
                    *found, chances = core.next_ends(s, frames[1], np.array(pivot), k)
                    assert found == pivot_after
                    compare_ends(s, chances.tolist(), pivot_after, ends)
                    pivot, angle = pivot_after, atan2(y - pivot_after[0], x - pivot_after[1])
                    drawn = oracle.flip(angle)
                    assert ends[y, x] > 0
                line, region = oracle.line_and_mask((size, size), [y, x], drawn, p, m)
                image = np.maximum(image, line * ink)
                if step:
                    assert (mask + region).max() < 1.8
                    mask = np.maximum(mask, occupied)
                last[c] = pivot, angle, region
        mask = np.maximum(mask, last[-1][2])
    for centre in sketch.discs:
        disc = oracle.disc_image(size, centre, p.marker_radius)
        image = np.maximum(image, p.marker_ink * disc)
    return image


def compare_ends(s, chances, pivot, listed):
    ours = {
        (pivot[0] + dy, pivot[1] + dx): chance
        for (dy, dx), chance in zip(s.targets.tolist(), chances, strict=True)
        if chance
    }
    listed = {end: weight for end, weight in listed.items() if weight > 1e-9}
    assert ours.keys() == listed.keys()
    for end, chance in ours.items():
        assert abs(chance / (255 * CHANCE) - listed[end]) < 0.51 / CHANCE  # they are rounded


def test_an_image_can_be_drawn_again_directly_with_every_choice_among_the_listed(small, large):
    """Free tails, end points and their chances at each step, collisions, and the bytes."""
    assert {sketch.margin for sketch in large[:4]} == {2, 3}
    for sketch in small[:12] + large[:4]:
        p = PATHFINDER32 if sketch.margin == 1 else PATHX
        np.testing.assert_array_equal(oracle.stretch(replay(sketch, p)), sketch.pixels)


def test_without_the_border_behaviour_tails_are_where_all_taps_are_free(small):
    """Where pixels outside the image count as occupied, and no orientation is refused."""
    s, radius = strokes(PATHFINDER32, 1, False), 3
    rng = np.random.default_rng(0)
    mask = np.where(rng.random((32, 32)) < 0.1, rng.integers(0, 256, (32, 32)), 0)
    frame = np.pad(mask, PATHFINDER32.pad).astype(np.int16)
    for o in range(0, DEGREES, 7):
        _, struct = oracle.line_and_mask(
            (2 * radius + 1,) * 2, [radius + 1] * 2, degree(o), PATHFINDER32, 1
        )
        padded = np.pad(mask / 255, 8, constant_values=1.0)
        dilated = oracle.dilate(padded, struct.astype(np.uint8).astype(bool))[8:-8, 8:-8]
        expected = np.flatnonzero(dilated <= 0.3)
        np.testing.assert_array_equal(core.free_places(s, frame, o), expected)


@pytest.mark.parametrize("drawing", [PATHFINDER32, PATHX], ids=["32", "128"])
def test_discs_are_cut_and_filtered_at_the_edges_like_the_whole_image(drawing):
    last = drawing.size - 1
    for y, x in [(0, 0), (1, 9), (last, 4), (12, last - 1), (last - 7, last - 8), (15, 16)]:
        image = np.zeros((drawing.size,) * 2, np.int32)
        paint_disc(image, drawing, y, x)
        expected = oracle.disc_image(drawing.size, [y, x], drawing.marker_radius)
        np.testing.assert_array_equal(image, np.rint(255 * expected) * drawing.marker_ink)


def test_the_label_says_whether_the_discs_are_on_one_contour(small):
    for sketch in small:
        starts, ends = sketch.contours[:, 0, :2].tolist(), sketch.contours[:, -1, :2].tolist()
        first, second = sketch.discs
        contour = starts.index(first)
        assert second == ends[contour if sketch.label else 1 - contour]
    labels = [sketch.label for sketch in small]
    assert stats.binomtest(sum(labels), len(labels)).pvalue > 1e-3
    origins = [sketch.contours[0, 0, :2].tolist() == sketch.discs[0] for sketch in small]
    assert stats.binomtest(sum(origins), len(origins)).pvalue > 1e-3


def agrees(values, reference, error=0.0, n_errors=4):
    """Whether a mean is the reference's, whose standard error is given."""
    values = np.asarray(values, float)
    spread = np.hypot(values.std() / np.sqrt(values.size), error)
    return abs(values.mean() - reference) < n_errors * spread


def compare_with_upstream(images):
    """Means over 150 and over 550 images of the original program, its byte scaling restored.

    Of the 550: 322 attempts, 15.2 % of pixels above 25, 28 + 4 * 1.15 strokes; of the 150 the rest,
    with their standard errors.
    """
    pixels = np.array([sketch.pixels for sketch in images]).reshape(len(images), -1)
    labels = np.array([sketch.label for sketch in images])
    attempts = [sketch.attempts for sketch in images]
    placed = np.array([len(sketch.distractors) for sketch in images])
    assert agrees(attempts, 279, 23)
    assert agrees(attempts, 322, 322 / np.sqrt(550))
    assert agrees(placed, 1.23, placed.std() / np.sqrt(150))
    assert agrees(28 + 4 * placed, 32.6, 4 * placed.std() / np.sqrt(550))
    assert agrees(pixels.mean(1), 20.32, 0.17)
    assert agrees((pixels > 0).mean(1), 0.345, 0.003)
    assert agrees((pixels > 25).mean(1), 0.152, 0.001)
    # No class is brighter: 20.1 and 20.2.
    means = [pixels[labels == label].mean(1) for label in (0, 1)]
    assert agrees(means[0], means[1].mean(), means[1].std() / np.sqrt(len(means[1])))
    # Every attempt fails alike, so their number is geometric: as wide as its mean.
    assert abs(np.std(attempts) / np.mean(attempts) - 1) < 4 * np.sqrt(2 / len(images))


def test_images_have_the_statistics_of_the_original_program(small):
    compare_with_upstream(small)


@pytest.mark.slow
def test_20_000_images_have_the_statistics_of_the_original_program():
    """4 minutes, or 16 s with numba; and the statistics of other 20,000 images of ours."""
    images = [sketch for k in range(20) for sketch in sketches(Spec(seed=7, n_images=20_000), k)]
    compare_with_upstream(images)
    assert agrees([sketch.attempts for sketch in images], 319.9, 2.3)
    assert agrees([len(sketch.distractors) for sketch in images], 1.143, 0.0065)
    assert agrees([sketch.pixels.mean() for sketch in images], 20.143, 0.014)


def test_without_the_border_behaviour_most_distractors_fit():
    """4.64 of 5 and 26.2 attempts over 20,000 images: a twelfth of the attempts, 30 / 360."""
    images = list(sketches(Spec(n_images=100, upstream=False), 0))
    assert agrees([len(sketch.distractors) for sketch in images], 4.64)
    assert agrees([sketch.attempts for sketch in images], 26.2)


def test_large_images_are_sparse_and_hold_most_of_their_distractors(large):
    """7.62 of 8 distractors, mean 7.88 and 13.6 % lit pixels over 200 images."""
    pixels = np.array([sketch.pixels for sketch in large]).reshape(len(large), -1)
    assert pixels.shape == (6, 128 * 128)
    assert agrees([len(sketch.distractors) for sketch in large], 7.62, 0.3)
    assert agrees(pixels.mean(1), 7.88, 0.03)
    assert agrees((pixels > 0).mean(1), 0.1364, 0.0005)


def test_images_are_bytes_from_0_to_255(small, large):
    for sketch in small + large:
        assert sketch.pixels.dtype == np.uint8
        assert (sketch.pixels.min(), sketch.pixels.max()) == (0, 255)


def test_a_shard_depends_on_seed_and_number_and_begins_alike_however_long_it_is():
    def digest(shard, **changes):
        spec = Spec(**{"seed": 3, "n_images": 5_010, **changes})
        pixels, labels = generate_shard(spec, shard)
        assert (pixels.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert pixels.shape == (len(labels), spec.size**2)
        return hashlib.sha256(pixels[:6].tobytes() + labels[:6].tobytes()).hexdigest()[:16]

    assert digest(5) == digest(5, n_images=5_006)
    others = [digest(5), digest(5, seed=4), digest(4, n_images=4_006), digest(5, upstream=False)]
    assert len(set(others)) == 4
    # The very bytes: whoever changes them raises VERSION.
    assert digest(5) == "f5632b265340a6d5"
    assert digest(0, size=128, n_images=2) == "2c2a87084d96b560"


def test_the_words_that_run_out_within_an_image_are_followed_by_fresh_ones(monkeypatch):
    """An image takes about 1,500 words, a block holds 1,024."""
    monkeypatch.setattr("lra_generators.pathfinder._BLOCK", 512)
    images = list(sketches(Spec(n_images=30), 0))
    assert len({sketch.pixels.tobytes() for sketch in images}) == 30
    assert agrees([sketch.attempts for sketch in images], 319.9)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
def test_compiled_and_plain_code_draw_the_same_images():
    for spec in (Spec(n_images=20), Spec(n_images=2, size=128), Spec(n_images=20, upstream=False)):
        plain, fast = (list(sketches(spec, 0, draw)) for draw in (core.draw_image, core.compiled()))
        assert core.compiled() is not core.draw_image
        for a, b in zip(plain, fast, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            np.testing.assert_array_equal(a.contours, b.contours)
            assert (a.label, a.attempts, a.discs) == (b.label, b.attempts, b.discs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed=-1 must be"),
        ({"seed": True}, "seed=True must be"),
        ({"n_images": 0}, "n_images=0 must be"),
        ({"size": 64}, "size=64 is not known"),
        ({"upstream": 1}, "upstream=1 must be"),
    ],
)
def test_impossible_specifications_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Spec(**changes)


def test_a_shard_beyond_the_images_is_refused():
    with pytest.raises(ValueError, match="shard 2 does not exist; 1,500 images are shards 0 to 1"):
        generate_shard(Spec(n_images=1_500), 2)
