"""The command prepare: make, list and verify the data sets of the Long Range Arena."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, guess
from ssm_jax.config.check import fault_of
from ssm_jax.data.manifest import DamagedError
from ssm_jax.data.packages import PACKAGED, list_packaged
from ssm_jax.data.prepare import DataPaths, check_name, cpu_count
from ssm_jax.data.prepare import prepare as make
from ssm_jax.data.store import Store, stores_of, unfinished, verify_store
from ssm_jax.files import os_fault, printable
from ssm_jax.lra.catalog import CATALOG, Entry, command_of
from ssm_jax.options.rows import OPTIONS
from ssm_jax.stop import EXIT_INTERRUPTED

VERBS = ("list", "prepare", "verify")
PACKAGES = "Sets that lie in Python packages, for --config=packaged:NAME:"
WORDS = Flag("task", f"{'|'.join(VERBS)} TASK; prepare may be left out", words=True)


def prepare(argv: list[str], called: Sequence[str] = ("ssm-jax", "prepare")) -> int:
    """Prepare the data of the Long Range Arena: generate them, or read official files, once.

        ssm-jax prepare list                                     # what there is, and is not
        ssm-jax prepare pathfinder                               # generated
        ssm-jax prepare image                                    # downloaded
        ssm-jax prepare text --source=sample                     # of an installed package
        ssm-jax prepare retrieval --from=PATH                    # official files
        ssm-jax prepare verify pathfinder                        # every byte

    The same command resumes an interrupted preparation. Generated data are never put in the place
    of official ones: --source says which, and every result repeats it. `ssm-jax prepare TASK
    --help` shows what can be chosen of a task.
    """
    words = [word for word in argv[:2] if not word.startswith("-")]
    if words and words[0] in CATALOG:
        words, argv = ["prepare", *words], ["prepare", *argv]
    entry = CATALOG.get(words[1]) if len(words) == 2 and words[0] == "prepare" else None
    about = "\n".join(f"    {name:14}{kind.about}" for name, kind in CATALOG.items())
    flags = (WORDS, cli.DATA_DIR, *(_flags_of(entry) if entry else ()))
    values = cli.load_flags(argv, flags=flags, about=f"{prepare.__doc__}\n{about}")
    data_dir = values["data_dir"]
    try:
        match values["task"]:
            case ["list"]:
                shown = f"{list_tasks(data_dir)}\n\n{PACKAGES}\n{list_packaged(data_dir)}"
            case [*_, name] if name in PACKAGED:
                raise ValueError(f"{name} is prepared by ssm-jax train --config=packaged:{name}.")
            case ["verify", task] if task in CATALOG:
                shown = verify_task(task, data_dir)
            case ["prepare", task] if entry:
                shown = prepare_task(task, entry, values, [*called, *argv])
            case ["prepare" | "verify" as verb, *rest]:
                wrong = f"unknown {' '.join(rest)!r}" if rest else "no TASK given"
                raise ValueError(f"{verb} TASK: {wrong}; choose from {', '.join(CATALOG)}.")
            case [word, *_]:
                raise ValueError(f"unknown task {word!r}{guess(word, (*VERBS, *CATALOG))}")
    except (ValueError, OSError) as error:  # also of Python, about the user's files
        cli.fail(printable(os_fault(error) if isinstance(error, OSError) else str(error)))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here.", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(shown)
    return 0


def _flags_of(entry: Entry) -> tuple[Flag, ...]:
    """What can be chosen of a data set."""
    usual = f"else {entry.sources[0]}, or official with --from"
    kinds = get_type_hints(entry.options)
    return (
        Flag("source", f"where the examples come from; {usual}", choices=entry.sources),
        Flag("from", f"official files: {entry.files}", kind=Path),
        Flag("workers", "processes; else one per core. Changes no number", kind=int, least=1),
        Flag("tfds", "also write a TensorFlow Datasets data set", False, bool),
        Flag("record", "also write what was made to a JSON file", kind=Path, writes="file"),
        *(
            Flag(field.name, f"else {field.default}, as published", kind=kinds[field.name])
            for field in dataclasses.fields(entry.options)
        ),
    )


def prepare_task(task: str, entry: Entry, values: Mapping[str, Any], words: Sequence[str]) -> str:
    """Make a data set unless it is there; a table of what it holds."""
    files, data_dir = values["from"], values["data_dir"]
    source = values["source"] or ("official" if files else entry.sources[0])
    if files is not None and source not in entry.reads:
        raise ValueError(
            f"--from={files} says what to read, --source={source} that nothing is; "
            "give one of the two."
        )
    names = {field.name for field in dataclasses.fields(entry.options)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    if unread := [name for name in entry.unread[source] if name in given]:
        raise ValueError(
            f"--{unread[0]} changes nothing about --source={source} of {task}; give one of the two."
        )
    # The generators take more, but no experiment could name such data.
    if given.get("seed", 0) > 0 and (fault := fault_of("seed", given["seed"], OPTIONS["seed"])):
        raise ValueError(fault)
    start = time.perf_counter()
    paths = DataPaths(data_dir, files, values["workers"] or cpu_count())
    recipe = entry.recipe(entry.options(**given), source, paths)
    folder = make(recipe, data_dir, tfds=values["tfds"])
    store = verify_store(folder)
    seconds, facts = time.perf_counter() - start, store.facts()
    if (path := values["record"]) is not None:
        from ssm_jax.training.record import write_result  # it imports JAX, to name the devices

        write_result(path, {**facts, "seconds": round(seconds, 1)}, words)
    return f"{table_of(facts)}\n\n{folder} ready in {seconds:.1f} s"


def table_of(facts: Mapping[str, Any]) -> str:
    """Lines about a store: where the data come from, then a row for each split."""
    about = f"{facts['bytes']:,} bytes; sha256 {facts['sha256']}"
    if facts["token_ids"]:
        about += f"; {facts['token_ids']} token ids"
    head = "split     rows  steps: mean    median    most  share of each class in %"
    lines = [facts["detail"], about, "", head]
    for name, split in facts["splits"].items():
        steps, n = split["steps"], split["examples"]
        lines.append(
            f"{name:5} {n:8,} {steps['mean']:12.1f} {steps['median']:9.0f} {steps['most']:7,}  "
            + " ".join(f"{100 * count / n:.1f}" for count in split["classes"])
        )
    return "\n".join(lines)


def verify_task(task: str, data_dir: Path) -> str:
    """Compare every byte of the task's data sets with their manifests; tables of what they hold."""
    folders = stores_of(data_dir, task)
    if not folders:
        raise FileNotFoundError(f"no {task} data in {data_dir}; {_again(task, data_dir)}")
    shown = []
    for folder in folders:
        try:
            store = verify_store(folder)
            check_name(folder)
        except DamagedError as error:
            again = command_of(folder, data_dir)
            raise ValueError(f"{str(error).removesuffix('.')}: {again}") from None
        links = [path for path in (folder, *sorted(folder.iterdir())) if path.is_symlink()]
        followed = "".join(f"\n{path} is a link to {path.resolve()}" for path in links)
        table = table_of(store.facts())
        shown.append(f"{table}\n\n{folder} is as it was written{followed}")
    return "\n\n".join(shown)


def list_tasks(data_dir: Path) -> str:
    """What is prepared, what an interrupted preparation left, and how to get the rest."""
    lines = []
    for name, entry in CATALOG.items():
        lines += [f"{name}: {entry.about}", f"  sources: {', '.join(entry.sources)}"]
        folders = stores_of(data_dir, name)
        for folder in folders:
            try:
                about = Store(folder).manifest["detail"]
            except (ValueError, OSError) as error:  # a damaged one must not hide the others
                about = str(error)
            lines.append(f"  {folder}: {about}")
        for folder in unfinished(data_dir, name):
            lines.append(f"  {folder}: unfinished; the command that began it goes on")
        if not folders:
            lines.append(f"  not prepared; {_again(name, data_dir)}")
        lines.append(f"  official files: {entry.files}")
    return "\n".join(lines)


def _again(task: str, data_dir: Path) -> str:
    return f"run: ssm-jax prepare {task} --data_dir={data_dir}"
