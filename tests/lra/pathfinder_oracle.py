"""Pathfinder written down a second time: whole images of floats, every line drawn when needed.

No stamps, no frames, no whole numbers. Grey dilation is scipy's, told that pixels outside an image
are minus infinity, as cv2.dilate has it. Shrinking is scipy.misc.imresize's as it was: stretch to
bytes, let Pillow filter them, divide by 255.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage


def shrink(image, size):
    if image.dtype != np.uint8:
        image = (255 * (image - image.min()) / (image.max() - image.min()) + 0.5).astype(np.uint8)
    small = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(small).astype(float) / 255


def move(point, angle, distance):
    return [
        int(np.ceil(point[0] + float(distance) * np.sin(angle))),
        int(np.ceil(point[1] + float(distance) * np.cos(angle))),
    ]


def disc(radius):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2


def dilate(image, footprint):
    return ndimage.maximum_filter(
        image.astype(float), footprint=footprint, mode="constant", cval=-np.inf
    )


def line_and_mask(shape, start, angle, p, margin):
    """A line from `start`, and the region it occupies, in an image; both 0..1."""
    reach = p.stroke_length + int(np.ceil(p.thickness)) + margin
    fine, centre = 4 * reach + 1, 2 * reach
    head = move([centre, centre], angle, p.stroke_length * 2)
    canvas = Image.new("F", (fine, fine), "black")
    ImageDraw.Draw(canvas).line(
        [(centre, centre), (head[1], head[0])], fill="white", width=int(p.thickness * 2)
    )
    line = np.array(canvas)
    mask = dilate(line, disc(2 * margin)).astype(np.uint8)
    images = []
    for small in (shrink(line, 2 * reach + 1), shrink(mask, 2 * reach + 1)):
        image = np.zeros(shape)
        for i in range(2 * reach + 1):
            for j in range(2 * reach + 1):
                y, x = start[0] - reach + i, start[1] - reach + j
                if 0 <= y < shape[0] and 0 <= x < shape[1]:
                    image[y, x] = small[i, j]
        images.append(image)
    return images


def start_tails(mask, angle, p, margin, *, first):
    """(y, x) of all tails of a line that has this angle and fits; upstream's guard included."""
    size, inset = len(mask), 2 * p.seed_distance if first else 1
    occupied = np.ones_like(mask)
    occupied[inset : size - inset, inset : size - inset] = mask[
        inset : size - inset, inset : size - inset
    ]
    radius = p.stroke_length + margin
    _, struct = line_and_mask((2 * radius + 1,) * 2, [radius + 1] * 2, angle, p, margin)
    # A line of which no pixel is wholly occupied would leave an empty footprint.
    dilated = np.ceil(dilate(occupied, struct.astype(np.uint8).astype(bool)) - 0.3)
    if dilated.min() < 0:
        return []
    return [tuple(t) for t in np.argwhere(dilated == 0).tolist()]


def next_ends(mask, pivot, angle, p, margin):
    """{(y, x): weight} of the ends of the stroke after one with this angle; and its pivot."""
    y, x = move(pivot, angle, p.stroke_length + 2 * margin)
    radius = p.stroke_length + margin
    free = 1 - dilate(mask, disc(margin))
    weights = {}
    for degrees in np.arange(0, 360, 360.0 / (2 * radius * np.pi)):
        end_y = y + radius * np.sin(degrees * np.pi / 180)
        end_x = x + radius * np.cos(degrees * np.pi / 180)
        if 0 <= end_y < len(mask) and 0 <= end_x < len(mask):
            end = int(end_y), int(end_x)
            turn = abs(np.arctan2(end[0] - y, end[1] - x) - angle)
            turn = min(min(turn, 2 * np.pi - turn) * p.continuity, np.pi / 2)
            weights[end] = free[end] * np.cos(turn) ** 2
    return weights if sum(weights.values()) >= 1e-4 else {}, [y, x]


def disc_image(size, centre, radius):
    y, x = np.ogrid[
        -centre[0] * 2 : (size - centre[0]) * 2, -centre[1] * 2 : (size - centre[1]) * 2
    ]
    return shrink((x**2 + y**2 <= (2 * radius) ** 2).astype(float), size)


def stretch(image):
    """To bytes; what is half between two is rounded up, whatever the floats make of it."""
    scaled = 255 * (image - image.min()) / (image.max() - image.min())
    return np.floor(np.round(scaled, 6) + 0.5).astype(np.uint8)


def flip(angle):
    return angle + np.pi if angle < 0 else angle - np.pi
