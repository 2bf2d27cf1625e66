"""The tables of a sweep say what the numbers are."""

from sweep_document import grid, line

from ssm_jax.sweep import best_cell, caption, to_csv, to_markdown


def test_a_grid_has_one_option_down_and_one_across():
    assert to_markdown(grid()).splitlines() == [
        "| alpha \\ beta | -1 | 1 |",
        "| --- | --- | --- |",
        "| 0.1 | 72.0 ± 2.0 (3) | missing |",
        "| 1 | **81.0 ± 1.7 (3)** | 50.0, 2 of 3 missing |",
        "| 10 | 30.0 ± 14.1 (2), 1 of 3 diverged | diverged |",
    ]


def test_one_option_has_a_row_for_each_value():
    assert to_markdown(line()).splitlines() == [
        "| alpha | accuracy (%) |",
        "| --- | --- |",
        "| 0.1 | 72.0 ± 2.0 (3) |",
        "| 1 | **81.0 ± 1.7 (3)** |",
        "| 10 | 30.0 ± 14.1 (2), 1 of 3 diverged |",
    ]


def test_pairs_that_fill_no_grid_have_a_row_each():
    pairs = grid(cells=grid()["cells"][1:])
    assert to_markdown(pairs).splitlines()[0] == "| alpha | beta | accuracy (%) |"
    assert "| 10 | 1 | diverged |" in to_markdown(pairs)


def test_the_caption_counts_seeds_and_what_is_not_in_the_means():
    text = caption(grid(remarks=["the runs differ in git."]))
    assert "accuracy (%) on the test split: mean of 1 to 3 seeds" in text
    assert "4 of 18 runs diverged and count in no mean; 5 of 18 runs are missing" in text
    assert text.endswith("Note: the runs differ in git.")


def test_the_best_cell_follows_the_direction_of_the_metric():
    assert best_cell(grid())["mean"] == 0.81
    assert best_cell(grid(selected_better="min"))["options"]["model.alpha"] == 10.0
    assert best_cell(grid(better="min"))["mean"] == 0.81, "the test metric chooses nothing"
    assert best_cell(grid(selected_better=None)) is None
    assert "**" not in to_markdown(grid(selected_better=None))
    assert "; bold: the best mean val accuracy." in caption(grid())
    assert "bold" not in caption(grid(selected_better=None))


def test_a_metric_that_is_no_share_keeps_its_digits():
    assert "| 0.72 ± 0.02 (3) |" in to_markdown(grid(metric="loss"))


def test_csv_has_every_digit_and_counts():
    rows = to_csv(grid()).splitlines()
    assert rows[0] == "model.alpha,model.beta.init,accuracy,accuracy_std,n,diverged,missing"
    assert rows[2] == "0.1,1.0,,,0,0,3"
    mean, std = rows[1].split(",")[2:4]
    assert float(mean) == grid()["cells"][0]["mean"] and float(std) == grid()["cells"][0]["std"]
