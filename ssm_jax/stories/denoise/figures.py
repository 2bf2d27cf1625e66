"""What a trained denoiser does to each frequency, and what its knobs did to the frequency bias.

The figures of image denoising: what each setting of the knobs makes of striped images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssm_jax.analysis.spectra import NYQUIST, filter_gain, layers_of
from ssm_jax.kernels.filter import discrete_transfer_function
from ssm_jax.plots.panels import BEFORE
from ssm_jax.stories.denoise.model import Denoiser

FACTOR = 2.0  # a bias within this factor of the reference counts as equal to it


@dataclass(frozen=True)
class Verdict:
    """The share of the energy of either disturbance that passes, and what follows.

    Attributes:
      low, high: shares.
      bias: low / high; above 1 the model prefers low frequencies.
      word: "reversed" below 1; else "weakened" or "strengthened" if it differs from the reference
        by more than FACTOR; else "unchanged".
    """

    low: float
    high: float
    bias: float
    word: str


def judge(low: float, high: float, reference: float) -> Verdict:
    """The verdict on a model beside the bias of the reference, alpha = 1 and beta = 0."""
    bias = low / high
    if bias < 1:
        word = "reversed"
    elif bias < reference / FACTOR:
        word = "weakened"
    elif bias > reference * FACTOR:
        word = "strengthened"
    else:
        word = "unchanged"
    return Verdict(low, high, bias, word)


_transfer_function = jax.jit(
    discrete_transfer_function, static_argnames=("discretization", "length")
)


def response_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """W K^(beta)(omega): complex (F, 3, 3), from the colours of the input to those of the output.

    K is the spectrum of the kernel's first `length` taps, as the convolution has it, and the
    filter's gain is that of a transform of twice the length.

    Args:
      model: its bias b answers to no frequency and is left out.
      omega_F: radians per sample, 0..pi.
      length: L of the images.
    """
    layer = model.ssm
    (view,) = layers_of(model)
    omega_HF = jnp.broadcast_to(jnp.asarray(omega_F, jnp.float32), (len(view.dt_H), len(omega_F)))
    K_HF = _transfer_function(
        layer.eigenvalues(),
        layer.readout()[0],
        layer.step_sizes(),
        omega_HF,
        discretization=layer.discretization,
        length=length,
    )
    filtered_HF = np.asarray(K_HF) * filter_gain(view, omega_F, 2 * length)
    kernel = model.mix.kernel
    assert isinstance(kernel, nnx.Param)
    W_io = np.asarray(kernel[...])
    return np.einsum("hf,hg->fgh", filtered_HF, W_io)


def gain_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """Root mean square gain over the colours, (F,): a tone of equal, independent amplitudes in all
    colours leaves with this factor."""
    response_F33 = response_of(model, omega_F, length)
    return np.sqrt(np.mean(np.sum(np.abs(response_F33) ** 2, axis=1), axis=1))


COLOURS = ("0.2", "#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0", "#b08c1f")
FLOOR = 1e-6  # gains below are drawn there


@dataclass(frozen=True)
class Shown:
    """A trained model as the figures show it.

    Attributes:
      name: of the setting, such as "alpha = 1, beta = 0".
      word: what it did to the bias.
      low, high: shares of the energy of the disturbances that pass.
      outputs: by disturbance, (H, W, 3) in 0..1, values beyond are cut.
      start_F, end_F: gain at the angles of the figure, before and after training.
    """

    name: str
    word: str
    low: float
    high: float
    outputs: Mapping[str, np.ndarray]
    start_F: np.ndarray
    end_F: np.ndarray


def images_figure(
    clean: np.ndarray, disturbed: Mapping[str, np.ndarray], shown: Sequence[Shown], title: str
) -> Figure:
    """A row for each disturbance: the clean image, the disturbed one, and every model's output.

    Args:
      clean: (H, W, 3) in 0..1.
      disturbed: by disturbance, "low" and "high".
      shown: the models.
      title: of the figure.
    """
    columns = 2 + len(shown)
    figure = Figure(figsize=(1.9 * columns, 4.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, columns)
    for axes_of_row, (name, noisy) in zip(grid, disturbed.items(), strict=True):
        _picture(axes_of_row[0], clean, "clean")
        _picture(axes_of_row[1], noisy, f"{name}-frequency stripes")
        for axes, model in zip(axes_of_row[2:], shown, strict=True):
            passed = {"low": model.low, "high": model.high}[name]
            text = f"{model.name}\n{share(passed)} of the stripes pass"
            _picture(axes, model.outputs[name], text)
    for axes, model in zip(figure.axes[2:columns], shown, strict=True):
        axes.set_title(f"{model.word}\n{axes.get_title()}", fontsize=8)
    return figure


def share(value: float) -> str:
    """A share of energy in percent with two digits, a small one as a power of ten."""
    if value >= 0.995:
        return f"{100 * value:.0f} %"
    return f"{100 * value:.2g} %" if value >= 1e-4 else f"{100 * value:.0e} %"


def _picture(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(np.clip(pixels, 0, 1), aspect=pixels.shape[1] / pixels.shape[0])
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def gains_figure(
    omega_F: np.ndarray, marks: Mapping[str, float], shown: Sequence[Shown], title: str
) -> Figure:
    """The gain of each operator against the angle per sample, before and after training.

    Args:
      omega_F: radians per sample.
      marks: the angle of each disturbance, by name.
      shown: the models.
      title: of the figure.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    for model, colour in zip(shown, COLOURS, strict=False):
        axes.plot(omega_F, np.maximum(model.start_F, FLOOR), color=colour, ls=":", lw=1)
        label = f"{model.name}: {model.word}"
        axes.plot(omega_F, np.maximum(model.end_F, FLOOR), color=colour, lw=1.6, label=label)
    middle = np.sqrt(omega_F[0] * omega_F[-1])
    for name, omega in marks.items():
        axes.axvline(omega, color="black", lw=0.8, ls="--")
        axes.annotate(
            f" {name} stripes ",
            (omega, 1),
            xycoords=("data", "axes fraction"),
            ha="left" if omega < middle else "right",
            va="top",
            fontsize=8,
        )
    axes.axvline(NYQUIST, color="red", lw=0.8)
    axes.axhline(1, color=BEFORE, lw=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("angle (rad / sample); red: Nyquist")
    axes.set_ylabel("gain of the trained operator, rms of the colours")
    axes.grid(color="0.92")
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label="dotted: before training"))
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
    return figure
