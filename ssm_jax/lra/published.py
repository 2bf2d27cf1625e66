"""Published test accuracies on the Long Range Arena, as printed: 89.4 is not 89.40.

Each row of published.csv names the source that its numbers are read in, which is not always the
paper of the model: arXiv:2508.20441 is Solozabal et al., S4D-DFouT, Table 4; arXiv:2505.09022 is Yu
and Erichson, Block-Biased Mamba. In brackets is the standard deviation over seeds; x: it failed to
learn; -: we could not check the number.

Where all six columns are there, the printed average is their mean to within the rounding of both; a
failed Path-X counts as 50 % in it (Transformer, S4D-Lin). One average, that of "S4D (re-run)", is
cut off and not rounded: its columns have the mean 86.728, printed is 86.72.
"""

import csv
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

COLUMNS: Mapping[str, str] = {  # in the order of every table
    "listops": "ListOps",
    "text": "Text",
    "retrieval": "Retrieval",
    "image": "Image",
    "pathfinder": "Pathfinder",
    "pathx": "Path-X",
}


class Score(NamedTuple):
    """An accuracy and, where it is printed, its standard deviation over seeds; in percent."""

    mean: Decimal
    std: Decimal | None


class Published(NamedTuple):
    """One row of a published table."""

    model: str
    # By key of COLUMNS; None: it failed to learn; no key: we could not check the number
    scores: Mapping[str, Score | None]
    average: Decimal  # percent
    source: str  # where the numbers were read


def _published(row: Mapping[str, str]) -> Published:
    scores: dict[str, Score | None] = {}
    for key in COLUMNS:
        mean, _, std = row[key].rstrip(")").partition("(")
        if mean == "x":
            scores[key] = None
        elif mean != "-":
            scores[key] = Score(Decimal(mean), Decimal(std) if std else None)
    return Published(row["model"], scores, Decimal(row["average"]), row["source"])


with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as _file:
    ANCHORS = tuple(map(_published, csv.DictReader(_file)))
