"""The commands that read runs: evaluate, analyze, truncate, predict and report."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssm_jax.commands import start_jax
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.files import replace_atomically, write_json

SOURCES = (
    Flag("run", "the folder of a run, or WORKDIR/checkpoints/STEP", [], Path, words=True),
    replace(cli.WORKDIR, help="the same as an option: the folder of the run, which is only read"),
    Flag("step", "checkpoint: best, newest, or a number", "best"),
    cli.DATA_DIR,
    replace(cli.FROM, help="official files of the run: an archive or a folder"),
    cli.COMPILED,
)


def _asked(values: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of a run, by an argument or --workdir; its step and data as keywords."""
    paths = [*values["run"], *filter(None, [values["workdir"]])]
    if not paths:
        cli.fail("--workdir is missing; give the folder of a run, such as --workdir=runs/a.")
    if len(paths) > 1:
        cli.fail(f"give one checkpoint, got {len(paths)}.")
    from ssm_jax.training.workdir import run_and_step

    try:
        workdir, step = run_and_step(paths[0], values["step"])
    except ValueError as error:
        cli.fail(str(error))
    return workdir, {"step": step, "data_dir": values["data_dir"], "files": values["from"]}


def _start(name: str, values: Mapping[str, Any]) -> None:
    """Start JAX for a command that several processes would do several times."""
    from ssm_jax.training.places import refuse_several

    refuse_several(name)
    start_jax(values["compiled"])


def evaluate(argv: list[str], called: Sequence[str] = ("ssm-jax", "evaluate")) -> int:
    """Evaluate a checkpoint of a run on a split; the run may be going on meanwhile.

        ssm-jax evaluate runs/a                                  # best checkpoint, test split
        ssm-jax evaluate --workdir=runs/a --split=val --step=1200 --out=runs/a/eval_val.json

    Prints accuracy, confusion and accuracy by length; --out has them as JSON, with provenance.
    """
    flags = (
        *SOURCES,
        Flag("split", "examples to evaluate", "test", choices=("train", "val", "test")),
        Flag("out", "file for the result, JSON", kind=Path, writes="file"),
    )
    values = cli.load_flags(argv, flags=flags, about=evaluate.__doc__)
    (workdir, source), out = _asked(values), values["out"]
    if out is not None and (out.suffix != ".json" or out.name in ("record.json", "summary.json")):
        cli.fail(f"--out={out} does not fit: it must be another .json than those of a run.")

    _start("evaluate", values)
    from ssm_jax.training.runs.evaluate import evaluate_run
    from ssm_jax.training.runs.tables import print_evaluation

    result = evaluate_run(workdir, split=values["split"], argv=[*called, *argv], **source)
    print_evaluation(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
        print(f"the result is in {out}.")
    return 0


def analyze(argv: list[str], called: Sequence[str] = ("ssm-jax", "analyze")) -> int:
    """Explain a checkpoint: what its layers do to frequencies. Or compare several runs.

        ssm-jax analyze runs/a                                   # the best checkpoint
        ssm-jax analyze runs/a/checkpoints/1200 --out=runs/a_1200
        ssm-jax analyze runs/a runs/b runs/b_seed1 --out=runs/comparison

    Prints for each layer: variation and energy of its transfer function by frequency band before
    and after training, how far the poles moved, beta, and where the poles' gradient comes from.
    Figures and all numbers (analysis.json) go to --out. The run may be going on meanwhile; nothing
    else is written.

    Of several runs, or of a folder above them such as that of a sweep, it draws the curves in one
    figure: seeds of one setting share a colour, with their mean and the band from the least to the
    most. A table has mean and spread of each setting and their differences seed by seed.
    """
    about = "folder for figures and numbers; else WORKDIR/analysis, or comparison beside the runs"
    flags = (
        *SOURCES,
        Flag("out", about, kind=Path, writes="folder"),
        Flag("gradient", "take the gradient of one batch of training", True, bool),
        Flag("metric", "of several runs: what is shown; else what chose the checkpoints"),
    )
    values = cli.load_flags(argv, flags=flags, about=analyze.__doc__)
    paths = [*values["run"], *filter(None, [values["workdir"]])]
    above = len(paths) == 1 and paths[0].is_dir() and not (paths[0] / "record.json").exists()
    if len(values["run"]) > 1 or (above and any(paths[0].glob("**/record.json"))):
        return _compare(paths, values, [*called, *argv])
    if values["metric"] is not None:
        cli.fail("--metric is for several runs; a run shows what chose its checkpoint.")
    workdir, source = _asked(values)

    _start("analyze", values)
    from ssm_jax.training.runs.evaluate import analyze as analyze_run
    from ssm_jax.training.runs.tables import print_analysis

    shown = {"out": values["out"], "gradient": values["gradient"]}
    result, paths = analyze_run(workdir, argv=[*called, *argv], **source, **shown)
    print_analysis(result)
    print(*paths, sep="\n")
    return 0


def _compare(paths: Sequence[Path], values: Mapping[str, Any], command: Sequence[str]) -> int:
    """Compare runs: curves.png, and comparison.md, .csv and .json."""
    if values["step"] != "best":
        cli.fail(f"--step={values['step']} is of one run, got {len(paths)}; leave it out.")
    from ssm_jax.plots import save
    from ssm_jax.plots.compare import compare_figure
    from ssm_jax.sweep import compare
    from ssm_jax.sweep.tables import write_results

    settings = compare.settings_of(paths)
    document = compare.compare(settings, command, values["metric"])
    beside = paths[0] if len(paths) == 1 else paths[0].parent
    out = values["out"] or beside / "comparison"
    curves = out / f"curves.{next(iter(settings.values()))[0].cfg.figures_format}"
    save(curves, compare_figure, *compare.curves_of(settings, values["metric"]))
    print(write_results(out, document, "comparison"), end="")
    print(curves, *(out / f"comparison.{ending}" for ending in ("md", "csv", "json")), sep="\n")
    return 0


def truncate(argv: list[str], called: Sequence[str] = ("ssm-jax", "truncate")) -> int:
    """Keep the state that counts: balanced truncation of a trained model, scored before and after.

        ssm-jax truncate runs/a --d_state=16,8,4                 # modes that each layer keeps
        ssm-jax truncate runs/a/checkpoints/1200 --d_state=8 --out=small

    Prints the metrics of the model as it is and of each truncated one, on validation and test. The
    models go to --out as d_state_N.safetensors, which predict and ssm_jax.load read, with all
    numbers (truncation.json). How many states count says analyze. The run is only read.
    """
    about = "folder for models and numbers; else WORKDIR/truncated"
    flags = (
        *SOURCES,
        Flag("d_state", "modes to keep, below those of the run: one number or several", (), tuple),
        Flag("out", about, kind=Path, writes="folder"),
    )
    values = cli.load_flags(argv, flags=flags, about=truncate.__doc__)
    workdir, source = _asked(values)
    kept = values["d_state"]
    if not kept or not all(type(n) is int for n in kept) or len({*kept}) < len(kept):
        cli.fail(f"--d_state={kept} does not fit: give different whole numbers, such as 16,8,4.")

    _start("truncate", values)
    from ssm_jax.trained.truncation import truncate_run
    from ssm_jax.training.runs.tables import print_truncation

    result, paths = truncate_run(workdir, kept, out=values["out"], argv=[*called, *argv], **source)
    print_truncation(result)
    print(*paths, sep="\n")
    return 0


def predict(argv: list[str], called: Sequence[str] = ("ssm-jax", "predict")) -> int:
    """Predict series of a file with the model of a run, whose data are not needed.

        ssm-jax predict runs/mine --input=new.npz --output=predicted.csv
        ssm-jax predict mine.safetensors --input=NAME_TEST.ts --output=predicted.npz

    Reads what training reads (.npz, .npy, .csv, .ts, .arff), in the same units; targets in it are
    not looked at. Writes class names and probabilities, or values in the units of the training
    file, and for each series the number that it has in the input.
    """
    del called
    about, endings = "file to write or to replace: .npz or .csv", (".npz", ".csv")
    flags = (
        replace(SOURCES[0], help="the folder of a run, WORKDIR/checkpoints/STEP, or .safetensors"),
        *SOURCES[1:],
        Flag("input", "series to predict: a file or a folder", kind=Path),
        Flag("output", about, kind=Path, writes="file", endings=endings),
        Flag("batch_size", "series at once, at most", 32, int, least=1),
    )
    values = cli.load_flags(argv, flags=flags, about=predict.__doc__)
    (path, source), output = _asked(values), values["output"]
    for name in ("input", "output"):
        if values[name] is None:
            cli.fail(f"--{name} is missing; give {'a file' if name == 'output' else 'series'}.")
    if output.exists() and values["input"].exists() and output.samefile(values["input"]):
        cli.fail(f"--output={output} is the series to predict, --input; give another name.")

    _start("predict", values)
    from ssm_jax.trained import load
    from ssm_jax.trained.series import predict_file

    predicted = predict_file(load(path, **source), values["input"], values["batch_size"])
    output.parent.mkdir(parents=True, exist_ok=True)
    predicted.write(output)
    print(f"{len(predicted.rows):,} series predicted; {output}")
    return 0


ENDINGS = {".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html"}


def report(argv: list[str], called: Sequence[str] = ("ssm-jax", "report")) -> int:
    """Print the table of the Long Range Arena: results of runs next to the published numbers.

        ssm-jax report runs/a runs/b                             # folders of runs, or one above
        ssm-jax report results/lra/*.json --out=lra.html         # copies of summary.json

    What cannot be read is said in a line and left out. Runs that diverged are shown, and are no
    part of a mean; a seed is counted once; reduced runs and data that are not official have their
    own rows.
    """
    about_runs = "folders of runs or one above them, copies of summary.json"
    flags = (
        Flag("runs", about_runs, kind=Path, words=True),
        Flag("format", "else as the ending of --out, else md", choices=tuple(ENDINGS.values())),
        Flag("out", "file to write or to replace; else the screen", kind=Path, writes="file"),
        Flag("published", "put the published rows below ours", True, bool),
    )
    values = cli.load_flags(argv, flags=flags, about=report.__doc__)
    from ssm_jax.report import FORMATS, collect, tabulate

    out = values["out"]
    table = tabulate(*collect(values["runs"]))
    name = values["format"] or ENDINGS.get(out.suffix if out else "", "md")
    text = FORMATS[name](table, published=values["published"])
    for line in table.remarks:
        print(f"warning: {line}", file=sys.stderr)
    if out is None:
        sys.stdout.write(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(out, text)
    return 0
