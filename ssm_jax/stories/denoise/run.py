"""Image denoising under different alpha and beta: figures, table, results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from ssm_jax.plots import save
from ssm_jax.progress import say
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.denoise.data import DenoiseDataset
from ssm_jax.stories.denoise.figures import (
    Shown,
    gain_of,
    gains_figure,
    images_figure,
    judge,
    share,
)
from ssm_jax.stories.denoise.model import Denoiser
from ssm_jax.stories.denoise.task import Q, stripes
from ssm_jax.stories.runs import (
    FinishedRun,
    Setting,
    by_setting,
    publish,
    setting,
    train,
    with_spread,
)
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.train.loop import EXIT_DONE
from ssm_jax.train.runs.open import open_checkpoint
from ssm_jax.train.step import TrainState
from ssm_jax.train.workdir import Workdir

ALPHAS = (1 / 3, 1.0, 10.0, 490.52 / math.pi)  # the official Enhance, Raw, Middle and Flip
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)


REFERENCE = setting(1.0, 0.0)
# What makes the bias of the reference stronger, weaker, and turns it round
STORY = (REFERENCE, setting(1.0, -1.0), setting(10.0, 1.0), setting(ALPHAS[3], 0.0))
GRID = tuple(setting(alpha, beta) for alpha in ALPHAS for beta in BETAS)
COLUMNS: Columns = {
    "alpha": "{alpha:.4g}",
    "beta": "{beta:g}",
    "low stripes pass": with_spread("passed_low", share),
    "high stripes pass": with_spread("passed_high", share),
    "low / high": "{bias:.3g}",
    "bias": "{verdict}",
}
# Of the stripes in the pictures, in units of full white; the published 5 and 3 hide the image.
PICTURE_AMPLITUDE = 0.6
PICTURE = 0  # number of the test image shown


def run_story(cfg: ConfigDict, settings: Sequence[Setting], seeds: int, job: Job) -> int:
    """Train the settings, the reference among them, and write what they show into the folder.

    Returns the exit code.
    """
    runs = train(cfg, settings, seeds, job)
    if runs is None:
        return EXIT_STOPPED
    found = by_setting(runs)
    reference = next(s for s in found if setting(s["alpha"], s["beta"]) == REFERENCE)
    usual = reference["mean"]["passed_low"] / reference["mean"]["passed_high"]
    for one in found:
        verdict = judge(one["mean"]["passed_low"], one["mean"]["passed_high"], usual)
        one["bias"] = verdict.bias
        one["verdict"] = "reference" if one is reference else verdict.word
    _draw([run for run in runs if run.seed == cfg.seed and run.cell in STORY], found, job.folder)
    publish(runs, found, COLUMNS, "Energy of the stripes that passes, test images")
    say(f"figures and table: {job.folder}/images.png, gains.png, table.md, results.json")
    return EXIT_DONE


def _draw(runs: Sequence[FinishedRun], found: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """images.png and gains.png, of runs of one seed."""
    dataset = runs[0].experiment.dataset
    assert isinstance(dataset, DenoiseDataset)
    batch = dataset.gather("test", np.array([PICTURE]))
    noise_13 = 2 * PICTURE_AMPLITUDE * batch["noise"] / np.abs(batch["noise"]).max()
    inputs = {
        name: batch["inputs"] + np.asarray(noise)
        for name, noise in stripes(noise_13, dataset.width, dataset.padded_length).items()
    }

    def picture(sequence_1L3: Any) -> np.ndarray:
        """(H, W, 3) in 0..1."""
        return (np.asarray(sequence_1L3).reshape(dataset.height, dataset.width, 3) + 1) / 2

    omega_F = np.geomspace(1e-3, np.pi, 1500)
    by_knobs = {(cell["alpha"], cell["beta"]): cell for cell in found}
    shown = []
    for run in runs:
        cell = by_knobs[run.cell["model.alpha"], run.cell["model.beta.init"]]
        checkpoints = Workdir(run.path).checkpoints
        best = open_checkpoint(run.experiment, checkpoints, "best").state
        model, start = _model(run, best), _model(run, run.experiment.fresh_state())
        shown.append(
            Shown(
                name=f"alpha = {cell['alpha']:.3g}, beta = {cell['beta']:g}",
                word=cell["verdict"],
                low=cell["mean"]["passed_low"],
                high=cell["mean"]["passed_high"],
                outputs={name: picture(_output(model, x)) for name, x in inputs.items()},
                start_F=gain_of(start, omega_F, dataset.padded_length),
                end_F=gain_of(model, omega_F, dataset.padded_length),
            )
        )
    pictures = {name: picture(x) for name, x in inputs.items()}
    title = "Outputs of a linear SSM trained to return clean images"
    save(folder / "images.png", images_figure, picture(batch["inputs"]), pictures, shown, title)
    marks = {"low": Q / dataset.width, "high": Q}
    title = "What the trained operators do to each frequency"
    save(folder / "gains.png", gains_figure, omega_F, marks, shown, title)


@nnx.jit
def _output(model: Denoiser, sequence_1L3: Array) -> Array:
    return model(sequence_1L3)


def _model(run: FinishedRun, state: TrainState) -> Denoiser:
    return nnx.merge(run.experiment.graphdef, state.params, state.stats)
