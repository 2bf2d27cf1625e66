"""The command spectrum: the spectrum and autocorrelation of inputs, and a start read off them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.analysis.inputs import check_ends
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.data.dataset import read_sequences, sequences_of
from ssm_jax.data.prepare import DataPaths
from ssm_jax.options.rows import POSITIVE
from ssm_jax.tables import Columns, cells, to_screen
from ssm_jax.tasks import find_task

SPECTRUM = (
    Flag("file", "array of your own, .npy, in the place of the task's data", kind=Path),
    Flag("tokens", "the file holds token ids, (L,) or (n, L)", False, bool),
    Flag("n", "sequences that are read, evenly spread", 500, int),
    Flag("alphas", "candidates", (0.1, 0.3, 1.0, 3.0, 10.0), tuple),
    Flag("band", "share of the energy that the band holds", 0.9, float),
    Flag("low", "start of the fit, rad per sample; if not given, 2 turns in a segment", kind=float),
    Flag("high", "end of the fit, rad per sample; if not given, pi / 2", kind=float),
    Flag("layers", "also what each layer of a new model gets as input", False, bool),
    Flag("run", "a trained run: its task, and what its layers get as input", kind=Path),
    Flag("out", "file for the result, JSON", kind=Path, writes="file"),
    cli.FIGURE,
    cli.DATA_DIR,
    cli.FROM,
)


def spectrum(argv: list[str], called: Sequence[str] = ("ssm-jax", "spectrum")) -> int:
    """Spectrum and autocorrelation of a task's input, or of your data, and where to start from.

        ssm-jax spectrum --config=lra/image --config.data.source=fashion_mnist --layers
        ssm-jax spectrum --file=signals.npy --figure=spectrum.png
        ssm-jax spectrum --run=runs/a                            # and what its layers get

    --file is an array (L,), (n, L) or (n, L, channels); with --config too, its layer is that of the
    experiment, else 64 modes with dt from 0.001 to 0.1. Prints how steeply the power falls, where
    the energy lies, for each alpha what the modes of a new S4D layer make of it, and the timescale
    that the autocorrelation asks for; --layers and --run show that of every layer's input, behind
    encoder and norm. These are starting points: confirm them by a sweep (ssm-jax sweep).
    """
    given = {word.partition("=")[0] for word in argv}
    about = spectrum.__doc__
    if "--from" in given and not given & {"--config", "--run", "--file"}:
        cli.fail("--from is of a task, which --config names; an array of your own is --file=X.npy.")
    if "--file" in given and "--config" not in given:
        values = cli.load_flags(argv, flags=(cli.CONFIG, *SPECTRUM), about=about)
        cfg = config_lib.default()
        cfg.name = values["file"].stem
        if values["layers"] or values["run"]:
            cli.fail("--layers and --run are of a task's model; give --config in place of --file.")
    elif "--run" in given and "--config" not in given:
        values = cli.load_flags(argv, flags=SPECTRUM, about=about)
    else:
        cfg, values, _ = cli.load(argv, flags=SPECTRUM, about=about)
    experiment, layers = None, list[dict[str, Any]]()
    if values["run"] is not None:
        if "--config" in given:
            cli.fail("--run has the config of its run; leave --config out.")
        experiment, layers = _layers_of(values)
        cfg = experiment.cfg
    alphas, share, n = values["alphas"], values["band"], values["n"]
    if n < 1 or not 0 < share < 1:
        cli.fail(f"--n={n} must be at least 1, --band={share} between 0 and 1.")
    low, high = values["low"], values["high"]
    try:
        check_ends(low, high)
    except ValueError as error:
        cli.fail(f"--{error}")
    if not alphas or not all(map(POSITIVE.holds, alphas)):
        cli.fail(f"--alphas={alphas} does not fit: they must be numbers greater than 0.")
    model = cfg.model
    if model.layer != "s4d" or model.discretization != "zoh":
        raise ValueError(
            f"model.layer={model.layer} with model.discretization={model.discretization} does not "
            "fit: the modes that are counted are those of s4d with zoh."
        )
    if (path := values["file"]) is not None:
        read = read_sequences(path, n, tokens=values["tokens"])
    elif experiment is not None:
        read = sequences_of(experiment.dataset, n)
    else:
        paths = DataPaths(values["data_dir"], values["from"])
        dataset = find_task(cfg.task).open(cfg, paths)
        read = sequences_of(dataset, n)
        if values["layers"]:
            from ssm_jax.training.runs.inputs import new_layers, untrained

            layers = new_layers(untrained(cfg, dataset), n)
    sequences, vocabulary, detail = read
    from ssm_jax.analysis.autocorrelation import autocorrelation, lambda_max
    from ssm_jax.analysis.inputs import behind_norm
    from ssm_jax.analysis.start import recommend
    from ssm_jax.analysis.timescale import correlation_facts, range_in_use
    from ssm_jax.init import initial_modes

    modes = initial_modes(model.init, model.d_state, seed=model.init_seed)
    first: Mapping[str, Any] = layers[0] if layers else {"dt": None}  # what the first layer gets
    if model.dt_rule == "autocorrelation" and not layers:
        source = behind_norm(sequences, vocabulary)
        first = correlation_facts(lambda_max(source), autocorrelation(source), None)
    y_N, dt = np.abs(modes.A_SN[0].imag), range_in_use(first, model)
    found, facts = recommend(
        sequences, y_N, dt, alphas=alphas, share=share, n_tokens=vocabulary, low=low, high=high
    )
    layer = {"init": model.init, "d_state": model.d_state, "dt": list(dt)}
    layer["filter"] = model.beta.filter  # without, there is no beta to set
    result = {"name": cfg.name, "seed": cfg.seed, "data": detail, "layer": layer, **facts}
    result |= {"layers": layers} if layers else {}
    _print(result)
    if layers:
        _print_layers(layers, "of a new model" if experiment is None else f"of {values['run']}")
    if values["figure"] is not None:
        from ssm_jax.plots import save
        from ssm_jax.plots.inputs import spectrum_figure

        shown = dict(sorted({1.0: "", float(max(alphas)): "", facts["alpha"]: "start"}.items()))
        save(values["figure"], spectrum_figure, found, facts, y_N, dt, shown, cfg.name)
    if values["out"] is not None:
        from ssm_jax.training.record import write_result

        write_result(values["out"], result, [*called, *argv])
    return 0


def _layers_of(values: Mapping[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The experiment of --run, and what its layers get at its best checkpoint."""
    from ssm_jax.training.runs import open_run
    from ssm_jax.training.runs.inputs import trained_layers
    from ssm_jax.training.workdir import run_and_step

    path, step = run_and_step(values["run"], "best")
    data = {"data_dir": values["data_dir"], "files": values["from"]}
    _, experiment, opened = open_run(path, step, **data)
    return experiment, trained_layers(experiment, opened.state, values["n"])


def _print_layers(layers: Sequence[Mapping[str, Any]], whose: str) -> None:
    """A table of what each layer gets as input."""

    def ends(pair: Sequence[float] | None, digits: str) -> str:
        return (
            " (interval: none)" if pair is None else f" ({pair[0]:{digits}} to {pair[1]:{digits}})"
        )

    columns: Columns = {
        "layer": "{layer}",
        "sequences": "{sequences:,}",
        "mean square": "{power:.3g}",
        "lambda_max (95 %)": lambda r: (
            f"{r['held_out'] or r['lambda_max']:.4g}{ends(r['interval'], '.4g')}"
        ),
        "dt = 1 / sqrt(L lambda_max)": lambda r: (
            "none" if r["dt"] is None else f"{r['dt']:.3g}{ends(r['dt_interval'], '.3g')}"
        ),
        "r(1) / r(0)": lambda r: (
            f"{r['lags']['r'][1] / r['power']:.2f}"
            if r["power"] and len(r["lags"]["r"]) > 1
            else ""
        ),
    }
    title = f"inputs of the layers {whose}, L = {layers[0]['length']:,}, behind encoder and norm"
    Console().print(to_screen(columns, cells(columns, layers), title=title))


def _print(found: Mapping[str, Any]) -> None:
    from ssm_jax.analysis.start import describe

    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{found['name']}: {found['data']}\n{describe(found, filtered=found['layer']['filter'])}"
    )
    layer, band = found["layer"], f"{100 * found['band']:g} %"
    columns: Columns = {
        "alpha": lambda w: f"{w['alpha']:.3g}{'*' if w['alpha'] == found['alpha'] else ''}",
        "highest mode, rad per sample": "{lowest:.3g} to {highest:.3g}",
        "modes beyond Nyquist": "{aliased:.0%}",
        "channels without": "{clean:.0%}",
        "energy within reach": "{reached:.0%}",
        f"modes in the {band} band": f"{{within:.1f}} of {layer['d_state']}",
    }
    dt_min, dt_max = layer["dt"]
    title = f"{layer['init']}, {layer['d_state']} modes, dt {dt_min:.4g} to {dt_max:.4g}"
    Console().print(to_screen(columns, cells(columns, found["windows"]), title=title))
    console.print("Means over the channels of a new layer; * is the start.")
