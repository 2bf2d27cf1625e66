"""An evaluation agrees with the training loop, counts every example once, and only reads."""

from __future__ import annotations

import itertools
import json
import shutil
from copy import copy as copy_of
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import binomtest, norm
from tiny import tiny_config, tiny_experiment

from ssm_jax import config as config_lib
from ssm_jax.commands import runs as commands
from ssm_jax.config.load import load_config
from ssm_jax.files import write_json
from ssm_jax.training import loop, runs
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.record import config_of, read_record
from ssm_jax.training.runs import choose_step, open_checkpoint, open_run
from ssm_jax.training.runs.evaluate import (
    evaluate_run,
    predict,
)
from ssm_jax.training.runs.scores import LENGTH_BINS, length_table, rate_of, scores_of
from ssm_jax.training.runs.tables import print_evaluation
from ssm_jax.training.workdir import Workdir, sealed

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py"))
SHORT = {
    "model__depth": 1,
    "train__steps": 20,
    "train__eval_every": 10,
    "checkpoint__every": 7,
    "checkpoint__keep": 9,
    "model__pool": "mean",
    "model__bidirectional": False,
}


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    """The folder of a finished run of 20 steps, evaluated at 10 and 20; nobody changes it."""
    path = tmp_path_factory.mktemp("runs") / "a"
    assert loop.train_and_evaluate(tiny_experiment(data_dir, **SHORT), path) == loop.EXIT_DONE
    return path


@pytest.fixture(scope="module")
def best(run, data_dir):
    """The result of the best checkpoint on the test split, with a command of absolute paths."""
    argv = ["scripts/evaluate.py", f"--workdir={run}", f"--data_dir={data_dir}"]
    return evaluate_run(run, data_dir=data_dir, argv=argv)


@pytest.fixture(scope="module")
def reopened(run, data_dir):
    """(experiment, state of the best checkpoint)."""
    _, experiment, opened = open_run(run, "best", data_dir=data_dir)
    return experiment, opened.state


@pytest.fixture(scope="module")
def untrained(reopened):
    """The same before its first step: it names many classes, after 10 steps one alone."""
    return reopened[0], reopened[0].fresh_state()


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "a"))


def files_of(path: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in path.rglob("*")}


def test_test_result_is_that_of_the_run(run, best):
    summary = json.loads((run / "summary.json").read_text())
    assert best["step"] == summary["best"]["step"]
    assert best["chosen_as"] == f"best {summary['selected_by']}"
    assert best["accuracy"] == summary["test"]["accuracy"]
    assert best["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-6)
    assert best["majority_rate"] == summary["majority_rate"]
    assert best["examples"] == summary["examples"]["test"] == 20
    for key in ("seed", "data", "config_digest", "setup_digest", "git"):
        assert best["run"][key] == summary[key], key


@pytest.mark.parametrize("step", ["10", "newest"])
def test_every_checkpoint_scores_on_validation_as_the_loop_found(run, data_dir, step):
    """Beside a writer, and without a change to any file of the run."""
    before = files_of(run)
    with Workdir(run):
        result = evaluate_run(run, split="val", step=step, data_dir=data_dir)
    found = {row["step"]: row for row in read_metrics(run / "metrics.jsonl", "val")}
    assert result["step"] == {"10": 10, "newest": 20}[step]
    assert result["accuracy"] == found[result["step"]]["accuracy"]
    assert result["loss"] == pytest.approx(found[result["step"]]["loss"], rel=1e-6)
    after = files_of(run)
    for changed in (run / "LOCK", run):  # by the writer
        before.pop(changed, None), after.pop(changed, None)
    assert after == before


def test_confusion_and_rates_are_those_of_a_loop_over_direct_predictions(untrained):
    experiment, state = untrained
    scores = scores_of(predict(experiment, state, "test"), range(10))
    targets = experiment.dataset.targets("test").tolist()
    batch = experiment.dataset.gather("test", np.arange(20))
    model = nnx.merge(experiment.graphdef, state.params, state.stats)
    logits_BK = np.asarray(model(batch["inputs"], batch["lengths"], train=False))
    counts = [[0] * 10 for _ in range(10)]
    for target, logits_K in zip(targets, logits_BK.tolist(), strict=True):
        counts[target][logits_K.index(max(logits_K))] += 1
    assert scores["confusion"] == counts
    assert scores["accuracy"] == sum(counts[k][k] for k in range(10)) / 20
    assert scores["examples"] == 20
    for k, entry in enumerate(scores["classes"]):
        column = sum(row[k] for row in counts)
        assert (entry["class"], entry["predicted"]) == (k, column)
        assert entry["support"] == sum(counts[k]) == targets.count(k)
        assert entry["precision"] == (counts[k][k] / column if column else None)
        assert entry["recall"] == (counts[k][k] / sum(counts[k]) if sum(counts[k]) else None)
    assert sum(entry["predicted"] > 0 for entry in scores["classes"]) > 2


def test_buckets_change_the_order_of_the_examples_but_no_count(untrained):
    experiment, state = untrained
    in_two = copy_of(experiment)
    in_two.padded_lengths = (12, 24)
    one, two = predict(experiment, state, "test"), predict(in_two, state, "test")
    assert not np.array_equal(one["lengths"], two["lengths"])

    def rows(found):
        columns = (found["lengths"], found["targets"], found["predicted"])
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert rows(one) == rows(two)
    assert sorted(two["lengths"]) == sorted(experiment.dataset.lengths("test"))


def test_length_of_a_pair_is_the_longer_of_the_two(data_dir):
    experiment = tiny_experiment(
        data_dir, task="retrieval", data__source="stand_in", data__padded_length=64,
        data__listops__longer_than=500, data__listops__shorter_than=2_000,
        data__n_train=16, data__n_val=8, data__n_test=10, data__buckets=2,
        model__depth=1, model__d_model=2, model__d_state=1,
    )  # fmt: skip
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), experiment.abstract_state())
    found = predict(experiment, state, "test")
    lengths, targets = experiment.dataset.lengths("test"), experiment.dataset.targets("test")
    pairs = sorted(zip(found["lengths"].tolist(), found["targets"].tolist(), strict=True))
    assert pairs == sorted(zip(lengths.tolist(), targets.tolist(), strict=True))


def test_bins_of_lengths_part_the_split(best, reopened):
    rows, lengths = best["lengths"], reopened[0].dataset.lengths("test")
    assert sum(row["n"] for row in rows) == best["examples"]
    assert (rows[0]["lo"], rows[-1]["hi"]) == (lengths.min(), lengths.max())
    right = sum(row["n"] * row["accuracy"] for row in rows)
    assert right == pytest.approx(best["accuracy"] * best["examples"])


@pytest.mark.parametrize("longest", [1, 5, 2_000])
def test_bins_are_apart_and_about_equal_where_lengths_differ(longest):
    rng = np.random.default_rng(longest)
    lengths_n, right_n = rng.integers(1, longest + 1, 999), rng.random(999) < 0.3
    rows = length_table(lengths_n, right_n)
    assert len(rows) == min(longest, LENGTH_BINS)
    assert all(a["hi"] < b["lo"] for a, b in itertools.pairwise(rows))
    for row in rows:
        inside = [r for x, r in zip(lengths_n, right_n, strict=True) if row["lo"] <= x <= row["hi"]]
        assert row["n"] == len(inside)
        assert row["accuracy"] == sum(inside) / len(inside)
    if longest > 999:
        assert max(abs(row["n"] - 999 / LENGTH_BINS) for row in rows) < 5


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (1234, 2000), (9, 9)])
def test_interval_is_wilsons(right, n):
    exact = binomtest(right, n).proportion_ci(0.95, method="wilson")
    seen, rate, interval = rate_of(np.arange(n) < right)
    assert (seen, rate) == (n, right / n)
    np.testing.assert_allclose(interval, (exact.low, exact.high), atol=1e-12)
    # Wilson's own words: the ends are the rates p that are 1.96 of their deviations off what was
    # seen, |right / n - p| = z sqrt(p (1 - p) / n).
    z = norm.ppf(0.975)
    ends = np.roots([1 + z**2 / n, -(2 * right + z**2) / n, (right / n) ** 2])
    np.testing.assert_allclose(interval, sorted(ends.real), atol=1e-7)


def test_a_class_never_seen_or_never_named_has_no_rate():
    found = {"targets": np.uint8([0, 0, 2]), "predicted": np.int32([0, 1, 0]), "loss": np.ones(3)}
    scores = scores_of(found, range(3))
    assert scores["confusion"] == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    rates = [(row["precision"], row["recall"]) for row in scores["classes"]]
    assert rates == [(0.5, 0.5), (0.0, None), (None, 0.0)]


def test_result_names_no_folder_of_the_machine(run, best, data_dir):
    text = json.dumps(best)
    for folder in (str(run.parent), str(data_dir), str(ROOT)):
        assert folder not in text
    assert best["evaluation"]["command"][1] == "--workdir=.../a"
    assert json.loads(text) == best


def test_tables_fit_100_columns_and_show_the_numbers(best, capsys):
    print_evaluation({**best, "notes": "reduced [bold] data"})
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    low, high = best["accuracy_interval_95"]
    for words in (f"{best['accuracy']:.4f}", f"[{low:.4f}, {high:.4f}]", "reduced [bold] data"):
        assert words in shown
    assert ("by length" in shown) and f"{best['lengths'][-1]['hi']}" in shown


def test_script_prints_the_tables_and_writes_the_result(run, best, data_dir, tmp_path, capsys):
    out = tmp_path / "results/a.json"
    argv = [f"--workdir={run}", f"--data_dir={data_dir}", f"--out={out}"]
    assert commands.evaluate(argv, ["scripts/evaluate.py"]) == 0
    written = json.loads(out.read_text())
    assert written.keys() == best.keys()
    assert {**written, "evaluation": None} == {**best, "evaluation": None}
    assert f"{best['accuracy']:.4f}" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--workdir is missing"),
        (["--workdir=a", "--out=a/record.json"], "--out=a/record.json does not fit"),
        (["--workdir=a", "--out=a"], "--out=a does not fit"),
        (["--workdir=a", "--split=valid"], "not one of train, val, test"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        commands.evaluate(arguments)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_comes_back_from_json_as_it_was(name):
    cfg = load_config(name)
    record = json.loads(
        json.dumps({"config": config_lib.flatten(cfg), "config_digest": config_lib.digest(cfg)})
    )
    again = config_of(record, Path("record.json"))
    assert config_lib.flatten(again) == config_lib.flatten(cfg)
    types = [
        {key: type(value) for key, value in config_lib.flatten(c).items()} for c in (again, cfg)
    ]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.alhpa": 1.0}, "model.alhpa is unknown here"),
        ({"model.d_model": None}, "have been changed"),  # its default is another
        ({"model.alpha": "a"}, "model.alpha='a' is no float"),
        ({"model.d_model": 16}, "have been changed"),
        ({f"model.x{i}": 1 for i in range(7)}, "; and 2 more"),
    ],
)
def test_options_other_than_this_versions_are_one_line(run, change, words):
    record = read_record(run / "record.json")
    record["config"] = {k: v for k, v in {**record["config"], **change}.items() if v is not None}
    with pytest.raises(ValueError, match=words) as error:
        config_of(record, run / "record.json")
    assert len(str(error.value).splitlines()) == 1


def test_an_option_that_the_record_lacks_has_its_default_and_a_line_says_so(run, capsys):
    record = read_record(run / "record.json")
    for key in ("model.alpha", "log.gradient"):
        del record["config"][key]
    cfg = config_of(record, run / "record.json")
    assert (cfg.model.alpha, cfg.log.gradient) == (1.0, True)
    assert capsys.readouterr().err == (
        f"warning: {run} was recorded before these options existed; they have their defaults: "
        "log.gradient, model.alpha.\n"
    )


def test_other_data_than_the_runs_are_refused(copy, data_dir):
    record = read_record(copy / "record.json")
    record["data"]["fingerprint"] = "0123"
    write_json(copy / "record.json", sealed(record))
    with pytest.raises(ValueError, match="the run had other data: 0123"):
        open_run(copy, "best", data_dir=data_dir)


def test_record_of_another_run_is_refused(run, data_dir):
    other = tiny_experiment(data_dir, **SHORT, model__alpha=2.0)
    with pytest.raises(ConfigMismatch, match=r"model\.alpha: checkpoint 1\.0, record 2\.0") as e:
        open_checkpoint(other, run / "checkpoints", "20")
    assert len(str(e.value).splitlines()) == 1


def test_what_is_not_there_is_one_line(copy, tmp_path):
    checkpoints = copy / "checkpoints"
    with pytest.raises(FileNotFoundError, match="holds no run"):
        evaluate_run(tmp_path / "none", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"step 11 is not in .*; there are 7, 10, 14, 20"):
        choose_step(checkpoints, "11")
    with pytest.raises(ValueError, match="must be best, newest or a number"):
        choose_step(checkpoints, "last")
    for step in ("10", "14", "20"):
        shutil.rmtree(checkpoints / step)
    assert choose_step(checkpoints, "newest") == 7
    with pytest.raises(ValueError, match="--step=newest or one of 7"):
        choose_step(checkpoints, "best")
    shutil.rmtree(checkpoints)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        evaluate_run(copy, data_dir=tmp_path)
    (copy / "record.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON of a run"):
        read_record(copy / "record.json")
    write_json(copy / "record.json", {"config": {}})
    with pytest.raises(ValueError, match="lacks seed"):
        read_record(copy / "record.json")


def test_damaged_checkpoint_is_one_line_and_stays(copy, reopened, monkeypatch):
    checkpoints = copy / "checkpoints"
    for file in (checkpoints / "10").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-3])
    before = files_of(copy)
    with pytest.raises(CheckpointError, match=r"step 10 .* is damaged: .*--step=7 or 14 or 20"):
        open_checkpoint(reopened[0], checkpoints, "10")
    assert files_of(copy) == before
    monkeypatch.setattr(runs, "choose_step", lambda checkpoints, asked: int(asked))
    with pytest.raises(CheckpointError, match="just dropped step 11"):
        open_checkpoint(reopened[0], checkpoints, "11")


def test_best_is_not_guessed_when_the_newest_is_damaged(copy):
    shutil.rmtree(copy / "checkpoints/20/meta")
    with pytest.raises(CheckpointError, match=r"step 20 .* is damaged"):
        choose_step(copy / "checkpoints", "best")


def test_the_config_of_the_run_is_rebuilt(reopened):
    assert config_lib.flatten(reopened[0].cfg) == config_lib.flatten(tiny_config(**SHORT))
