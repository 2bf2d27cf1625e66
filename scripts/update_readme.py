"""Write the tables of README.md and docs/ from results/, and stamp the figures in results/.

    python scripts/update_readme.py            # --check only says whether all is up to date
    python scripts/update_readme.py --accept=waves/errors.png

Each table stands between `<!-- results:NAME -->` and `<!-- end -->`. A figure that is older than
its numbers, or than the function that draws it, is an error: draw it again, or --accept it where it
would look the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from readme import advice, bias, costs, figures, measured, modes, options
from readme.common import ROOT

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main

BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    "listops_small": measured.listops_small,
    "activations": measured.activations,
    "truncation": measured.truncation,
    "lra": measured.lra,
    "data": measured.data,
    "memory": costs.memory,
    "buckets": costs.buckets,
    "resume": measured.resume,
    "damage": measured.damage,
    "kernel_accuracy": costs.kernel_accuracy,
    "layer_accuracy": costs.layer_accuracy,
    "bench_layers": costs.bench_layers,
    "bench_peers": costs.bench_peers,
    "bench_streams": costs.bench_streams,
    "bench_startup": costs.bench_startup,
    "processes": costs.processes,
    "population": costs.population,
    "population_planned": costs.population_planned,
    "bench_large_file": costs.bench_large_file,
    "bench_lambda_max": costs.bench_lambda_max,
    "bench_bookkeeping": costs.bench_bookkeeping,
    "bench_steps": costs.bench_steps,
    "bench_kernels": costs.bench_kernels,
    "denoise": bias.denoise_story,
    "denoise_grid": bias.denoise_grid,
    "video": bias.video_story,
    "video_grid": bias.video_grid,
    "runoff_mean": bias.runoff_mean,
    "runoff_last": bias.runoff_last,
    "waves": bias.wave_errors,
    "linoss": bias.linoss,
    "linoss_waves": bias.linoss_waves,
    "one_pole": bias.one_pole,
    "claims": bias.claims,
    "bound": modes.bound,
    "memory_reach": modes.memory,
    "conditioning": modes.conditioning,
    "initializations": modes.initializations,
    "trade_off": modes.trade_off,
    "alphas": modes.alphas,
    "dt_rules": advice.dt_rules,
    "decorrelated": advice.decorrelated,
    "advice": advice.advice,
    "advised": advice.advised,
    "alpha_alone": advice.alpha_alone,
    "ablation": measured.ablation,
    "series": measured.series,
    "uea": measured.uea,
    "series_rates": measured.series_rates,
    "spectrum": measured.spectrum,
    "windows": measured.windows,
    "options": options.options,
    "aot": costs.aot,
    "aot_h200": costs.aot_h200,
}


def filled(text: str) -> str:
    """A page's text with every table made anew."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(argv: list[str]) -> int:
    flags = (
        Flag("check", "change nothing; exit 1 if a table or figure is out of date", False, bool),
        Flag("accept", "figure in results/ to stamp, though it was not drawn again"),
    )
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    faults = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        new = filled(text)
        if page.parent != ROOT:  # the tables' links begin at the project's folder
            new = BLOCK.sub(lambda block: block[0].replace("](results/", "](../results/"), new)
        if new != text and values["check"]:
            faults.append(f"{page.name} is out of date; run scripts/update_readme.py")
        elif new != text:
            page.write_text(new)
    if values["accept"] is not None:
        figures.accept(values["accept"])
    faults += figures.check(stamp=not values["check"])
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    run_main(main)
