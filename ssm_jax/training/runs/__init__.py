"""A run opened to be read, finished or not: its experiment, and the state of any checkpoint.

Nothing is written and no lock is taken, so another process may train the run meanwhile.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ssm_jax.progress import warn
from ssm_jax.training.checkpoint import io, manifest
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch
from ssm_jax.training.experiment import Experiment, build
from ssm_jax.training.record import config_of, read_record
from ssm_jax.training.workdir import Workdir

# Why a checkpoint that is there is not the one that was saved: it is damaged, or another run's
UNUSABLE = (CheckpointError, ConfigMismatch, manifest.StateMismatch)


class Restorable(Protocol):
    """What `restore` asks of an experiment, or of less than one: of the weights of a model."""

    @property
    def identity(self) -> manifest.Identity: ...

    @property
    def ranking(self) -> io.Ranking: ...

    @property
    def parts(self) -> tuple[str, ...]: ...  # of the state that are read; (): all

    def abstract_state(self) -> Any: ...

    def chosen(self, state: Any) -> Any: ...  # what of a state is the result of the run


class Opened(NamedTuple):
    """A checkpoint as it was found; `lost` has "step" and "reason" of a better one that is lost."""

    state: Any  # a TrainState, or the parts of one
    meta: manifest.Meta
    lost: dict[str, Any] | None = None

    def warn(self) -> None:
        """Say in a line that the best one is lost, if it is."""
        if self.lost is not None:
            warn(
                f"the checkpoint of step {self.lost['step']}, which has the best evaluation, is "
                f"lost ({self.lost['reason']}); that of step {self.meta.step}, the next best, "
                "takes its place."
            )


def open_run(
    path: Path, asked: str, *, data_dir: Path, files: Path | None = None
) -> tuple[Mapping[str, Any], Experiment, Opened]:
    """The record, the experiment and a checkpoint of a run, in whose folder nothing is written.

    FileNotFoundError: there is no run, no checkpoint, or no data. ValueError: the record is not of
    this version, the data are not the run's, there is no such step. CheckpointError: it is damaged.
    """
    workdir = Workdir(path)
    record = read_record(workdir.record)
    choose_step(workdir.checkpoints, asked)  # before the data are opened
    cfg = config_of(record, workdir.record)
    experiment = build(cfg, data_dir=data_dir, files=files, to_read=True)
    dataset, data = experiment.dataset, record["data"]
    if dataset.fingerprint != data["fingerprint"]:
        raise ValueError(
            f"the run had other data: {data['fingerprint']} ({data['detail']}), and here are "
            f"{dataset.fingerprint} ({dataset.provenance.detail}); give the run's with --data_dir "
            "or --from."
        )
    return record, experiment, open_checkpoint(experiment, workdir.checkpoints, asked)


def choose_step(checkpoints: Path, asked: str) -> int:
    """The step that is asked for: "newest", a number, or "best".

    Which is best the newest checkpoint says (CheckpointError if it is damaged), though the step be
    lost. FileNotFoundError or ValueError: there is none, or no such one.
    """
    steps = io.list_steps(checkpoints) if checkpoints.is_dir() else []
    if not steps:
        raise FileNotFoundError(
            f"there is no checkpoint in {checkpoints} yet; evaluate after the first save."
        )
    listed = ", ".join(map(str, steps))
    if asked == "newest":
        return steps[-1]
    if asked == "best":
        try:
            best = io.read_meta(checkpoints / str(steps[-1]))[0].best
        except CheckpointError as error:
            raise _damaged(checkpoints, steps[-1], error) from error
        if best is None:
            raise ValueError(
                f"no evaluation had a finite result up to step {steps[-1]}, so no checkpoint is "
                f"the best; give --step=newest or one of {listed}."
            )
        return int(best["step"])
    if not asked.isdecimal():
        raise ValueError(f"--step={asked} does not fit: it must be best, newest or a number.")
    if int(asked) not in steps:
        raise ValueError(f"the step {int(asked)} is not in {checkpoints}; there are {listed}.")
    return int(asked)


def open_checkpoint(experiment: Restorable, checkpoints: Path, asked: str) -> Opened:
    """The checkpoint that is asked for; the next best with a warning, where the best is lost.

    With train.select_ema its parameters are the averages.

    ConfigMismatch or StateMismatch: it is not of this experiment. CheckpointError: it is damaged,
    and so is every one that could stand in for it. Else as `choose_step`.
    """
    while True:
        step = choose_step(checkpoints, asked)
        try:
            opened = restore(experiment, checkpoints, step, or_next=asked == "best")
        except CheckpointError as error:
            raise _damaged(checkpoints, step, error) from error
        # A run that is being trained drops its best step when it has found a better one.
        if opened.lost is None or choose_step(checkpoints, asked) == step:
            opened.warn()
            return opened._replace(state=experiment.chosen(opened.state))


def restore(experiment: Restorable, checkpoints: Path, step: int, *, or_next: bool) -> Opened:
    """The checkpoint of a step, or, with `or_next`, the best of the others where it is unusable.

    Raises an error of UNUSABLE, that of `step`, where none is sound.
    """
    errors: list[Exception] = []
    others = io.ranked_steps(checkpoints, experiment.ranking) if or_next else ()
    for each in dict.fromkeys((step, *others)):
        path = checkpoints / str(each)
        try:
            meta, described = io.read_meta(path)
            if lines := experiment.identity.differences(meta, "record"):
                raise ConfigMismatch(
                    f"the checkpoint of step {each} in {checkpoints} is not of the run that the "
                    f"record beside it describes: {'; '.join(lines)}."
                )
            target = experiment.abstract_state()
            state = io.read_state(path, described, target, experiment.parts)
        except UNUSABLE as error:
            errors.append(error)
            continue
        reasons = [" ".join(str(error).split()) for error in errors]
        return Opened(state, meta, {"step": step, "reason": reasons[0]} if errors else None)
    raise errors[0]


def _damaged(checkpoints: Path, step: int, error: CheckpointError) -> CheckpointError:
    if not (checkpoints / str(step)).is_dir():  # a run that is trained keeps only its newest ones
        return CheckpointError(f"the run has just dropped step {step}; give the command again.")
    others = [str(other) for other in io.list_steps(checkpoints) if other != step]
    advice = f"give --step={' or '.join(others)}" if others else "there is no other"
    return CheckpointError(
        f"the checkpoint of step {step} in {checkpoints} is damaged: {error}; {advice}."
    )
