"""`sweep --status`: how far all the runs of a sweep are, on the terminal and as a page."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssm_jax.commands.sweep_runs import tried
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, parse, split
from ssm_jax.files import parse_json, write_json
from ssm_jax.sweep import Run, Search, by_cell

COMMAND = "command.json"  # the command that a sweep's folder is of
ASIDE = ("run", "storage", "status", "report_only")  # not part of what it makes


def remember(folder: Path, argv: Sequence[str], flags: Sequence[Flag]) -> None:
    """Keep in a folder the command of its sweep, so that `--status --folder=` finds it."""
    _, words = split(argv, [flag for flag in flags if flag.name in ASIDE])
    found, path = {"argv": words, "cwd": os.getcwd()}, folder / COMMAND
    known = None
    with contextlib.suppress(FileNotFoundError, ValueError):  # there is none, or a damaged one
        known = parse_json(path.read_bytes())
    if known != found:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, found)


def remembered(argv: list[str], flags: Sequence[Flag]) -> list[str]:
    """The command line; of `--status --folder=` alone, that of the sweep in the folder.

    It then continues in the folder in which that command was given.
    """
    given, _ = parse(argv, flags)
    folder = given.get("folder")
    if not given.get("status") or "configs" in given or folder is None:
        return argv
    if any(word.startswith("--config") for word in argv):
        return argv
    if not folder.is_dir():
        raise ValueError(f"--folder={folder} does not exist; there is nothing to report.")
    try:
        known = parse_json((folder / COMMAND).read_text(encoding="utf-8"))
        words, where = [str(word) for word in known["argv"]], str(known["cwd"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{folder} does not say by which command it was made; give that, with --status."
        ) from None
    whole = folder.absolute()
    os.chdir(where)
    return [*words, *argv, f"--folder={whole}"]


def show(
    commands: Mapping[str, cli.Command],
    parts: Mapping[str, tuple[Path, list[Run]]],
    search: Search | None,
) -> None:
    """Print how far each experiment of a sweep is, and write its page."""
    from rich.console import Console
    from rich.text import Text

    from ssm_jax.sweep.standing import ends_of, line_of, table_of

    # Values and errors may hold brackets and colons, which are no markup
    plain = functools.partial(Console, markup=False, highlight=False, emoji=False)
    for label, (where, runs) in parts.items():
        progress = write(commands[label], where, runs, search)
        print(line_of(progress))
        console = plain()
        if plain(width=10_000).measure(table := table_of(progress)).maximum <= console.width:
            console.print(table)
        else:  # the last column has no room: a line for each below the table, cut at the end
            console.print(table_of(progress, ends=False))
            for end in ends_of(progress):
                console.print(Text(end), no_wrap=True, overflow="ellipsis")
        print(f"{where / 'progress.html'}: the same, to be sorted")


def write(command: cli.Command, folder: Path, runs: list[Run], search: Search | None) -> Any:
    """Write progress.html, with the figure of what is finished; the progress."""
    from ssm_jax.plots.sweep import draw_sweep
    from ssm_jax.sweep.results import document_of
    from ssm_jax.sweep.standing import progress_of, write_page

    to_come, cfg = 0, command.cfg
    if search is not None:
        runs = tried(search, folder, command)
        to_come = search.to_come(folder, len(by_cell(runs))) * len(search.seeds)
    progress = progress_of(runs, folder, cfg, to_come)
    figure = None
    if progress.count("finished") and (search is None or search.points) and runs[0].cell:
        document = document_of(runs, folder, cfg, [], command.values["metric"])
        figure = folder / f"sweep.{cfg.figures_format}"
        figure = figure if draw_sweep(figure, document) else None
    write_page(folder / "progress.html", progress, figure)
    return progress
