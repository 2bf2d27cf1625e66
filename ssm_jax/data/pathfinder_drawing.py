"""The parameters of Pathfinder images: the hard level of the Long Range Arena, arXiv:2011.04006.

Source: the docstrings of the Long Range Arena's Pathfinder data sets, over the defaults of the
Pathfinder challenge's program, arXiv:1805.08315.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """Upstream's parameters. Lengths are in pixels.

    Attributes:
      size: of the square image.
      stroke_length, thickness: of a line.
      margins: kept free around a line; one is drawn per image.
      seed_distance: between the origins of the two contours.
      marker_radius: of the two discs.
      contour_length, distractor_length: in strokes.
      n_distractors: asked for; many do not fit.
      continuity: the larger, the straighter: the chance of a turn by d is cos(continuity * d)**2.
      contour_ink, distractor_ink, marker_ink: brightness, in one arbitrary unit.
    """

    size: int
    stroke_length: int
    thickness: float
    margins: tuple[int, ...]
    seed_distance: int
    marker_radius: float
    contour_length: int
    distractor_length: int
    n_distractors: int
    continuity: float
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
