"""The first state of a run: fresh, set by its data, or taken of the run that it begins from.

A run with a parent, or one whose data set parameters (`data_init`), keeps its first state in its
own folder, start/STEP, sealed as checkpoints are, and beside it start/parent.json or measured.json:
so it resumes, bit for bit, though the parent be trained further or gone.
"""

from pathlib import Path
from typing import Any

from ssm_jax.files import write_json
from ssm_jax.progress import say, warn
from ssm_jax.training import data_init, processes
from ssm_jax.training.checkpoint import CheckpointStore, io
from ssm_jax.training.checkpoint.manifest import CheckpointError
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.parent import Begin, describe, find_parent, read_parent, take
from ssm_jax.training.runs import UNUSABLE, restore
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import Workdir, sealed


def first_state(experiment: Experiment, path: Path) -> TrainState:
    """The state that the run in a folder began with; nothing is written.

    CheckpointError: it had a parent, and start/ is lost or damaged.
    """
    if not (experiment.cfg.parent or data_init.measures(experiment.cfg)):
        return experiment.fresh_state()
    try:
        return _kept_state(experiment, path)
    except CheckpointError:
        if experiment.cfg.parent:
            raise
        return data_init.initialized(experiment, experiment.fresh_state())[0]


def _kept_state(experiment: Experiment, path: Path) -> TrainState:
    """The first state in the folder of a run; CheckpointError: it is lost or damaged."""
    start = Workdir(path).start
    steps = io.list_steps(start) if start.is_dir() else []
    try:
        if not steps:
            raise CheckpointError("there is none")
        return restore(experiment, start, steps[-1], or_next=False).state
    except UNUSABLE as error:
        raise CheckpointError(
            f"the first state of the run, in {start}, is lost ({' '.join(str(error).split())}); "
            "bring it back, or give the command that began the run."
        ) from error


def begin_run(experiment: Experiment, workdir: Workdir, begin: Begin | None) -> TrainState:
    """The first state of a run, which is made and kept if it is not yet there.

    ValueError: what is asked for does not fit this model. CheckpointError: the parent is damaged.
    """
    measures = data_init.measures(experiment.cfg)
    if not (experiment.cfg.parent or measures):
        return experiment.fresh_state()
    kept, measured = read_parent(workdir.start), data_init.kept(workdir.start)
    noted = (kept is not None or not experiment.cfg.parent) and (
        measured is not None or not measures
    )
    try:
        state = _kept_state(experiment, workdir.path)
        if noted:
            return state
    except CheckpointError:
        if begin is None and experiment.cfg.parent:
            raise
    processes.meet()  # all have looked
    if not experiment.cfg.parent:
        state, rows = data_init.initialized(experiment, experiment.fresh_state())
        if measured is not None:
            warn(f"{workdir.start} was damaged, and was made again from the data.")
        _keep(experiment, workdir, state, 0, rows)
        return state
    parent = find_parent(begin, workdir.path, anew=True)
    if parent is None or parent.state != experiment.cfg.parent:
        found = f"is now {parent.state}" if parent else "is not given"
        raise ValueError(
            f"the run begins from another one ({experiment.cfg.parent}), which {found}; give it by "
            "--init_from or --continue_from."
        )
    assert begin is not None
    state, parent = take(experiment, begin, parent)
    rows = []
    if measures and not parent.whole:
        state, rows = data_init.initialized(experiment, state, keep=parent.taken)
    if kept is not None:
        warn(f"{workdir.start} was damaged, and was made again from {parent.run}.")
    _keep(experiment, workdir, state, parent.step if parent.whole else 0, rows)
    if processes.first():
        write_json(workdir.start / "parent.json", sealed(parent._asdict()))
    for line in describe(experiment, begin, parent):
        say(line)
    return state


def _keep(
    experiment: Experiment,
    workdir: Workdir,
    state: TrainState,
    step: int,
    found: data_init.Measured,
) -> None:
    """Keep a first state in the folder of its run; note and say what was measured for it."""
    with CheckpointStore(workdir.start, keep=1, identity=experiment.identity) as store:
        store.save(step, state, replace=True, final=True)
    if data_init.measures(experiment.cfg):
        if processes.first():
            data_init.keep(workdir.start, found)
        for line in data_init.describe(found):
            say(line)


def facts(path: Path) -> dict[str, Any]:
    """What the record of a run says of its parent, and of what was measured for its first state."""
    parent, measured = read_parent(start := Workdir(path).start), data_init.kept(start)
    found: dict[str, Any] = {} if parent is None else {"parent": parent._asdict()}
    return found if measured is None else {**found, "measured": measured}
