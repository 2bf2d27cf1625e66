"""Who may import whom: by the source, and by what a fresh process holds after importing."""

import ast
import functools
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssm_jax.kernels.devices import on_gpu

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "ssm_jax").rglob("*.py"))

# A part is a folder of ssm_jax, or a file beside them. Python's own modules are free to all.
MAY_IMPORT = {
    "kernels": {"jax", "numpy"},
    "init": {"options", "files", "jax", "numpy", "scipy"},
    "layers": {"kernels", "init", "options", "outside", "jax", "numpy", "flax"},
    "models": {"layers", "kernels", "options", "jax", "numpy", "flax"},
    "data": {
        "options", "files", "lock", "progress", "numpy", "grain", "tensorflow_datasets", "PIL",
        "mnist1d",
    },
    "lra": {
        "tasks", "layers", "options", "outside", "data", "files", "progress", "config",
        "ml_collections", "numpy", "PIL", "scipy", "lra_generators",
    },
    "report": {"lra", "tasks", "files", "pages", "spread", "tables"},
    "tasks": {"models", "layers", "data", "options", "outside", "jax", "numpy", "flax", "optax"},
    "training": {
        "outside", "tasks", "data", "config", "analysis", "plots", "layers", "models", "kernels",
        "init", "files", "lock", "progress", "stop", "tables",
        "jax", "numpy", "scipy", "flax", "optax", "orbax", "wandb", "rich", "ml_collections",
        "tensorboardX", "PIL",
    },
    "trained": {
        "training", "tasks", "data", "config", "layers", "models", "init", "files", "options",
        "analysis", "tables",
        "jax", "numpy", "flax", "ml_collections", "safetensors", "torch",
    },
    "accelerators": {
        "training", "kernels", "config", "tables", "jax", "numpy",
    },
    "stories": {
        "sweep", "training", "tasks", "data", "models", "layers", "init", "kernels", "analysis",
        "plots", "config", "stop", "options", "files", "progress", "tables", "lra", "spread",
        "jax", "numpy", "flax", "PIL", "rich", "ml_collections", "matplotlib",
    },
    "analysis": {"kernels", "models", "jax", "numpy", "flax", "scipy"},
    "plots": {"analysis", "sweep", "files", "numpy", "matplotlib"},
    "sweep": {
        "training", "tasks", "config", "options", "outside", "stop", "files", "lock", "progress",
        "tables", "spread", "pages", "jax", "ml_collections", "optuna", "sqlalchemy",
    },
    "launch": {"files", "progress"},
    "commands": {
        "accelerators", "launch", "sweep", "stories", "trained", "training", "tasks", "lra", "data",
        "init", "layers", "report",
        "kernels", "analysis", "plots", "config", "options", "stop", "files", "tables",
        "jax", "numpy", "rich", "ml_collections",
    },
    "config": {
        "options", "outside", "tasks", "layers", "models", "init", "files", "progress", "stop",
        "jax", "ml_collections",
    },
    "lock": {"files", "progress", "stop"},
    "progress": {"files", "stop", "rich", "jax"},
    "tables": {"rich"},
    "spread": {"scipy"},
    "files": set(),
    "stop": {"jax"},
    "options": {"numpy"},
    "outside": set(),
    "pages": set(),
    "dims": set(),
    "__init__": {"config", "init", "kernels", "layers", "models", "trained", "training"},  # on use
}  # fmt: skip

ONLY_IN = {
    "orbax": {"training/checkpoint/io.py"},  # training/checkpoint keeps one step in a folder
    "wandb": {"training/sinks.py"},
    "tensorboardX": {"training/sinks.py"},
    "safetensors": {"trained/opening.py"},
    "torch": {"trained/pytorch.py"},
    "matplotlib": {
        *(f"plots/{name}.py" for name in (
            "__init__", "autocorrelation", "compare", "inputs", "layers", "run", "sweep",
        )),
        "stories/one_pole.py",
        "stories/denoise/run.py",
        "stories/linoss/run.py",
        "stories/waves/run.py",
        "stories/video/run.py",
        "stories/runoff/run.py",
    },
    "grain": {"data/loader.py"},
    "optuna": {"sweep/study.py"},
    "sqlalchemy": {"sweep/study.py"},
    "tensorflow_datasets": {"data/builder.py"},
    "ml_collections": {
        "config/__init__.py",
        "config/check.py",
        "config/load.py",
        "config/argv.py",
        "config/cli.py",
        "lra/variants.py",
        "training/experiment.py",
        "training/loop.py",
        "training/population/members.py",
        "stories/runs.py",
        "stories/denoise/run.py",
        "stories/linoss/run.py",
        "stories/waves/run.py",
        "stories/video/run.py",
        "stories/runoff/run.py",
        "sweep/__init__.py",
        "sweep/compare.py",
        "sweep/population.py",
        "sweep/results.py",
        "sweep/runs.py",
        "sweep/search.py",
        "sweep/standing.py",
        "sweep/study.py",
        "trained/model.py",
    },
}  # fmt: skip


def name_of(file: Path) -> str:
    """training/loop.py for a file of the package."""
    return file.relative_to(ROOT / "ssm_jax").as_posix()


def part_of(file: Path) -> str:
    return name_of(file).removesuffix(".py").split("/")[0]


def imports(file: Path) -> Iterator[str]:
    """Full names of what a file imports, anywhere in it; ssm_jax.kernels for its neighbours."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            assert node.module is not None
            if node.module == "ssm_jax":
                yield from (f"ssm_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module


def foreign(file: Path) -> set[str]:
    """Parts of the package and third-party packages that a file imports, its own part apart."""
    found = set()
    for name in imports(file):
        parts = name.split(".")
        found.add(parts[1] if parts[0] == "ssm_jax" and len(parts) > 1 else parts[0])
    return found - set(sys.stdlib_module_names) - {part_of(file), "ssm_jax"}


def test_every_part_has_its_rule():
    assert {part_of(file) for file in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_part_imports_only_what_it_may(file):
    beyond = foreign(file) - MAY_IMPORT[part_of(file)]
    assert not beyond, f"{name_of(file)} imports {sorted(beyond)}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_place_alone(package):
    assert {name_of(file) for file in FILES if package in foreign(file)} == ONLY_IN[package]


def test_the_generators_know_nothing_of_this_package():
    files = sorted((ROOT / "lra_generators").glob("*.py"))
    found = {name.split(".")[0] for file in files for name in imports(file)}
    assert found - set(sys.stdlib_module_names) == {"lra_generators", "numpy", "PIL", "numba"}


def test_config_dict_stops_at_the_loop():
    """Layers, kernels, data and the steps take plain arguments, so they work from a notebook."""
    allowed = {"training/loop.py", *ONLY_IN["ml_collections"]}
    for file in FILES:
        named = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, (ast.Name, ast.Attribute))
        }
        assert "ConfigDict" not in named or name_of(file) in allowed, name_of(file)


def test_what_differs_by_platform_asks_one_function():
    """`devices.backend` knows for what a program is being made; JAX only what this machine has."""
    asking = [file for file in FILES if "default_backend" in file.read_text()]
    assert [name_of(file) for file in asking] == ["kernels/devices.py"]


ASKING = {"on_cpu", "on_gpu", "backend"}


def test_the_table_of_forms_has_each_function_that_differs_by_platform():
    """The rows of `devices.on_gpu` are the functions that ask; a form without a reason is none."""
    found = set()
    for file in FILES:
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                names = {node.id for node in calls if isinstance(node, ast.Name)}
                if names & ASKING and function.name not in ASKING:
                    found.add(function.name)
    rows = re.findall(r"^((?:\w+, )*\w+)  +\S", inspect.getdoc(on_gpu), re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} == found


def test_experiment_files_import_config_variants_and_stories_alone():
    files = sorted((ROOT / "configs").rglob("*.py"))
    assert files
    for file in files:
        known = {
            name for name in imports(file) if name.split(".")[0] not in sys.stdlib_module_names
        }
        stories = {
            f"ssm_jax.stories.{name}"
            for name in ("denoise", "waves", "video", "runoff", "autocorrelation", "linoss")
        }
        assert known <= {"ssm_jax.config", "ssm_jax.lra", "ml_collections"} | stories, file


def modules(part: str, *, but: tuple[str, ...] = ()) -> list[str]:
    names = [name_of(file).removesuffix(".py") for file in FILES if part_of(file) == part]
    return [
        "ssm_jax." + name.replace("/", ".").removesuffix(".__init__")
        for name in names
        if name.removeprefix(f"{part}/") not in but
    ]


HEAVY = {"tensorflow", "torch", "wandb", "tensorboardX", "optuna"}
FRESH = {
    # Grain imports jax and orbax, flax.nnx imports optax: neither can be told by sys.modules.
    "numerics": (
        modules("kernels") + modules("init") + modules("dims"),
        {"flax", "optax", "orbax", "grain", "tensorflow_datasets", "matplotlib", "ml_collections"},
    ),
    "networks": (
        modules("layers") + modules("models"),
        {"orbax", "grain", "tensorflow_datasets", "matplotlib", "ml_collections"},
    ),
    "data": (
        modules("data", but=("loader", "builder"))
        + modules("lra", but=("variants", "builders"))
        + modules("report"),
        {"jax", "flax", "grain", "tensorflow_datasets", "matplotlib", "ml_collections"},
    ),
    "builder": (
        ["ssm_jax.data.builder", "ssm_jax.lra.builders"],
        {"jax", "flax", "grain", "matplotlib"},
    ),
    "training": (
        modules("tasks") + modules("training") + modules("trained") + ["ssm_jax.data.loader"],
        {"orbax", "grain", "tensorflow_datasets", "matplotlib", "scipy"},
    ),
    "tasks": (  # which are asked for their options and metrics before JAX is needed
        [
            "ssm_jax.tasks",
            *(
                f"ssm_jax.{name}"
                for name in (
                    "lra.catalog",
                    "stories.denoise",
                    "stories.waves",
                    "stories.video",
                    "stories.runoff",
                    "tasks.copying",
                    "tasks.delay",
                )
            ),
        ],
        {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "matplotlib"},
    ),
    "analysis": (modules("analysis"), {"orbax", "grain", "tensorflow_datasets", "ml_collections"}),
    "command_line": (
        [*modules("config"), *modules("commands"), *modules("launch"), "ssm_jax.lra.variants"],
        {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "matplotlib"},
    ),
}


@functools.cache
def held(*names: str) -> set[str]:
    """The packages in a fresh process that has imported some modules; Python's own left out."""
    program = (
        "import importlib, json, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1])) - set(sys.stdlib_module_names)


@pytest.mark.parametrize("group", FRESH)
def test_a_fresh_process_holds_nothing_that_a_part_may_not_have(group):
    """Training starts without TFDS, matplotlib, SciPy, wandb; the command line without JAX."""
    names, forbidden = FRESH[group]
    assert names
    found = held(*names)
    assert "ssm_jax" in found
    assert not found & (forbidden | HEAVY)


@pytest.mark.parametrize(
    ("group", "needs"),
    [("numerics", ["numpy", "jax.numpy"]), ("networks", ["numpy", "jax.numpy", "flax.nnx"])],
)
def test_kernels_and_layers_load_what_jax_and_flax_load_and_no_more(group, needs):
    assert held(*FRESH[group][0]) == held(*needs) | {"ssm_jax"}
