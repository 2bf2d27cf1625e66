"""`ssm-jax sweep` for configs without sweep(), and for several configs; training is played."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssm_jax import config as config_lib
from ssm_jax.commands.sweep import sweep
from ssm_jax.sweep import runs
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.workdir import WorkdirBusy

OLD_RUN = Path(__file__).parents[1] / "training/old_runs/finished"
CONFIG = """
from ssm_jax import config as config_lib

def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, alpha=("1", "3", "10"))
    cfg = config_lib.default()
    cfg.name = f"played:{chosen['alpha']}"
    cfg.model.alpha = float(chosen["alpha"])
    cfg.train.steps = 4
    return cfg
"""


@pytest.fixture
def played(tmp_path, monkeypatch):
    """In a folder with e.py, where a run is finished at once; the accuracies follow from it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.py").write_text(CONFIG)
    made = []

    def train(cfg, path, request):
        made.append(path.relative_to(tmp_path).as_posix())
        test = cfg.model.alpha / 20 + cfg.seed / 100
        summary = {
            "val": {"accuracy": 0.9 - test, "loss": 1.0},
            "test": {"accuracy": test, "loss": 1.0},
            "selected_by": "val accuracy",
            "best": {"step": 4, "value": 0.9 - test},
            "steps": cfg.train.steps,
            "parameters": 1000 * int(cfg.model.alpha),
            "majority_rate": 0.25,
            "config_digest": config_lib.digest(cfg),
        }
        if cfg.task == "delay":  # has no classes
            del summary["test"]["accuracy"]
        if request.begin is not None:
            summary |= {"parent": {"run": request.begin.run.name, "state": cfg.parent}}
            summary |= {"command": request.argv}
            (path / "start").mkdir(exist_ok=True)
        (path / "summary.json").write_text(json.dumps(summary))
        (path / "DONE").touch()
        return 0

    monkeypatch.setattr("ssm_jax.sweep.runs.build", lambda cfg, **_: cfg)
    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", train)
    monkeypatch.setattr("ssm_jax.commands.sweep.start_jax", lambda *_, **__: None)
    return made


def folder(tmp_path):
    return f"--folder={tmp_path / 'out'}"


def test_seeds_of_a_config_without_a_sweep_are_one_setting(played, tmp_path, capsys):
    assert sweep(["--config=e.py:3", "--seeds=3", "--config.seed=5", folder(tmp_path)]) == 0
    assert played == ["out/seed=5", "out/seed=6", "out/seed=7"]
    document = json.loads((tmp_path / "out/sweep.json").read_text())
    (cell,) = document["cells"]
    assert cell["options"] == {} and document["seeds"] == [5, 6, 7]
    assert cell["values"] == pytest.approx({"5": 0.20, "6": 0.21, "7": 0.22})
    assert "| 69.0 ± 1.0 | 21.0 ± 1.0 | 3 |" in capsys.readouterr().out
    assert not (tmp_path / "out/sweep.png").exists()


def test_a_single_seed_of_it_is_no_sweep(played, tmp_path):
    with pytest.raises(ValueError, match=r"no function sweep\(\); .* with several --seeds=N"):
        sweep(["--config=e.py", folder(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_a_config_without_its_flag_is_run_as_it_is_though_it_has_a_sweep(played, tmp_path, capsys):
    sweeps = "\ndef sweep():\n    return [{'model.alpha': a} for a in (1.0, 2.0)]\n"
    (tmp_path / "e.py").write_text(CONFIG + sweeps)
    assert sweep(["e.py:3", "--seeds=2", folder(tmp_path)]) == 0
    assert played == ["out/seed=0", "out/seed=1"]
    with pytest.raises(SystemExit):
        sweep(["e.py:3", folder(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert (
        line
        == "error: e.py:3 alone is one run; give --seeds=N, or --config=e.py:3 for its sweep()."
    )


def test_several_configs_have_a_folder_each_and_one_table(played, tmp_path, capsys):
    words = ["e.py:1", "e.py:3", "e.py:10", "--seeds=2", "--config.train.steps=8"]
    assert sweep([*words, folder(tmp_path)]) == 0
    assert played == [f"out/played_{alpha}/seed={s}" for alpha in (1, 3, 10) for s in (0, 1)]
    shown = capsys.readouterr().out
    rows = ("| played:1 | 1,000 | **84.5 ± 0.7** | **5.5 ± 0.7** | 2 |", "| played:10 | 10,000 |")
    assert all(row in shown for row in rows), "validation chooses"
    assert "| *majority class* |  |  | 25.0 |  |" in shown
    assert "| played:1 | played:10 | +45.0 ± 0.0 | -45.0 ± 0.0 | 2 |" in shown
    document = json.loads((tmp_path / "out/sweep.json").read_text())
    assert document["steps"] == 8 and document["options"] == {
        "config": ["played:1", "played:3", "played:10"]
    }
    assert (tmp_path / "out/sweep.png").exists()
    played.clear()
    assert sweep([*words, folder(tmp_path)]) == 0
    assert played == [], "what is done is not done again"


def test_configs_of_one_name_are_told_apart_by_their_arguments(played, tmp_path):
    text = CONFIG.replace("f\"played:{chosen['alpha']}\"", "'same'")
    (tmp_path / "e.py").write_text(text)
    assert sweep(["e.py:1", "e.py:3", folder(tmp_path)]) == 0
    assert played == ["out/e.py_1/seed=0", "out/e.py_3/seed=0"]


def test_all_runs_begin_from_one_parent_which_table_and_records_name(played, tmp_path, capsys):
    shutil.copytree(OLD_RUN, tmp_path / "parent")
    words = ["e.py:1", "e.py:3", "--seeds=2", folder(tmp_path)]
    assert sweep([*words, "--init_from=parent:best", "--init_match=blocks"]) == 0
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in played]
    assert len(played) == 4 and len({summary["parent"]["state"] for summary in summaries}) == 1
    assert summaries[0]["parent"]["state"].endswith(": matching blocks")
    command = summaries[3]["command"]
    assert "--init_from=parent:best" in command and "--init_match=blocks" in command
    document = json.loads((tmp_path / "out/sweep.json").read_text())
    assert document["parent"] == summaries[0]["parent"] and not document["remarks"]
    with pytest.raises(ValueError, match="holds a run with other options"):
        sweep([*words, "--init_from=parent:newest"])
    with pytest.raises(ValueError, match="--init_match=a goes with --init_from"):
        sweep(["e.py:1", "--seeds=2", f"--folder={tmp_path / 'new'}", "--init_match=a"])
    with pytest.raises(OSError, match="nowhere"):
        sweep(["e.py:1", "--seeds=2", f"--folder={tmp_path / 'new'}", "--init_from=nowhere"])
    assert not (tmp_path / "new").exists()


def test_a_sweep_over_what_a_parent_replaces_is_refused(played, tmp_path):
    """All cells would have its parameters, and a table of equal numbers says nothing."""
    shutil.copytree(OLD_RUN, tmp_path / "parent")
    sweeps = "\ndef sweep():\n    return [{'model.alpha': a} for a in (1.0, 2.0)]\n"
    (tmp_path / "e.py").write_text(CONFIG + sweeps)
    words = ["--config=e.py:3", "--init_from=parent", folder(tmp_path)]
    with pytest.raises(ValueError, match=r"model\.alpha is swept and acts at initialization"):
        sweep(words)
    assert not played and not (tmp_path / "out").exists()
    assert sweep([*words, "--init_match=^decoder/"]) == 0


def test_tasks_without_the_metric_of_the_table_are_refused_before_training(played, tmp_path):
    cells = "[{'task': t, 'train.select_metric': 'loss'} for t in ('delay', 'listops')]"
    (tmp_path / "e.py").write_text(f"{CONFIG}\ndef sweep():\n    return {cells}\n")
    fault = r"the sweep shows accuracy, which task=delay does not have; give --metric=loss, or"
    for words in ([], ["--metric=accuracy"]):
        with pytest.raises(ValueError, match=fault):
            sweep(["--config=e.py:3", folder(tmp_path), *words])
    assert not played and not (tmp_path / "out").exists()
    assert sweep(["--config=e.py:3", folder(tmp_path), "--metric=loss"]) == 0


def test_configs_that_make_no_table_are_refused_before_training(played, tmp_path):
    for name, metric in {"listops": "accuracy", "delay": "mse"}.items():
        text = CONFIG.replace("default()", f"default({name!r})").replace("played", name)
        chosen = f"cfg.train.select_metric = {metric!r}\n    return"
        (tmp_path / f"{name}.py").write_text(text.replace("return", chosen))
    words = ["listops.py:3", "delay.py:3", folder(tmp_path)]
    with pytest.raises(ValueError, match="no table: their metric are accuracy and mse; give --met"):
        sweep(words)
    with pytest.raises(ValueError, match=r"and val mse; give --config\.train\.select_metric"):
        sweep([*words, "--metric=loss"])
    assert not played and not (tmp_path / "out").exists()
    assert sweep([*words, "--metric=loss", "--config.train.select_metric=loss"]) == 0
    assert len(played) == 2


def test_what_runs_are_compared_by_is_one_for_all_of_them(played, tmp_path):
    """Of a search too, which ranks by it."""
    for key, texts in (("select_metric", ("loss", "accuracy")), ("select_split", ("val", "train"))):
        cells = f"[{{'train.{key}': text}} for text in {texts}]"
        (tmp_path / "e.py").write_text(f"{CONFIG}\ndef sweep():\n    return {cells}\n")
        searched = ("--sampler=optuna", f"--search.train.{key}={','.join(texts)}")
        for words in ((), searched):
            with pytest.raises(ValueError, match=f"^train.{key} is what runs are compared by"):
                sweep(["--config=e.py:3", folder(tmp_path), *words])
    tasks = ["--config=e.py:3", folder(tmp_path), "--sampler=optuna", "--search.task=listops,delay"]
    with pytest.raises(ValueError, match="ranks by accuracy, which task=delay does not have; give"):
        sweep(tasks)
    with pytest.raises(ValueError, match="shows accuracy, which task=delay does not have; give"):
        sweep([*tasks, "--config.train.select_metric=loss"])
    assert not played and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["e.py:1", "--config=e.py:3"], "--config=e.py:3 and e.py:1 are both given"),
        (["e.py:1", "e.py:1"], "the config e.py:1 is given twice"),
        (["e.py:1", "e.py:4"], "unknown config argument '4'"),
        (["e.py:1", "e.py:3", "--config.model.alhpa=1"], "did you mean --config.model.alpha"),
        (
            ["--config=e.py:1", "--seeds=3,5", "--config.seed=7"],
            "error: --config.seed=7 and --seeds=3,5 both say which seeds; leave one out.",
        ),
    ],
)
def test_wrong_configs_are_one_line_and_leave_nothing(played, tmp_path, capsys, words, fault):
    with pytest.raises(SystemExit):
        sweep([*words, folder(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line
    assert not (tmp_path / "out").exists() and played == []


def test_one_run_of_the_list_is_made_alone_and_the_tables_come_at_the_end(played, tmp_path, capsys):
    words = ["e.py:1", "e.py:3", "--seeds=2", folder(tmp_path)]
    assert sweep([*words, "--run=2"]) == 0
    assert played == ["out/played_3/seed=0"] and "seed=0: finished" in capsys.readouterr().out
    assert not (tmp_path / "out/sweep.json").exists(), "tables are of all runs"
    assert sweep([*words, "--run=2"]) == 0 and len(played) == 1, "what is done is not done again"
    for number in (0, 1, 3):
        assert sweep([*words, f"--run={number}"]) == 0
    assert sweep([*words, "--report_only"]) == 0 and len(played) == 4
    alone = (tmp_path / "out/sweep.csv").read_text()
    shutil.rmtree(tmp_path / "out")
    assert sweep(words) == 0 and (tmp_path / "out/sweep.csv").read_text() == alone


def test_a_damaged_log_ends_its_run_and_keeps_no_other_from_training(
    played, tmp_path, monkeypatch, capsys
):
    train, bad = runs.train_and_evaluate, tmp_path / "out/seed=0/metrics.jsonl"

    def damaged(cfg, path, request):
        if path == bad.parent:
            bad.write_text('{"step": 1}\n{"step": 2, "kind": "val", "accuracy": 0.5}\n')
            read_metrics(bad)
        return train(cfg, path, request)

    monkeypatch.setattr(runs, "train_and_evaluate", damaged)
    for words in ([], [], ["--report_only"]):
        assert sweep(["--config=e.py:3", "--seeds=3", folder(tmp_path), *words]) == 1
    assert played == ["out/seed=1", "out/seed=2"]
    shown, said = capsys.readouterr()
    assert "error: seed=0 failed" in said and "line 1 of 2 is no line of metrics" in shown
    assert "| 2, 1 of 3 missing |" in shown and (tmp_path / "out/progress.html").exists()


@pytest.mark.parametrize("how", ["finished", "begun"])
def test_a_folder_of_other_options_is_refused_before_it_is_changed(played, tmp_path, how):
    """The first run was trained into it, or its command replaced, which --status then gave."""
    words = ["--config=e.py:3", folder(tmp_path)]
    sweeps = "\ndef sweep():\n    return [{'model.alpha': a} for a in (1.0, 2.0)]\n"
    (tmp_path / "e.py").write_text(CONFIG + sweeps)
    assert sweep([*words, "--run=1"]) == 0
    if how == "begun":
        run = tmp_path / "out/alpha=2,seed=0"
        digest = json.loads((run / "summary.json").read_text())["config_digest"]
        (run / "DONE").unlink()
        (run / "LOCK").touch()
        (run / "record.json").write_text(json.dumps({"config_digest": digest}))
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="holds a run with other options"):
        sweep([*words, "--config.train.steps=9"])
    after = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FloatingPointError("loss is nan"), 1, "error: seed=1 diverged: loss is nan"),
        (ValueError("no room"), 1, "error: seed=1 failed: no room"),
        (WorkdirBusy("in use"), 75, "seed=1: another process is at it; the same command goes on."),
    ],
)
def test_the_exit_code_of_one_run_says_how_it_ended(
    played, tmp_path, monkeypatch, capsys, error, code, line
):
    def end(*args, **kwargs):
        raise error

    monkeypatch.setattr("ssm_jax.sweep.runs.ours", lambda error: True)
    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", end)
    assert sweep(["e.py:1", "--seeds=2", folder(tmp_path), "--run=1"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--run=2"], "--run=2 is none of the 2 runs, which count from 0 to 1"),
        (["--run=-1"], "--run=-1 is none of the 2 runs"),
        (["--run=0", "--report_only"], "--run and --report_only are both given"),
    ],
)
def test_a_wrong_number_of_a_run_is_one_line(played, tmp_path, capsys, words, fault):
    with pytest.raises(SystemExit):
        sweep(["e.py:1", "--seeds=2", folder(tmp_path), *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line and not (tmp_path / "out").exists()
