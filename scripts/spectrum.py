"""The power spectrum of a task's input, or of your own data, and a starting alpha and beta.

    python scripts/spectrum.py --config=configs/lra/image.py --config.data.source=fashion_mnist
    python scripts/spectrum.py --file=signals.npy --figure=spectrum.png

--file is an array (L,), (n, L) or (n, L, channels); with --config too, its layer is that of the
experiment, else 64 modes with dt from 0.001 to 0.1. Prints how steeply the power falls, where the
energy lies, and for each alpha what the modes of a new S4D layer make of it. These are starting
points: confirm them by a sweep (scripts/sweep.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.data.prepare import Place, default_data_dir

FLAGS = (
    Flag("file", "array of your own, .npy, in the place of the task's data", kind=Path),
    Flag("tokens", "the file holds token ids, (L,) or (n, L)", False, bool),
    Flag("n", "sequences that are read, evenly spread", 500, int),
    Flag("alphas", "candidates", (0.1, 0.3, 1.0, 3.0, 10.0), tuple),
    Flag("band", "share of the energy that the band holds", 0.9, float),
    Flag("low", "start of the fit, rad per sample; if not given, 2 turns in a segment", kind=float),
    Flag("high", "end of the fit, rad per sample; if not given, pi / 2", kind=float),
    Flag("out", "file for the result, JSON", kind=Path, writes="file"),
    Flag("figure", "file for the figure, PNG", kind=Path, writes="file"),
    replace(cli.DATA_DIR, default=default_data_dir()),
    cli.FROM,
)  # fmt: skip


FAR = 0.3  # half of the 95 % interval of gamma from which the spectrum is called no power law


def modes_of(model: ConfigDict) -> np.ndarray:
    """|Im a| of the modes of a channel at alpha = 1, rad per unit of time.

    Raises:
      ValueError: another layer than S4D with zero-order hold, whose modes have no angle y dt.
    """
    from ssm_jax.init import initial_modes

    if model.layer != "s4d" or model.discretization != "zoh":
        raise ValueError(
            f"model.layer={model.layer} with model.discretization={model.discretization} does not "
            "fit: the modes that are counted are those of s4d with zoh."
        )
    modes = initial_modes(model.init, model.d_state, seed=model.init_seed)
    return np.abs(modes.A_SN[0].imag)


def from_file(path: Path, tokens: bool, n: int) -> tuple[list[np.ndarray], str]:
    """The sequences in a file, and what they are.

    Raises:
      ValueError: a file that is no such array.
    """
    if path.suffix != ".npy":
        raise ValueError(f"--file={path} does not fit: it must be a .npy of numpy.save.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--file={path} is no array that can be read ({error}).") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim not in ((2,) if tokens else (2, 3)) or not array.size:
        raise ValueError(f"--file={path} has the shape {array.shape}; see --help for those read.")
    if array.dtype.kind not in ("iu" if tokens else "iufb"):
        what = "whole" if tokens else "real"
        raise ValueError(f"--file={path} holds {array.dtype}; it must hold {what} numbers.")
    chosen = np.unique(np.linspace(0, len(array) - 1, min(n, len(array))).astype(int))
    return list(array[chosen]), f"{path.name}, {len(array):,} sequences"


def from_task(
    cfg: ConfigDict, data_dir: Path, files: Path | None, n: int
) -> tuple[list[np.ndarray], int | None, str]:
    """Training sequences of a task, the size of its vocabulary if it has one, and what they are.

    Raises:
      ValueError: a task whose examples are no sequences.
    """
    from ssm_jax.tasks import TASKS

    dataset = TASKS[cfg.task].open_data(cfg.data.to_dict(), Place(data_dir, files))
    size = dataset.size("train")
    chosen = np.unique(np.linspace(0, size - 1, min(n, size)).astype(int))

    def sequences() -> Iterator[np.ndarray]:
        for index in chosen:
            batch = dataset.gather("train", np.array([index]))
            inputs = batch["inputs"][0]
            if "lengths" in batch:  # tokens, one row or the two of a pair
                lengths = np.atleast_1d(batch["lengths"][0])
                rows = inputs.reshape(len(lengths), -1)
                yield from (row[:steps] for row, steps in zip(rows, lengths, strict=True))
            elif len(inputs) != dataset.steps_of(batch):
                raise ValueError(f"the examples of task={cfg.task} are no sequences; give --file.")
            else:
                yield inputs

    vocabulary = getattr(dataset, "vocab_size", None)
    return list(sequences()), vocabulary, dataset.provenance.detail


def main(argv: list[str]) -> int:
    from_config = any(word.partition("=")[0] == "--config" for word in argv)
    if any(word.partition("=")[0] == "--file" for word in argv) and not from_config:
        cfg, values = config_lib.default(), cli.load_flags(argv, flags=FLAGS, about=__doc__ or "")
        cfg.name = values["file"].stem
    else:
        cfg, values, _ = cli.load(argv, flags=FLAGS, about=__doc__ or "")
    if values["n"] < 1 or not 0 < values["band"] < 1:
        cli.fail(f"--n={values['n']} must be at least 1, --band={values['band']} between 0 and 1.")
    alphas = values["alphas"]
    if not all(isinstance(alpha, (int, float)) and alpha > 0 for alpha in alphas):
        cli.fail(f"--alphas={alphas} does not fit: they must be numbers greater than 0.")
    model = cfg.model
    y_N, dt = modes_of(model), (model.dt_min, model.dt_max)

    from ssm_jax.analysis import choose as knobs
    from ssm_jax.analysis import input_spectrum as spectra
    from ssm_jax.files import write_json
    from ssm_jax.train.record import run_record

    vocabulary: int | None = None
    if values["file"] is not None:
        sequences, detail = from_file(values["file"], values["tokens"], values["n"])
        if values["tokens"]:
            vocabulary = int(max(s.max() for s in sequences)) + 1
    else:
        sequences, vocabulary, detail = from_task(
            cfg, values["data_dir"], values["from"], values["n"]
        )
    lengths = np.array([len(sequence) for sequence in sequences])
    spectrum = spectra.input_spectrum(
        sequences, spectra.default_segment(lengths), n_tokens=vocabulary
    )
    fit = spectra.fit_power_law(spectrum, values["low"], values["high"])
    start = knobs.starting_alpha(spectrum, y_N, *dt, values["band"])
    beta = knobs.starting_beta(fit.gamma)
    windows = [
        knobs.window_of(spectrum, y_N, alpha, *dt, values["band"])
        for alpha in sorted({*map(float, alphas), start})
    ]
    result = {
        "name": cfg.name,
        "data": detail,
        "inputs": "real" if vocabulary is None else f"one-hot of {vocabulary} tokens",
        "method": spectrum.method,
        "sequences": spectrum.sequences,
        "too_short": spectrum.too_short,
        "length": float(lengths.mean()),
        "fit": asdict(fit),
        "energy_below": {f"{s:g}": spectrum.angle_below_which(s) for s in spectra.SHARES},
        "layer": {"init": model.init, "d_state": model.d_state, "dt": list(dt)},
        "band": values["band"],
        "alpha": start,
        "beta": beta,
        "gain_at_nyquist": knobs.gains_at_nyquist(beta, int(lengths.max())),
        "windows": [asdict(window) for window in windows],
    }
    show(result)
    if values["figure"] is not None:
        from ssm_jax.plots.spectrum import draw_spectrum

        shown = {1.0: "", float(max(alphas)): "", start: "start"}
        draw_spectrum(
            values["figure"],
            spectrum,
            fit,
            y_N=y_N,
            dt=dt,
            alphas=dict(sorted(shown.items())),
            title=cfg.name,
        )
    if values["out"] is not None:
        record = run_record({}, "", cfg.seed, {}, ["scripts/spectrum.py", *argv])
        kept = {key: record[key] for key in ("command", "git", "versions", "devices", "seed")}
        values["out"].parent.mkdir(parents=True, exist_ok=True)
        write_json(values["out"], {**result, **kept})
    return 0


def show(result: dict[str, Any]) -> None:
    """Print a result."""
    fit, layer, below = result["fit"], result["layer"], result["energy_below"]
    gains = ", ".join(f"{gain:.3g} ({unit})" for unit, gain in result["gain_at_nyquist"].items())
    band = f"{100 * result['band']:g} %"
    far = fit["half_width"] > FAR
    left_out = f", {result['too_short']} too short" if result["too_short"] else ""
    lines = [
        f"{result['name']}: {result['data']}",
        f"inputs: {result['inputs']}; {result['sequences']:,} sequences of "
        f"{result['length']:,.0f} samples on average{left_out}",
        f"method: {result['method']}",
        f"slope: power ~ w^-gamma, gamma = {fit['gamma']:.2f} ± {fit['half_width']:.2f} (95 %, by "
        f"the residuals) from {fit['low']:.3g} to {fit['high']:.3g} rad per sample"
        + ("; no straight line: look at the figure before you use it" if far else ""),
        "energy: "
        + ", ".join(f"{100 * float(s):g} % below {w:.3g}" for s, w in below.items())
        + " rad per sample (Nyquist 3.14)",
        f"start: beta = gamma / 2 = {result['beta']:.2f}, a third-party rule of thumb; gain at "
        f"Nyquist by unit of beta: {gains}",
        f"start: alpha = {result['alpha']:.3g}: half of the channels reach past the band that "
        f"holds {band} of the energy",
    ]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in lines:
        console.print(line)
    dt = layer["dt"]
    table = Table(
        title=f"{layer['init']}, {layer['d_state']} modes, dt {dt[0]:g} to {dt[1]:g}",
        title_justify="left",
    )
    for column in (
        "alpha", "highest mode, rad per sample", "modes beyond Nyquist", "channels without",
        "energy within reach", f"modes in the {band} band",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for window in result["windows"]:
        table.add_row(
            f"{window['alpha']:.3g}" + ("*" if window["alpha"] == result["alpha"] else ""),
            f"{window['lowest']:.3g} to {window['highest']:.3g}",
            f"{window['aliased']:.0%}",
            f"{window['clean']:.0%}",
            f"{window['reached']:.0%}",
            f"{window['within']:.1f} of {layer['d_state']}",
        )
    Console().print(table)
    console.print("Means over the channels of a new layer; * is the start.")


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
