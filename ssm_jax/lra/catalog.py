"""The data sets that there are, and opening one from the `data` section of a config."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.dataset import LabelledDataset, Provenance, open_dataset
from ssm_jax.data.examples import SPECIALS, SPLITS, Content, Examples, Images, Pairs, Ragged
from ssm_jax.data.manifest import DamagedError, read_manifest
from ssm_jax.data.prepare import DataPaths, Recipe, command, find
from ssm_jax.lra.image import ImageOptions, image
from ssm_jax.lra.listops import listops
from ssm_jax.lra.listops_generator import Spec
from ssm_jax.lra.pathfinder import PathfinderOptions, pathfinder, pathx
from ssm_jax.lra.retrieval import RetrievalOptions, retrieval
from ssm_jax.lra.text import TextOptions, text
from ssm_jax.options.rows import POSITIVE, Option
from ssm_jax.tasks import Task, classification_task

SPLITS_OF_COUNTS = {"n_train": "train", "n_val": "val", "n_test": "test"}
_DRAWN = ("seed", *SPLITS_OF_COUNTS)  # options of random data


@dataclass(frozen=True)
class Entry:
    """A data set."""

    about: str  # it in a few words
    form: str  # of an example, a key of ssm_jax.data.examples.KINDS
    options: type  # a dataclass of what can be chosen; its defaults are as published
    recipe: Callable[[Any, str, DataPaths], Recipe]  # (options, source, paths) -> how it is made
    files: str  # what official files are called
    # By source, the usual one first: the options that change nothing about its examples. Where
    # n_train, n_val and n_test are among them, a config chooses so many of the examples there are.
    unread: Mapping[str, tuple[str, ...]]
    # What is assumed of data that are not there: classes, ids of a token, examples by split
    form_of: tuple[int, int, tuple[int, int, int]]
    section: str = ""  # of `cfg.data`, which holds the task's own options; "": it has none

    @property
    def sources(self) -> tuple[str, ...]:
        """Where examples can come from, the usual one first."""
        return tuple(self.unread)

    @property
    def reads(self) -> tuple[str, ...]:
        """Sources that read files of the user."""
        return tuple(s for s in self.unread if s not in ("generated", "sample", "stand_in"))


def _pathfinder(about: str, recipe: Callable[..., Recipe], size: int) -> Entry:
    files = f"LRA release: pathfinder{size}/curv_contour_length_14"
    unread = {"generated": ("allow_mismatch",), "official": (*_DRAWN, "upstream")}
    counts = 2, 0, (160_000, 20_000, 20_000)
    return Entry(about, "images", PathfinderOptions, recipe, files, unread, counts, "pathfinder")


CATALOG: Mapping[str, Entry] = {
    "listops": Entry(
        "nested list operations, 10 classes, up to 2,000 tokens",
        "tokens",
        Spec,
        listops,
        "LRA release: listops-1000/basic_{train,val,test}.tsv",
        {"generated": (), "official": tuple(f.name for f in dataclasses.fields(Spec))},
        (10, 18, (96_000, 2_000, 2_000)),
        "listops",
    ),
    "text": Entry(
        "sentiment of IMDB reviews, 2 classes, up to 4,096 characters",
        "tokens",
        TextOptions,
        text,
        "aclImdb_v1.tar.gz, or the folder aclImdb",
        {
            "official": _DRAWN,
            "sample": (*_DRAWN, "val_fraction"),
            "tfds": _DRAWN,
            "stand_in": ("val_fraction",),
        },
        (2, 135, (25_000, 25_000, 25_000)),  # as S4's code counts characters
        "text",
    ),
    "retrieval": Entry(
        "citation between two papers (AAN), 2 classes, two texts of up to 4,000 characters",
        "pairs",
        RetrievalOptions,
        retrieval,
        "LRA release: tsv_data/new_aan_pairs.{train,eval,test}.tsv",
        {"official": _DRAWN, "stand_in": ()},
        (2, 98, (147_086, 18_090, 17_437)),
    ),
    "image": Entry(
        "CIFAR-10 in gray, or Fashion-MNIST, 10 classes, 1,024 pixels",
        "images",
        ImageOptions,
        image,
        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or their folders; with "
        "source=fashion_mnist the folder of Fashion-MNIST's four *-ubyte[.gz]",
        {
            "official": _DRAWN,
            "fashion_mnist": _DRAWN,
            "tfds": _DRAWN,
            "stand_in": ("n_held_out",),
        },
        (10, 0, (45_000, 5_000, 10_000)),
        "image",
    ),
    "pathfinder": _pathfinder(
        "whether two ends are on one contour, 2 classes, 1,024 pixels", pathfinder, 32
    ),
    "pathx": _pathfinder("the same at 128 x 128, 16,384 pixels", pathx, 128),
}


def entry_of(task: str, source: str) -> Entry:
    """The entry of a task; a ValueError if there is no such task, or it has no such source."""
    if task not in CATALOG:
        raise ValueError(f"unknown task {task!r}; choose one of {', '.join(CATALOG)}.")
    if source not in CATALOG[task].sources:
        raise ValueError(
            f"data.source={source!r} is not known to {task}; "
            f"choose one of {', '.join(CATALOG[task].sources)}."
        )
    return CATALOG[task]


def recipe_of(task: str, options: Mapping[str, Any], paths: DataPaths) -> Recipe:
    """How the data set that a config describes is made; `options` are those of `cfg.data`."""
    entry = entry_of(task, options["source"])
    own = options[entry.section] if entry.section else {}
    known = {**options, **own, "max_length": options["padded_length"]}
    chosen = {
        field.name: known[field.name]
        for field in dataclasses.fields(entry.options)
        if field.name not in entry.unread[options["source"]]
        # 0: as many as officially
        and (field.name not in SPLITS_OF_COUNTS or known[field.name])
    }
    return entry.recipe(entry.options(**chosen), options["source"], paths)


def open_data(task: str, options: Mapping[str, Any], paths: DataPaths) -> LabelledDataset:
    """The data set that a config describes.

    Those that need no files are made if they are not there; all others are opened, and where they
    are missing the error gives the command that prepares them. With `paths.look_only` nothing is
    made, and those that are missing are `assumed`.
    """
    entry, source = entry_of(task, options["source"]), options["source"]
    if paths.files is not None and source not in entry.reads:
        raise ValueError(
            f"{paths.files} is only read with data.source={' or '.join(entry.reads)}, and it is "
            f"{source}; change one of the two."
        )
    recipe = recipe_of(task, options, paths)
    counts = {
        split: options[name]
        for name, split in SPLITS_OF_COUNTS.items()
        if name in entry.unread[source]
    }
    of_form = {"mean": options["mean"], "std": options["std"]} if entry.form == "images" else {}
    if paths.look_only and not recipe.folder(paths.data_dir).is_dir():
        return assumed(task, entry, options, recipe)
    folder = find(recipe, paths.data_dir)
    try:
        recipe.check_store(folder)
        return open_dataset(folder, options["padded_length"], counts=counts, **of_form)
    except DamagedError as error:
        raise ValueError(f"{str(error).removesuffix('.')}: {recipe.asked}") from None


def assumed(task: str, entry: Entry, options: Mapping[str, Any], recipe: Recipe) -> LabelledDataset:
    """A data set of the shapes that are expected of one which is not there: as published, or as
    many examples as a config asks for, all of them as long as a batch."""
    n_classes, n_tokens, published = entry.form_of
    own = options[entry.section] if entry.section else {}
    if own.get("vocab") == "byte":
        n_tokens = 256 + len(SPECIALS)
    L, none = options["padded_length"], np.zeros(1, np.uint8)
    tokens, ends = np.zeros(L - 1, np.uint8), np.array([0, L - 1])
    first = np.zeros(1, np.int32)
    examples: Examples
    if entry.form == "images":
        examples = Images(np.zeros((1, L), np.uint8), none)
    else:
        paired = entry.form == "pairs"
        examples = Pairs(tokens, ends, first, first, none) if paired else Ragged(tokens, ends, none)
    asked = (options[name] for name in SPLITS_OF_COUNTS)
    counts = dict(zip(SPLITS, (n or m for n, m in zip(asked, published, strict=True)), strict=True))
    splits = {split: np.zeros(n, np.int64) for split, n in counts.items()}
    ids = f", {n_tokens} ids of a token" if n_tokens else ""
    detail = f"not prepared yet; assumed: {n_classes} classes{ids}, examples as published or asked"
    vocabulary = tuple(map(str, range(n_tokens)))
    content = Content(examples, splits, detail, {}, vocabulary, n_classes)
    return LabelledDataset(task, content, L, Provenance(recipe.source, detail, "0" * 64))


def _listops_faults(data: Mapping[str, Any]) -> Iterator[str]:
    longer, shorter = data["listops"]["longer_than"], data["listops"]["shorter_than"]
    if longer + 1 >= shorter:
        yield (
            f"no expression is longer than {longer} and shorter than {shorter} tokens; raise "
            "data.listops.shorter_than."
        )
    if data["source"] == "generated" and shorter > data["padded_length"]:
        yield (
            f"data.padded_length={data['padded_length']} cannot hold {shorter - 1} tokens and the "
            f"end of sequence; use at least {shorter}."
        )


def _faults(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    seed, source = data["seed"], data["source"]
    if seed and "seed" in CATALOG[name].unread.get(source, ()):
        yield f"data.seed={seed} is not read with data.source={source!r}; leave it at 0."
    if name == "listops":
        yield from _listops_faults(data)


def _rows(entry: Entry) -> Iterator[tuple[str, Option]]:
    """The options that a data set alone reads."""
    for field in filter(lambda field: field.metadata, dataclasses.fields(entry.options)):
        row: Option = field.metadata["option"]
        read_by = tuple(source for source, names in entry.unread.items() if field.name not in names)
        if read_by != entry.sources:
            row = row._replace(when={"data.source": read_by, **row.when})
        yield f"data.{entry.section}.{field.name}", row
    if entry.form == "images":
        white = "units of full white"
        yield "data.mean", Option(0.0, "real inputs become (p - mean) / std", unit=white)
        yield "data.std", Option(1.0, "see data.mean", POSITIVE, unit=white)


def _task(name: str) -> Task:
    return classification_task(
        functools.partial(open_data, name),
        options=dict(_rows(CATALOG[name])),
        sources=CATALOG[name].sources,
        faults=functools.partial(_faults, name),
    )


LISTOPS, TEXT, RETRIEVAL, IMAGE, PATHFINDER, PATHX = map(_task, CATALOG)


def command_of(folder: Path, data_dir: Path) -> str:
    """The command that prepares a store again, as far as its name and its manifest tell."""
    task, source = folder.parent.name, folder.name.rpartition("-")[0]
    entry, paths = CATALOG[task], DataPaths(data_dir)
    try:
        parameters = dict(read_manifest(folder)["parameters"])
        counts = parameters.get("counts", {})
        if isinstance(counts, list):
            counts = dict(zip(SPLITS, counts, strict=False))
        parameters |= {f"n_{split}": n for split, n in counts.items()}
        names = {field.name for field in dataclasses.fields(entry.options)} & parameters.keys()
        options = entry.options(**{name: parameters[name] for name in names})
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        usual = command(task, source, paths, entry.options())
        return f"{usual}, with the options and files that it was made with"
    return command(task, source, paths, options) + " --from=PATH" * (source in entry.reads)
