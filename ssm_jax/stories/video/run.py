"""Train video predictors under different alpha and beta, and show which digit each follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict
from PIL import Image

from ssm_jax import plots
from ssm_jax.analysis.spectra import layers_of, quartiles, response_magnitude
from ssm_jax.files import replace_atomically
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.runs import FinishedRun, about, by_setting, publish, train, with_spread
from ssm_jax.stories.video import sweep
from ssm_jax.stories.video.data import COLOURS, Scene
from ssm_jax.stories.video.task import PEAK
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.runs import open_checkpoint
from ssm_jax.training.workdir import Workdir

GRID = tuple(sweep())
# All alphas without a filter, and the filters of either sign at alpha = 1
STORY = tuple(c for c in GRID if c["model.alpha"] == 1 or c["model.beta.init"] == 0)
VIDEOS = 16  # test videos that the curves are of
PICTURE = 0  # number of the test video shown
SHOWN = (1, 2, 3, 5, 10, 20, 40)  # predicted frames of the picture
LINES = ("0.2", "#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0", "#b08c1f")
SCALE, PAUSE = 4, 120  # of the animation: screen pixels per pixel, milliseconds per frame


def run_story(cfg: ConfigDict, settings: Sequence[Mapping[str, Any]], seeds: int, job: Job) -> int:
    """Train the settings and write what they show; the exit code."""
    runs = train(cfg, settings, seeds, job)
    if runs is None:
        return EXIT_STOPPED
    found = by_setting(runs)
    story = [run for run in runs if run.seed == cfg.seed and run.cell in STORY]
    shown = [look(run, job.build(run.config(cfg))) for run in story]
    scene, truth = shown[0].scene, shown[0].truth
    makers: list[tuple[Any, ...]] = [
        (frames_figure, scene, truth, shown),
        (errors_figure, scene, shown),
        (response_figure, shown),
    ]
    names = [f"{name}.{cfg.figures_format}" for name in ("frames", "errors", "response")]
    for name, (make, *what) in zip(names, makers, strict=True):
        plots.save(job.folder / name, make, *what)
    animate(job.folder / "videos.webp", truth, shown)
    title = "Squared error of each digit's colour, test videos"
    notes = f"{cfg.notes} {without_model(runs[0].summary, scene)}"
    columns = columns_of(*(COLOURS[channel] for channel, _ in _digits(scene)))
    return publish(job, about(runs), notes, found, columns, title, *names, "videos.webp")


def without_model(facts: Mapping[str, float], scene: Scene) -> str:
    """A sentence on the errors of the next frame without a model, of `MovingDigits.facts`."""
    colours = [COLOURS[channel] for channel, _ in _digits(scene)]
    black, last = (
        " and ".join(f"{1e3 * facts[f'{guess}_mse_{colour}']:.2f}" for colour in colours)
        for guess in ("black", "last")
    )
    return (
        f"Without a model the next frame errs by {black} (fast and slow, 1e-3) if it is black, by "
        f"{last} if it is the last one again."
    )


def _error(metric: str) -> Any:
    return with_spread(metric, lambda value: f"{1e3 * value:.2f}")


def columns_of(fast: str, slow: str) -> Columns:
    """The columns of the table, of digits in these colours."""
    return {
        "alpha": "{alpha:g}",
        "beta": "{beta:g}",
        "next frame: fast, 1e-3": _error(f"forced_mse_{fast}"),
        "slow": _error(f"forced_mse_{slow}"),
        "fast / slow": with_spread("forced_ratio", lambda value: f"{value:.2f}"),
        "roll-out: fast, 1e-3": _error(f"mse_{fast}"),
        "slow ": _error(f"mse_{slow}"),
        "fast / slow ": with_spread("ratio", lambda value: f"{value:.2f}"),
        "PSNR, dB": with_spread("psnr", lambda value: f"{value:.1f}"),
        "SSIM": with_spread("ssim", lambda value: f"{value:.3f}"),
    }


COLUMNS = columns_of("red", "blue")  # of data.video.fast above data.video.slow


@dataclass(frozen=True, eq=False)
class Shown:
    """A trained model as the figures show it.

    forced: a filter leaves it no roll-out, and what is shown are forced predictions.
    error_TC: squared error by predicted frame and channel, mean of VIDEOS, full white is 1.
    share_FC: energy of the error at each frequency over that of the truth there, without its mean.
    start_F, end_F: quartiles (3, F) of the first block's temporal gain before and after training.
    """

    name: str
    scene: Scene
    forced: bool
    truth: np.ndarray  # (T, Y, X, C) of the picture, in 0..1
    predicted: np.ndarray
    error_TC: np.ndarray
    share_FC: np.ndarray
    omega_F: np.ndarray
    start_F: np.ndarray
    end_F: np.ndarray


def look(run: FinishedRun, experiment: Experiment) -> Shown:
    """Open the best checkpoint of a run and predict the first test videos with it."""
    dataset: Any = experiment.dataset
    scene: Scene = dataset.scene
    best = open_checkpoint(experiment, Workdir(run.path).checkpoints, "best").state
    start, model = experiment.model(experiment.fresh_state()), experiment.model(best)
    batch = dataset.gather("test", np.arange(min(VIDEOS, dataset.size("test"))))
    predicted, truth = predictions(model, batch)
    gap = (predicted - truth) / PEAK
    error_FC, truth_FC = (_energy(video) for video in (gap, truth / PEAK))
    omega_F = np.geomspace(np.pi / 200, np.pi, 200)
    n_fft = 2 * (scene.context + scene.horizon)

    def gain(one: nnx.Module) -> np.ndarray:
        views = layers_of(one)
        empty = np.full((3, omega_F.size), np.nan)
        return quartiles(response_magnitude(views[0], omega_F, n_fft)) if views else empty

    alpha, beta = run.cell["model.alpha"], run.cell["model.beta.init"]
    return Shown(
        name=f"alpha = {alpha:g}, beta = {beta:g}",
        scene=scene,
        forced=not model.rolls_out,
        truth=(truth[PICTURE] + 1) / PEAK,
        predicted=(predicted[PICTURE] + 1) / PEAK,
        error_TC=np.mean(gap**2, axis=(0, 2, 3)),
        share_FC=error_FC / np.maximum(truth_FC, 1e-12),
        omega_F=omega_F,
        start_F=gain(start),
        end_F=gain(model),
    )


def predictions(model: Any, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The frames after the context as a model predicts them, in -1..1, and as they are: of a
    roll-out, or, with a filter, of each next frame given the true ones."""
    scene: Scene = model.scene

    @jax.jit
    def both(state: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, state)
        whole = scene.draw(batch["inputs"], batch["places"])
        whole = whole[:, : scene.context + scene.horizon]
        if model.rolls_out:
            predicted = model.roll_out(whole[:, : scene.context], scene.horizon)
        else:
            predicted = jnp.clip(model(whole[:, :-1])[:, -scene.horizon :], -1, 1)
        return predicted, whole[:, scene.context :]

    graphdef, state = nnx.split(model)
    predicted, truth = both(state, dict(batch))
    return np.asarray(predicted), np.asarray(truth)


def _energy(video_BTYXC: np.ndarray) -> np.ndarray:
    """At each frequency over time but 0, by channel: (F, C)."""
    spectrum = np.fft.rfft(video_BTYXC, axis=1)[:, 1:]
    return (np.abs(spectrum) ** 2).sum(axis=(0, 2, 3))


def _digits(scene: Scene) -> list[tuple[int, str]]:
    """The channel and the name of each digit, the fast one first."""
    order = sorted(range(len(scene.speeds)), key=lambda i: -scene.speeds[i])
    channels = dict.fromkeys(scene.channels[i] for i in order)
    speed = {channel: scene.speeds[scene.channels.index(channel)] for channel in channels}
    if scene.colours == 1:
        return [(0, "digits")]
    return [(c, f"{COLOURS[c]} digit, speed {speed[c]:g}") for c in channels]


def frames_figure(scene: Scene, truth: np.ndarray, shown: Sequence[Shown]) -> Figure:
    """A row for the truth and for each model, a column for each of SHOWN frames."""
    at = [frame for frame in SHOWN if frame <= scene.horizon]
    figure = plots.titled("A test video, frames after the context", 1.2 * len(at) + 2, 8)
    rows = [("truth", truth)]
    for one in shown:
        how = "no roll-out: next frame,\ngiven the true ones" if one.forced else "roll-out"
        rows.append((f"{one.name}\n{how}", one.predicted))
    grid = figure.subplots(len(rows), len(at), squeeze=False)
    for line, (name, video) in zip(grid, rows, strict=True):
        for axes, frame in zip(line, at, strict=True):
            axes.imshow(_colours(video[frame - 1]))
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    for axes, frame in zip(grid[0], at, strict=True):
        axes.set_title(f"+{frame}", fontsize=8)
    return figure


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Frames (..., Y, X, C) in three colours of 0..1."""
    return np.clip(np.broadcast_to(pixels, (*pixels.shape[:-1], 3)), 0, 1)


def errors_figure(scene: Scene, shown: Sequence[Shown]) -> Figure:
    """Above, the error of each digit against the horizon; below, by temporal frequency. Dashed:
    models without a roll-out, by their predictions of the next frame."""
    digits = _digits(scene)
    figure = plots.titled("How far predictions follow each digit", 4.8 * len(digits) + 1, 7)
    grid = figure.subplots(2, len(digits), squeeze=False, sharey="row")
    omega_F = 2 * np.pi * np.arange(1, scene.horizon // 2 + 1) / scene.horizon
    for column, (channel, name) in zip(grid.T, digits, strict=True):
        for one, colour in zip(shown, LINES, strict=False):
            style = {"color": colour, "ls": "--" if one.forced else "-", "lw": 1.4}
            frames = np.arange(1, scene.horizon + 1)
            column[0].plot(frames, one.error_TC[:, channel], **style)
            column[1].plot(omega_F, one.share_FC[: omega_F.size, channel], **style)
        column[0].set(title=name, xlabel="frames after the context", yscale="log")
        column[1].set(xlabel="angle over time (rad / frame)", xscale="log", yscale="log")
        ticks = [w for w in (0.05, 0.1, 0.2, 0.5, 1, 2) if w >= 2 * np.pi / scene.horizon]
        column[1].set_xticks(ticks, [f"{w:g}" for w in ticks])
        column[1].minorticks_off()
        column[1].axhline(1, color=plots.BEFORE, lw=0.6)
        if not omega_F.size:
            plots.note(column[1], "one frame has no frequencies")
        for axes in column:
            axes.grid(color="0.92")
    grid[0, 0].set_ylabel("squared error, full white is 1")
    grid[1, 0].set_ylabel("energy of the error / of the truth")
    handles = []
    for one, colour in zip(shown, LINES, strict=False):
        how, line = (" (no roll-out: next frame)", "--") if one.forced else ("", "-")
        handles.append(Line2D([], [], color=colour, ls=line, label=one.name + how))
    plots.legend_below(figure, handles, 3)
    return figure


def response_figure(shown: Sequence[Shown]) -> Figure:
    """The gain over time of the first block's state space layer, before and after training."""
    figure = plots.titled(
        "Temporal gain of the first ConvS5: median of channels and pixels", 9, 4.6
    )
    axes = figure.subplots()
    for one, colour in zip(shown, LINES, strict=False):
        axes.plot(one.omega_F, one.start_F[1], color=colour, ls=":", lw=1)
        axes.plot(one.omega_F, one.end_F[1], color=colour, lw=1.6, label=one.name)
    axes.set(xscale="log", yscale="log", xlabel="angle (rad / frame)", ylabel="gain")
    axes.grid(color="0.92")
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label="dotted: before training"))
    axes.legend(handles=handles, frameon=False, fontsize=8)
    return figure


def animate(path: Path, truth: np.ndarray, shown: Sequence[Shown]) -> None:
    """The truth and the predictions beside each other, in the order of the figures, as WebP."""
    gap = np.ones((*truth.shape[:2], 2, 3))
    videos = [_colours(video) for video in (truth, *(one.predicted for one in shown))]
    parts = [part for video in videos for part in (video, gap)][:-1]
    pixels = np.rint(255 * np.concatenate(parts, axis=2)).astype(np.uint8)
    pixels = pixels.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    first, *others = map(Image.fromarray, pixels)
    options: dict[str, Any] = {"save_all": True, "append_images": others, "duration": PAUSE}
    replace_atomically(
        path, lambda file: first.save(file, format="WEBP", loop=0, lossless=True, **options)
    )
