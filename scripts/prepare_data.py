"""Prepare a data set: generate it, or read the official release, once.

    python scripts/prepare_data.py listops                          # as large as the official one
    python scripts/prepare_data.py listops --lra_release=PATH       # the official one

An interrupted preparation goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

# Found from the repository root without an installation, as `python scripts/...` puts only scripts/
# on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssm_jax.data import prepare
from ssm_jax.data.listops_generator import Spec
from ssm_jax.data.store import open_store, verify_store


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"prepare_data.py: {message}; --help lists what there is.\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; bad input ends the process with exit code 2."""
    parser = _Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    tasks = parser.add_subparsers(dest="task", required=True)
    listops = tasks.add_parser(
        "listops", help="ListOps of the Long Range Arena", allow_abbrev=False
    )
    listops.add_argument(
        "--data_dir",
        type=Path,
        default=prepare.default_data_dir(),
        help="where data are kept (default: $SSM_JAX_DATA_DIR, or data)",
    )
    listops.add_argument(
        "--lra_release", type=Path, help="the official release: archive or folder; else generated"
    )
    listops.add_argument(
        "--workers", type=int, help="processes (default: one per core); changes no number"
    )
    group = listops.add_argument_group("what to generate (defaults: as the official data)")
    for field in dataclasses.fields(Spec):
        group.add_argument(f"--{field.name}", type=int, help=f"default: {field.default}")
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers={args.workers} must be at least 1")
    return args


def prepare_listops(args: argparse.Namespace) -> Path:
    """The folder of the store, prepared if it was not there."""
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Spec)}
    given = {name: value for name, value in given.items() if value is not None}
    if args.lra_release is None:
        return prepare.prepare_generated(Spec(**given), args.data_dir, workers=args.workers)
    if given:
        raise ValueError(
            f"--{next(iter(given))} says what to generate, --lra_release={args.lra_release} "
            "what to read; give one of the two."
        )
    return prepare.prepare_official(args.lra_release, args.data_dir)


def report(folder: Path, seconds: float) -> str:
    """A table of what a store holds."""
    manifest, splits = open_store(folder)
    lines = [
        f"{manifest['detail']}",
        f"sha256 {manifest['sha256']}",
        "",
        "split     rows        tokens         bytes  mean length  majority"
        "  share of the answers 0..9 in %",
    ]
    for split, rows in splits.items():
        size = sum(e["bytes"] for n, e in manifest["files"].items() if n.startswith(f"{split}."))
        shares = np.bincount(rows.targets, minlength=10) / len(rows)
        lines.append(
            f"{split:5} {len(rows):8,} {rows.tokens.size:13,} {size:13,} "
            f"{rows.lengths().mean():12.1f} {shares.max():9.2%}  "
            + " ".join(f"{100 * share:.1f}" for share in shares)
        )
    return "\n".join([*lines, "", f"{folder} ready in {seconds:.1f} s"])


def main(argv: list[str]) -> int:
    """Prepare what is asked for; returns the exit code."""
    args = parse(argv)
    start = time.perf_counter()
    try:
        folder = prepare_listops(args)
        verify_store(folder)
    except (ValueError, OSError) as error:
        print(f"prepare_data.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    print(report(folder, time.perf_counter() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
