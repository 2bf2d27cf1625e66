"""`ssm-jax recommend`: what it prints and writes, and that what it writes trains and sweeps."""

import json

import numpy as np
import pytest

from ssm_jax.commands.recommend import recommend
from ssm_jax.commands.spectrum import spectrum
from ssm_jax.commands.train import train
from ssm_jax.config.load import load_config, load_sweep

CONFIG = """
from ssm_jax import config as config_lib

def get_config(arg=""):
    cfg = config_lib.default("classification")
    cfg.data.source, cfg.data.padded_length, cfg.batch_size = "files", 0, 8
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 4
    cfg.train.steps, cfg.train.eval_every, cfg.checkpoint.every, cfg.figures = 2, 2, 2, False
    cfg.name = arg or "own"
    return cfg
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with walks of two classes in walks.npz, and a config for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSM_JAX_DATA_DIR", str(tmp_path / "data"))
    steps = np.random.default_rng(0).normal(size=(200, 128, 1))
    np.savez("walks.npz", x=np.cumsum(steps, axis=1), y=np.arange(200) % 2)
    np.save("walks.npy", np.cumsum(steps, axis=1))
    (tmp_path / "own.py").write_text(CONFIG)
    return tmp_path


def run(*words: str) -> int:
    return recommend([str(word) for word in words])


def test_what_it_writes_trains_and_sweeps_each_test_beside_the_default(folder, capsys):
    words = ["--from=walks.npz", f"--data_dir={folder / 'data'}"]
    assert run(
        "--config=own.py:mine", *words, "--config.model.depth=2", "--out=sub/advised.py",
        "--config.model.beta.init=1.0", "--figure=advised.png", "--record=advised.json",
    ) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "sub/advised.py is the experiment as it was" in shown and "95 %" in shown
    assert "keep 0.001 to 0.1; to be tested: " in shown and "gained in none" in shown
    record = json.loads((folder / "advised.json").read_text())
    tests = {row["knob"]: row["alone"] for row in record["advice"] if row["alone"]}
    assert tests.keys() == {"dt", "alpha"}, "walks reach the end of 128 steps; beta is 1"
    assert not any(row["options"] for row in record["advice"])
    for arg, knob in ((":dt", "_dt"), (":alpha", "_alpha"), ("", "")):
        command = f"--config=sub/advised.py{arg} --seeds=3 --folder=runs/advised{knob} {words[0]}"
        assert f"    ssm-jax sweep {command}" in shown
    assert (folder / "advised.png").stat().st_size > 0
    cfg = load_config("sub/advised.py")
    assert (cfg.name, cfg.model.depth, cfg.model.beta.init) == ("mine", 2, 1.0)
    usual = {"model.dt_min": 1e-3, "model.dt_max": 1e-1, "model.alpha": 1.0}
    assert {key: cfg.model[key.removeprefix("model.")] for key in usual} == usual
    arms = load_sweep("sub/advised.py", cfg)
    assert arms == [usual, *(usual | tests[knob] for knob in ("dt", "alpha"))]
    for knob, test in tests.items():
        arm = load_config(f"sub/advised.py:{knob}")
        assert {key: arm.model[key.removeprefix("model.")] for key in usual} == usual | test
        assert load_sweep(f"sub/advised.py:{knob}", arm) == [
            {key: usual[key] for key in test},
            test,
        ]
    assert [row["layer"] for row in record["layers"]] == ["blocks/0/ssm", "blocks/1/ssm"]
    assert record["correlation"] == {k: v for k, v in record["layers"][0].items()}
    assert record["layers"][0]["power"] == pytest.approx(1, rel=0.05), "behind a batch norm"
    assert train(["--config=sub/advised.py:dt", *words, "--workdir=runs/a", "--compiled=off"]) == 0


def test_what_is_advised_is_applied_and_swept_and_what_is_a_test_is_not(folder, capsys):
    """Walks fall as w^-2, so that beta = 1 is advised; dt and alpha are for a test only."""
    name = 'a"""b\\N\n"'  # what ends a docstring, and what no string may hold
    words = [
        "--config=own.py",
        f"--config.name={name}",
        "--from=walks.npz",
        f"--data_dir={folder / 'data'}",
    ]
    assert run(*words, "--out=advised.py") == 0
    shown = capsys.readouterr().out
    assert "advised.py has the advice on beta applied" in shown
    assert "advised.py:beta" not in shown, "it is tested by what is advised"
    cfg = load_config("advised.py")
    assert cfg.name == name
    assert cfg.model.beta.init == pytest.approx(1, abs=0.15)
    assert (cfg.model.alpha, cfg.model.dt_min) == (1.0, 1e-3)
    beta = {"model.beta.init": cfg.model.beta.init}
    assert load_sweep("advised.py", cfg) == [{"model.beta.init": 0.0}, beta]
    for load in (load_config, lambda spec: load_sweep(spec, cfg)):
        with pytest.raises(ValueError, match="no test of foo; the knobs here are dt, alpha, beta"):
            load("advised.py:foo")
    dt = load_config("advised.py:dt")
    assert dt.model.beta.init == 0.0 and dt.model.dt_min < 1e-3 and dt.model.alpha == 1.0


def test_a_file_alone_gets_advice_without_a_test(folder, capsys):
    assert run("--from=walks.npy") == 0
    shown = capsys.readouterr().out
    assert "dt range: " in shown and "ssm-jax sweep" not in shown


def test_a_single_series_and_one_without_change_get_no_number_to_believe(folder, capsys):
    """Fewer series than a batch has are no fault where nothing is trained."""
    steps = np.random.default_rng(0).normal(size=(5, 80, 1))
    parts = {"train": steps[:1], "val": steps[1:3], "test": steps[3:]}
    for name, scale in (("one", 1.0), ("constant", 0.0)):
        x = {f"x_{part}": 1000.0 + scale * rows for part, rows in parts.items()}
        y = {f"y_{part}": 0.5 + np.arange(len(rows)) for part, rows in parts.items()}
        np.savez(f"{name}.npz", **x, **y)
        small = [f"--config.model.{key}" for key in ("depth=2", "d_model=4", "d_state=4")]
        words = ["--config=arrays:regression", f"--from={name}.npz", *small]
        assert run(*words, f"--data_dir={folder / 'data'}") == 0
        shown = capsys.readouterr().out
        assert "nothing to change" in shown
        assert ("of one there is no interval" in shown) == (name == "one")
        assert ("they never change" in shown) == ("lambda_max" not in shown) == (name != "one")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config=own.py", "--from=walks.npz", "--out=own.py"], "another .py"),
        (["--config=own.py", "--from=walks.npz", "--out=a.json"], "another .py"),
        (["--from=walks.npy", "--out=a.py"], "give --config"),
        (["--from=walks.npy", "--n=0"], "at least 1"),
        (["--file=walks.npy"], "there is no --file here; give --from=walks.npy."),
        ([], "--config is missing"),
        (["--config=denoise:smoke"], "task=denoise has a network with modes of its own"),
        (["--from=walks.npy", "--config.model.alpha=2"], "is of an experiment, and none is named"),
        (["--from=walks.npy", "--figure=/proc/x.png"], "error: --figure: /proc/x.png: Permission"),
    ],
)
def test_wrong_options_are_one_line(folder, capsys, words, said):
    with pytest.raises(SystemExit) as refused:
        run(*words)
    assert refused.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and said in shown
    assert (folder / "own.py").read_text() == CONFIG and not (folder / "a.py").exists()


def test_a_file_that_is_missing_or_no_array_is_refused(folder):
    with pytest.raises(OSError, match=r"none\.npy"):
        run("--from=none.npy")
    (folder / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match=r"--from=text\.npy is no array") as refused:
        run("--from=text.npy")
    assert "pickle" not in str(refused.value)


def test_negative_tokens_and_values_that_are_not_finite_are_refused(folder):
    tokens = np.arange(40 * 128).reshape(40, 128) % 9
    tokens[3, 5] = -2
    np.save("neg.npy", tokens)
    np.save("nan.npy", np.where(tokens < 0, np.nan, tokens))
    for command, flag in ((run, "from"), (lambda *words: spectrum([*words]), "file")):
        with pytest.raises(ValueError, match=rf"--{flag}=neg\.npy holds -2; tokens count from 0"):
            command(f"--{flag}=neg.npy", "--tokens")
        with pytest.raises(
            ValueError, match=r"nan\.npy: sequence 3 has a value that is not finite"
        ):
            command(f"--{flag}=nan.npy")


def test_a_task_without_sequences_names_the_flag_of_the_command(folder):
    with pytest.raises(ValueError, match=r"are no sequences; give --from=X\.npy"):
        run("--config=waves", f"--data_dir={folder / 'data'}")


def test_the_layers_of_a_run_and_of_a_new_model_are_measured(folder, capsys):
    words = ["--from=walks.npz", f"--data_dir={folder / 'data'}"]
    assert train(["--config=own.py", *words, "--workdir=runs/a", "--compiled=off"]) == 0
    assert spectrum(["--run=runs/a", *words, "--out=run.json"]) == 0
    assert "inputs of the layers of runs/a" in capsys.readouterr().out
    assert spectrum(["--config=own.py", *words, "--layers", "--out=new.json"]) == 0
    trained, new = (
        json.loads((folder / name).read_text())["layers"] for name in ("run.json", "new.json")
    )
    assert [row["layer"] for row in trained] == [row["layer"] for row in new] == ["blocks/0/ssm"]
    assert new[0]["power"] == pytest.approx(1, rel=0.05) and new[0]["length"] == 128
    assert trained[0]["lambda_max"] != new[0]["lambda_max"]
    with pytest.raises(SystemExit):
        spectrum(["--file=walks.npy", "--layers"])
    assert "--layers and --run are of a task's model" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["fixed", "autocorrelation"])
def test_the_modes_are_those_of_the_dt_that_a_rule_sets(folder, capsys, rule):
    """Not of a range that no channel has: its highest mode turns by alpha pi (N - 1) dt a step."""
    words = ["--config=own.py", "--from=walks.npz", f"--data_dir={folder / 'data'}"]
    words += [f"--config.model.dt_rule={rule}", "--config.model.dt_min=0.02"]
    words += ["--config.model.depth=2", "--config.model.dt_apply_to=first"]
    assert spectrum([*words, "--out=a.json", "--alphas=1"]) == 0
    assert run(*words, "--record=b.json") == 0
    found, advised = (json.loads((folder / name).read_text()) for name in ("a.json", "b.json"))
    x = np.load("walks.npz")["x"][:, :, 0]  # those of training are 140 of the 200
    rule_dt = (128 * np.linalg.eigvalsh(x.T @ x / (x**2).mean() / 200)[-1]) ** -0.5
    dt, rel = (0.02, 1e-9) if rule == "fixed" else (rule_dt, 0.1)
    for windows, alpha in ((found["windows"], 1), (advised["spectrum"]["windows"], None)):
        row = next(row for row in windows if alpha in (None, row["alpha"]))
        assert (
            row["lowest"] == row["highest"] == pytest.approx(row["alpha"] * 3 * np.pi * dt, rel=rel)
        )
    assert found["layer"]["dt"] == pytest.approx([dt, dt], rel=rel)
    assert found["alpha"] == pytest.approx(found["energy_below"]["0.9"] / (3 * np.pi * dt), rel=rel)
    assert advised["layers"][0]["dt_layer"] == pytest.approx([dt] * 3, rel=rel)
    assert advised["layers"][1]["dt_layer"][:2] == [0.02, 0.1], "the rule is of the first alone"
    assert "half of the channels" not in capsys.readouterr().out


@pytest.mark.parametrize("layer", ["lru", "linoss"])
def test_a_layer_without_dt_and_init_gets_no_advice_on_them(folder, capsys, layer):
    """A test of them would be refused, as the layer does not read these options."""
    words = ["--config=own.py", "--from=walks.npz", f"--data_dir={folder / 'data'}"]
    assert run(*words, f"--config.model.layer={layer}", "--out=a.py", "--figure=a.png") == 0
    shown = capsys.readouterr().out
    assert shown.count("keep its own") == 3 and "nothing to change" in shown
    assert "the layer has" not in shown and "0.001" not in shown and "s4d_lin" not in shown
    assert not (folder / "a.py").exists() and (folder / "a.png").exists()


def test_the_modes_of_s5_that_are_compared_are_those_of_a_block(folder, capsys):
    words = ["--config=own.py", "--from=walks.npz", f"--data_dir={folder / 'data'}"]
    words += ["--config.model.layer=s5", "--config.model.init=s4d_inv"]
    said = []
    for d_state, n_blocks in ((8, 1), (32, 4)):
        sizes = f"--config.model.d_state={d_state}", f"--config.model.s5.n_blocks={n_blocks}"
        assert run(*words, *sizes) == 0
        said.append(capsys.readouterr().out.partition("modes over L: ")[2].split()[0])
    assert said[0] == said[1]
