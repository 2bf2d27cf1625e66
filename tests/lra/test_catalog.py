"""From the `data` section of a config to a data set: every option is read, by the right task."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from ssm_jax import config
from ssm_jax.commands.data import WORDS, _flags_of
from ssm_jax.config import check as config_check
from ssm_jax.config import cli
from ssm_jax.data.prepare import DataPaths, command
from ssm_jax.lra.catalog import CATALOG, SPLITS_OF_COUNTS, open_data, recipe_of
from ssm_jax.stories.denoise import DENOISE
from tests.data import data_options
from tests.data.small_listops import SMALL, folder_of

# Of every task; in a config they are beside the sections, max_length is padded_length there
COMMON = {"seed", *SPLITS_OF_COUNTS, "max_length"}
# Another value of each option that is not a number
OTHER = {"vocab": "byte", "val_fraction": 0.25}
SOURCES_OF = [(task, source) for task, entry in CATALOG.items() for source in entry.sources]


def fields(task):
    return {field.name: field.default for field in dataclasses.fields(CATALOG[task].options)}


def changed(name, value):
    if isinstance(value, bool):
        return not value
    return OTHER[name] if name in OTHER else value - 1 if value > 9 else value + 1


@pytest.mark.parametrize("task", CATALOG)
def test_every_option_of_a_task_is_in_its_section_and_the_other_way_round(task):
    data = config.default().data
    name = CATALOG[task].section
    section = data[name].to_dict() if name else {}
    own = {name: value for name, value in fields(task).items() if name not in COMMON}
    assert section == own  # the default values, too


def test_every_section_is_that_of_a_task():
    data = config.default().data.to_dict()
    sections = {entry.section for entry in CATALOG.values() if entry.section}
    found = {key for key, value in data.items() if isinstance(value, dict)}
    others = {"denoise", "arrays", "runoff"}  # whose files are read as they are
    others |= {"copying", "delay", "video"}  # which are drawn example by example
    assert found == sections | others


def test_the_choices_of_a_config_are_those_of_the_data():
    wanted = [("data.source", task, entry.sources) for task, entry in CATALOG.items()]
    wanted += [("data.source", "denoise", DENOISE.sources), ("data.source", "waves", ["generated"])]
    for key, task, choices in [*wanted, ("data.text.vocab", "text", ("char", "byte"))]:
        cfg = config.default()
        cfg.task = task
        cfg.update_from_flattened_dict({key: "?"})
        with pytest.raises(ValueError, match=key) as caught:
            config_check.check(cfg)
        line = next(line for line in str(caught.value).splitlines() if key in line)
        named = line.partition("choose one of ")[2].rstrip(".").split(", ")
        assert set(named) == set(choices)


@pytest.mark.parametrize(("task", "source"), SOURCES_OF)
def test_an_option_is_another_folder_or_named_as_not_read(task, source, tmp_path):
    entry, paths = CATALOG[task], DataPaths(tmp_path)

    def parameters(**changes):
        recipe = entry.recipe(entry.options(**changes), source, paths)
        assert (recipe.task, recipe.source) == (task, source)
        return recipe.parameters

    unread = [
        name
        for name, value in fields(task).items()
        if parameters(**{name: changed(name, value)}) == parameters()
    ]
    assert unread == [name for name in fields(task) if name in entry.unread[source]]
    assert set(entry.unread) == set(entry.sources)


@pytest.mark.parametrize(("task", "source"), SOURCES_OF)
def test_a_config_may_not_set_what_changes_nothing_about_its_data(task, source, tmp_path):
    entry, paths = CATALOG[task], DataPaths(tmp_path)
    before = entry.recipe(entry.options(), source, paths).parameters
    # Fewer examples are chosen of those that there are, see `open_data`
    for name in fields(task).keys() - {*SPLITS_OF_COUNTS, "max_length"}:
        value = changed(name, fields(task)[name])
        idle = entry.recipe(entry.options(**{name: value}), source, paths).parameters == before
        cfg = config.default(task)
        cfg.train.steps, cfg.data.source = 1, source
        key = f"data.{name}" if name in COMMON else f"data.{entry.section}.{name}"
        cfg.update_from_flattened_dict({key: value})
        try:
            config_check.check(cfg)
        except ValueError as fault:
            said = f"{key}={value!r} is not read with data.source={source!r}; leave it at "
            assert idle and str(fault) == f"{said}{fields(task)[name]!r}."
        else:
            assert not idle, key


def test_a_vocabulary_of_bytes_has_no_rare_characters():
    cfg = config.default("text")
    cfg.train.steps, cfg.data.source = 1, "official"
    cfg.data.text.vocab, cfg.data.text.min_freq = "byte", 2
    with pytest.raises(ValueError, match=r"min_freq=2 is not read with data\.text\.vocab='byte'"):
        config_check.check(cfg)


@pytest.mark.parametrize(("task", "source"), SOURCES_OF)
def test_a_config_passes_every_option_on(task, source, tmp_path):
    paths = DataPaths(tmp_path)
    entry = CATALOG[task]
    usual = data_options.options(source=source, padded_length=1_500)
    usual = recipe_of(task, usual, paths).parameters
    for name, value in fields(task).items():
        if name in entry.unread[source]:
            continue
        key = name if name in COMMON else f"{CATALOG[task].section}__{name}"
        key = "padded_length" if name == "max_length" else key
        options = {"source": source, "padded_length": 1_500, key: changed(name, value)}
        changes = {"max_length": 1_500} if "max_length" in fields(task) else {}
        options = data_options.options(**options)
        found = recipe_of(task, options, paths).parameters
        changes[name] = changed(name, value)
        expected = entry.recipe(entry.options(**changes), source, paths).parameters
        assert found == expected != usual, name


@pytest.mark.parametrize(("task", "source"), SOURCES_OF)
def test_the_command_of_a_recipe_says_all_that_its_data_depend_on(
    task, source, tmp_path, run_script, monkeypatch
):
    """The command line is read back to the same recipe."""
    entry, paths = CATALOG[task], DataPaths(tmp_path / "a b")
    changes = {
        name: changed(name, value)
        for name, value in fields(task).items()
        if name not in entry.unread[source]
    }
    recipe = entry.recipe(entry.options(**changes), source, paths)
    words = shlex.split(recipe.asked.removesuffix(" --from=PATH"))
    assert words[:2] == ["ssm-jax", "prepare"]
    seen = []

    def stop(found, data_dir, *, tfds):
        seen.append((found, data_dir))
        raise ValueError("stop here")

    monkeypatch.setattr("ssm_jax.commands.data.make", stop)
    assert run_script(*words[2:])[0] == 2
    (found, data_dir), *more = seen
    assert not more and data_dir == paths.data_dir
    assert dataclasses.replace(found, make=recipe.make) == recipe


def test_a_command_writes_truth_as_it_is_read():
    @dataclasses.dataclass
    class Options:
        upstream: bool = True
        allow_mismatch: bool = False

    words = shlex.split(
        command("pathx", "generated", DataPaths(Path("data")), Options(False, True))
    )
    assert words[-2:] == ["--upstream=false", "--allow_mismatch=true"]
    flags = (WORDS, cli.DATA_DIR, *_flags_of(CATALOG["pathx"]))
    values = cli.load_flags(words[2:], flags=flags, about="")
    assert (values["upstream"], values["allow_mismatch"]) == (False, True)


@pytest.mark.parametrize("task", CATALOG)
def test_a_source_that_a_task_has_not_is_refused_with_its_choices(task, tmp_path):
    for source in ({s for _, s in SOURCES_OF} - set(CATALOG[task].sources)) | {"downloaded"}:
        with pytest.raises(ValueError) as caught:
            open_data(task, data_options.options(source=source), DataPaths(tmp_path))
        assert str(caught.value) == (
            f"data.source={source!r} is not known to {task}; "
            f"choose one of {', '.join(CATALOG[task].sources)}."
        )
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_refused_with_all_there_are(tmp_path):
    with pytest.raises(ValueError, match=f"unknown task 'cifar'; .* {', '.join(CATALOG)}"):
        open_data("cifar", data_options.options(), DataPaths(tmp_path))


@pytest.fixture
def small():
    """The options of SMALL."""
    numbers = dataclasses.asdict(SMALL)
    return data_options.options(
        padded_length=64,
        **{n if n in COMMON else f"listops__{n}": value for n, value in numbers.items()},
    )


def test_a_config_opens_what_was_prepared(small, small_data_dir):
    before = sorted(small_data_dir.rglob("*"))
    data = open_data("listops", small, DataPaths(small_data_dir))
    assert [data.size(s) for s in ("train", "val", "test")] == [170, 50, 30]
    assert sorted(small_data_dir.rglob("*")) == before


def test_generated_data_are_made_to_count_at_once(small, tmp_path):
    data = open_data("listops", {**small, "n_train": 20}, DataPaths(tmp_path))
    assert [data.size(s) for s in ("train", "val", "test")] == [20, 50, 30]
    assert data.provenance.source == "generated"
    few = dataclasses.replace(SMALL, n_train=20)
    assert [f.name for f in tmp_path.glob("listops/generated-*")] == [folder_of(few, tmp_path).name]


@pytest.mark.parametrize(
    ("changes", "files", "error", "message"),
    [
        ({}, "x", ValueError, "x is only read with data.source=official, and it is generated"),
        ({"padded_length": 40}, None, ValueError, r"padded_length=40 .* use at least \d\d\."),
        ({"source": "official"}, None, FileNotFoundError, "--from=PATH$"),
        ({"source": "official"}, "/nowhere", FileNotFoundError, "/nowhere does not exist"),
        ({"n_train": -1}, None, ValueError, "n_train=-1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(
    small, small_data_dir, changes, files, error, message
):
    """Generated data that are there are never given in the place of official ones."""
    paths = DataPaths(small_data_dir, files and Path(files))
    with pytest.raises(error, match=message) as caught:
        open_data("listops", {**small, **changes}, paths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "source", "name"),
    [
        ("listops", "generated", "generated-73658a98"),
        ("text", "official", "official-19e97b01"),
        ("text", "sample", "sample-2ef8759b"),
        ("text", "stand_in", "stand_in-54c0fee9"),
        ("retrieval", "stand_in", "stand_in-642eb5fe"),
        ("image", "official", "official-0df40dbc"),
        ("image", "fashion_mnist", "fashion_mnist-20a265aa"),
        ("image", "stand_in", "stand_in-877e28e8"),
        ("pathfinder", "generated", "generated-ac265d1a"),
        ("pathx", "generated", "generated-5a0b7986"),
    ],
)
def test_stores_keep_their_names_so_that_those_of_older_versions_are_found(
    tmp_path, task, source, name
):
    entry = CATALOG[task]
    recipe = entry.recipe(entry.options(), source, DataPaths(tmp_path))
    assert recipe.folder(tmp_path).name == name
