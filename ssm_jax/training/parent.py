"""The run that another one begins from: which it is, and what is taken of its state.

The option `parent` names what is taken, so that two runs from different ones are two experiments.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssm_jax import config as config_lib
from ssm_jax.files import local_path, parse_json
from ssm_jax.progress import warn
from ssm_jax.training.checkpoint import io
from ssm_jax.training.checkpoint.manifest import CheckpointError, flatten
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.optim import learning_rates
from ssm_jax.training.record import config_of, read_record
from ssm_jax.training.runs import choose_step
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import Workdir, document_checksum, run_and_step

# Of the model, what may differ from a run that is continued: neither shapes nor meanings change.
FREE = (
    "model.dropout", "model.tie_dropout", "model.remat", "model.activations", "model.precision",
)  # fmt: skip

# What acts at the initialization of parameters, and not otherwise
AT_START = (
    "model.alpha", "model.alpha_real", "model.init", "model.init_seed",
    "model.dt_min", "model.dt_max", "model.dt_rule", "model.dt_kappa", "model.dt_apply_to",
    "model.spectrum_steps", "model.s5.C_init", "model.s4.b_clip",
    "model.lru.r_min", "model.lru.r_max", "model.lru.max_phase", "model.dlinoss.r_min",
)  # fmt: skip

# What the arrays of a layer mean, where another one has arrays of the same names and shapes
MEANING = (
    "model.layer", "model.real_transform", "model.dt_transform", "model.discretization",
    "model.beta.unit", "model.linoss.scheme", "model.s4d.input_norm",
)  # fmt: skip


class Begin(NamedTuple):
    """What a command asks of another run."""

    run: Path
    step: str  # best, newest or a number
    match: str = ""  # regular expression of the paths that are taken; "": all
    whole: bool = False  # optimizer and step count as well: the run is continued


def begin_from(
    init_from: str | Path | None, match: str, continue_from: str | Path | None
) -> Begin | None:
    """What the flags of these names ask for; None if no other run.

    It is RUN, RUN:STEP or RUN/checkpoints/STEP.

    The step is the best if parameters are taken, the newest if the run is continued.
    """
    if init_from and continue_from:
        raise ValueError("--init_from and --continue_from exclude each other; give one of them.")
    if match and not init_from:
        raise ValueError(f"--init_match={match} goes with --init_from, which is not given.")
    try:
        re.compile(match)
    except re.error as error:
        raise ValueError(f"--init_match={match} is no regular expression: {error}.") from None
    asked = init_from or continue_from
    if not asked:
        return None
    whole, text = not init_from, str(asked)
    run, _, step = text.rpartition(":")
    if run and (step in ("best", "newest") or step.isdecimal()):
        return Begin(local_path(run), step, match, whole)
    path, step = run_and_step(local_path(text), "best")
    return Begin(path, "newest" if whole and step == "best" else step, match, whole)


def config_of_run(run: Path, workdir: Path | None) -> Any:
    """The config of another run, or of the one in `workdir`, if that other one is gone."""
    path = Workdir(run).record
    if workdir is not None and not path.is_file() and Workdir(workdir).record.is_file():
        path = Workdir(workdir).record
    return config_lib.altered(config_of(read_record(path), path), {"parent": ""})


def idle_with(begin: Begin, options: Iterable[str], *, learns_beta: bool = False) -> list[str]:
    """Those of some options that change nothing in a run that takes all parameters of another."""
    idle = {*AT_START, "model.beta.init"} if learns_beta else AT_START
    return [] if begin.whole or begin.match else [key for key in options if key in idle]


class Parent(NamedTuple):
    """The run that another begins from, as its record has it."""

    run: str  # its folder's name
    asked: str  # the step, as in `Begin`
    match: str
    whole: bool
    config_digest: str
    step: int
    state: str  # names what is taken: the option `parent`
    taken: tuple[str, ...] = ()  # paths
    left: Mapping[str, str] = {}  # why, by path


def find_parent(begin: Begin | None, workdir: Path, *, anew: bool = False) -> Parent | None:
    """The parent that a command asks for, or that of the run in `workdir` if it is the same.

    Without `begin` it is that of the run in `workdir`, if there is one. `anew`: do not look there.
    FileNotFoundError or ValueError: there is no such run or step. CheckpointError: it is damaged.
    """
    own = None if anew else read_parent(workdir / "start")
    if begin is None:
        return own
    asked = begin.run.absolute().name, begin.step, begin.match, begin.whole
    if own is not None and own[:4] == asked:
        return own
    record, checkpoints = read_record(Workdir(begin.run).record), Workdir(begin.run).checkpoints
    step = choose_step(checkpoints, begin.step)
    _, described = io.read_meta(checkpoints / str(step))
    leaves = zlib.crc32(json.dumps(described, sort_keys=True).encode())
    what = f"matching {begin.match}" if begin.match else "all"
    name = f"config {record['config_digest']}, step {step}, state {leaves:08x}: "
    name += "continued" if begin.whole else what
    return Parent(*asked, record["config_digest"], step, name)


def begun(cfg: Any, begin: Begin | None, workdir: Path, *, anew: bool = False) -> Any:
    """The config with the state that its run begins from, if it begins from another run.

    Arguments and errors as of `find_parent`.
    """
    if (parent := find_parent(begin, workdir, anew=anew)) is None:
        return cfg
    return config_lib.altered(cfg, {"parent": parent.state})


def read_parent(folder: Path) -> Parent | None:
    """The parent of the run with this folder `start`; None if there is none, or it is damaged."""
    try:
        document = parse_json((folder / "parent.json").read_bytes())
        if document.pop("crc32") != document_checksum(document):
            return None
        return Parent(**document | {"taken": tuple(document["taken"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def take(experiment: Experiment, begin: Begin, parent: Parent) -> tuple[TrainState, Parent]:
    """The fresh state with what is taken of the parent, and the lists of what is and is not."""
    folder = Workdir(begin.run).checkpoints / str(parent.step)
    try:
        arrays = io.read_arrays(folder, io.read_meta(folder)[1])
    except CheckpointError as error:
        raise CheckpointError(
            f"the checkpoint of step {parent.step} in {folder.parent} is damaged: {error}."
        ) from error
    fresh = experiment.fresh_state()
    table = flatten(fresh)
    if begin.whole:
        _check_whole(experiment, begin, parent)
    found = {_unchained(path): a for path, a in arrays.items()}
    if not begin.whole and read_record(Workdir(begin.run).record)["config"].get("train.select_ema"):
        found |= {path.removeprefix("ema/"): a for path, a in arrays.items() if path[:4] == "ema/"}
    values, taken, left, other = dict(table), list[str](), dict[str, str](), list[str]()
    if begin.whole:
        # Adam has one count for a group: with that of the others the moments of a parameter that
        # was frozen would count as whole ones, and move it by up to 6.6 times its rate.
        lacking = {_group_of(path) for path in table if _unchained(path) not in found} - {""}
        left |= dict.fromkeys(sorted(lacking), "moments anew, as the parent lacks some")
    for full, leaf in table.items():
        section, _, path = full.partition("/")
        if not begin.whole and (section == "params" or path in experiment.statistics):
            asked = re.search(begin.match, path) is not None
        else:
            asked = begin.whole and section != "ok" and _group_of(full) not in left
        array = found.get(_unchained(full))
        if array is None and section == "ema":  # it starts from the parameters
            array = found.get(path)
        if not asked:
            if section == "params":
                left[path] = "not asked for"
        elif array is None:
            left[path or section] = "not in the parent"
        elif (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            other.append(f"{path} is {leaf.shape} here and {array.shape} there")
        else:
            values[full] = experiment.replicate(array)
            taken.append(path if section == "params" else full)
    if other:
        paths = "|".join(re.escape(line.partition(" ")[0]) for line in other)
        way = f"--init_match='^(?!({paths})$)' leaves them as they are initialized"
        if len(other) > 12:
            way = "It is a model of another size; name what to take by --init_match=REGEX"
        way = "Only --init_from can take the rest" if begin.whole else way
        more = f"; and {len(other) - 6} more" if other[6:] else ""
        raise ValueError(f"{begin.run} has other shapes: {'; '.join(other[:6])}{more}. {way}.")
    if not begin.whole and any("/ssm/" in path for path in taken):
        _check_meaning(experiment, begin)
    if begin.whole and (lost := [path for path in left if path in experiment.paths]):
        raise ValueError(f"{begin.run} has no {', '.join(lost)}; --init_from takes what it has.")
    if not any(path in experiment.paths for path in taken):
        raise ValueError(
            f"{begin.run} has no parameter of this model that matches {begin.match!r}; there are "
            f"{', '.join(sorted(experiment.paths)[:8])} ..."
        )
    for full in found.keys() - table.keys():
        if full.startswith("params/"):
            left[full.removeprefix("params/")] = "has no place here"
    if not begin.whole:
        for full in table:
            if full.startswith("ema/"):
                own = np.asarray(values[full.removeprefix("ema/")])
                values[full] = experiment.replicate(own.copy())
    state: TrainState = jax.tree.unflatten(jax.tree.structure(fresh), values.values())
    return _with_counts(state), parent._replace(taken=tuple(taken), left=left)


def _unchained(path: str) -> str:
    """A path without the number of a link: clipping is one more in the optimizer's chain."""
    return re.sub(r"^opt_state/\d+/", "opt_state/", path)


def _group_of(path: str) -> str:
    """The group of parameters to whose moments, or their count, a path belongs; "" if to none."""
    found = re.match(r"opt_state/inner_states/([^/]+)/inner_state/0/", _unchained(path))
    return f"group {found[1]}" if found else ""


def _with_counts(state: TrainState) -> TrainState:
    """The state, in which the schedules count the steps of the state itself.

    A group whose schedule or freezing has changed has no count of its own in the parent.
    """

    def counted(link: Any) -> Any:
        if not isinstance(link, optax.ScaleByScheduleState):
            return link
        return link._replace(count=jnp.copy(state.step))

    def is_link(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    links = jax.tree.map(counted, state.opt_state, is_leaf=is_link)
    return dataclasses.replace(state, opt_state=links)


def _check_meaning(experiment: Experiment, begin: Begin) -> None:
    """Refuse arrays of layers that stand for other numbers there than here."""
    theirs, ours = read_record(Workdir(begin.run).record)["config"], experiment.identity.options
    keys = [k for k in MEANING if k in ours and k in theirs and ours[k] != theirs[k]]
    if other := [f"{key}={ours[key]} (there {theirs[key]})" for key in keys]:
        raise ValueError(
            f"the arrays of the layers of {begin.run} mean other numbers with {', '.join(other)}; "
            "leave that, or take the rest alone: --init_match='^(?!.*/ssm/)'."
        )


def _check_whole(experiment: Experiment, begin: Begin, parent: Parent) -> None:
    """Refuse to continue a run with another model, or without a step more."""
    record, ours = read_record(Workdir(begin.run).record), experiment.identity.options
    theirs = record["config"]
    keys = [k for k in theirs if k.startswith("model.") and k in ours and k not in FREE]
    if other := [f"{k}={ours[k]} (there {theirs[k]})" for k in keys if theirs[k] != ours[k]]:
        raise ValueError(
            f"--continue_from={begin.run} goes on with the same model, and here are "
            f"{', '.join(other)}; leave them, or take its parameters alone by --init_from."
        )
    classes = [_classes(facts) for facts in (experiment.built_from, record.get("built_from"))]
    if all(classes) and classes[0] != classes[1]:
        raise ValueError(
            f"--continue_from={begin.run} goes on with its classes, {', '.join(classes[1])}, and "
            f"the data have {', '.join(classes[0])}; give the data that it was trained on."
        )
    if record["data"]["fingerprint"] != experiment.dataset.fingerprint:
        warn(f"the data are not those of {begin.run}, whose training goes on with them.")
    if experiment.total_steps <= parent.step:
        raise ValueError(
            f"{begin.run} is at step {parent.step:,}, and training ends at step "
            f"{experiment.total_steps:,}; give a larger train.steps or train.epochs."
        )


def _classes(built_from: Mapping[str, Any] | None) -> list[str]:
    """The names of the classes of a user's series, in their order; [] without such."""
    kept = (built_from or {}).get("preprocessing") or {}
    return list(kept.get("classes") or ())


def describe(experiment: Experiment, begin: Begin, parent: Parent) -> list[str]:
    """What was taken and what not; of a run that is continued, the learning rates from now on."""
    theirs, ours = read_record(Workdir(begin.run).record)["config"], experiment.identity.options
    changed = [key for key in theirs if key in ours and theirs[key] != ours[key]]
    if idle := idle_with(begin, changed, learns_beta=bool(ours["model.beta.learn"])):
        warn(
            f"{', '.join(idle)}: they act at initialization, and all parameters are taken from "
            f"{begin.run}, so they change nothing; --init_match says which to take."
        )
    numbers = sum(experiment.paths[path] for path in parent.taken if path in experiment.paths)
    reasons: dict[str, list[str]] = {}
    for path, why in parent.left.items():
        reasons.setdefault(why, []).append(path)
    left = [
        f"{why}: {', '.join(paths[:6])}{f' and {len(paths) - 6} more' if paths[6:] else ''}"
        for why, paths in reasons.items()
    ]
    what = "the whole state" if parent.whole else f"{len(parent.taken)} arrays"
    lines = [
        f"begins from {parent.run}, step {parent.step:,} (config {parent.config_digest}): {what}, "
        f"{numbers:,} of {sum(experiment.paths.values()):,} parameters; "
        + ("; ".join(left) or "nothing is left out")
        + "."
    ]
    if parent.whole:
        last = read_metrics(Workdir(begin.run).metrics, "train")
        rates = learning_rates(experiment.rows, experiment.schedule, parent.step)
        name = "lr/rest" if "lr/rest" in rates else min(rates)
        seen = [row[name] for row in last if name in row and row["step"] <= parent.step]
        before = f"{seen[-1]:.3g}" if seen else "unknown"
        lines.append(
            f"learning rate of {name[3:]}: {before} at the end of {parent.run}, "
            f"{rates[name]:.3g} from step {parent.step + 1:,} on, {experiment.schedule_says}."
        )
    return lines
