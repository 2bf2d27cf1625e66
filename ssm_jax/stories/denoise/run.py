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
from ssm_jax.stories.cells import Cell, Finished, Place, cells_of, document, publish, run_cells
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
from ssm_jax.train.loop import EXIT_DONE
from ssm_jax.train.runs.open import open_checkpoint
from ssm_jax.train.step import TrainState
from ssm_jax.train.workdir import Workdir

ALPHAS = (1 / 3, 1.0, 10.0, 490.52 / math.pi)  # the official Enhance, Raw, Middle and Flip
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def _cell(alpha: float, beta: float) -> Cell:
    return {"model.alpha": alpha, "model.beta.init": beta}


REFERENCE = _cell(1.0, 0.0)
# What makes the bias of the reference stronger, weaker, and turns it round
STORY = (REFERENCE, _cell(1.0, -1.0), _cell(10.0, 1.0), _cell(ALPHAS[3], 0.0))
GRID = tuple(_cell(alpha, beta) for alpha in ALPHAS for beta in BETAS)
# Of the stripes in the pictures, in units of full white; the published 5 and 3 hide the image.
PICTURE_AMPLITUDE = 0.6
PICTURE = 0  # number of the test image shown


def run_study(cfg: ConfigDict, cells: Sequence[Cell], seeds: int, place: Place) -> int:
    """Train the cells, the reference among them, and write what they show into the folder.

    Args are those of `run_cells`. Returns the exit code.
    """
    runs = run_cells(cfg, cells, seeds, place)
    if runs is None:
        return EXIT_STOPPED
    results = results_of(runs, cfg.notes, place.argv)
    folder = place.folder
    _draw([run for run in runs if run.seed == cfg.seed and run.cell in STORY], results, folder)
    title = "Energy of the stripes that passes, test images"
    publish(folder, results, title, HEAD, rows_of(results))
    say(f"figures and table: {folder}/images.png, gains.png, table.md, results.json")
    return EXIT_DONE


def results_of(runs: Sequence[Finished], notes: str, argv: Sequence[str]) -> dict[str, Any]:
    """What was found, by cell: the test metrics of each seed, their means, and the verdict."""
    cells = cells_of(runs)

    def passed(cell: Mapping[str, Any]) -> tuple[float, float]:
        return cell["mean"]["passed_low"], cell["mean"]["passed_high"]

    reference = next(cell for cell in cells if (cell["alpha"], cell["beta"]) == (1, 0))
    low, high = passed(reference)
    for cell in cells:
        verdict = judge(*passed(cell), low / high)
        cell["bias"] = verdict.bias
        cell["verdict"] = "reference" if cell is reference else verdict.word
    return document(runs, cells, notes, argv)


HEAD = ("alpha", "beta", "low stripes pass", "high stripes pass", "low / high", "bias")


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table, row by row: means over the seeds, and the least and the most of them."""
    return [
        (
            f"{cell['alpha']:.4g}",
            f"{cell['beta']:g}",
            *(_with_spread(cell, f"passed_{name}") for name in ("low", "high")),
            f"{cell['bias']:.3g}",
            cell["verdict"],
        )
        for cell in results["cells"]
    ]


def _with_spread(cell: Mapping[str, Any], name: str) -> str:
    found = [test[name] for test in cell["seeds"].values()]
    spread = f" ({share(min(found))} .. {share(max(found))})" if len(found) > 1 else ""
    return share(cell["mean"][name]) + spread


def _draw(runs: Sequence[Finished], results: Mapping[str, Any], folder: Path) -> None:
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
    by_knobs = {(cell["alpha"], cell["beta"]): cell for cell in results["cells"]}
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
    save(folder / "images.png", images_figure(picture(batch["inputs"]), pictures, shown, title))
    marks = {"low": Q / dataset.width, "high": Q}
    title = "What the trained operators do to each frequency"
    save(folder / "gains.png", gains_figure(omega_F, marks, shown, title))


@nnx.jit
def _output(model: Denoiser, sequence_1L3: Array) -> Array:
    return model(sequence_1L3)


def _model(run: Finished, state: TrainState) -> Denoiser:
    return nnx.merge(run.experiment.graphdef, state.params, state.stats)
