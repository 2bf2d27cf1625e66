"""The command recommend: advice on the initialization, read off the inputs, and its test."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.load import load_config, split_spec
from ssm_jax.data.dataset import read_sequences, sequences_of
from ssm_jax.data.prepare import DataPaths
from ssm_jax.files import printable, replace_atomically
from ssm_jax.options.arguments import parameters_of
from ssm_jax.tasks import find_task

if TYPE_CHECKING:
    from ssm_jax.analysis.advice import Advice

LABELS = {"dt": "dt range", "real": "real part", "alpha": "alpha", "beta": "beta", "init": "init"}

FLAGS = (
    Flag("tokens", "the .npy of --from holds token ids, (L,) or (n, L)", False, bool),
    Flag("n", "sequences that are read, evenly spread", 2_000, int, least=1),
    Flag("out", "config to write, FILE.py: advised, and each test", kind=Path, writes="file"),
    Flag("record", "also write what was found to a JSON file", kind=Path, writes="file"),
    cli.FIGURE,
    cli.DATA_DIR,
    cli.FROM,
)


def recommend(argv: list[str], called: Sequence[str] = ("ssm-jax", "recommend")) -> int:
    """Advise on dt, real part, alpha, beta and init for a task's inputs, or say what is not known.

        ssm-jax recommend --config=lra/image --out=advised.py --figure=advised.png
        ssm-jax recommend --config=arrays:forecasting --from=weather.csv --out=advised.py
        ssm-jax recommend --from=signals.npy            # an array alone, (n, L[, channels])

    Each piece of advice has its reason and how well it is known by resampling the sequences; what
    the inputs cannot tell is left as it is, and said. The target is not looked at: --out=FILE.py
    writes a config with the advice applied, for ssm-jax train --config=FILE.py, and prints the
    commands that test it against the default with three seeds. dt, the real part and alpha are
    proposed for a test only: FILE.py:alpha is the experiment with the alpha to be tested.
    """
    given = dict(word.partition("=")[::2] for word in argv)
    about, alone, layers = recommend.__doc__, False, list[dict[str, Any]]()
    if "--file" in given:  # as it is named in `spectrum`
        cli.fail(f"there is no --file here; give --from={given['--file'] or 'X.npy'}.")
    if "--config" not in given and "--from" in given:
        alone = given["--from"].endswith(".npy")
        argv = argv if alone else ["--config=arrays", *argv]
    if alone:
        values = cli.load_flags(argv, flags=(cli.CONFIG, *FLAGS), about=about)
        cfg, overrides = config_lib.default(), dict[str, Any]()
        cfg.name = values["from"].stem
        if values["out"] is not None:
            cli.fail("--out is a config, which takes a task; give --config with --from.")
        sequences, vocabulary, detail = read_sequences(
            values["from"], values["n"], tokens=values["tokens"], flag="from"
        )
    else:
        cfg, values, overrides = cli.load(argv, flags=FLAGS, about=about)
        if values["out"] is not None:
            _check_out(values["out"], values["config"], cfg)
        paths, task = DataPaths(values["data_dir"], values["from"]), find_task(cfg.task)
        dataset = task.open(cfg, paths)
        sequences, vocabulary, detail = sequences_of(dataset, values["n"], flag="from")
        if task.network is not None and "layer" not in parameters_of(task.network):
            cli.fail(
                f"task={cfg.task} has a network with modes of its own, for which there is no "
                "advice; give --from=X.npy alone, an array of your own."
            )
        layers = _layers(cfg, dataset, values["n"])
    from ssm_jax.analysis.advice import advise, measure
    from ssm_jax.analysis.inputs import behind_norm
    from ssm_jax.analysis.timescale import no_time, range_in_use
    from ssm_jax.init import modes_by_options
    from ssm_jax.layers import find_layer

    model = cfg.model.to_dict()
    A_N = modes_by_options(model, alpha_real=cfg.model.alpha_real).A_SN[0]
    own = not hasattr(find_layer(cfg.model.layer), "INITS")  # lru, linoss: by other options
    dt = range_in_use(layers[0] if layers else {"dt": None}, model)
    first = layers[0] if layers else behind_norm(sequences, vocabulary)
    measured = measure(sequences, first, np.abs(A_N.imag), dt, n_tokens=vocabulary)
    advice = advise(measured, model, None if own else A_N)
    out = values["out"]
    tested = [one for one in advice if one.tested]
    whose = "the first layer's input" if layers else "behind a batch norm"
    why = no_time(measured.correlation, model)
    _show(f"{cfg.name}: {detail}\n{whose}", measured.correlation, layers, advice, why)
    if values["figure"] is not None:
        from ssm_jax.plots import save
        from ssm_jax.plots.inputs import correlation_figure, spectrum_figure

        if measured.found is None or own:
            save(values["figure"], correlation_figure, measured.correlation, cfg.name)
        else:
            alphas = {
                one.tested["model.alpha"]: "to be tested" for one in tested if one.knob == "alpha"
            }
            alphas = {model["alpha"]: "in use"} | alphas
            in_use, y_N = range_in_use(measured.correlation, model), np.abs(A_N.imag)
            shown = measured.spectrum, measured.found, y_N, in_use, alphas, cfg.name
            save(values["figure"], spectrum_figure, *shown)
    if values["record"] is not None:
        from ssm_jax.training.record import write_result

        rows = [{**vars(one), "label": LABELS[one.knob]} for one in advice]
        found: dict[str, Any] = {"spectrum": measured.found, "correlation": measured.correlation}
        found |= {"layers": layers} if layers else {}
        result = {"name": cfg.name, "seed": cfg.seed, "data": detail, "advice": rows, **found}
        write_result(values["record"], result, [*called, *argv])
    if not tested:
        print("nothing to change: there is no config to write, and nothing to test.")
    elif out is None:
        print("" if alone else "--out=FILE.py writes a config with this, and the test of it.")
    else:
        _write(out, values["config"], overrides, tested, config_lib.flatten(cfg))
        data = [
            f"--{key}={given[f'--{key}']}" for key in ("from", "data_dir") if f"--{key}" in given
        ]
        print("\n".join(_tests(out, tested, data)))
    return 0


def _tests(out: Path, tested: Sequence[Advice], data: Sequence[str]) -> list[str]:
    """Lines with the commands that test what was written against the experiment as it was."""

    def command(knob: str, about: str) -> str:
        arg, folder = (f":{knob}", f"_{knob}") if knob else ("", "")
        words = [f"--config={out}{arg}", "--seeds=3", f"--folder=runs/{out.stem}{folder}", *data]
        return f"    {shlex.join(['ssm-jax', 'sweep', *words])}    # {about}"

    applied = [LABELS[one.knob] for one in tested if one.options]
    lines = [f"{out} is the experiment as it was; what may be worth a test is tested by", ""]
    if applied:
        lines[0] = f"{out} has the advice on {' and '.join(applied)} applied; it is tested by"
    if applied or len(tested) > 1:
        lines.append(command("", "as advised" if applied else "all of them"))
    alone = [one for one in tested if len(applied) != 1 or not one.options]
    return [*lines, *(command(one.knob, LABELS[one.knob]) for one in alone), ""]


def _check_out(out: Path, spec: str, cfg: Any) -> None:
    """Refuse a file that could not load the given config, before any work is done."""
    base = Path(split_spec(spec)[0])
    if out.suffix != ".py" or (out.exists() and out.resolve() == base.resolve()):
        cli.fail(f"--out={out} does not fit: it must be another .py than that of --config.")
    if out.parent.resolve() != base.parent.resolve():
        brought = [text for text in (cfg.task, cfg.model.layer) if ".py:" in text]
        if brought:
            cli.fail(f"--out={out} must be in the folder of {base}: {brought[0]} is found from it.")


def _layers(cfg: Any, dataset: Any, n: int) -> list[dict[str, Any]]:
    """What each layer of a new model gets; [] of a network without blocks."""
    from ssm_jax.training.runs.inputs import has_blocks, new_layers, untrained

    experiment = untrained(cfg, dataset)
    return new_layers(experiment, n) if has_blocks(experiment) else []


def _show(
    head: str,
    facts: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    advice: Sequence[Advice],
    no_time: str | None,
) -> None:
    from ssm_jax.analysis.timescale import describe_correlation

    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{head}, {describe_correlation(facts) if no_time is None else no_time}")
    if no_time is None and (
        deeper := [f"{row['dt']:.3g}" for row in layers[1:] if row["dt"] is not None]
    ):
        console.print(f"deeper layers: dt = {', '.join(deeper)}")
    console.print()
    for one in advice:
        words = [
            f"{LABELS[one.knob]}: {one.proposal}",
            f"    {one.reason}",
            f"    {one.uncertainty}",
        ]
        console.print("\n".join([*words, f"    figure: {one.panel}"]))
    console.print()


TEMPLATE = '''"""{name} with the initialization that its inputs suggest, by ssm-jax recommend.

    ssm-jax train --config={file} --workdir=runs/{stem}
    ssm-jax sweep --config={file} --seeds=3 --folder=runs/{stem}

{what}
{file}:KNOB is the test of one knob, of {knobs}.

{reasons}
"""

from pathlib import Path

import ssm_jax

BASE = {base}
GIVEN = {given}
USUAL = {usual}
ADVISED = {advised}
TESTS = {tests}


def test_of(knob):
    if knob not in TESTS:
        raise ValueError(f"there is no test of {{knob}}; the knobs here are {{', '.join(TESTS)}}")
    return TESTS[knob]


def get_config(arg=""):
    return ssm_jax.load_config(BASE, GIVEN | (test_of(arg) if arg else ADVISED))


def sweep(arg=""):
    arms = [test_of(arg)] if arg else [ADVISED] if ADVISED else [*TESTS.values()]
    usual = {{key: USUAL[key] for arm in arms for key in arm}}
    return [usual, *(usual | arm for arm in arms)]
'''


def _quoted(text: str) -> str:
    """A text as it stands between the quotes of a docstring."""
    return printable(text).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _write(
    out: Path,
    spec: str,
    overrides: Mapping[str, Any],
    tested: Sequence[Advice],
    usual: Mapping[str, Any],
) -> None:
    """Write the config of advice and tests; nothing is left of one that does not load."""
    path, arg = split_spec(spec)
    base = repr(spec)
    if os.path.expanduser(spec).startswith(path):
        relative = Path(os.path.relpath(Path(path).resolve(), out.parent.resolve())).as_posix()
        base = f"str(Path(__file__).parent / {relative!r})" + (f" + {':' + arg!r}" if arg else "")
    reasons = [
        f"{LABELS[one.knob]}: {one.proposal}. {one.reason} ({one.uncertainty})." for one in tested
    ]
    advised = {key: value for one in tested for key, value in one.options.items()}
    what = "Its config and the second arm of its sweep have what is advised."
    if not advised:
        what = (
            "Nothing is advised: its config is the experiment as it was, its sweep has the tests."
        )
    text = TEMPLATE.format(
        name=_quoted(usual["name"]), file=_quoted(out.name), stem=_quoted(out.stem), what=what,
        reasons="\n".join(map(_quoted, reasons)),
        knobs=", ".join(one.knob for one in tested), base=base, given=dict(overrides),
        usual={key: usual[key] for one in tested for key in one.tested},
        advised=advised, tests={one.knob: one.tested for one in tested},
    )  # fmt: skip
    before = out.read_bytes() if out.exists() else None
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, text)
    try:
        load_config(str(out))
    except ValueError:
        if before is None:
            out.unlink()
        else:
            replace_atomically(out, before)
        raise
