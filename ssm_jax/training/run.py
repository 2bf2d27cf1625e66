"""A run between its first step and its result: what is done at each step, and with its files."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.progress import Progress, say, warn
from ssm_jax.stop import StopRequest
from ssm_jax.tasks import ANY
from ssm_jax.training import processes, restart
from ssm_jax.training.checkpoint import Checkpoints
from ssm_jax.training.checkpoint.manifest import Notes
from ssm_jax.training.diagnose import Diagnostics, numbers_of, write_arrays
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import MetricsLog
from ssm_jax.training.optim import learning_rates
from ssm_jax.training.parent import Begin
from ssm_jax.training.profile import Profile
from ssm_jax.training.result import diverged, draw, mark_done, open_best, write_summary
from ssm_jax.training.sinks import MODES, Sink
from ssm_jax.training.step import Metrics, TrainState
from ssm_jax.training.workdir import Workdir

# Is told of each evaluation but the last: its step, and the value that chooses the best checkpoint.
# A text says why the run should end here: it is saved and stopped as if by a signal.
Watch = Callable[[int, float], str]


@dataclass(frozen=True)
class Request:
    """What a command asks of a run besides its experiment; no number of the run depends on it.

    `begin` apart: it names the run whose state this one begins with, as the option `parent` does.
    """

    wandb: str = "disabled"  # or "offline", "online"
    wandb_options: Mapping[str, Any] | None = None  # of project, entity, group and tags
    tensorboard: bool = False  # write files for it as well
    profile: int = 0  # trace that many steps, see `profile.Profile`
    argv: Sequence[str] = ()  # the command, for the record
    fresh: bool = False  # move what a run has left in the folder to a subfolder
    accept_log: bool = False  # see `restart.find`
    begin: Begin | None = None  # see there
    watch: Watch | None = None  # may end the run early

    def __post_init__(self) -> None:
        if self.wandb not in MODES:
            raise ValueError(
                f"unknown wandb mode {self.wandb!r}; choose one of {', '.join(MODES)}."
            )


USUAL = Request()
_NONE = "without target"  # of the window: how many of its steps


@dataclass
class OpenRun:
    """The files of a run, and what it carries from step to step besides the state."""

    experiment: Experiment
    workdir: Workdir
    store: Checkpoints
    log: MetricsLog
    timing: MetricsLog  # steps per second: depends on the clock, so kept out of the log
    sinks: Sequence[Sink]
    stop: StopRequest
    request: Request
    diagnostics: Diagnostics
    best: dict[str, Any] | None  # {"step", "value"} of the best evaluation so far
    window: dict[str, float]  # sums since the last line of the log
    arrays: dict[str, Any]  # stamps of the diagnostics, by name
    noted: bool  # whether the record says that a step was saved
    evaluated_at: int  # last step that was evaluated, and what was found there
    profile: Profile
    first: int  # step that it began with, which is not 0 for one that continues another
    found: dict[str, float] | None = None
    last_finite: str = "none"  # the last step with a finite loss, and that

    def train(self, state: TrainState, start: int) -> bool:
        """Train to the last step; False if stopped before, with everything saved."""
        experiment, cfg, total = self.experiment, self.experiment.cfg, self.experiment.total_steps
        if start and self.evaluated_at != start and (self.due(start) or start == self.first):
            # Stopped during this evaluation: the step is on the disk without its result. Or the
            # run continues another, whose last state is a candidate too.
            if not self._evaluate(state, start):
                return False
            self.save(start, state, replace=True, final=self.ends(start))
            if self._unpromising(start):
                say(f"{self.stop.requested}: training ends at step {start:,}.")
                return False
        if start >= total or (start and self.evaluated_at == start and self.ends(start)):
            return True
        if start == 0:
            self.diagnose(state, 0)
        batches = experiment.train_batches(start)
        unread: tuple[int, Metrics] | None = None
        with Progress("train", total, start=start, metric=experiment.task.headline) as progress:
            for step in range(start + 1, total + 1):
                with self.profile.step(step):
                    with self.profile.part("input"):
                        batch = experiment.place_batch(next(batches))
                    with self.profile.part("compilation"):
                        train_step = experiment.step_for(batch, training=True)
                    with self.profile.part("dispatch"):
                        state, metrics = train_step(state, experiment.key, batch)
                    self.profile.dispatched(metrics)
                # Metrics of step k are read after step k + 1 is dispatched: no waiting in between.
                if unread is not None:
                    self.read(*unread, state, progress)
                unread = (step, metrics)
                stopping = self.stop.poll(step)
                if not (stopping or self.due(step) or step % cfg.checkpoint.every == 0):
                    continue
                self.read(*unread, state, progress)
                unread = None
                if self.due(step) and not stopping:
                    stopping = not self._evaluate(state, step) or self._unpromising(step)
                ended = self.evaluated_at == step and self.ends(step)
                self.save(step, state, final=stopping or ended)
                if stopping:
                    say(f"{self.stop.requested}: saved step {step:,}; the same command goes on.")
                    return False
                if ended:
                    break
        if step < total:
            say(
                f"{cfg.train.patience} evaluations without a better {cfg.train.select_split} "
                f"{experiment.ranking[0]}: training ends at step {step:,} of {total:,}."
            )
        return True

    def conclude(self) -> bool:
        """Read the test split once, with the best checkpoint; write the result and the figures."""
        experiment, train = self.experiment, self.experiment.cfg.train
        if self.best is None:
            raise FloatingPointError(
                f"no evaluation had a finite {train.select_split} {experiment.ranking[0]}, so no "
                "checkpoint can be tested; give another train.select_metric with a new --workdir, "
                "or evaluate with --step=newest."
            )
        leads = processes.first()
        opened, chosen = open_best(experiment, self.workdir, self.best)
        opened.warn()
        state = experiment.chosen(opened.state)
        test = self._means_of(state, "test", "raw" if train.select_ema else "ema")
        if test is None:
            say(f"{self.stop.requested}: training is complete; the same command evaluates.")
            return False
        self.workdir.confirm()
        if leads:
            restart.check_record(experiment, self.workdir, self.request.argv, self.evaluated_at)
            found = config_lib.as_result(experiment.cfg, opened.meta.metrics)
            write_summary(experiment, self.workdir, test, found, chosen, self.evaluated_at)
        with self.profile.part("figures"):
            figures = draw(experiment, self.workdir, state) if experiment.cfg.figures else []
        if not leads:
            return True
        for figure in figures:
            say(f"figure: {figure}")
        mark_done(experiment, self.workdir, test, self.stamps())
        for sink in self.sinks:
            sink.write("test", self.evaluated_at, test)
            sink.draw(self.evaluated_at, figures)
        headline, facts = experiment.task.headline, experiment.dataset.facts("test").items()
        beside = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in facts)
        say(
            f"test {headline} {test[headline]:.4f}{f' ({beside})' if beside else ''} at "
            f"step {opened.meta.step:,}, which has the {'next ' if opened.lost else ''}best "
            f"{train.select_split} {experiment.ranking[0]}; all results: {self.workdir.summary}"
        )
        return True

    def due(self, step: int) -> bool:
        """Whether an evaluation belongs to this step."""
        return step % self.experiment.eval_every == 0 or step == self.experiment.total_steps

    def ends(self, step: int) -> bool:
        """Whether training ends at an evaluated step: the last, or patience has come to its end."""
        # All that counts is in the checkpoint: the best step, and the rhythm of evaluations.
        patience, every = self.experiment.cfg.train.patience, self.experiment.eval_every
        since = max(self.first, self.best["step"] if self.best else 0)
        impatient = patience > 0 and step // every - since // every >= patience
        return impatient or step == self.experiment.total_steps

    def read(
        self,
        step: int,
        metrics: Metrics,
        state: TrainState | None,
        progress: Progress,
        *,
        shown: bool = True,
    ) -> None:
        """Take in the metrics of a step, which the device may already have left behind.

        The state is looked into if they are not finite. `shown`: `progress` is of this run alone.
        """
        experiment = self.experiment
        with self.profile.part("device"):
            values = {name: float(value) for name, value in metrics.items()}
        if not values.pop("ok"):
            assert state is not None
            raise diverged(experiment, self.workdir.crash, state, values, self.last_finite)
        none = {_NONE: 1.0} if values.pop(ANY, 1.0) < 0.5 else {}
        self.last_finite = f"step {step}, {values['loss']:.4g}"
        if shown:
            progress.update(step, values["loss"], values[experiment.task.headline])
        for name, value in {**values, **none, "steps": 1.0}.items():
            self.window[name] = self.window.get(name, 0.0) + value
        if step % experiment.cfg.log.every == 0 or step == experiment.total_steps:
            self._write_means(step)
            if (rate := progress.steps_per_second()) is not None:
                self.timing.write("train", step, {"steps_per_second": rate})

    def _write_means(self, step: int) -> None:
        """Write the line of training: the means over the steps since the last one."""
        # A batch without a target has a gradient, of 0, and else only zeros that mean nothing
        count, none_n = self.window.pop("steps"), self.window.pop(_NONE, 0.0)
        some = count - none_n or math.nan
        means = {
            name: total / (count if name == "grad_norm" else some)
            for name, total in self.window.items()
        }
        self.window = {}
        rates = learning_rates(self.experiment.rows, self.experiment.schedule, step - 1)
        self._write("train", step, {**means, **rates})

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self.log.write(kind, step, values)
        for sink in self.sinks:
            sink.write(kind, step, values)

    def _means_of(
        self, state: TrainState, split: str, other: str = "ema"
    ) -> dict[str, float] | None:
        """Means over a split, of the averages beside as OTHER_...; None if asked to stop."""
        found: dict[str, float] = {}
        for prefix, title, averaged in evaluated(split, state.ema is not None, other):
            each = state.averaged() if averaged else state
            with self.profile.part("evaluation"):
                means = self.experiment.means(each, split, self.stop.asked, title)
            if means is None:
                return None
            found |= {f"{prefix}{name}": value for name, value in means.items()}
        return found

    def _evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluate on the selection split and note the result; False if asked to stop meanwhile."""
        found = self._means_of(state, self.experiment.cfg.train.select_split)
        if found is None:
            return False
        self.take(found, state, step)
        return True

    def take(self, found: dict[str, float], state: TrainState | None, step: int) -> None:
        """Note the result of an evaluation on the selection split, and measure the state."""
        train, self.found = self.experiment.cfg.train, found
        value = self.found[self.experiment.ranking[0]]
        sign = 1 if self.experiment.ranking[1] == "max" else -1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best["value"]):
            self.best = {"step": step, "value": value}
        elif self.best is None:  # to its end it may be days
            warn(
                f"{train.select_split} {self.experiment.ranking[0]} is {value} at step {step:,}, "
                "which chooses no checkpoint; a run without a finite one has no result. Look at "
                f"the targets of {train.select_split}, or give another train.select_metric."
            )
        known, epoch = self.experiment.cfg.reference, step / self.experiment.order.steps_per_epoch
        accuracy, bound = self.found.get("accuracy", 0.0), known.accuracy - known.margin
        if known.accuracy != 0 and epoch >= known.epoch and accuracy < bound:
            say(
                f"WARNING: {train.select_split} accuracy {accuracy:.3f} after {epoch:.1f} epochs "
                f"is far below the published {known.accuracy:.2f} at epoch {known.epoch:g}; look "
                "at the options, the data and the curves before going on."
            )
        kind = "train_eval" if train.select_split == "train" else train.select_split
        self._write(kind, step, self.found)
        self.evaluated_at = step
        if self.window and self.ends(step):  # patience has, between two lines
            self._write_means(step)
        self.diagnose(state, step)

    def _unpromising(self, step: int) -> bool:
        """Whether the run should end at this evaluation, as who watches it says."""
        if self.request.watch is None or self.found is None or self.ends(step):
            return False
        why = self.request.watch(step, self.found[self.experiment.ranking[0]])
        self.stop.requested = why or self.stop.requested
        return bool(why)

    def diagnose(self, state: TrainState | None, step: int) -> None:
        """Note what has become of the layers, unless it is not wanted."""
        log = self.experiment.cfg.log
        if not log.diagnostics or state is None:
            return
        with self.profile.part("diagnostics"):
            arrays = self.diagnostics.of(state, gradient=log.gradient)
        if (row := numbers_of(arrays)) and processes.first():
            self.workdir.confirm()
            stamp = write_arrays(self.workdir.diagnostics, step, arrays)
            self.arrays[f"{self.workdir.diagnostics.name}/{step}.npz"] = stamp
            self._write("diagnostics", step, row)

    def save(self, step: int, state: TrainState | None, **ways: bool) -> None:
        """Save, after the log is on the disk: a restart can cut its lines, it cannot add any."""
        self.workdir.confirm()
        self.log.flush()
        self.timing.flush()
        found = self.found if self.evaluated_at == step else None
        notes = Notes(found, self.best, self.window, self.stamps())
        with self.profile.part("checkpoint"):
            self.store.save(step, state, notes, **ways)
        if not self.noted and processes.first() and (saved := self.store.steps()):
            self.noted = restart.note_saved(self.workdir, saved[0])

    def stamps(self) -> dict[str, Any]:
        """The stamps of all that the run has written so far, by name."""
        return {**{log.path.name: log.stamp() for log in (self.log, self.timing)}, **self.arrays}


def evaluated(split: str, averages: bool, other: str = "ema") -> Iterator[tuple[str, str, bool]]:
    """What is evaluated: (beginning of the names, title, whether it is the averages).

    With averages both, of which those that have changed their places with the state (`averaged`)
    are called OTHER_...: "ema", or "raw" where the state already is the averages.
    """
    yield "", f"{split} (ema)" if averages and other == "raw" else split, False
    if averages:
        yield f"{other}_", f"{split} ({other})", True
