"""The public face of the package, `ssm-jax`, and the wheel that brings them."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import ssm_jax
from ssm_jax import kernels
from ssm_jax.commands import COMMANDS, runs
from ssm_jax.config import digest
from ssm_jax.config.load import load_config, shipped
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.training import loop

ROOT = Path(__file__).parents[2]
DOORS = {"prepare": "prepare_data", "one-pole": "one_pole"}


def run(program: str, *arguments: str, code: int = 0, cwd: Path = ROOT, **env: str | None) -> str:
    """What a program of Python prints on stdout and stderr in a process of its own."""
    words = [sys.executable, "-c", program, *arguments]
    given = {key: value for key, value in {**os.environ, **env}.items() if value is not None}
    done = subprocess.run(words, cwd=cwd, env=given, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def held(program: str, *arguments: str, code: int = 0) -> set[str]:
    """The packages that a program has loaded at its end."""
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    show = f"print(json.dumps({names}), file=sys.stderr)"
    head = f"import atexit, json, sys\natexit.register(lambda: {show})\n"
    return set(json.loads(run(head + program, *arguments, code=code).splitlines()[-1]))


def test_the_package_is_imported_at_once_and_its_names_on_use():
    assert not held("import ssm_jax\ndir(ssm_jax)\nssm_jax.__version__") & {"jax", "numpy", "flax"}
    assert "jax" not in held("from ssm_jax.config.load import read_config\nread_config('waves')")
    assert "flax" not in held("import ssm_jax\nssm_jax.fft_conv")
    for name in ssm_jax.__all__:
        assert getattr(ssm_jax, name).__name__ == name and name in dir(ssm_jax)
    assert set(kernels.__all__) < set(ssm_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'S6'"):
        _ = ssm_jax.S6


def test_editors_see_the_names_too():
    tree = ast.parse(Path(ssm_jax.__file__).read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.name for node in seen.body for alias in node.names if alias.name != "*"]
    starred = [node.module for node in seen.body if node.names[0].name == "*"]
    imported += [name for module in starred for name in importlib.import_module(module).__all__]
    assert sorted(imported) == sorted(ssm_jax.__all__)


MAIN = "import sys\nsys.argv[0] = 'ssm-jax'\nfrom ssm_jax.commands import main\nmain()"
HEAVY = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "matplotlib", "wandb"}


def test_every_command_has_a_function_a_door_and_a_line():
    shown = run(MAIN, "--help").splitlines()
    for name, (module, about) in COMMANDS.items():
        home = importlib.import_module(f"ssm_jax.commands.{module}")
        function = getattr(home, name.replace("-", "_"))
        assert f"ssm-jax {name}" in function.__doc__
        assert f"  ssm-jax {name:17}{about}" in shown
        door = (ROOT / f"scripts/{DOORS.get(name, name)}.py").read_text()
        assert f'main("{name}")' in door and len(door.splitlines()) <= 8
    assert len(list((ROOT / "scripts").glob("*.py"))) == len(COMMANDS) + 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_typos_load_nothing_heavy(name):
    assert not held(MAIN, name, "--help") & HEAVY
    assert not held(MAIN, name, "--workdri=x", code=2) & HEAVY


def test_a_word_that_is_no_command_is_one_line():
    assert run(MAIN, "--version") == f"ssm-jax {ssm_jax.__version__}\n"
    assert run(MAIN, "trian", code=2) == "error: unknown command 'trian'; did you mean train?\n"
    assert "one-pole" in run(MAIN, "one_pole", code=2)
    assert run(MAIN, code=2).startswith("error: no command given; choose one of train, evaluate")
    assert not held(MAIN, "--help") & HEAVY


def test_a_shipped_config_has_a_name_anywhere(tmp_path, monkeypatch):
    by_path = load_config(str(ROOT / "configs/lra/listops.py:s5"))
    monkeypatch.chdir(tmp_path)
    assert digest(load_config("lra/listops:s5")) == digest(by_path)
    for name in shipped():
        assert load_config(name).is_locked
    cfg = load_config("waves", {"model.alpha": 3, "batch_size": 7})
    assert (cfg.model.alpha, type(cfg.model.alpha), cfg.batch_size) == (3.0, float, 7)
    for spec, overrides, words in (
        ("lra/listop", {}, "nearest: lra/listops, "),
        ("configs/waves.py", {}, "run from the root of the repository; or name one of ablation/"),
        ("waves", {"model.alhpa": 1}, "'model.alhpa' is no option; did you mean model.alpha?"),
        ("waves", {"model.alpha": "3"}, "is a str, not a float"),
        ("waves", {"model.alpha": -1.0}, "model.alpha"),
    ):
        with pytest.raises(ValueError, match=words):
            load_config(spec, overrides)
    Path("lra").mkdir()
    Path("lra/listops").write_text("get_config = None")
    with pytest.raises(ValueError, match="defines no function get_config"):
        load_config("lra/listops")  # a file here comes first


def test_an_experiment_is_run_from_python(tmp_path, monkeypatch):
    few = {"train.steps": 8, "train.eval_every": 4, "model.depth": 1}
    cfg = ssm_jax.load_config(str(ROOT / "tests/training/tiny.py"), few)
    summary = ssm_jax.train(cfg, tmp_path / "a", data_dir=tmp_path)
    assert summary == json.loads((tmp_path / "a/summary.json").read_text())
    assert summary["steps"] == 8 and 0 <= summary["test"]["accuracy"] <= 1
    assert ssm_jax.train(cfg, tmp_path / "a", data_dir=tmp_path) == summary
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *_, **__: EXIT_STOPPED)
    assert ssm_jax.train(cfg, tmp_path / "a", data_dir=tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["runs/a"], (Path("runs/a"), "best")),
        (["--workdir=runs/a", "--step=newest"], (Path("runs/a"), "newest")),
        (["runs/a", "--step=7"], (Path("runs/a"), "7")),
        (["/r/a/checkpoints/7"], (Path("/r/a"), "7")),
        (["--workdir=/r/a/checkpoints/7"], (Path("/r/a"), "7")),
        ([], "--workdir is missing; give the folder of a run, such as --workdir=runs/a."),
        (["a", "--workdir=b"], "give one checkpoint, got 2."),
        (["a/checkpoints/7", "--step=8"], "--step=8 and a/checkpoints/7 both name a step"),
    ],
)
def test_evaluate_and_analyze_take_a_run_alike(arguments, asked, monkeypatch, capsys):
    found = []

    def note(path: Path, *, step: str, **_: object) -> tuple[dict, list]:
        found.append((path, step))
        return {}, []

    monkeypatch.setattr(runs, "start_jax", lambda *_: None)
    for what in ("evaluate.analyze", "evaluate.evaluate_run"):
        monkeypatch.setattr(f"ssm_jax.training.runs.{what}", note)
    for what in ("print_analysis", "print_evaluation"):
        monkeypatch.setattr(f"ssm_jax.training.runs.tables.{what}", lambda _: None)
    for command in (runs.evaluate, runs.analyze):
        if isinstance(asked, tuple):
            assert command(arguments) == 0 and found.pop() == asked
            continue
        with pytest.raises(SystemExit, match="2"):
            command(arguments)
        assert capsys.readouterr().err.startswith(f"error: {asked}")


def test_evaluate_takes_one_run_and_analyze_several(capsys):
    """tests/sweep/test_compare.py has what it makes of them."""
    with pytest.raises(SystemExit, match="2"):
        runs.evaluate(["a", "b"])
    assert capsys.readouterr().err == "error: give one checkpoint, got 2.\n"
    with pytest.raises(FileNotFoundError, match="a holds no run"):
        runs.analyze(["a", "b"])


def test_compiled_programs_are_kept_in_the_users_cache(tmp_path):
    """Unless they are kept elsewhere, or the cache cannot be written; old ones are removed."""
    arguments = ["train", "--config=tests/training/tiny.py", "--dry_run", f"--data_dir={tmp_path}"]
    cache, elsewhere = tmp_path / "cache", {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "other")}
    kept = cache / "ssm_jax/compiled"
    kept.mkdir(parents=True)
    old = kept / "jit_old-cache"
    old.touch()
    os.utime(old, (0, 0))
    here = {"XDG_CACHE_HOME": str(cache), "JAX_COMPILATION_CACHE_DIR": None}
    run(MAIN, *arguments, **{**here, **elsewhere})
    assert list(kept.iterdir()) == [old]
    seconds = re.compile(r"compiled in [0-9.]* s")
    first = seconds.sub("", run(MAIN, *arguments, **here))
    assert [path.name.partition("-")[0] for path in kept.iterdir()] == ["jit_train_step"]
    assert seconds.sub("", run(MAIN, *arguments, **here)) == first
    kept.rename(tmp_path / "moved")
    cache.joinpath("ssm_jax").rmdir()
    cache.joinpath("ssm_jax").touch()
    assert seconds.sub("", run(MAIN, *arguments, **here)) == first


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    pytest.importorskip("pip")
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("ssm_jax", "lra_generators", "configs", "benchmarks", "tests"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip(copy, "wheel", ".", "--no-build-isolation", "-w", "dist")
    (made,) = (copy / "dist").iterdir()
    return made


def pip(cwd: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--no-deps", "--no-index", "-q"]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def test_the_wheel_brings_the_configs_and_the_command_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    found = [name for name in names if name.startswith("ssm_jax/configs/")]
    assert sorted(found) == sorted(f"ssm_jax/configs/{name}.py" for name in shipped())
    files = ("py.typed", "lra/published.csv", "report/benchmark.csv", "page.html")
    assert {f"ssm_jax/{name}" for name in files} < set(names)
    assert "ssm_jax/stories/denoise/photos/rocket.jpg" in names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"ssm_jax", "lra_generators"}
    (points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert b"ssm-jax = ssm_jax.commands:main" in zipfile.ZipFile(wheel).read(points)


# What JAX and Flax themselves load may be there; all else that we depend on is not.
NUMERICS = """
import sys
import flax.nnx as nnx, jax, jax.numpy as jnp

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ImportError(f"{name} is not there")

HIDDEN = set(sys.argv[1].split(","))
assert not HIDDEN & set(sys.modules), HIDDEN & set(sys.modules)
sys.meta_path.insert(0, Hidden)
import ssm_jax
u = jax.random.normal(jax.random.key(0), (2, 33, 4))

@nnx.jit
def forward(model, *inputs):
    return model(*inputs)

for layer in (ssm_jax.S4D, ssm_jax.S4, ssm_jax.S5):
    y = forward(layer(d_model=4, d_state=8, rngs=nnx.Rngs(0)), u)
    assert y.shape == u.shape and bool(jnp.isfinite(y).all())
model = ssm_jax.SequenceClassifier(
    n_classes=3, vocab_size=5, d_model=4, depth=1, ssm={"d_state": 8}, rngs=nnx.Rngs(0)
)
logits = forward(model, jnp.zeros((2, 33), jnp.int32), jnp.array([33, 7]))
assert logits.shape == (2, 3) and bool(jnp.isfinite(logits).all())
gain = ssm_jax.sobolev_gain(jnp.ones(4), 33)
assert bool(jnp.isfinite(ssm_jax.fft_conv(u, jnp.ones((4, 33)))).all())
for name in ssm_jax.__all__:
    if name not in ("from_torch", "load", "load_config", "train"):
        getattr(ssm_jax, name)
print(ssm_jax.__file__)
"""


def test_layers_and_kernels_need_jax_flax_and_numpy_alone(wheel, tmp_path):
    pip(tmp_path, "install", str(wheel), "--target", "site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"ml-collections": "ml_collections", "orbax-checkpoint": "orbax", "pillow": "PIL",
             "tensorflow-datasets": "tensorflow_datasets"}  # fmt: skip
    known = [word.partition(">")[0] for word in project["dependencies"]]
    by_flax = {"jax", "flax", "numpy", "optax", "rich"}
    hidden = {names.get(name, name) for name in known} - by_flax
    assert len(hidden) == len(known) - len(by_flax)
    where = {"PYTHONPATH": str(tmp_path / "site")}
    shown = run(NUMERICS, ",".join(hidden), cwd=tmp_path, **where)
    assert shown.splitlines()[-1] == str(tmp_path / "site/ssm_jax/__init__.py")
    assert "batch_size = 50" in run(
        MAIN, "train", "--config=lra/listops:s5", "--print_config", cwd=tmp_path, **where
    )
