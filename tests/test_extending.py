"""Layers and tasks of one's own, from file to report: docs/extending.md as it is, and faults."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import pytest

from ssm_jax import config as config_lib
from ssm_jax import outside
from ssm_jax.commands import runs as read
from ssm_jax.commands import sweep as sweeps
from ssm_jax.commands import train as make
from ssm_jax.config import cli
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config, load_sweep, read_config
from ssm_jax.init import initial_modes
from ssm_jax.layers import LAYERS, find_layer
from ssm_jax.sweep import runs_of
from ssm_jax.sweep.runs import Job, run_sweep
from ssm_jax.tasks import find_task
from ssm_jax.training.experiment import Experiment, build
from ssm_jax.training.loop import EXIT_DONE, train_and_evaluate
from ssm_jax.training.record import check_sources, config_of, read_record, sources_of
from ssm_jax.training.runs import open_run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = {
    "train": make.train, "sweep": sweeps.sweep, "evaluate": read.evaluate, "analyze": read.analyze,
    "report": read.report,
}  # fmt: skip
LAYER = "my_layer.py:MovingAverage"


def write(folder: Path, **changes: str) -> None:
    for name, text in {**FILES, **changes}.items():
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder in which all that the page says has been written and run."""
    folder, before = tmp_path_factory.mktemp("page"), Path.cwd()
    write(folder)
    os.chdir(folder)
    try:
        for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
            for line in block.splitlines():
                program, command, *words = line.split()
                assert program == "ssm-jax"
                where = [] if command == "report" else [f"--data_dir={folder / 'data'}"]
                assert COMMANDS[command]([*words, *where]) == 0, line
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with the page's files, as the current one."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_leaves_results_that_name_where_their_code_is_from(page):
    record = json.loads((page / "runs/a/record.json").read_text())
    assert record["config"]["model.layer"] == LAYER
    assert record["config"]["model.MovingAverage.window"] == 3
    source = record["sources"][LAYER]
    assert (page / "runs/a" / source["path"]).resolve() == (page / "my_layer.py").resolve()
    assert len(source["sha256"]) == 64 and source["siblings"] == {}
    assert str(page) not in json.dumps(record)
    assert (page / "runs/a/analysis/analysis.json").is_file()
    summary = json.loads((page / "runs/series/summary.json").read_text())
    assert {"error", "loss"} <= summary["test"].keys()
    swept = json.loads((page / "runs/noise/sweep.json").read_text())
    assert [run["status"] for run in swept["runs"]] == ["finished"] * 2
    assert swept["metric"] == "error" and "data.series.noise" in swept["options"]


def test_a_run_with_a_layer_of_ones_own_resumes_to_the_same_numbers(page, tmp_path, monkeypatch):
    class Interrupted(Experiment):
        def train_batches(self, start):
            for number, batch in enumerate(super().train_batches(start), start=start + 1):
                if number == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    monkeypatch.chdir(page)
    cfg = load_config("my_layer.py", {"model.MovingAverage.window": 3})
    experiment = build(cfg, data_dir=page / "data")
    assert (
        train_and_evaluate(Interrupted(experiment.cfg, experiment.dataset), tmp_path / "run")
        != EXIT_DONE
    )
    assert train_and_evaluate(experiment, tmp_path / "run") == EXIT_DONE
    log = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert log == (page / "runs/a/metrics.jsonl").read_bytes()


def commands(page):
    """What reads or continues the runs of the page, by the file that it needs."""
    data = f"--data_dir={page / 'data'}"
    return [
        ("my_layer.py", read.evaluate, ["runs/a", data]),
        ("my_layer.py", read.analyze, ["runs/a", data]),
        ("my_series.py", read.evaluate, ["runs/series", data]),
        ("my_layer.py", make.train, [
            "--config=my_layer.py", "--config.model.MovingAverage.window=3", "--workdir=runs/a",
            data,
        ]),
        ("my_series.py", sweeps.sweep, ["--config=my_series.py", "--folder=runs/noise", data]),
    ]  # fmt: skip


def test_a_run_that_is_only_read_traces_no_step(page, monkeypatch):
    steps = []
    monkeypatch.setattr(Experiment, "step", lambda *args, **ways: steps.append(ways))
    monkeypatch.chdir(page)
    open_run(Path("runs/a"), "best", data_dir=page / "data")
    assert not steps


@pytest.mark.parametrize("number", range(5))
def test_a_changed_file_is_one_line_that_names_it(number, page, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(page, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    name, command, words = commands(page)[number]
    path = copy / name
    path.write_text(path.read_text() + "# changed\n")
    with pytest.raises(ValueError) as refused:
        command(words)
    line = str(refused.value)
    assert len(line.splitlines()) == 1 and outside.ours(refused.value)
    assert str(path) in line and "SHA-256" in line and "bring that file back" in line


@pytest.mark.parametrize("number", range(3))
def test_a_missing_file_is_one_line_that_names_it(number, page, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(page, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    name, command, words = commands(page)[number]
    (copy / name).unlink()
    with pytest.raises(
        ValueError, match=f"{name}, which is missing; bring the file back"
    ) as refused:
        command(words)
    assert len(str(refused.value).splitlines()) == 1
    (copy / "elsewhere").mkdir()
    shutil.copy(page / name, copy / "elsewhere" / name)  # found from the current folder
    monkeypatch.chdir(copy / "elsewhere")
    run = copy / words[0]
    assert config_of(read_record(run / "record.json"), run / "record.json").is_locked


def test_a_task_may_be_in_a_file_beside_the_config_which_is_executed_once(here):
    """And both import a file of the same folder."""
    (here / "shared.py").write_text("open('count.txt', 'a').write('x')\nNOISE = 0.25\n")
    series = FILES["my_series.py"].replace(
        "import numpy as np", "import numpy as np\nimport shared"
    )
    count = "open('series.txt', 'a').write('x')\n"
    (here / "my_series.py").write_text(count + series)
    (here / "second.py").write_text(
        "import shared\n"
        "from ssm_jax import config\n"
        "def get_config(arg=''):\n"
        "    cfg = config.default(task='my_series.py:TASK')\n"
        "    cfg.data.series.noise = shared.NOISE\n"
        "    cfg.data.padded_length, cfg.batch_size, cfg.train.steps = 32, 8, 2\n"
        "    cfg.train.select_metric = 'error'\n"
        "    return cfg\n"
    )
    cfg = load_config("second.py")
    assert cfg.data.series.noise == 0.25 and cfg.task == "my_series.py:TASK"
    experiment = build(cfg, data_dir=here)
    assert experiment.task.headline == "error"
    (source,) = sources_of(cfg, here).values()
    assert source["path"] == "my_series.py" and list(source["siblings"]) == ["shared.py"]
    assert (here / "series.txt").read_text() == "x"
    own = load_config("my_series.py")
    assert load_sweep("my_series.py", own)[1] == {"data.series.noise": 0.5}
    assert (here / "series.txt").read_text() == "x", "the config file is its own task's file"


def test_two_folders_may_each_have_a_helper_of_the_same_name(tmp_path):
    text = (
        "import helper\nfrom ssm_jax import config\n"
        "def get_config():\n    cfg = config.default()\n    cfg.train.steps = 1\n"
        "    cfg.seed = helper.SEED\n    return cfg\n"
    )
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "e.py").write_text(text)
        (folder / "helper.py").write_text(f"SEED = {number}\n")
    found = [load_config(str(tmp_path / f"{n}/e.py")).seed for n in (1, 2, 1)]
    assert found == [1, 2, 1]
    (tmp_path / "1/helper.py").write_text("SEED = 3\n")
    assert load_config(str(tmp_path / "1/e.py")).seed == 3


def test_what_is_edited_while_a_run_goes_is_not_read(here):
    cfg = load_config("my_layer.py")
    before = find_layer(cfg.model.layer)
    (here / "my_layer.py").write_text("broken(")
    assert find_layer(cfg.model.layer) is before
    copy = pickle.loads(pickle.dumps(cfg))
    assert copy.model.layer.path == (here / "my_layer.py").resolve()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with a layer and a task among its entry points."""
    folder = tmp_path / "site"
    about = folder / "own_kit-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-kit\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        "[ssm_jax.layers]\naverage = own_kit_layer:MovingAverage\n"
        "[ssm_jax.tasks]\nsines = own_kit_series:TASK\n"
    )
    (folder / "own_kit_layer.py").write_text(FILES["my_layer.py"])
    (folder / "own_kit_series.py").write_text(FILES["my_series.py"])
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_entry_points_are_found_by_name_and_recorded_with_their_package(installed, here):
    cfg = read_config("my_series.py")
    config_lib.override(cfg, {"task": "sines"})
    assert cfg.data.series.noise == 0.1 and find_task("sines").headline == "error"
    assert sources_of(cfg, here) == {"sines": {"package": "own-kit 1.2"}}
    cfg = load_config("my_layer.py", {"model.layer": "average", "model.average.window": 2})
    assert "MovingAverage" not in cfg.model, "the options of the layer before have gone"
    assert build(cfg, data_dir=here).graphdef is not None
    (source,) = sources_of(cfg, here).values()
    assert source == {"package": "own-kit 1.2"}
    with pytest.raises(ValueError, match=r"unknown task 'sine'; choose one of .*, sines, or give"):
        find_task("sine")
    with pytest.raises(ValueError, match=r"from the package gone 3, which is not installed"):
        outside.recall("layer", "gone", {"package": "gone 3"}, here)


def test_cells_of_a_sweep_and_a_search_take_the_file_beside_their_config(here, monkeypatch):
    """They took one of that name in the current folder, and recorded a command that does not."""
    (here / "own").mkdir()
    for folder in (here, here / "own"):
        (folder / "lay.py").write_text(FILES["my_layer.py"].partition("def get_config")[0])
    (here / "own/e.py").write_text(
        FILES["my_layer.py"].replace("my_layer.py:", "lay.py:")
        + "def sweep():\n    return [{'model.layer': 'lay.py:MovingAverage'}]\n"
        "def search():\n    return {'model.layer': ['lay.py:MovingAverage', 's4d']}\n"
    )
    cfg = load_config("own/e.py", {"model.layer": "s4d"})
    (run,) = runs_of(load_sweep("own/e.py", cfg), (0,))
    assert run.config(cfg).model.layer.path == here / "own/lay.py"
    found = []

    def look(search, cfg, job):
        (run,) = runs_of([{"model.layer": search.axes["model.layer"].values[0]}], (0,))
        found.append(run.config(cfg).model.layer.path)
        return True

    monkeypatch.setattr("ssm_jax.sweep.search.run_search", look)
    words = ["--config=own/e.py", "--config.model.depth=1", "--sampler=optuna:random"]
    with pytest.raises(ValueError, match=r"all proposals \(20\) were passed over"):
        sweeps.sweep([*words, f"--folder={here / 'out'}"])
    assert found == [here / "own/lay.py"]


def test_a_new_line_in_layers_is_trained_swept_and_a_variant(here, monkeypatch):
    monkeypatch.setitem(LAYERS, "mean", find_layer(LAYER))
    overrides = {"model.layer": "mean", "train.steps": 2, "train.eval_every": 2}
    (here / "e.py").write_text(
        FILES["my_layer.py"]
        + "def sweep():\n    yield from ({'model.mean.window': w} for w in (1, 2))\n"
    )
    cfg = load_config("e.py", overrides)
    assert sources_of(cfg, here) == {}
    job = Job(here / "sweep", here / "data", None, "e.py", overrides, [])
    runs = runs_of(load_sweep("e.py", cfg, overrides), (0,), overrides)
    job.folder.mkdir()
    assert run_sweep(runs, cfg, job)
    for run in runs:
        assert (job.folder / run.name / "DONE").is_file()
    for task in ("listops", "text", "retrieval", "image", "pathfinder", "pathx"):
        variant = load_config(str(ROOT / f"configs/lra/{task}.py:mean,reduced"))
        assert variant.name == f"lra/{task}:mean:reduced" and variant.model.layer == "mean"
        assert variant.model.d_model == 64 and variant.model.mean.window == 4
    with pytest.raises(ValueError, match="unknown config argument 'maen'; choose from variant"):
        load_config(str(ROOT / "configs/lra/listops.py:maen"))


def test_a_layer_in_a_file_is_a_variant_of_an_lra_experiment(here):
    cfg = load_config(str(ROOT / f"configs/lra/listops.py:{LAYER},smoke"))
    assert cfg.name == "lra/listops:MovingAverage:smoke" and cfg.model.layer == LAYER


def test_help_and_print_config_show_the_options_of_a_layer_that_is_given(here, capsys):
    for argv in (
        ["--config=my_layer.py"],
        ["--config=my_series.py", f"--config.model.layer={LAYER}"],
    ):
        with pytest.raises(SystemExit) as done:
            cli.load([*argv, "--help"], flags=(), about="Train.")
        assert done.value.code == 0
        out = capsys.readouterr().out
        assert "--config.model.MovingAverage.window=4" in out
        assert "steps of the mean, in steps, 1..64" in out
    with pytest.raises(SystemExit):
        cli.load(
            ["--config=my_series.py", "--print_config", "--config.data.series.noise=0.5"],
            flags=(),
            about="",
        )
    assert "data.series.noise = 0.5  # default: 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "--config.model.MovingAverage.windw=3",
            "did you mean --config.model.MovingAverage.window?",
        ),
        ("--config.model.MovingAverage.window=x", "whole number"),
        (
            "--config.model.MovingAverage.window=65",
            "window=65 is out of range; it must be at least 1",
        ),
        ("--config.model.d_state=3", f"is not read with model.layer='{LAYER}'"),
        ("--config.model.layer=gone.py:L", "layer gone.py:L: there is no file gone.py."),
        ("--config.model.layer=my_layer.py:Gone", "the file defines no Gone."),
        ("--config.model.layer=my_layer.py:get_config", "must be a class with __init__(d_model"),
        ("--config.model.layer=s6", "model.layer='s6' is not known; choose one of s4d"),
        ("--config.task=my_layer.py:LAYER", "the file defines no LAYER."),
        ("--config.task=my_layer.py:MovingAverage", "not a Task."),
        ("--config.task=gone", "unknown task 'gone'; choose one of listops"),
    ],
)
def test_what_is_wrong_is_one_line(argument, said, here, capsys):
    with pytest.raises(SystemExit) as refused:
        cli.load(["--config=my_layer.py", argument], flags=(), about="")
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("window: int = 4, rngs", "window: int, rngs"), "its argument window needs a default."),
        (('{"window": Option', '{"wide": Option'), "OPTIONS has wide, which is no argument."),
        (('{"window": Option', '{"d_model": Option'), "d_model, which is no option of"),
        (('{"window": Option', '{"window": 3, "x": Option'), "has 3 for window, no Option."),
        (("d_model, *, window", "*, d_model, window"), "a class with __init__(d_model, *, rngs)."),
        (("d_model, *, window: int = 4", "d_model, window=4, /, *"), "window needs to be a k"),
        (
            ("class MovingAverage", "x = 1 / 0\nclass MovingAverage"),
            "fails in line 7: ZeroDivisionError",
        ),
        (
            ("import jax.numpy as jnp\n", "import jax.numpy as jnp, no_such\n"),
            "ModuleNotFoundError",
        ),
        (("class MovingAverage", "class beta"), "rename the class."),
        (("class MovingAverage", "class lru"), "model.lru has options of ssm_jax; rename the"),
        (("class MovingAverage", "class video"), "model.video.window of other.py:video is an opt"),
        (("def __call__", "def call"), "MovingAverage has no __call__; give it __call__(self"),
        ((", lengths_B=None, *, key=None):", "):"), "has __call__(self, u_BLH); give it __call__("),
    ],
)
def test_a_layer_that_cannot_be_is_one_line(change, said, here):
    (here / "other.py").write_text(FILES["my_layer.py"].replace(*change))
    renamed = re.fullmatch(r"class (\w+)", change[1])
    name = renamed[1] if renamed else "MovingAverage"
    with pytest.raises(ValueError) as refused:
        config_lib.default(layer=f"other.py:{name}")
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_layer_that_takes_anything_has_the_options_that_it_names(here):
    named, anything = "*, window: int = 4, rngs", "*_, window: int = 4, rngs, **more"
    text = FILES["my_layer.py"].replace(named, anything)
    (here / "other.py").write_text(text)
    cfg = config_lib.default(layer="other.py:MovingAverage")
    assert dict(cfg.model.MovingAverage) == {"window": 4}


def test_options_of_a_layer_come_back_from_the_record_of_a_run_as_they_were(here):
    """Tuples in a tuple were lists; a run with an option NaN, unequal to itself, had no end."""
    named = 'window: int = 4, wide=(1, ("a", ())), most=float("inf"), none=float("nan"), rngs'
    text = FILES["my_layer.py"].replace("window: int = 4, rngs", named)
    (here / "my_layer.py").write_text(text)
    cfg = load_config("my_layer.py")
    assert cfg.model.MovingAverage.keys() == ["most", "wide", "window"]
    record = {"config": config_lib.identity(cfg), "sources": sources_of(cfg, here)}
    record["config_digest"] = config_lib.digest(cfg)
    found = config_of(json.loads(json.dumps(record)), here / "record.json")
    assert found.model.MovingAverage.to_dict() == cfg.model.MovingAverage.to_dict()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("nnx.Dropout(0.5, rngs=nnx.Rngs(0))", "blocks/0/ssm/more/rngs/key of the network is a ra"),
        ("nnx.Param(jnp.int32(0))", "blocks/0/ssm/more of the network is an nnx.Param of int32"),
    ],
)
def test_what_can_not_be_trained_or_kept_is_one_line_before_a_run_begins(kept, said, here):
    line = "        self.window = window\n"
    text = FILES["my_layer.py"].replace(line, f"{line}        self.more = {kept}\n")
    (here / "my_layer.py").write_text(text)
    with pytest.raises(ValueError) as refused:
        build(load_config("my_layer.py"), data_dir=here / "data")
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_layer_that_returns_another_shape_leaves_no_run_behind(here):
    """Else the folder would be bound to the file with the mistake."""
    text = FILES["my_layer.py"]
    wrong = text.replace("* self.weight[...][None, None, :]", "@ self.weight[...][:, None]")
    assert wrong != text
    (here / "my_layer.py").write_text(wrong)
    with pytest.raises(ValueError, match=r"MovingAverage must return an array .* as its input"):
        make.train(["--config=my_layer.py", "--workdir=run", "--data_dir=data"])
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("data.seed", "data.seed is an option of all tasks; rename it."),
        ("data.denoise.amplitude", "with the default 0.5 in the place of 0.1; rename it."),
    ],
)
def test_a_task_whose_option_is_one_of_ours_is_one_line(key, said, here):
    """A config gave it the default of ours."""
    (here / "my_series.py").write_text(FILES["my_series.py"].replace("data.series.noise", key))
    with pytest.raises(ValueError) as refused:
        config_lib.default(task="my_series.py:TASK")
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"error": "min"', '"error": "least"'), "error is best at max or min, not at 'least'."),
        (("Option(0.1", "Option(None"), "data.series.noise needs a truth, a number, a text or a"),
        (('"error": jnp.abs', '"miss": jnp.abs'), "must give 'error', one number, got no such sum"),
        (('"count": jnp.ones', '"n": jnp.ones'), "must give 'count', one number, got no such sum"),
        (("jnp.sum(value_B * mask_B)", "value_B * mask_B"), "'loss', one number, got an array (8"),
    ],
)
def test_a_task_that_cannot_be_is_one_line_before_a_run_begins(change, said, here):
    """The first chose the worst checkpoint, and the third ended in a run's first evaluation."""
    assert change[0] in FILES["my_series.py"]
    (here / "my_series.py").write_text(FILES["my_series.py"].replace(*change))
    with pytest.raises(ValueError) as refused:
        build(load_config("my_series.py"), data_dir=here)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_an_option_that_a_network_of_ones_own_does_not_take_is_refused(here):
    cfg = load_config("my_series.py")
    cfg.model.alpha = 2.0
    with pytest.raises(
        ValueError, match=r"model\.alpha=2\.0 is not read with task='my_series.py:TASK'"
    ):
        check(cfg)


def test_a_run_without_sources_is_not_asked_for_any(here):
    check_sources(load_config("my_layer.py"), here)


def test_a_new_init_is_a_function_and_a_row(monkeypatch):
    from ssm_jax.init import INITS

    (text,) = re.findall(r"```python\n# init:.*?\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setattr("ssm_jax.init.modes.INITS", INITS)
    before = dict(INITS)
    try:
        exec(text, {})
        assert initial_modes("octaves", 3).A_SN[0, 2].imag == pytest.approx(4 * 3.14159265)
        cfg = config_lib.default()
        cfg.train.steps, cfg.model.init = 1, "octaves"
        check(cfg)
    finally:
        INITS.clear()
        INITS.update(before)
