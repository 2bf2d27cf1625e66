"""The table of results: who shares a cell, what is counted, and what is only said."""

from __future__ import annotations

import csv
import io
import json
import math
import random

import fake_runs
import numpy as np
import pytest
from scipy import stats

from ssm_jax.config.load import load_config
from ssm_jax.lra.published import COLUMNS
from ssm_jax.report import FORMATS, collect, tabulate
from ssm_jax.training.experiment import build
from ssm_jax.training.restart import check_record
from ssm_jax.training.workdir import Workdir


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table_of(path):
    return tabulate(*collect([path]))


def cells(table):
    return [(row.name, task, cell) for row in table.rows for task, cell in row.cells.items()]


@pytest.mark.parametrize(
    "accuracies", [(0.61, 0.63), (0.6, 0.61, 0.65), (0.5, 0.5, 0.52, 0.6, 0.7)]
)
def test_interval_is_that_of_student(tmp_path, accuracies):
    for seed, accuracy in enumerate(accuracies):
        fake_runs.finished(tmp_path / f"r{seed}", "lra/listops:s4d", seed, accuracy)
    [(_, task, cell)] = cells(table_of(tmp_path))
    mean, n = sum(accuracies) / len(accuracies), len(accuracies)
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(accuracies))
    assert task == "listops" and len(cell.finished) == n
    assert cell.mean == pytest.approx(mean, rel=1e-12)
    assert cell.half_width == pytest.approx((high - low) / 2, rel=1e-9)
    if n == 2:  # t with one degree of freedom is Cauchy's distribution
        closed = math.tan(math.pi * 0.475) * abs(accuracies[0] - accuracies[1]) / 2
        assert cell.half_width == pytest.approx(closed, rel=1e-9)


def test_one_seed_has_no_interval(tmp_path):
    fake_runs.finished(tmp_path / "r", "lra/text", 3, 0.8)
    [(name, task, cell)] = cells(table_of(tmp_path))
    assert (name, task, cell.mean, cell.half_width) == ("default", "text", 0.8, None)


def test_seeds_share_a_cell_though_their_config_digests_differ(tmp_path):
    for seed in range(3):
        fake_runs.finished(tmp_path / f"r{seed}", "lra/image:s5", seed, 0.8)
    [(_, _, cell)] = cells(table_of(tmp_path))
    assert len({run.config_digest for run in cell.finished}) == 3
    assert [run.seed for run in cell.finished] == [0, 1, 2]


def test_a_diverged_run_is_shown_and_not_in_the_mean(tmp_path):
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    fake_runs.finished(tmp_path / "b", "lra/listops:s4d", 1, 0.7)
    fake_runs.diverged(tmp_path / "c", "lra/listops:s4d", 2, 812)
    [(_, _, cell)] = cells(table_of(tmp_path))
    assert cell.mean == pytest.approx(0.65)
    assert [(run.seed, run.steps) for run in cell.diverged] == [(2, 812)]


def test_a_cell_of_diverged_runs_alone_has_no_mean(tmp_path):
    fake_runs.diverged(tmp_path / "c", "lra/listops:s4d", 2, 812)
    table = table_of(tmp_path)
    [(_, _, cell)] = cells(table)
    assert cell.mean is None and cell.half_width is None and len(cell.diverged) == 1
    assert table.rows[0].average is None and table.rows[0].n_diverged == 1


def test_a_run_whose_crash_report_is_damaged_has_still_diverged(tmp_path):
    fake_runs.diverged(tmp_path / "c", "lra/listops:s4d", 2, 812)
    (tmp_path / "c/crash/report.json").write_text('{"step": 8')
    table = table_of(tmp_path)
    assert [(run.seed, run.steps) for run in table.rows[0].cells["listops"].diverged] == [(2, None)]
    assert len(table.remarks) == 1 and "c/crash/report.json" in table.remarks[0]


def test_a_run_that_finished_after_it_diverged_says_so(tmp_path):
    fake_runs.diverged(tmp_path / "c", "lra/listops:s4d", 2, 812)
    fake_runs.finished(tmp_path / "c", "lra/listops:s4d", 2, 0.6)
    table = table_of(tmp_path)
    assert table.rows[0].cells["listops"].mean == 0.6
    assert table.remarks == ("c diverged before it finished; it counts as finished.",)


def test_an_unfinished_run_is_told_and_never_counted(tmp_path):
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    rows = [
        {"step": 100, "kind": "val", "loss": 1.0, "accuracy": 0.41},
        {"step": 150, "kind": "train", "loss": 1.0, "accuracy": 0.99},
        {"step": 200, "kind": "val", "loss": 1.0, "accuracy": 0.43},
        {"step": 300, "kind": "val", "loss": "nan", "accuracy": "nan"},
        {"step": 350, "kind": "train", "loss": 1.0, "accuracy": 0.99},
    ]
    fake_runs.unfinished(tmp_path / "b", "lra/listops:s4d", 1, rows)
    table = table_of(tmp_path)
    [(_, _, cell)] = cells(table)
    assert cell.mean == 0.6 and len(cell.finished) == 1
    [run] = table.unfinished
    assert (run.seed, run.steps, run.validation) == (1, 350, 0.43)


def test_average_is_of_all_six_tasks_or_not_there(tmp_path):
    means = []
    for number, task in enumerate(COLUMNS):
        assert not number or table_of(tmp_path).rows[0].average is None
        for seed in (0, 1):
            accuracy = 0.5 + 0.05 * number + 0.01 * seed
            fake_runs.finished(tmp_path / f"{task}{seed}", f"lra/{task}:s4d", seed, accuracy)
        means.append(0.5 + 0.05 * number + 0.005)
    [row] = table_of(tmp_path).rows
    assert list(row.cells) == list(COLUMNS)
    assert row.average == pytest.approx(sum(means) / 6)


OFFICIAL = fake_runs.OFFICIAL
APART = {
    "generated": {"data": OFFICIAL | {"source": "generated"}},
    "sample": {"data": OFFICIAL | {"source": "sample"}},
    "no source": {"data": {"sha256": OFFICIAL["sha256"]}},
    "other files": {"data": OFFICIAL | {"sha256": "99" * 32}},
    "notes": {"notes": "Reduced: 10 of 160 epochs."},
    "name": {"name": "lra/listops:s4d,reduced"},
    "smoke": {"name": "lra/listops:s4d:smoke"},
    "setup": {"setup_digest": "other"},
    "variant": {"name": "lra/listops:s5"},
}


@pytest.mark.parametrize("how", APART)
def test_what_cannot_be_compared_never_shares_a_cell(tmp_path, how):
    """Even where all else, the digest of the options too, is equal."""
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    entries = dict(APART[how])
    name = entries.pop("name", "lra/listops:s4d")
    fake_runs.finished(tmp_path / "b", name, 1, 0.1, **entries)
    table = table_of(tmp_path)
    assert sorted(cell.mean for _, _, cell in cells(table)) == [0.1, 0.6]
    assert len(table.rows) == 2 and len({row.name for row in table.rows}) == 2
    comparable = {row.cells["listops"].mean: not row.marks for row in table.rows}
    assert comparable == {0.6: True, 0.1: how in ("setup", "variant", "other files")}


def test_notes_that_differ_alone_are_told_apart(tmp_path):
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d,reduced", 0, 0.6, notes="10 epochs")
    fake_runs.finished(tmp_path / "b", "lra/listops:s4d,reduced", 1, 0.7)
    table = table_of(tmp_path)
    assert len({row.name for row in table.rows}) == len(table.rows) == 2
    assert "(notes differ)" in table.remarks[0]


def test_reductions_are_said_in_footnotes(tmp_path):
    note = "Reduced: 10 of 160 epochs."
    kinds = {"notes": note, "data": fake_runs.GENERATED}
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6, **kinds)
    fake_runs.finished(tmp_path / "b", "lra/text:s4d:smoke", 0, 0.6)
    fake_runs.finished(tmp_path / "c", "lra/image:s4d", 0, 0.6)
    table = table_of(tmp_path)
    told = {name: [table.footnotes[i - 1] for i in c.footnotes] for name, _, c in cells(table)}
    assert told == {
        "s4d": [],
        "s4d (generated data, not as published)": [note, "Data: generated, seed 0."],
        "s4d (reduced)": ["Reduced, as the name of the run says."],
    }


def test_a_lost_best_checkpoint_is_said_in_a_footnote_of_its_row(tmp_path):
    lost = {"best": {"step": 40, "value": 0.6}, "best_lost": {"step": 20, "value": 0.7}}
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    fake_runs.finished(tmp_path / "b", "lra/listops:s4d", 1, 0.5, **lost)
    table = table_of(tmp_path)
    [(_, _, cell)] = cells(table)
    assert len(cell.finished) == 2
    assert [table.footnotes[i - 1] for i in cell.footnotes] == [
        "Seed 1: the best checkpoint, of step 20, was lost; the next best, of step 40, is tested."
    ]


def test_two_setups_of_a_task_have_rows_of_their_own_and_no_average(tmp_path):
    for task in COLUMNS:
        fake_runs.finished(tmp_path / task, f"lra/{task}:s4d", 0, 0.6)
    fake_runs.finished(tmp_path / "other", "lra/image:s4d", 1, 0.7, setup="0the4")
    table = table_of(tmp_path)
    assert [len(row.cells) for row in table.rows] == [5, 1, 1]
    assert [row.average for row in table.rows] == [None] * 3
    assert "s4d on Image has 2 setups (options differ)" in table.remarks[0]


def test_what_a_command_changes_names_the_row(tmp_path):
    """Also across tasks, and however it was written."""
    common = ["scripts/train.py", "--config=x.py", "--config.seed=7", "--config.log.every=1"]
    ways = {
        "listops": [["--config.model.alpha=3"], ["--config.model.alpha", "3.0"]],
        "text": [["--config.model.alpha=1", "--config.model.alpha=3", "--workdir=r"]],
        "image": [["--noconfig.model.bidirectional"]],
        "pathx": [["--config.data.source=official"]],
    }
    for task, commands in ways.items():
        for seed, words in enumerate(commands):
            folder, setup = tmp_path / f"{task}{seed}", task
            fake_runs.finished(
                folder, f"lra/{task}:s4d", seed, 0.6, setup=setup, command=common + words
            )
    found = {row.label: list(row.cells) for row in table_of(tmp_path).rows}
    assert found == {
        "s4d": ["pathx"],
        "s4d, model.alpha=3": ["listops", "text"],
        "s4d, model.bidirectional=false": ["image"],
    }


def test_older_summaries_without_setup_are_told_apart_by_their_command(tmp_path):
    for seed, words in enumerate([[], [], ["--config.model.alpha=3"]]):
        document = fake_runs.summary("lra/listops:s4d", seed, 0.6)
        del document["setup_digest"], document["task"]
        document["command"] = [*document["command"], *words]
        fake_runs.write(tmp_path / f"s{seed}.json", document)
    found = {row.label: len(row.cells["listops"].finished) for row in table_of(tmp_path).rows}
    assert found == {"s4d": 2, "s4d, model.alpha=3": 1}


def test_a_seed_is_counted_once(tmp_path):
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    fake_runs.finished(tmp_path / "b", "lra/listops:s4d", 0, 0.9)
    fake_runs.diverged(tmp_path / "c", "lra/listops:s4d", 0, 5)
    fake_runs.finished(tmp_path / "d", "lra/listops:s4d", 1, 0.8)
    table = table_of(tmp_path)
    [(_, _, cell)] = cells(table)
    assert [run.path for run in cell.finished] == ["a", "d"] and not cell.diverged
    assert [run.path for run in table.repeated] == ["b", "c"]
    assert table.remarks[0].startswith("b (90.00 %) repeats a (60.00 %)")
    assert table.remarks[1].startswith("c (diverged at step 5) repeats a (60.00 %)")


def test_one_run_named_in_several_ways_is_one_run(tmp_path):
    run = fake_runs.finished(tmp_path / "runs/a", "lra/listops:s4d", 0, 0.6)
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "runs/loop").symlink_to(tmp_path)
    ways = [run, run / "summary.json", tmp_path / "link", tmp_path, tmp_path / "runs/../runs"]
    found = collect(ways)
    assert [r.path for r in found.results] == ["runs/a"] and not found.faults


def test_order_of_arguments_changes_nothing(tmp_path):
    paths = []
    for number, task in enumerate(["listops", "text", "listops", "image"] * 2):
        name, seed = f"lra/{task}:s4d", number % 3
        paths.append(fake_runs.finished(tmp_path / f"r{number}", name, seed, 0.5 + number / 50))
    paths.append(fake_runs.write(tmp_path / "bad.json", [1]))
    first = tabulate(*collect(paths))
    for seed in range(5):
        random.Random(seed).shuffle(paths)
        assert tabulate(*collect(paths)) == first


DAMAGED = {
    "torn": '{"name": "lra/listops", "test": {"accu',
    "empty": "",
    "no object": "[1, 2]",
    "not text": b"\xff\xfe\x00{",
    "deep": "[" * 100_000,
    "no seed": {"seed": None},
    "seed of text": {"seed": "0"},
    "seed of truth": {"seed": True},
    "no accuracy": {"test": {"loss": 1.0}},
    "accuracy in percent": {"test": {"accuracy": 62.75}},
    "accuracy nan": {"test": {"accuracy": math.nan}},
    "data of text": {"data": "official"},
    "parameters of text": {"parameters": "many"},
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, how):
    fake_runs.finished(tmp_path / "a", "lra/listops:s4d", 0, 0.6)
    path = tmp_path / "b" / "summary.json"
    path.parent.mkdir()
    content = DAMAGED[how]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps(fake_runs.summary("lra/listops:s4d", 1, 0.9) | content))
    for argument in (tmp_path, tmp_path / "b"):
        found = collect([tmp_path / "a", argument])
        assert [run.path for run in found.results] == ["a"]
        [line] = found.faults
        assert line.startswith("b/summary.json") and line.endswith("; left out.")
        assert "\n" not in line and len(line) < 250


def test_a_log_damaged_in_its_middle_is_named(tmp_path):
    fake_runs.unfinished(tmp_path / "b", "lra/listops:s4d", 1, [])
    (tmp_path / "b/metrics.jsonl").write_text('{"step": 1, "kind": "train"}\n{"st\n{}\n{}\n')
    assert collect([tmp_path]).faults == ["b/metrics.jsonl: line 2 is damaged; left out."]


def test_a_folder_is_searched_for_runs_and_copies_and_all_else_is_passed_over(tmp_path):
    fake_runs.finished(tmp_path / "x/y/a", "lra/listops:s4d", 0, 0.6)
    fake_runs.write(tmp_path / "x/copy.json", fake_runs.summary("lra/listops:s4d", 1, 0.7))
    fake_runs.write(tmp_path / "x/accuracy.json", {"rows": []})
    (tmp_path / "x/torn.json").write_text("{")
    (tmp_path / "x/y/a/checkpoints/1").mkdir(parents=True)
    fake_runs.write(tmp_path / "x/y/a/checkpoints/1/summary.json", {"not": "looked at"})
    found = collect([tmp_path])
    assert [run.path for run in found.results] == ["x/copy.json", "x/y/a"]
    assert len(found.faults) == 1 and "x/torn.json" in found.faults[0]
    named = collect([tmp_path / "x/accuracy.json"])
    assert not named.results and "it has no 'test'" in named.faults[0]


def test_paths_without_a_run_are_refused(tmp_path):
    (tmp_path / "empty/deeper").mkdir(parents=True)
    with pytest.raises(ValueError, match="empty holds no run"):
        collect([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        collect([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("lra/listops", "listops", ("listops", "", False)),
        ("lra/listops:s4d_ft", "", ("listops", "s4d_ft", False)),
        ("lra/path_x:arm=s5,smoke", "", ("pathx", "arm=s5", True)),
        ("lra/Path-X:s5:smoke", "", ("pathx", "s5", True)),
        ("lra/text:size=reduced", "", ("text", "", True)),
        ("quickstart", "listops", ("listops", "quickstart", False)),
        ("quickstart", "", ("", "quickstart", False)),
        ("waves:a", "waves", ("", "waves,a", False)),
    ],
)
def test_a_name_gives_task_and_arm(tmp_path, name, task, expected):
    fake_runs.write(tmp_path / "s.json", fake_runs.summary(name, 0, 0.6, task=task))
    [run] = collect([tmp_path]).results
    assert (run.task, run.variant, run.reduced) == expected
    table = table_of(tmp_path)
    assert bool(table.rows) == bool(run.task)
    assert bool(table.others) != bool(run.task) and not table.remarks


def test_where_the_runs_are_is_not_published(tmp_path, monkeypatch):
    run = fake_runs.finished(tmp_path / "me/secret/runs/a", "lra/listops:s4d", 0, 0.6)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [r.path for r in collect([run]).results] == [".../runs/a"]


def test_a_run_of_another_task_is_in_a_table_of_its_own(tmp_path):
    """With what chose its checkpoint: a denoiser has no accuracy."""
    entries = {"task": "denoise", "selected_by": "val psnr", "data": fake_runs.GENERATED}
    for seed, psnr in enumerate((20.0, 22.0, 27.0)):
        test = {"test": {"loss": 0.01, "psnr": psnr}, "val": {"loss": 0.02, "psnr": psnr + 1}}
        fake_runs.finished(tmp_path / f"r{seed}", "denoise:flip", seed, 0.0, **entries, **test)
    fake_runs.finished(tmp_path / "s", "lra/listops:s4d", 0, 0.6)
    table = table_of(tmp_path)
    assert len(table.rows) == 1 and not table.repeated
    [runs] = table.others
    assert [(run.seed, run.metric, run.value) for run in runs] == [
        (0, "psnr", 20.0), (1, "psnr", 22.0), (2, "psnr", 27.0),
    ]  # fmt: skip
    half = stats.t.ppf(0.975, 2) * stats.sem([20.0, 22.0, 27.0])
    spread = [f"{23 + more} ± {half:.2g} ({20 + more} .. {27 + more})" for more in (1, 0)]
    assert FORMATS["md"](table).count("| denoise | denoise:flip |") == 2
    for row in (
        f"| denoise | denoise:flip | psnr | {spread[0]} | {spread[1]} | 0, 1, 2 |",
        "| denoise | denoise:flip | loss | 0.02 ± 0 (0.02 .. 0.02) | 0.01 ± 0 (0.01 .. 0.01) "
        "| 0, 1, 2 |",
    ):
        assert row in FORMATS["md"](table).splitlines()
    assert not table.remarks and FORMATS["md"](table).startswith("# Long Range Arena\n")
    assert all("Other tasks" in FORMATS[form](table) for form in ("md", "latex", "html"))
    assert FORMATS["csv"](table).count('\nrun,"denoise,flip",denoise,') == 3
    rows = csv.DictReader(io.StringIO(FORMATS["csv"](table)))
    found = [(row["metric"], row["value"], row["validation_value"]) for row in rows]
    assert ("psnr", "27.0", "28.0") in found


def test_rows_of_one_label_say_in_what_they_differ(tmp_path):
    """Two seeds whose data differ have no common mean, and a reader would not see why."""
    made = {"task": "regression", "selected_by": "val loss", "val": {"loss": 0.5}, "setup": "one"}
    for seed in (0, 1):
        data = OFFICIAL | {"source": "files", "sha256": f"{seed}" * 64}
        fake_runs.finished(tmp_path / f"{seed}", "mine", seed, 0.5, data=data, **made)
    table = table_of(tmp_path)
    assert [[run.seed for run in runs] for runs in table.others] == [[0], [1]]
    assert table.remarks == ("mine has 2 setups (data differ); each has rows of its own.",)
    fake_runs.finished(tmp_path / "1", "mine", 1, 0.5, data=data | {"sha256": "0" * 64}, **made)
    assert not table_of(tmp_path).remarks


def test_seeds_that_split_or_draw_the_data_repeat_one_experiment(tmp_path):
    """At data.seed=-1 the hash of the data is of a seed, and each seed was a setup by itself."""
    files, rng = [tmp_path / f"{name}.npz" for name in "ab"], np.random.default_rng(0)
    for file in files:
        np.savez(file, x=rng.normal(size=(40, 8, 1)), y=np.arange(40) % 2)
    chosen = {"train.steps": 2, "schedule.warmup_steps": 0, "batch_size": 8, "data.seed": -1}

    def finished(config, seed, own=None, **options):
        cfg = load_config(config, {**chosen, **options, "seed": seed, "name": "mine"})
        path = tmp_path / f"runs/{config}/{seed}"
        path.mkdir(parents=True)
        check_record(build(cfg, data_dir=tmp_path, files=own), Workdir(path), [], 0)
        record = json.loads((path / "record.json").read_text())
        made = {key: record[key] for key in ("data", "config_digest", "setup_digest")}
        made |= {"task": cfg.task, "selected_by": "val loss", "val": {"loss": 0.5}}
        fake_runs.finished(path, "mine", seed, 0.5, **made)
        return record["data"]

    data = [finished("delay:smoke", seed) for seed in (0, 1)]
    data += [finished("arrays", seed, files[0]) for seed in (0, 1)]
    assert len({each["sha256"] for each in data}) == 4
    finished("arrays", 2, files[1])
    table = table_of(tmp_path / "runs")
    by_task = sorted((runs[0].other, [run.seed for run in runs]) for runs in table.others)
    assert by_task == [("classification", [0, 1]), ("classification", [2]), ("delay", [0, 1])]
    assert table.remarks == (
        "mine has 3 setups (task and options and data differ); each has rows of its own.",
    )
    assert "unseeded" not in finished("arrays", 3, files[0], **{"data.seed": 0})


def test_a_run_that_its_averages_chose_has_their_results(tmp_path):
    entries = {"task": "denoise", "selected_by": "val ema_psnr", "val": {"psnr": 21.0}}
    fake_runs.finished(tmp_path / "r", "denoise:x", 0, 0.0, **entries, test={"psnr": 20.0})
    assert "| denoise | denoise:x | psnr | 21 | 20 | 0 |" in FORMATS["md"](table_of(tmp_path))


def test_runs_of_other_tasks_of_older_versions_have_what_chose_them_on_validation(tmp_path):
    entries = {"task": "denoise", "selected_by": "val psnr", "best": {"step": 8, "value": 21.0}}
    test = {"test": {"loss": 0.01, "psnr": 20.0}}
    fake_runs.finished(tmp_path / "r", "denoise:flip", 0, 0.0, **entries, **test)
    shown = FORMATS["md"](table_of(tmp_path)).splitlines()
    assert not any("Published" in row or "No run has a result" in row for row in shown)
    assert "| denoise | denoise:flip | psnr | 21 | 20 | 0 |" in shown
    assert "| denoise | denoise:flip | loss | - | 0.01 | 0 |" in shown


def test_a_report_without_the_arena_is_headed_by_the_tasks_that_are_in_it(tmp_path):
    """Also while none of their runs is finished; one that diverged is said."""
    entries = {"selected_by": "val loss", "test": {"loss": 0.5}, "val": {"loss": 0.6}}
    for task in ("forecasting", "<my>.py:TASK"):
        fake_runs.finished(tmp_path / task, task, 0, 0.0, **entries, task=task)
    fake_runs.diverged(tmp_path / "x", "forecasting", 1, 70)
    table = table_of(tmp_path)
    text, page = FORMATS["md"](table), FORMATS["html"](table)
    assert text.startswith("# Results: \\<my\\>.py:TASK, forecasting\n"), text
    assert "<title>Results: &lt;my&gt;.py:TASK, forecasting</title>" in page
    assert "Arena" not in text and "Arena" not in page and "Other tasks" not in text
    assert table.remarks == ("x: forecasting, seed 1, diverged at step 70; left out.",)
    fake_runs.unfinished(tmp_path / "new/y", "waves:cosine", 0, [{"step": 7, "kind": "train"}])
    text = FORMATS["md"](table_of(tmp_path / "new"))
    assert text.startswith("# Results: waves\n") and "Arena" not in text
    assert "seed 0: at step 7\n" in text


def test_a_task_is_shown_by_its_first_metric_in_whatever_order_a_summary_has_them(tmp_path):
    errors = {"test": {"mae": 0.3, "mse": 0.2, "loss": 0.2}, "val": {"mse": 0.4, "loss": 0.4}}
    entries = {"task": "forecasting", "selected_by": "val loss", **errors}
    fake_runs.finished(tmp_path / "r", "tides", 0, 0.0, **entries)
    rows = [row for row in FORMATS["md"](table_of(tmp_path)).splitlines() if "| tides |" in row]
    assert rows == [
        "| forecasting | tides | mse | 0.4 | 0.2 | 0 |",
        "| forecasting | tides | loss | 0.4 | 0.2 | 0 |",
    ]
