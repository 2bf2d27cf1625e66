"""Train denoisers under different alpha and beta, and show what they do to each frequency."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict

from ssm_jax import plots
from ssm_jax.analysis.spectra import NYQUIST, filter_gain, layers_of
from ssm_jax.kernels.response import discrete_transfer_function
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories import setting
from ssm_jax.stories.denoise import sweep
from ssm_jax.stories.denoise.data import DenoiseDataset
from ssm_jax.stories.denoise.task import Denoiser, Q, stripes
from ssm_jax.stories.runs import FinishedRun, about, by_setting, publish, train, with_spread
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.runs import open_checkpoint
from ssm_jax.training.workdir import Workdir

REFERENCE = setting(1.0, 0.0)
# What makes the bias of the reference stronger, weaker, and turns it round
STORY = (REFERENCE, setting(1.0, -1.0), setting(10.0, 1.0), setting(490.52 / math.pi, 0.0))
GRID = tuple(sweep())
FACTOR = 2.0  # a bias within this factor of the reference counts as equal to it
# Of the stripes in the pictures, in units of full white; the published 5 and 3 hide the image.
PICTURE_AMPLITUDE = 0.6
PICTURE = 0  # number of the test image shown
COLOURS = ("0.2", "#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0", "#b08c1f")
FLOOR = 1e-6  # gains below are drawn there


def run_story(cfg: ConfigDict, settings: Sequence[Mapping[str, Any]], seeds: int, job: Job) -> int:
    """Train the settings, the reference among them, and write what they show; the exit code."""
    runs = train(cfg, settings, seeds, job)
    if runs is None:
        return EXIT_STOPPED
    found = by_setting(runs)
    for one in found:
        one["bias"] = bias_of(one["mean"]["passed_low"], one["mean"]["passed_high"])
    by_knobs = {(one["alpha"], one["beta"]): one for one in found}
    reference = by_knobs[*REFERENCE.values()]
    for one in found:
        one["verdict"] = judge(one["bias"], reference["bias"])
    reference["verdict"] = "reference"
    story = [run for run in runs if run.seed == cfg.seed and run.cell in STORY]
    shown = [(run, job.build(run.config(cfg)), by_knobs[*run.cell.values()]) for run in story]
    title = "Energy of the stripes that passes, test images"
    figures = [f"{name}.{cfg.figures_format}" for name in ("images", "gains")]
    _draw([job.folder / name for name in figures], shown)
    return publish(job, about(runs), cfg.notes, found, COLUMNS, title, *figures)


def bias_of(low: float, high: float) -> float:
    """The share of low stripes that passes over that of high ones; NaN where neither do."""
    if high:
        return low / high
    return math.inf if low else math.nan


def judge(bias: float, reference: float) -> str:
    """What a model does to the bias of the reference, alpha = 1 and beta = 0: to the share of the
    energy of low stripes that passes over that of high ones. "-" where one of them is NaN."""
    if math.isnan(bias) or math.isnan(reference):
        return "-"
    if bias < 1:
        return "reversed"
    if bias < reference / FACTOR:
        return "weakened"
    return "strengthened" if bias > reference * FACTOR else "unchanged"


def share(value: float) -> str:
    """A share of energy in percent with two digits, a small one as a power of ten."""
    if value >= 0.995:
        return f"{100 * value:.0f} %"
    return f"{100 * value:.2g} %" if value >= 1e-4 else f"{100 * value:.0e} %"


COLUMNS: Columns = {
    "alpha": "{alpha:.4g}",
    "beta": "{beta:g}",
    "low stripes pass": with_spread("passed_low", share),
    "high stripes pass": with_spread("passed_high", share),
    "low / high": "{bias:.3g}",
    "bias": "{verdict}",
}


def response_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """W K^(beta)(omega): complex (F, 3, 3), from the colours of the input to those of the output.

    K is the spectrum of the kernel's first `length` taps, as the convolution has it, and the
    filter's gain is that of a transform of twice the length. The bias b answers to no frequency.
    """
    layer, (view,) = model.ssm, layers_of(model)
    omega_HF = jnp.broadcast_to(jnp.asarray(omega_F, jnp.float32), (len(view.dt_H), len(omega_F)))
    K_HF = jax.jit(discrete_transfer_function, static_argnums=(4, 5))(
        layer.eigenvalues(), layer.readout()[0], layer.step_sizes(), omega_HF,
        layer.discretization, length,
    )  # fmt: skip
    filtered_HF = np.asarray(K_HF) * filter_gain(view, omega_F, 2 * length)
    return np.einsum("hf,hg->fgh", filtered_HF, np.asarray(model.mix.kernel[...]))


def gain_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """Root mean square gain over the colours, (F,): a tone of equal, independent amplitudes in all
    colours leaves with this factor."""
    response_F33 = response_of(model, omega_F, length)
    return np.sqrt(np.mean(np.sum(np.abs(response_F33) ** 2, axis=1), axis=1))


@dataclass(frozen=True)
class Shown:
    """A trained model as the figures show it."""

    name: str  # of the setting, such as "alpha = 1, beta = 0"
    word: str  # what it did to the bias
    passed: Mapping[str, float]  # the share of the energy of a disturbance that passes
    outputs: Mapping[str, np.ndarray]  # by disturbance, (H, W, 3) in 0..1, values beyond are cut
    start_F: np.ndarray  # gain at the angles of the figure, before training
    end_F: np.ndarray  # and after it


def _draw(paths: Sequence[Path], runs: Sequence[tuple[FinishedRun, Experiment, Mapping]]) -> None:
    """The images and the gains, into two files, of runs of one seed and what was found of them."""
    dataset = runs[0][1].dataset
    assert isinstance(dataset, DenoiseDataset)
    length = dataset.padded_length
    batch = dataset.gather("test", np.array([PICTURE]))
    noise_13 = 2 * PICTURE_AMPLITUDE * batch["noise"] / np.abs(batch["noise"]).max()
    inputs = {
        name: batch["inputs"] + np.asarray(noise)
        for name, noise in stripes(noise_13, dataset.width, length).items()
    }

    @nnx.jit
    def output(model: Denoiser, sequence_1L3: jax.Array) -> jax.Array:
        return model(sequence_1L3)

    def picture(sequence_1L3: Any) -> np.ndarray:
        """(H, W, 3) in 0..1."""
        return (np.asarray(sequence_1L3).reshape(dataset.height, dataset.width, 3) + 1) / 2

    omega_F = np.geomspace(1e-3, np.pi, 1500)
    shown = []
    for run, experiment, one in runs:
        best = open_checkpoint(experiment, Workdir(run.path).checkpoints, "best").state
        start, model = experiment.model(experiment.fresh_state()), experiment.model(best)
        shown += [
            Shown(
                name=f"alpha = {one['alpha']:.3g}, beta = {one['beta']:g}",
                word=one["verdict"],
                passed={name: one["mean"][f"passed_{name}"] for name in inputs},
                outputs={name: picture(output(model, x)) for name, x in inputs.items()},
                start_F=gain_of(start, omega_F, length),
                end_F=gain_of(model, omega_F, length),
            )
        ]
    pictures = {name: picture(x) for name, x in inputs.items()}
    plots.save(paths[0], images_figure, picture(batch["inputs"]), pictures, shown)
    marks = {"low": Q / dataset.width, "high": Q}
    plots.save(paths[1], gains_figure, omega_F, marks, shown)


def images_figure(
    clean: np.ndarray, disturbed: Mapping[str, np.ndarray], shown: Sequence[Shown]
) -> Figure:
    """A row for each disturbance: the clean image, the disturbed one, and every output."""
    title = "Outputs of a linear SSM trained to return clean images"
    figure = plots.titled(title, 1.9 * (2 + len(shown)), 4.6)
    grid = figure.subplots(2, 2 + len(shown))
    for row, (axes_of_row, (name, noisy)) in enumerate(zip(grid, disturbed.items(), strict=True)):
        _picture(axes_of_row[0], clean, "clean")
        _picture(axes_of_row[1], noisy, f"{name}-frequency stripes")
        for axes, model in zip(axes_of_row[2:], shown, strict=True):
            text = f"{model.name}\n{share(model.passed[name])} of the stripes pass"
            _picture(axes, model.outputs[name], text if row else f"{model.word}\n{text}")
    return figure


def _picture(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(np.clip(pixels, 0, 1), aspect=pixels.shape[1] / pixels.shape[0])
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=[])


def gains_figure(omega_F: np.ndarray, marks: Mapping[str, float], shown: Sequence[Shown]) -> Figure:
    """The gain of each operator against the angle per sample; `marks` are the disturbances'."""
    figure = plots.titled("What the trained operators do to each frequency", 9, 4.6)
    axes = figure.subplots()
    for model, colour in zip(shown, COLOURS, strict=False):
        axes.plot(omega_F, np.maximum(model.start_F, FLOOR), color=colour, ls=":", lw=1)
        label = f"{model.name}: {model.word}"
        axes.plot(omega_F, np.maximum(model.end_F, FLOOR), color=colour, lw=1.6, label=label)
    middle = np.sqrt(omega_F[0] * omega_F[-1])
    for name, omega in marks.items():
        axes.axvline(omega, color="black", lw=0.8, ls="--")
        side, across = "left" if omega < middle else "right", axes.get_xaxis_transform()
        word = f" {name} stripes "
        axes.text(omega, 1, word, transform=across, ha=side, va="top", fontsize=8)
    axes.axvline(NYQUIST, color="red", lw=0.8)
    axes.axhline(1, color=plots.BEFORE, lw=0.6)
    axes.set(xscale="log", yscale="log", xlabel="angle (rad / sample); red: Nyquist")
    axes.set_ylabel("gain of the trained operator, rms of the colours")
    axes.grid(color="0.92")
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label="dotted: before training"))
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
    return figure
