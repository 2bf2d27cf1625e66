"""What is known before a run: aliased modes, memory, and whether its folder is free."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import numpy as np
import pytest
from flax import nnx
from tiny import tiny_config, tiny_experiment

from ssm_jax import S5, commands
from ssm_jax.commands import train
from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.tasks import find_task
from ssm_jax.training import loop, plan
from ssm_jax.training.experiment import build
from ssm_jax.training.workdir import Workdir


def counted(a_N, alpha, dt_min, dt_max, channels=200_001) -> float:
    """The share of modes with alpha |Im a| dt > pi, by counting channels one by one."""
    steps = np.linspace(np.log(dt_min), np.log(dt_max), channels)
    return float(np.mean([np.mean(alpha * abs(a) * np.exp(steps) > np.pi) for a in a_N]))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("init", ["s4d_lin", "s4d_inv"])
def test_the_aliased_share_is_that_of_counting_channels(alpha, init):
    N = 16
    n = np.arange(N)
    a_N = np.pi * n if init == "s4d_lin" else 2 * N / np.pi * (2 * N / (2 * n + 1) - 1)
    model = tiny_config(model__alpha=alpha, model__d_state=N, model__init=init).model.to_dict()
    found = plan.aliased_share(model)
    expected = counted(a_N, alpha, model["dt_min"], model["dt_max"])
    assert found is not None and abs(found - expected) < 1e-4


@pytest.mark.parametrize("init", ["legs", "s4d_lin"])
@pytest.mark.parametrize(("n_blocks", "conj_sym"), [(1, True), (4, True), (1, False), (2, False)])
def test_the_aliased_share_of_s5_is_that_of_its_modes(init, n_blocks, conj_sym):
    """Of the eigenvalues of a layer, whose blocks have each the modes of a smaller one."""
    s5 = {"model__s5__n_blocks": n_blocks, "model__s5__conj_sym": conj_sym}
    config = tiny_config(
        model__layer="s5", model__d_state=16, model__init=init, model__alpha=10.0, **s5
    )
    model = config.model.to_dict()
    layer = S5(2, d_state=16, init=init, alpha=10.0, **model["s5"], rngs=nnx.Rngs(params=0))
    expected = counted(layer.eigenvalues().imag, 1.0, model["dt_min"], model["dt_max"], 20_001)
    assert abs(plan.aliased_share(model) - expected) < 1e-3


def test_a_run_whose_modes_mostly_alias_says_so_with_their_share(data_dir):
    lines = plan.describe(tiny_experiment(data_dir, model__alpha=1e30))
    assert lines[-1].startswith("warning: 75% of the modes start beyond Nyquist")  # n = 0 does not
    assert "model.alpha=1e+30" in lines[-1]
    assert not any("Nyquist" in line for line in plan.describe(tiny_experiment(data_dir)))


@pytest.mark.parametrize(
    "options",
    [
        {"model__init": "ring", "model__discretization": "none"},
        {"model__discretization": "bilinear"},
    ],
)
def test_what_cannot_alias_has_no_share(options):
    model = tiny_config(**options).model.to_dict()
    assert plan.aliased_share(model) is None and plan.alias_warning(model) == ""


def test_the_memory_of_a_device_is_what_it_says_and_of_a_cpu_that_of_the_machine():
    with open("/proc/meminfo") as file:
        total = int(next(line for line in file if line.startswith("MemTotal")).split()[1]) * 1024
    found = plan.device_memory()
    assert found is not None and 0 < found <= total * 1.001
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 7}, platform="gpu")
    assert plan.device_memory(device) == 7
    device = types.SimpleNamespace(memory_stats=lambda: None, platform="gpu")
    assert plan.device_memory(device) is None


def test_a_state_that_fits_nowhere_is_refused_before_anything_is_made(data_dir, tmp_path):
    experiment = tiny_experiment(data_dir, model__d_model=100_000_000)
    with pytest.raises(ValueError, match=r"a state of .* GiB does not fit into the .*accumulate"):
        loop.train_and_evaluate(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_that_does_not_fit_is_a_warning(data_dir, monkeypatch, capsys):
    """The step of a state that fits may need more for what it computes."""
    experiment = tiny_experiment(data_dir)
    batch = experiment.place_batch(next(experiment.train_batches(0)))
    monkeypatch.setattr(plan, "device_memory", lambda: 10_000)
    experiment.step_for(batch, training=True)
    assert "warning: the training step of 0." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "figures/mine.pdf", "my run"])
def test_a_folder_of_something_else_is_refused_and_left_alone(name, tmp_path):
    path = tmp_path / "work" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    own = ["--config=listops_small", f"--workdir={tmp_path / 'work'}"]
    if name.startswith("figures"):  # a folder of that name may be what is left of a run
        Workdir(tmp_path / "work").refuse_foreign()
        return
    with pytest.raises(ValueError, match=r"holds what no run wrote \((notes.txt|my run)\); give"):
        train.train(own)
    with pytest.raises(ValueError, match="no run wrote"), Workdir(tmp_path / "work"):
        pass
    assert [p.name for p in (tmp_path / "work").iterdir()] == [name]
    assert path.read_text() == "mine"


def test_hidden_and_empty_files_and_those_of_runs_are_no_obstacle(tmp_path):
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "out.log").touch()  # ssm-jax train ... > runs/a/out.log
    (tmp_path / "log.txt").write_text("of a sweep")
    (tmp_path / "old-1").mkdir()
    with Workdir(tmp_path):
        pass
    (tmp_path / "notes.txt").write_text("mine")  # a run's folder may hold more
    with Workdir(tmp_path):
        pass


@pytest.mark.parametrize(
    ("config", "parameters"),
    [  # of the official code, as in tests/test_lra_configs.py
        ("lra/listops", 403_210),
        ("lra/text", 1_226_754),
        ("lra/retrieval", 478_082),
        ("lra/image", 4_353_034),
        ("lra/pathfinder", 1_192_706),
        ("denoise:full", None),
    ],
)
def test_a_look_needs_no_data_and_makes_none(config, parameters, tmp_path):
    experiment = build(load_config(config), data_dir=tmp_path / "data", look_only=True)
    assert not (tmp_path / "data").exists()
    assert "; assumed: " in plan.describe(experiment)[1]
    if parameters is not None:
        assert sum(row.size for row in experiment.rows) == parameters


@pytest.mark.parametrize("task", ["listops", "text", "retrieval", "image"])
def test_what_is_assumed_of_data_has_the_shapes_of_prepared_ones(task, tmp_path):
    """Of batches, and the steps of an epoch; the stand-ins have vocabularies of their own."""
    cfg = load_config(f"lra/{task}:smoke")
    options = cfg.data.to_dict()
    looked, made = (
        find_task(cfg.task).open_data(options, DataPaths(tmp_path, look_only=look))
        for look in (True, False)
    )
    assert looked.provenance.detail != made.provenance.detail
    assert looked.shapes(3, cfg.data.padded_length) == made.shapes(3, cfg.data.padded_length)
    names = ("n_classes", "d_input", "paired", "padded_length")
    assert [getattr(looked, n) for n in names] == [getattr(made, n) for n in names]
    assert [looked.size(s) for s in looked.splits] == [made.size(s) for s in made.splits]
    again = find_task(cfg.task).open_data(options, DataPaths(tmp_path, look_only=True))
    assert again.provenance == made.provenance  # what is there is looked at


def test_a_look_at_own_series_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(60, 20, 2)), y=np.arange(60) % 3)
    cfg = load_config("arrays")
    where = {"data_dir": tmp_path / "data", "files": tmp_path / "mine.npz"}
    assert build(cfg, **where, look_only=True).dataset.n_classes == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def programs_in(folder, code: str = "", **env: str) -> int:
    """How many compiled programs are in a folder after a process with start_jax(code)."""
    words = f"from ssm_jax.commands import start_jax; start_jax({code})\n"
    words += "import jax; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
    words += "jax.jit(lambda x: x * 2 + 1)(1.0)"
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMP")}
    subprocess.run([sys.executable, "-c", words], check=True, env={**known, **env})
    return len([*folder.rglob("*-cache")])


def test_compiled_programs_go_where_the_flag_says(tmp_path):
    usual, asked = tmp_path / "cache", tmp_path / "asked"
    home = {"XDG_CACHE_HOME": str(usual)}
    assert programs_in(tmp_path, "'off'", **home, JAX_COMPILATION_CACHE_DIR=str(asked)) == 0
    assert programs_in(asked, repr(str(asked)), **home) == 1 and not usual.exists()
    assert programs_in(usual / "ssm_jax" / "compiled", **home) == 1


def test_a_folder_for_compiled_programs_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        commands.start_jax(str(tmp_path / "file"))
