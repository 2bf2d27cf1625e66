"""The figures show the numbers they are given."""

from dataclasses import replace

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ssm_jax import plots
from ssm_jax.analysis.bands import band_edges, pole_drift
from ssm_jax.analysis.hankel import hankel_values
from ssm_jax.analysis.spectra import mode_angles, quartiles, response_magnitude, share_aliased
from ssm_jax.plots import AFTER, BEFORE, LayerPanels
from ssm_jax.plots.layers import beta_figure, eigenvalues_figure, poles_figure, response_figure
from ssm_jax.plots.run import (
    SMOOTH_FROM,
    curves_figure,
    draw_run,
    hankel_figure,
    running_mean,
    variation_figure,
)
from tests.analysis.small_model import before_and_after

LENGTH = 64
OPTIONS = {"length": LENGTH, "title": "run", "edges_E": band_edges(LENGTH)}
PNG = b"\x89PNG\r\n\x1a\n"


def metric_rows(n: int) -> list[dict]:
    """n lines of training every 10 steps, an evaluation at every fifth."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(1, n + 1):
        loss, accuracy, norm = random.uniform(0.5, 1, 3).tolist()
        train = {"step": 10 * i, "kind": "train", "loss": loss, "accuracy": accuracy}
        rows.append({**train, "grad_norm": norm})
        if i % 5 == 0:
            rows.append({**train, "kind": "val", "loss": loss + 1})
    return rows


@pytest.fixture(scope="module")
def layers():
    return before_and_after()


def line(axes, label=None, colour=None):
    """The first line with this label or colour."""
    for found in axes.lines:
        if label in (None, found.get_label()) and colour in (None, found.get_color()):
            return found
    raise AssertionError(f"no line {label or colour}")


def nyquist(axes) -> float:
    (position,) = {float(x) for x in line(axes, colour="0.15").get_xdata()}
    return position


def texts(axes) -> str:
    return " ".join([axes.get_title(), *(text.get_text() for text in axes.texts)])


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF-"), ("svg", b"<?xml"), ("png", PNG)])
def test_a_format_is_drawn_on_request_with_the_same_bytes_each_time(
    ending, magic, tmp_path, layers
):
    rows = metric_rows(5)
    contents = []
    for _ in range(2):
        made = plots.save(tmp_path / f"curves.{ending}", curves_figure, rows, "run")
        assert made is None
        contents.append((tmp_path / f"curves.{ending}").read_bytes())
    assert contents[0].startswith(magic) and contents[0] == contents[1]
    with pytest.raises(ValueError, match=r"must end in \.png, \.pdf, \.svg"):
        plots.save(tmp_path / "curves.jpg", curves_figure, rows, "run")
    assert len(list(tmp_path.iterdir())) == 1
    before, after = layers
    options = {"rows": rows, "before": before, "after": after, "ending": ending}
    assert {p.suffix for p in draw_run(tmp_path / "run", **options, **OPTIONS)} == {f".{ending}"}


def test_a_long_title_is_folded_and_fits_its_figure():
    name = "listops_small, alpha = 10, depth = 2, warmup_steps = 10, and 3 more"
    figure = plots.titled(f"{name}: exponent $a b c$ of it, before and after", 6.5, 3)
    FigureCanvasAgg(figure).draw()
    box = figure.get_suptitle(), figure.texts[0].get_window_extent()
    assert "$a b c$" in box[0] and box[0].count("\n") == 2
    assert box[1].x0 >= 0 and box[1].x1 <= figure.bbox.x1
    short = r"a price of \$5: exponent $\beta$ of the filter $(1+|s|)^\beta$"
    assert plots.folded(short, 55) == short


def test_a_run_is_drawn_into_its_files_and_nothing_else(tmp_path, layers):
    folder = tmp_path / "run" / "figures"
    before, after = layers
    names = [
        f"{name}.png"
        for name in (
            "curves",
            "response",
            "eigenvalues",
            "hankel",
            "beta",
            "variation",
            "poles",
        )
    ]
    options = {"before": before, "after": after, **OPTIONS}
    for _ in range(2):  # the second time over the first
        paths = draw_run(folder, rows=[*metric_rows(10), *diagnostics_rows()], **options)
        assert paths == [folder / name for name in names]
        assert sorted(p.name for p in folder.iterdir()) == sorted(names)
        for path in paths:
            assert path.read_bytes().startswith(PNG)
            pixels = matplotlib.image.imread(path)
            assert pixels.shape[1] > 600 and np.ptp(pixels) == 1


def test_what_did_not_change_is_not_drawn(tmp_path):
    """A fixed beta, poles that stand still, a run without diagnostics; nor is an older figure."""
    before, _ = before_and_after(learn_beta=False)
    (tmp_path / "beta.png").touch()
    paths = draw_run(tmp_path, rows=metric_rows(10), before=before, after=before, **OPTIONS)
    assert [path.stem for path in paths] == ["curves", "response", "eigenvalues", "hankel"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("s4", {}),
        ("s5", {"beta": 0.0}),
        ("s4d", {"init": "dfout", "discretization": "none", "alpha": 1.0}),
        ("s4d", {"real_transform": "relu", "alpha_real": 0.0}),
    ],
    ids=["s4", "s5", "per-sample", "undamped"],
)
def test_every_layer_can_be_drawn(layer, options):
    before, after = before_and_after(layer=layer, **options)
    names = ["blocks/0/ssm", "blocks/1/ssm"]
    assert [view.name for view in after] == names
    figures = [f(before, after, LENGTH, "run") for f in (response_figure, eigenvalues_figure)]
    more = beta_figure(before, after, LENGTH, "run"), hankel_figure(before, after, "run")
    for figure in (*figures, *more):
        figure.canvas.draw()
    for axes in figures[0].axes[:2]:
        assert np.isfinite(line(axes, colour=AFTER).get_ydata()).any()


def test_the_bytes_depend_on_the_numbers_only(tmp_path, layers):
    before, after = layers
    options = {"before": before[:1], "after": after[:1], **OPTIONS}
    first = [p.read_bytes() for p in draw_run(tmp_path / "a", rows=metric_rows(9), **options)]
    # A matplotlibrc of one's own is no number.
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.grid": True}):
        again = [p.read_bytes() for p in draw_run(tmp_path / "b", rows=metric_rows(9), **options)]
    assert first == again


def test_before_and_after_must_be_the_same_layers(tmp_path, layers):
    before, after = layers
    with pytest.raises(ValueError, match="the same layers"):
        draw_run(tmp_path, rows=[], before=before, after=after[:1], **OPTIONS)


@pytest.mark.parametrize("figure", [response_figure, eigenvalues_figure, beta_figure])
def test_every_layer_figure_is_labelled_and_titled(figure, layers):
    drawn = figure(*layers, LENGTH, "lra/listops")
    assert drawn.get_suptitle().startswith("lra/listops: ")
    assert drawn.legends
    first = drawn.axes[0]
    assert first.get_ylabel()
    assert all(axes.get_xlabel() for axes in drawn.axes) or figure is beta_figure


def test_curves_are_the_rows():
    rows = metric_rows(20)
    figure = curves_figure(rows, "run")
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert axes.get_xlabel() == "training step" and axes.get_ylabel().startswith(name)
        for kind in ("train", "val"):
            drawn = line(axes, kind)
            chosen = [row for row in rows if row["kind"] == kind]
            np.testing.assert_array_equal(drawn.get_xdata(), [row["step"] for row in chosen])
            np.testing.assert_array_equal(drawn.get_ydata(), [row[name] for row in chosen])


def test_the_checkpoint_is_marked_and_a_lone_training_step_is_seen():
    rows = metric_rows(5)[:1] + metric_rows(5)[-1:]
    for axes in curves_figure(rows, "run", marked=50).axes[:1]:
        assert set(line(axes, "checkpoint of step 50").get_xdata()) == {50}
        assert line(axes, "train: one logged step").get_markersize() >= 8


def test_a_ratio_has_its_unit():
    rows = [{"step": 1, "kind": "val", "loss": 1.0, "psnr": 20.0}]
    assert curves_figure(rows, "run", "psnr").axes[1].get_ylabel() == "psnr (dB)"


def test_learning_rates_have_a_panel_with_a_line_for_each_course():
    rows = metric_rows(20)
    for i, row in enumerate(row for row in rows if row["kind"] == "train"):
        if i >= 5:  # an older version, which logged none, began the run
            row.update({"lr/A": 1e-3, "lr/norm": i * 1e-3, "lr/rest": i * 1e-3})
    panel = curves_figure(rows, "run").axes[2]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("training step", "learning rate")
    assert [drawn.get_label() for drawn in panel.lines] == ["norm, rest", "A"]
    np.testing.assert_array_equal(line(panel, "A").get_ydata(), np.full(15, 1e-3))
    np.testing.assert_array_equal(line(panel, "norm, rest").get_xdata(), np.arange(60, 210, 10))


def test_many_training_points_get_a_running_mean():
    axes = curves_figure(metric_rows(SMOOTH_FROM), "run").axes[0]
    raw = np.asarray(line(axes, "train").get_ydata())
    smooth = np.asarray(line(axes, "train, mean of 4 points").get_ydata())
    assert raw.size == smooth.size == SMOOTH_FROM
    for i in range(2, SMOOTH_FROM - 2):
        assert smooth[i] == pytest.approx(raw[i - 2 : i + 2].mean())


def test_running_mean_keeps_constants_up_to_the_ends():
    np.testing.assert_allclose(running_mean(np.full(11, 2.5), 4), 2.5)


def test_steps_without_a_finite_value_are_crossed_not_drawn():
    rows = metric_rows(10)
    rows[3]["loss"], rows[4]["loss"] = float("nan"), float("inf")
    axes = curves_figure(rows, "run").axes[0]
    np.testing.assert_array_equal(line(axes, "train: not finite").get_xdata(), [40, 50])
    assert np.isfinite(line(axes, "train").get_ydata()).all()
    assert line(axes, "train").get_xdata().size == 8


def test_a_loss_that_falls_tenfold_is_on_a_logarithmic_axis():
    rows = metric_rows(10)
    assert curves_figure(rows, "run").axes[0].get_yscale() == "linear"
    rows[0]["loss"] = 40.0
    axes = curves_figure(rows, "run").axes
    assert [a.get_yscale() for a in axes] == ["log", "linear"]


@pytest.mark.parametrize(("low", "high"), [(0.63, 1.01), (2.01, 9.9), (0.3, 3), (2, 190)])
def test_a_short_logarithmic_axis_has_plain_ticks_enough_for_its_scale(low, high):
    axis = plots.titled("", 4, 3).subplots().yaxis
    axis.axes.set(yscale="log", ylim=(low, high))
    plots.log_ticks(axis)
    said = [axis.get_major_formatter()(tick) for tick in axis.get_majorticklocs()]
    shown = [float(text) for text in said if low <= float(text) <= high]
    assert len(shown) >= 3 and all(len(text) <= 4 for text in said if float(text) in shown)


def test_a_run_without_rows_says_so():
    assert all("no metrics yet" in texts(axes) for axes in curves_figure([], "run").axes)


def test_a_run_without_evaluations_shows_its_training():
    rows = [row for row in metric_rows(10) if row["kind"] == "train"]
    axes = curves_figure(rows, "run").axes[0]
    assert [drawn.get_label() for drawn in axes.lines] == ["train"]


def test_response_lines_are_the_medians_over_channels_and_readouts():
    layers = before_and_after(beta_unit="hz_1e4")  # the unit whose gain depends on the length
    figure = response_figure(*layers, LENGTH, "run")
    assert [axes.get_title() for axes in figure.axes] == ["blocks/0/ssm", "blocks/1/ssm"]
    for colour, views in zip((BEFORE, AFTER), layers, strict=True):
        for axes, view in zip(figure.axes, views, strict=True):
            drawn = line(axes, colour=colour)
            omega_F = np.asarray(drawn.get_xdata())
            _, median_F, _ = quartiles(response_magnitude(view, omega_F, 2 * LENGTH))
            np.testing.assert_array_equal(drawn.get_ydata(), median_F)
            assert omega_F[0] == pytest.approx(np.pi / LENGTH)
            assert omega_F[-1] > mode_angles(view).max() or omega_F[-1] == 4 * np.pi


def test_nyquist_is_at_pi_and_the_ground_beyond_it_is_shown(layers):
    panels = response_figure(*layers, LENGTH, "run").axes
    # The eigenvalues' figure: a row of planes, then a row of angles.
    panels += eigenvalues_figure(*layers, LENGTH, "run").axes[2:]
    for axes in panels:
        assert nyquist(axes) == pytest.approx(np.pi)
        assert axes.get_xlim()[1] > 2 * np.pi
        assert axes.get_xscale() == "log"


def test_eigenvalues_shared_by_channels_are_drawn_once_each(layers):
    planes = eigenvalues_figure(*layers, LENGTH, "run").axes[:2]
    for plane, old, new in zip(planes, *layers, strict=True):
        dots = [drawn for drawn in plane.lines if drawn.get_marker() == "o"]
        for drawn, view in zip(dots, (new, old), strict=True):
            np.testing.assert_array_equal(drawn.get_xdata(), -view.A_HN[0].real)
            np.testing.assert_array_equal(drawn.get_ydata(), view.A_HN[0].imag)
        ways = [drawn for drawn in plane.lines if drawn.get_marker() != "o"]
        assert len(ways) == old.A_HN.shape[1]
        np.testing.assert_array_equal(ways[2].get_ydata(), [v.A_HN[0, 2].imag for v in (old, new)])


def test_bars_of_angles_hold_all_modes_and_the_title_the_share_beyond_nyquist():
    fast = [replace(view, dt_H=view.dt_H * 20) for view in before_and_after()[0]]
    slow = before_and_after()[0]
    axes = eigenvalues_figure(slow, fast, LENGTH, "run").axes[2:]
    for panel, old, new in zip(axes, slow, fast, strict=True):
        old_bars, new_bars = [
            patch.get_data() for patch in panel.patches if hasattr(patch, "get_data")
        ]
        for bars, view in ((old_bars, old), (new_bars, new)):
            assert bars.values.sum() == pytest.approx(100)
            cut = np.searchsorted(bars.edges, np.pi)
            beyond = 100 * share_aliased(view)
            assert bars.values[cut:].sum() <= beyond + 1e-9 <= bars.values[cut - 1 :].sum() + 2e-9
        share = f"{share_aliased(old):.0%} before, {share_aliased(new):.0%} after"
        assert share in panel.get_title()
        assert share_aliased(new) > share_aliased(old)


def test_poles_that_grow_are_counted_where_they_have_no_place(layers):
    before, after = layers
    A_HN = after[0].A_HN.copy()
    A_HN[:, 0] = 0.01 + 80j
    after = [replace(after[0], A_HN=A_HN), *after[1:]]
    H = len(A_HN)
    for figure, n in ((eigenvalues_figure(before, after, LENGTH, "run"), 1),
                      (poles_figure(before, after, "run"), H)):  # fmt: skip
        assert f"not drawn: {n} that grow" in texts(figure.axes[0])
        assert "not drawn" not in texts(figure.axes[1])
    drift = pole_drift(before[0], after[0])["drift_im"]
    assert f"max {drift.max():.2g} rad" in texts(poles_figure(before, after, "run").axes[0])
    every = [replace(view, A_HN=np.full_like(view.A_HN, 0.01 + 2j)) for view in after]
    assert "no finite" not in texts(poles_figure(before, every, "run").axes[0])


def test_the_first_bar_of_angles_has_all_modes_below_it():
    """At 45 steps too, whose lowest angle is less in float32 than the edge of the bar."""
    slow = [replace(view, dt_H=view.dt_H * 1e-3) for view in before_and_after()[0]]
    for panel in eigenvalues_figure(slow, slow, 45, "run").axes[2:]:
        for bars in (patch.get_data() for patch in panel.patches if hasattr(patch, "get_data")):
            assert bars.values[0] == pytest.approx(100)
        assert panel.get_xlabel().startswith("angle of a mode")  # of bilinear ones not |Im a| dt


def test_beta_is_drawn_for_every_channel_with_its_start():
    before, after = before_and_after(depth=3, beta=0.25)
    axes = beta_figure(before, after, LENGTH, "run").axes[0]
    channels = [d for d in axes.lines if d.get_color() == AFTER]
    for i, (drawn, view) in enumerate(zip(channels, after, strict=True)):
        np.testing.assert_array_equal(drawn.get_ydata(), view.beta_H)
        assert np.abs(np.asarray(drawn.get_xdata()) - i).max() < 0.3
    starts = [c for c in axes.collections if matplotlib.colors.same_color(c.get_color(), BEFORE)]
    assert len(starts) == 3
    assert {y for c in starts for s in c.get_segments() for y in s[:, 1]} == {0.25}
    medians = [d.get_ydata()[0] for d in axes.lines if d.get_color() == "black"]
    np.testing.assert_allclose(medians, [np.median(view.beta_H) for view in after])
    assert [t.get_text() for t in axes.get_xticklabels()] == [view.name for view in after]
    assert "fixed" not in texts(axes)


@pytest.mark.parametrize(("unit", "base"), [("lra", 1.5), ("rad", 1 + np.pi)])
def test_the_right_axis_of_beta_is_the_gain_at_nyquist(unit, base):
    figure = beta_figure(*before_and_after(beta_unit=unit), LENGTH, "run")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (gain,) = axes.child_axes
    np.testing.assert_allclose(gain.get_ylim(), base ** np.array(axes.get_ylim()), rtol=1e-6)
    assert "gain at Nyquist" in gain.get_ylabel()


def test_a_fixed_beta_is_said_to_be_fixed():
    before, after = before_and_after(learn_beta=False, beta=0.5)
    axes = beta_figure(before, after, LENGTH, "run").axes[0]
    assert "fixed" in texts(axes)
    assert {y for d in axes.lines for y in d.get_ydata()} == {0.5}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("field", ["A_HN", "dt_H", "beta_H", "C_CHN"])
def test_a_diverged_layer_does_not_stop_the_drawing(tmp_path, field):
    before, after = before_and_after(depth=3)
    diverged = [
        replace(view, **{field: np.full_like(getattr(view, field), bad)})
        for view, bad in zip(after, (1e30, np.inf, np.nan), strict=True)
    ]
    options = OPTIONS | {"title": "$_{$"}
    draw_run(tmp_path, rows=[], before=before, after=diverged, **options)
    assert "no finite values" in texts(response_figure(before, diverged, LENGTH, "run").axes[2])


def test_a_model_without_such_layers_gets_figures_that_say_so():
    for figure in (response_figure, eigenvalues_figure, beta_figure):
        assert "no layer" in texts(figure([], [], LENGTH, "run").axes[0])
    assert "no layer" in texts(hankel_figure([], [], "run").axes[0])


@pytest.mark.parametrize(
    ("layers", "lines", "columns"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 4), (5, 2, 3), (6, 2, 3), (7, 2, 4), (8, 2, 4), (12, 3, 4)],
)
def test_layers_are_set_at_most_four_abreast(layers, lines, columns):
    grid = LayerPanels(layers, "run", heights=(2.0, 1.0))
    assert len(grid.figure.axes) == 2 * layers
    places = [stack[0].get_subplotspec() for stack in grid.panels]
    assert [place.get_gridspec().get_geometry() for place in places] == [
        (2 * lines, columns)
    ] * layers
    for i, stack in enumerate(grid.panels):
        upper, lower = (axes.get_subplotspec() for axes in stack)
        assert (upper.rowspan.start, upper.colspan.start) == (i // columns * 2, i % columns)
        assert lower.rowspan.start == upper.rowspan.start + 1


def diagnostics_rows() -> list[dict]:
    row = {f"{name}_{k}": k / 10 for name in ("variation", "gradient_share") for k in (1, 2, 3, 4)}
    drift = {"drift_im_median": 0.1, "drift_im_max": 0.5, "drift_spacings_median": 0.2}
    return [
        {"step": step, "kind": "diagnostics", **row, **drift, "drift_spacings_max": 1.0}
        for step in (0, 20, 40)
    ]


def test_bands_are_the_rows_of_the_diagnostics():
    figure = variation_figure([*metric_rows(5), *diagnostics_rows()], band_edges(LENGTH), "run")
    for axes in figure.axes[:2]:
        assert [drawn.get_ydata()[0] for drawn in axes.lines] == [0.1, 0.2, 0.3, 0.4]
        for drawn in axes.lines:
            np.testing.assert_array_equal(drawn.get_xdata(), [0, 20, 40])
    assert sorted(drawn.get_ydata()[1] for drawn in figure.axes[2].lines) == [0.1, 0.2, 0.5, 1.0]
    assert "no diagnostics" in texts(variation_figure([], band_edges(LENGTH), "run").axes[0])


def test_panels_of_what_the_run_does_not_have_are_left_out():
    frozen = [
        {name: 0.0 if name.startswith("drift") else value for name, value in row.items()}
        for row in diagnostics_rows()
    ]
    assert len(variation_figure(frozen, band_edges(LENGTH), "run").axes) == 2
    bare = [
        {name: value for name, value in row.items() if not name.startswith("gradient")}
        for row in frozen
    ]
    (axes,) = variation_figure(bare, band_edges(LENGTH), "run").axes
    assert axes.get_ylabel().startswith("total variation")


def test_legends_stand_below_their_panels():
    figure = variation_figure(diagnostics_rows(), band_edges(LENGTH), "run")
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().y1 < axes.bbox.y0


def test_poles_have_arrows_and_the_numbers_of_their_drift(layers):
    axes = poles_figure(*layers, "run").axes[0]
    moved = pole_drift(layers[0][0], layers[1][0])["drift_im"]
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == min(24, moved.size)
    h, n = np.unravel_index(moved.argmax(), moved.shape)
    a, dt = layers[1][0].A_HN[h, n], layers[0][0].dt_H[h]
    assert arrows[0].xy == pytest.approx((-a.real * dt, abs(a.imag) * dt))
    assert f"max {moved.max():.2g} rad" in texts(axes)


@pytest.mark.parametrize("every", [True, False])
def test_poles_without_decay_are_drawn_at_the_left_of_the_others(layers, every):
    """As those of LinOSS with scheme="imex"; a logarithmic axis has no 0."""

    def still(view):
        A_HN = view.A_HN.copy()
        A_HN[:, slice(None) if every else slice(1)].real = 0
        return replace(view, A_HN=A_HN)

    both = [[still(view) for view in views] for views in layers]
    for figure in (eigenvalues_figure(*both, LENGTH, "run"), poles_figure(*both, "run")):
        axes = figure.axes[0]
        assert "leftmost: 0" in axes.get_xlabel() and "no finite" not in texts(axes)
        for colour in (BEFORE, AFTER):
            (dots,) = (d for d in axes.lines if d.get_marker() == "o" and d.get_color() == colour)
            x, views = np.asarray(dots.get_xdata()), both[colour == AFTER]
            least = np.isclose(x, x.min(), rtol=1e-6)
            assert (x > 0).all() and least.mean() == np.mean(views[0].A_HN.real == 0)
            assert axes.get_xlim()[0] < x.min()
    figures = eigenvalues_figure(*layers, LENGTH, "run"), poles_figure(*layers, "run")
    assert not any("leftmost" in figure.axes[0].get_xlabel() for figure in figures)


def test_hankel_values_are_drawn_over_the_largest_and_their_states_over_training(layers):
    rows = [
        {"step": step, "kind": "diagnostics", "states_99_median/blocks/1/ssm": 5.0 + step}
        for step in (0, 20)
    ]
    figure = hankel_figure(*layers, "run", rows)
    for axes, *views in zip(figure.axes[:2], *layers, strict=True):
        for view, colour in zip(views, (BEFORE, AFTER), strict=True):
            values = hankel_values(view)
            drawn = np.asarray(line(axes, colour=colour).get_ydata())
            np.testing.assert_allclose(drawn, np.median(values / values[:, :1], axis=0))
    first, second = figure.axes[2:]
    assert [list(drawn.get_ydata()) for drawn in second.lines] == [[5.0, 25.0], []]
    assert [list(drawn.get_ydata()) for drawn in first.lines] == [[], []]
    assert len(hankel_figure(*layers, "run").axes) == 2
