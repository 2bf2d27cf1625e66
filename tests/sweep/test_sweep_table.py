"""The tables of a sweep say what the numbers are; validation chooses, test stands beside it."""

import pytest
from sweep_document import grid, line

from ssm_jax.sweep.results import baselines_of, best_cell, differences
from ssm_jax.sweep.tables import caption, to_csv, to_markdown


def old(document):
    """As documents of older versions are: of the test split alone."""
    for cell in document["cells"]:
        del cell["validation"]
    del document["selected_by"]
    return document


def test_a_grid_has_a_table_for_each_split():
    assert to_markdown(grid()).splitlines() == [
        "validation accuracy (%):",
        "",
        "| alpha \\ beta | -1 | 1 |",
        "| --- | --- | --- |",
        "| 0.1 | 36.0 ± 1.0 (3) | missing |",
        "| 1 | **40.5 ± 0.9 (3)** | 25.0, 2 of 3 missing |",
        "| 10 | 15.0 ± 7.1 (2), 1 of 3 diverged | diverged |",
        "",
        "test accuracy (%):",
        "",
        "| alpha \\ beta | -1 | 1 |",
        "| --- | --- | --- |",
        "| 0.1 | 72.0 ± 2.0 (3) | missing |",
        "| 1 | **81.0 ± 1.7 (3)** | 50.0, 2 of 3 missing |",
        "| 10 | 30.0 ± 14.1 (2), 1 of 3 diverged | diverged |",
    ]


def test_one_option_has_a_row_for_each_value_and_a_column_for_each_split():
    assert to_markdown(line()).splitlines() == [
        "| alpha | validation accuracy (%) | test accuracy (%) | seeds |",
        "| --- | --- | --- | --- |",
        "| 0.1 | 36.0 ± 1.0 | 72.0 ± 2.0 | 3 |",
        "| 1 | **40.5 ± 0.9** | **81.0 ± 1.7** | 3 |",
        "| 10 | 15.0 ± 7.1 | 30.0 ± 14.1 | 2, 1 of 3 diverged |",
    ]


def test_a_bar_in_a_value_ends_no_column():
    """A swept optim.freeze may be "^A|^dt"; GitHub would move its numbers a column on."""
    document = line()
    words = ["^A|^dt", "a", "b", "c", "d"]
    for cell, word in zip(document["cells"], words, strict=False):
        cell["options"] = {"optim.freeze": word}
    document["options"] = {"optim.freeze": words[: len(document["cells"])]}
    document["differences"] = differences(document)
    rows = [row for row in to_markdown(document).splitlines() if "^A" in row]
    assert len(rows) > 1 and rows[0].startswith(r"| ^A\|^dt | ")
    head, *_ = to_markdown(document).splitlines()
    assert rows[0].replace(r"\|", "").count("|") == head.count("|")
    assert all(r"freeze=^A\|^dt" in row for row in rows[1:])


def test_the_choice_is_that_of_validation_where_test_would_choose_another():
    document = line()
    document["cells"][0]["validation"]["mean"] = 0.9
    assert best_cell(document) is document["cells"][0]
    assert "| 0.1 | **90.0 ± 1.0** | **72.0 ± 2.0** | 3 |" in to_markdown(document)
    assert "**81.0" not in to_markdown(document)
    document["cells"][0]["mean"] = 0.0  # test values move nothing
    assert best_cell(document) is document["cells"][0]


def test_a_tie_on_validation_is_said_and_test_does_not_break_it():
    document = line()
    for cell in document["cells"][:2]:
        cell["validation"]["mean"] = 0.9
    assert best_cell(document) is document["cells"][0], "test prefers the second"
    assert "which alone chooses, the first of 2 that are equal there;" in caption(document)
    assert "equal there" not in caption(line())


def test_results_without_validation_values_choose_nothing_and_say_so():
    document = old(grid())
    assert best_cell(document) is None
    assert to_markdown(document).splitlines()[:3] == [
        "| alpha \\ beta | -1 | 1 |",
        "| --- | --- | --- |",
        "| 0.1 | 72.0 ± 2.0 (3) | missing |",
    ]
    assert "**" not in to_markdown(document) and "validation accuracy" not in to_markdown(document)
    text = caption(document)
    assert text.startswith("test accuracy (%): mean of 1 to 3 seeds")
    assert "before sweeps kept validation values, so none of them is chosen" in text


def test_pairs_that_fill_no_grid_have_a_row_each():
    pairs = grid(cells=grid()["cells"][1:])
    head, _, *rows = to_markdown(pairs).splitlines()
    assert head == "| alpha | beta | validation accuracy (%) | test accuracy (%) | seeds |"
    assert "| 10 | 1 |  |  | diverged |" in rows


def test_the_caption_counts_seeds_and_what_is_not_in_the_means():
    text = caption(grid(remarks=["the runs differ in git."]))
    assert "validation and test accuracy (%): mean of 1 to 3 seeds" in text
    assert "4 of 18 runs diverged and count in no mean; 5 of 18 runs are missing" in text
    assert "bold: the best mean on the validation split, which alone chooses" in text
    assert "checkpoints: the best val accuracy of each run." in text
    assert text.endswith("Note: the runs differ in git.")


def test_the_best_cell_follows_the_direction_of_the_metric():
    assert best_cell(grid())["mean"] == 0.81
    assert best_cell(grid(better="min"))["options"]["model.alpha"] == 10.0
    assert best_cell(grid(better=None)) is None
    assert "**" not in to_markdown(grid(better=None))
    assert "bold" not in caption(grid(better=None))


def test_a_metric_that_is_no_share_keeps_its_digits():
    assert "| 0.72 ± 0.02 (3) |" in to_markdown(grid(metric="loss"))


def test_csv_has_every_digit_and_counts():
    rows = to_csv(line()).splitlines()
    assert rows[0] == (
        "model.alpha,validation_accuracy,validation_accuracy_std,validation_accuracy_min,"
        "validation_accuracy_max,test_accuracy,test_accuracy_std,test_accuracy_min,"
        "test_accuracy_max,n,diverged,missing"
    )
    found = list(map(float, rows[1].split(",")))
    first = line()["cells"][0]
    expected = [0.1]
    for part in (first["validation"], first):
        values = part["values"].values()
        expected += [part["mean"], part["std"], min(values), max(values)]
    assert found == [*expected, 3, 0, 0]
    assert to_csv(grid()).splitlines()[2] == "0.1,1.0,,,,,,,,,0,0,3"


def test_few_settings_are_compared_in_pairs_over_the_seeds_they_share():
    document = line()
    pairs = differences(document)
    assert [(pair["one"], pair["other"], pair["test"]["n"]) for pair in pairs] == [
        ("alpha=0.1", "alpha=1", 3),
        ("alpha=0.1", "alpha=10", 2),
        ("alpha=1", "alpha=10", 2),
    ]
    first = pairs[0]
    assert first["test"]["mean"] == pytest.approx((0.70 + 0.72 + 0.74 - 0.8 - 0.8 - 0.83) / 3)
    assert first["validation"]["mean"] == pytest.approx(first["test"]["mean"] / 2)
    shown = to_markdown(line(differences=pairs)).split("\n\n")
    assert shown[1].startswith("Differences seed by seed")
    assert shown[2].splitlines()[0] == (
        "| setting | minus | validation accuracy (%) | test accuracy (%) | seeds |"
    )
    # Differences of -10, -8, -9 points: the half width is 4.303 * 1 / sqrt(3)
    assert "| alpha=0.1 | alpha=1 | -4.5 ± 1.2 | -9.0 ± 2.5 | 3 |" in shown[2]


def test_many_settings_are_compared_with_the_one_that_validation_chose():
    pairs = differences(grid())
    assert {pair["other"] for pair in pairs} == {"alpha=1, beta=-1"}
    assert [pair["one"] for pair in pairs] == ["alpha=0.1, beta=-1", "alpha=10, beta=-1"], (
        "those that share no two seeds are left out"
    )


def test_one_setting_has_a_row_of_its_seeds():
    alone = {**line(), "options": {}, "cells": [{**line()["cells"][0], "options": {}}]}
    assert to_markdown(alone).splitlines() == [
        "| validation accuracy (%) | test accuracy (%) | seeds |",
        "| --- | --- | --- |",
        "| 36.0 ± 1.0 | 72.0 ± 2.0 | 3 |",
    ]
    assert "bold" not in caption(alone)


def forecasts():
    """As `line`, of an error, with what is known of the parameters and of naive forecasts."""
    document = line(metric="mse", better="min")
    for cell, size, last in zip(
        document["cells"], (12_345, 23_456, 12_345), (9, 9, 7), strict=True
    ):
        cell |= {"parameters": size, "baselines": {"last value": float(last), "mean": 1.5}}
    return document


def test_sizes_and_predictors_that_learn_nothing_are_in_the_table():
    head, _, *rows = to_markdown(forecasts()).splitlines()
    assert head == "| alpha | parameters | validation mse | test mse | seeds |"
    assert [row for row in rows if "12,345" in row] == [rows[0], rows[2]] and "23,456" in rows[1]
    assert rows[3:] == [
        "| *last value (alpha=0.1)* |  |  | 9 |  |",
        "| *mean* |  |  | 1.5 |  |",
        "| *last value (alpha=10)* |  |  | 7 |  |",
    ]
    same = forecasts()
    for cell in same["cells"]:
        cell["parameters"] = 5
    assert "parameters" not in to_markdown(same), "it is one number, which sweep.json has"
    rows = to_csv(forecasts()).splitlines()
    assert rows[0].endswith(",n,diverged,missing,parameters,last_value_mse,mean_mse")
    assert rows[3].endswith(",2,1,0,12345,7.0,1.5")


def test_where_rows_have_no_name_the_baselines_stand_below():
    document = grid()
    for cell in document["cells"]:
        cell["baselines"] = {"majority class": 0.25}
    assert to_markdown(document).endswith(
        "\nWithout learning, test accuracy (%): majority class 25.0.\n"
    )


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", {"majority class": 0.4}),
        ("mse", {"mean": 4.0, "seasonal naive": 9.0}),
        ("rmse", {"mean": 2.0, "seasonal naive": 3.0}),
        ("mae", {"mean": 1.0}),
        ("loss", {}),
    ],
)
def test_baselines_are_those_of_the_metric(metric, expected):
    summary = {"majority_rate": 0.4, "mean_mse": 4.0, "seasonal_naive_mse": 9.0, "mean_mae": 1.0}
    assert baselines_of(metric, summary) == expected
