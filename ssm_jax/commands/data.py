"""The commands about data: prepare them, and look at their spectrum."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, guess
from ssm_jax.config.check import fault_of
from ssm_jax.data.dataset import read_sequences, sequences_of
from ssm_jax.data.manifest import DamagedError
from ssm_jax.data.packages import PACKAGED, list_packaged
from ssm_jax.data.prepare import DataPaths, check_name, cpu_count
from ssm_jax.data.prepare import prepare as make
from ssm_jax.data.store import Store, stores_of, unfinished, verify_store
from ssm_jax.files import os_fault, printable
from ssm_jax.lra.catalog import CATALOG, Entry, command_of
from ssm_jax.options.rows import OPTIONS
from ssm_jax.stop import EXIT_INTERRUPTED
from ssm_jax.tables import Columns, cells, to_screen
from ssm_jax.tasks import find_task

VERBS = ("list", "prepare", "verify")
PACKAGES = "Sets that lie in Python packages, for --config=packaged:NAME:"
WORDS = Flag("task", f"{'|'.join(VERBS)} TASK; prepare may be left out", words=True)


def prepare(argv: list[str], called: Sequence[str] = ("ssm-jax", "prepare")) -> int:
    """Prepare the data of the Long Range Arena: generate them, or read official files, once.

        ssm-jax prepare list                                     # what there is, and is not
        ssm-jax prepare pathfinder                               # generated
        ssm-jax prepare image                                    # downloaded
        ssm-jax prepare text --source=sample                     # of an installed package
        ssm-jax prepare retrieval --from=PATH                    # official files
        ssm-jax prepare verify pathfinder                        # every byte

    The same command resumes an interrupted preparation. Generated data are never put in the place
    of official ones: --source says which, and every result repeats it. `ssm-jax prepare TASK
    --help` shows what can be chosen of a task.
    """
    words = [word for word in argv[:2] if not word.startswith("-")]
    if words and words[0] in CATALOG:
        words, argv = ["prepare", *words], ["prepare", *argv]
    entry = CATALOG.get(words[1]) if len(words) == 2 and words[0] == "prepare" else None
    about = "\n".join(f"    {name:14}{kind.about}" for name, kind in CATALOG.items())
    flags = (WORDS, cli.DATA_DIR, *(_flags_of(entry) if entry else ()))
    values = cli.load_flags(argv, flags=flags, about=f"{prepare.__doc__}\n{about}")
    data_dir = values["data_dir"]
    try:
        match values["task"]:
            case ["list"]:
                shown = f"{list_tasks(data_dir)}\n\n{PACKAGES}\n{list_packaged(data_dir)}"
            case [*_, name] if name in PACKAGED:
                raise ValueError(f"{name} is prepared by ssm-jax train --config=packaged:{name}.")
            case ["verify", task] if task in CATALOG:
                shown = verify_task(task, data_dir)
            case ["prepare", task] if entry:
                shown = prepare_task(task, entry, values, [*called, *argv])
            case ["prepare" | "verify" as verb, *rest]:
                wrong = f"unknown {' '.join(rest)!r}" if rest else "no TASK given"
                raise ValueError(f"{verb} TASK: {wrong}; choose from {', '.join(CATALOG)}.")
            case [word, *_]:
                raise ValueError(f"unknown task {word!r}{guess(word, (*VERBS, *CATALOG))}")
    except (ValueError, OSError) as error:  # also of Python, about the user's files
        cli.fail(printable(os_fault(error) if isinstance(error, OSError) else str(error)))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here.", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(shown)
    return 0


def _flags_of(entry: Entry) -> tuple[Flag, ...]:
    """What can be chosen of a data set."""
    usual = f"else {entry.sources[0]}, or official with --from"
    kinds = get_type_hints(entry.options)
    return (
        Flag("source", f"where the examples come from; {usual}", choices=entry.sources),
        Flag("from", f"official files: {entry.files}", kind=Path),
        Flag("workers", "processes; else one per core. Changes no number", kind=int, least=1),
        Flag("tfds", "also write a TensorFlow Datasets data set", False, bool),
        Flag("record", "also write what was made to a JSON file", kind=Path, writes="file"),
        *(
            Flag(field.name, f"else {field.default}, as published", kind=kinds[field.name])
            for field in dataclasses.fields(entry.options)
        ),
    )


def prepare_task(task: str, entry: Entry, values: Mapping[str, Any], words: Sequence[str]) -> str:
    """Make a data set unless it is there; a table of what it holds."""
    files, data_dir = values["from"], values["data_dir"]
    source = values["source"] or ("official" if files else entry.sources[0])
    if files is not None and source not in entry.reads:
        raise ValueError(
            f"--from={files} says what to read, --source={source} that nothing is; "
            "give one of the two."
        )
    names = {field.name for field in dataclasses.fields(entry.options)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    if unread := [name for name in entry.unread[source] if name in given]:
        raise ValueError(
            f"--{unread[0]} changes nothing about --source={source} of {task}; give one of the two."
        )
    # The generators take more, but no experiment could name such data.
    if given.get("seed", 0) > 0 and (fault := fault_of("seed", given["seed"], OPTIONS["seed"])):
        raise ValueError(fault)
    start = time.perf_counter()
    paths = DataPaths(data_dir, files, values["workers"] or cpu_count())
    recipe = entry.recipe(entry.options(**given), source, paths)
    folder = make(recipe, data_dir, tfds=values["tfds"])
    store = verify_store(folder)
    seconds, facts = time.perf_counter() - start, store.facts()
    if (path := values["record"]) is not None:
        from ssm_jax.training.record import write_result  # it imports JAX, to name the devices

        write_result(path, {**facts, "seconds": round(seconds, 1)}, words)
    return f"{table_of(facts)}\n\n{folder} ready in {seconds:.1f} s"


def table_of(facts: Mapping[str, Any]) -> str:
    """Lines about a store: where the data come from, then a row for each split."""
    about = f"{facts['bytes']:,} bytes; sha256 {facts['sha256']}"
    if facts["token_ids"]:
        about += f"; {facts['token_ids']} token ids"
    head = "split     rows  steps: mean    median    most  share of each class in %"
    lines = [facts["detail"], about, "", head]
    for name, split in facts["splits"].items():
        steps, n = split["steps"], split["examples"]
        lines.append(
            f"{name:5} {n:8,} {steps['mean']:12.1f} {steps['median']:9.0f} {steps['most']:7,}  "
            + " ".join(f"{100 * count / n:.1f}" for count in split["classes"])
        )
    return "\n".join(lines)


def verify_task(task: str, data_dir: Path) -> str:
    """Compare every byte of the task's data sets with their manifests; tables of what they hold."""
    folders = stores_of(data_dir, task)
    if not folders:
        raise FileNotFoundError(f"no {task} data in {data_dir}; {_again(task, data_dir)}")
    shown = []
    for folder in folders:
        try:
            store = verify_store(folder)
            check_name(folder)
        except DamagedError as error:
            again = command_of(folder, data_dir)
            raise ValueError(f"{str(error).removesuffix('.')}: {again}") from None
        links = [path for path in (folder, *sorted(folder.iterdir())) if path.is_symlink()]
        followed = "".join(f"\n{path} is a link to {path.resolve()}" for path in links)
        table = table_of(store.facts())
        shown.append(f"{table}\n\n{folder} is as it was written{followed}")
    return "\n\n".join(shown)


def list_tasks(data_dir: Path) -> str:
    """What is prepared, what an interrupted preparation left, and how to get the rest."""
    lines = []
    for name, entry in CATALOG.items():
        lines += [f"{name}: {entry.about}", f"  sources: {', '.join(entry.sources)}"]
        folders = stores_of(data_dir, name)
        for folder in folders:
            try:
                about = Store(folder).manifest["detail"]
            except (ValueError, OSError) as error:  # a damaged one must not hide the others
                about = str(error)
            lines.append(f"  {folder}: {about}")
        for folder in unfinished(data_dir, name):
            lines.append(f"  {folder}: unfinished; the command that began it goes on")
        if not folders:
            lines.append(f"  not prepared; {_again(name, data_dir)}")
        lines.append(f"  official files: {entry.files}")
    return "\n".join(lines)


def _again(task: str, data_dir: Path) -> str:
    return f"run: ssm-jax prepare {task} --data_dir={data_dir}"


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
        cfg, values = config_lib.default(), cli.load_flags(argv, flags=SPECTRUM, about=about)
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
    if not all(isinstance(alpha, (int, float)) and alpha > 0 for alpha in alphas):
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
        dataset = find_task(cfg.task).open_data(cfg.data.to_dict(), paths)
        read = sequences_of(dataset, n)
        if values["layers"]:
            from ssm_jax.training.runs.inputs import new_layers, untrained

            layers = new_layers(untrained(cfg, dataset), n)
    sequences, vocabulary, detail = read
    from ssm_jax.analysis.start import recommend
    from ssm_jax.init import initial_modes

    modes = initial_modes(model.init, model.d_state, seed=model.init_seed)
    y_N, dt = np.abs(modes.A_SN[0].imag), (model.dt_min, model.dt_max)
    low, high = values["low"], values["high"]
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
    from ssm_jax.training.runs.inputs import trained_layers
    from ssm_jax.training.workdir import run_and_step

    path, step = run_and_step(values["run"], "best")
    data = {"data_dir": values["data_dir"], "files": values["from"]}
    experiment, _, layers = trained_layers(path, values["n"], step=step, **data)
    return experiment, layers


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
    title = f"{layer['init']}, {layer['d_state']} modes, dt {dt_min:g} to {dt_max:g}"
    Console().print(to_screen(columns, cells(columns, found["windows"]), title=title))
    console.print("Means over the channels of a new layer; * is the start.")
