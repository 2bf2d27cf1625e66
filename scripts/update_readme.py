"""Write the tables of README.md and docs/ from results/.

    python scripts/update_readme.py            # --check only says whether they are up to date

Each table stands between `<!-- results:NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from readme import ablation, bias, measured, runs
from readme.common import ROOT

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag

BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    "listops_small": runs.listops_small,
    "activations": runs.activations,
    "lra": runs.lra,
    "data": runs.data,
    "memory": measured.memory,
    "buckets": measured.buckets,
    "resume": runs.resume,
    "damage": runs.damage,
    "kernel_accuracy": measured.kernel_accuracy,
    "layer_accuracy": measured.layer_accuracy,
    "bench_layers": measured.bench_layers,
    "bench_steps": measured.bench_steps,
    "bench_kernels": measured.bench_kernels,
    "denoise": bias.denoise_story,
    "denoise_grid": bias.denoise_grid,
    "waves": bias.wave_errors,
    "one_pole": bias.one_pole,
    "claims": bias.claims,
    "ablation": ablation.ablation,
    "spectrum": ablation.spectrum,
    "windows": ablation.windows,
}


def filled(text: str) -> str:
    """A page's text with every table made anew."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(argv: list[str]) -> int:
    flags = (Flag("check", "change nothing; exit 1 if a table is out of date", False, bool),)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    stale = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        new = filled(text)
        if page.parent != ROOT:  # the tables' links begin at the project's folder
            new = BLOCK.sub(lambda block: block[0].replace("](results/", "](../results/"), new)
        if new == text:
            continue
        if values["check"]:
            print(f"{page.name} is out of date; run scripts/update_readme.py", file=sys.stderr)
            stale = 1
        else:
            page.write_text(new)
    return stale


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
