"""The figures of a sweep show the numbers they are given."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from sweep_document import ALPHAS, BETAS, grid, line

from ssm_jax.plots.sweep import draw_sweep, heatmap_figure, line_figure


def texts(axes) -> dict[tuple[int, int], str]:
    """What is written in each cell, by (row, column)."""
    return {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts
    }


def test_each_cell_shows_its_mean_spread_and_number_on_both_splits():
    validation, test, _ = heatmap_figure(grid()).axes
    assert (validation.get_title(), test.get_title()) == (
        "validation accuracy (%)",
        "test accuracy (%)",
    )
    for axes, factor in ((validation, 0.5), (test, 1.0)):
        (image,) = axes.images
        shown = np.ma.filled(image.get_array(), np.nan)
        expected = np.array([[72, np.nan], [81, 50], [30, np.nan]])
        np.testing.assert_allclose(shown, factor * expected)
    assert validation.images[0].norm is test.images[0].norm, "one colour is one number"
    written = texts(test)
    assert written[0, 0] == "72.0\n± 2.0, n = 3"
    assert written[0, 1] == "not run"
    assert written[1, 1] == "50.0\nn = 1"
    assert written[2, 0] == "30.0\n± 14.1, n = 2\n1 of 3\ndiverged"
    assert written[2, 1] == "diverged"
    assert texts(validation)[0, 0] == "36.0\n± 1.0, n = 3"


def test_axes_name_the_options_and_their_values():
    first, second, bar = heatmap_figure(grid()).axes
    assert (first.get_ylabel(), first.get_xlabel(), second.get_xlabel()) == (
        "alpha  (model.alpha)",
        *["beta  (model.beta.init)"] * 2,
    )
    assert [float(t.get_text()) for t in first.get_yticklabels()] == ALPHAS
    assert [float(t.get_text()) for t in second.get_xticklabels()] == BETAS
    assert bar.get_ylabel() == "accuracy (%)"


def places(figure, hatched):
    """Where in each panel boxes are, by (row, column)."""
    found = []
    for axes in figure.axes[:-1]:
        boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        found.append(
            {
                (round(box.get_y() + 0.5), round(box.get_x() + 0.5))
                for box in boxes
                if bool(box.get_hatch()) == hatched
            }
        )
    return found


def test_cells_with_diverged_runs_are_hatched_and_the_best_is_framed():
    figure = heatmap_figure(grid())
    assert places(figure, True) == [{(2, 0), (2, 1)}] * 2
    assert places(figure, False) == [{(1, 0)}] * 2
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["best validation accuracy", "diverged", "blank: not run"]


def test_the_frame_is_around_the_choice_of_validation_in_the_panel_of_test_too():
    document = grid()
    document["cells"][0]["validation"]["mean"] = 0.9
    assert places(heatmap_figure(document), False) == [{(0, 0)}] * 2


def test_results_without_validation_values_have_one_panel_and_no_frame():
    document = grid()
    for cell in document["cells"]:
        del cell["validation"]
    figure = heatmap_figure(document)
    assert len(figure.axes) == 2 and places(figure, False) == [set()]
    assert figure.axes[1].get_ylabel() == "test accuracy (%)"


@pytest.mark.parametrize(("better", "brightest"), [("max", 81.0), ("min", 30.0)])
def test_the_best_is_the_brightest(better, brightest):
    (image,) = heatmap_figure(grid(better=better)).axes[1].images
    brightness = {value: sum(image.cmap(image.norm(value))[:3]) for value in (81.0, 72.0, 30.0)}
    assert max(brightness, key=brightness.__getitem__) == brightest


def test_means_over_several_decades_have_logarithmic_colours():
    wide = grid(metric="loss", better="min")
    wide["cells"][0] |= {"mean": 1e-4}
    (image,) = heatmap_figure(wide).axes[1].images
    assert isinstance(image.norm, LogNorm)
    (image,) = heatmap_figure(grid()).axes[0].images
    assert not isinstance(image.norm, LogNorm)


def test_a_line_shows_means_and_runs_of_both_splits_and_what_diverged():
    axes = line_figure(line()).axes[0]
    assert axes.get_ylabel() == "validation and test accuracy (%)"
    for container, factor in zip(axes.containers, (0.5, 1.0), strict=True):
        mean, _, (bars,) = container.lines
        np.testing.assert_allclose(mean.get_xdata(), ALPHAS, rtol=0.1)
        np.testing.assert_allclose(mean.get_ydata(), factor * np.array([72, 81, 30]))
        heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(heights, factor * np.array([2.0, 3**0.5, 200**0.5]))
    np.testing.assert_allclose(axes.containers[1].lines[0].get_xdata(), ALPHAS)
    runs = np.concatenate([found.get_ydata() for found in axes.lines if found.get_alpha()])
    every = np.array([70, 72, 74, 80, 80, 83, 20, 40])
    np.testing.assert_allclose(runs, np.concatenate([every / 2, every]))
    crosses = [found.get_xdata() for found in axes.lines if found.get_color() == "red"]
    assert [list(x) for x in crosses] == [[10.0]]
    assert axes.get_xscale() == "log"


def test_a_ring_is_around_the_mean_that_validation_prefers():
    document = line()
    document["cells"][0]["validation"]["mean"] = 0.9
    axes = line_figure(document).axes[0]
    (ring,) = [found for found in axes.lines if found.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(ring.get_ydata(), [90])
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "best validation" in labels and "diverged" in labels


def test_values_that_are_no_numbers_stand_evenly_and_no_line_joins_them():
    words = line(options={"model.init": ["s4d_lin", "s4d_inv", "fout"]})
    for value, cell in zip(words["options"]["model.init"], words["cells"], strict=True):
        cell["options"] = {"model.init": value}
    axes = line_figure(words).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["s4d_lin", "s4d_inv", "fout"]
    assert axes.get_xscale() == "linear"
    assert {container.lines[0].get_linestyle() for container in axes.containers} == {"None"}


def test_only_lines_and_whole_grids_are_drawn(tmp_path):
    pairs = grid(cells=grid()["cells"][1:])
    three = grid(options={**grid()["options"], "model.depth": [1, 2]})
    for document in (pairs, three):
        assert not draw_sweep(tmp_path / "a.png", document)
    assert not list(tmp_path.iterdir())
    assert draw_sweep(tmp_path / "a.png", grid())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert matplotlib.image.imread(tmp_path / "a.png").shape[1] > 400


def test_a_sweep_without_any_result_is_drawn_blank():
    document = grid()
    for cell in document["cells"]:
        cell |= {"mean": None, "std": None, "n": 0, "values": {}, "diverged": [], "missing": [0]}
        cell["validation"] = None
    figure = heatmap_figure(document)
    assert set(texts(figure.axes[0]).values()) == {"not run"} and len(figure.axes) == 1
