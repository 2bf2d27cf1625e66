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


def test_each_cell_shows_its_mean_spread_and_number():
    axes = heatmap_figure(grid()).axes[0]
    (image,) = axes.images
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(shown, [[72, np.nan], [81, 50], [30, np.nan]])
    written = texts(axes)
    assert written[0, 0] == "72.0\n± 2.0, n = 3"
    assert written[0, 1] == "not run"
    assert written[1, 1] == "50.0\nn = 1"
    assert written[2, 0] == "30.0\n± 14.1, n = 2\n1 of 3\ndiverged"
    assert written[2, 1] == "diverged"


def test_axes_name_the_options_and_their_values():
    axes, bar = heatmap_figure(grid()).axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == (
        "alpha  (model.alpha)",
        "beta  (model.beta.init)",
    )
    assert [float(t.get_text()) for t in axes.get_yticklabels()] == ALPHAS
    assert [float(t.get_text()) for t in axes.get_xticklabels()] == BETAS
    assert bar.get_ylabel() == "test accuracy (%)"


def test_cells_with_diverged_runs_are_hatched_and_the_best_is_framed():
    figure = heatmap_figure(grid())
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]

    def places(found):
        return {(round(box.get_y() + 0.5), round(box.get_x() + 0.5)) for box in found}

    assert places([box for box in boxes if box.get_hatch()]) == {(2, 0), (2, 1)}
    assert places([box for box in boxes if not box.get_hatch()]) == {(1, 0)}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["best val accuracy", "diverged", "blank: not run"]


@pytest.mark.parametrize(("better", "brightest"), [("max", 81.0), ("min", 30.0)])
def test_the_best_is_the_brightest(better, brightest):
    (image,) = heatmap_figure(grid(better=better)).axes[0].images
    brightness = {value: sum(image.cmap(image.norm(value))[:3]) for value in (81.0, 72.0, 30.0)}
    assert max(brightness, key=brightness.__getitem__) == brightest


def test_means_over_several_decades_have_logarithmic_colours():
    wide = grid(metric="loss", better="min")
    wide["cells"][0] |= {"mean": 1e-4}
    (image,) = heatmap_figure(wide).axes[0].images
    assert isinstance(image.norm, LogNorm)
    (image,) = heatmap_figure(grid()).axes[0].images
    assert not isinstance(image.norm, LogNorm)


def test_a_line_shows_means_runs_and_what_diverged():
    axes = line_figure(line()).axes[0]
    (container,) = axes.containers
    mean, _, (bars,) = container.lines
    np.testing.assert_allclose(mean.get_xdata(), ALPHAS)
    np.testing.assert_allclose(mean.get_ydata(), [72, 81, 30])
    heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, [2.0, np.sqrt(3), np.sqrt(200)])
    runs = [found.get_ydata() for found in axes.lines if found.get_alpha()]
    np.testing.assert_allclose(np.concatenate(runs), [70, 72, 74, 80, 80, 83, 20, 40])
    crosses = [found.get_xdata() for found in axes.lines if found.get_color() == "red"]
    assert [list(x) for x in crosses] == [[10.0]]
    assert axes.get_xscale() == "log"


def test_values_that_are_no_numbers_stand_evenly():
    words = line(options={"model.init": ["s4d_lin", "s4d_inv", "fout"]})
    for value, cell in zip(words["options"]["model.init"], words["cells"], strict=True):
        cell["options"] = {"model.init": value}
    axes = line_figure(words).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["s4d_lin", "s4d_inv", "fout"]
    assert axes.get_xscale() == "linear"


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
    figure = heatmap_figure(document)
    assert set(texts(figure.axes[0]).values()) == {"not run"} and len(figure.axes) == 1
