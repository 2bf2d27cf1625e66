"""The table of the Long Range Arena: results of runs beside the published numbers.

    python scripts/report.py runs/a runs/b                     # folders of runs, or one above them
    python scripts/report.py results/lra/*.json --out=lra.html         # copies of summary.json

What cannot be read is said in a line and left out. Runs that diverged are shown, and are no part of
a mean; a seed is counted once; reduced runs and data that are not official have their own rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.files import replace_atomically

ENDINGS = {".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html"}
RUNS = Flag("runs", "folders of runs, a folder above them, or copies of summary.json", kind=Path)
FLAGS = (
    Flag(
        "format",
        "what to write; if not given, what the ending of --out says, else md",
        choices=tuple(ENDINGS.values()),
    ),
    Flag("out", "file to write, or to replace; if not given, the screen", kind=Path, writes="file"),
    Flag("published", "put the published rows below ours", True, bool),
)


def main(argv: list[str]) -> int:
    values = cli.load_flags(argv, flags=FLAGS, about=__doc__ or "", words=RUNS)
    from ssm_jax.lra.report import FORMATS, collect, tabulate  # after the options: they wait

    out = values["out"]
    table = tabulate(*collect(values["runs"]))
    name = values["format"] or ENDINGS.get(out.suffix if out else "", "md")
    text = FORMATS[name](table, published=values["published"])
    for line in table.remarks:
        print(f"warning: {line}", file=sys.stderr)
    if out is None:
        sys.stdout.write(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(out, text)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
