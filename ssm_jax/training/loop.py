"""One run, from its start or from where it stopped, to its result."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.files import default_data_dir, parse_json
from ssm_jax.progress import Progress, say
from ssm_jax.stop import EXIT_STOPPED, Process, StopRequest
from ssm_jax.training import data_init, processes, restart
from ssm_jax.training.checkpoint import Checkpoints, CheckpointStore
from ssm_jax.training.checkpoint.io import host_copies
from ssm_jax.training.checkpoint.manifest import CheckpointError, Notes, describe
from ssm_jax.training.diagnose import Diagnostics, cut, numbers_of, write_arrays
from ssm_jax.training.experiment import Experiment, as_result, build
from ssm_jax.training.logs import MetricsLog, NoLog
from ssm_jax.training.optim import learning_rates
from ssm_jax.training.parent import Begin, begin_from, begun, find_parent, first_state
from ssm_jax.training.profile import Profile
from ssm_jax.training.runs import UNUSABLE, Opened, restore
from ssm_jax.training.runs.result import diverged, draw, mark_done, write_summary
from ssm_jax.training.runs.tables import parameter_table
from ssm_jax.training.sinks import Sink, TensorBoardSink, WandbSink
from ssm_jax.training.step import Metrics, TrainState
from ssm_jax.training.workdir import Workdir

EXIT_DONE = 0

# Is told of each evaluation but the last: its step, and the value that chooses the best checkpoint.
# A text says why the run should end here: it is saved and stopped as if by a signal.
Watch = Callable[[int, float], str]


def train_and_evaluate(
    experiment: Experiment,
    path: Path,
    *,
    wandb: str = "disabled",
    wandb_options: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    profile: int = 0,
    argv: Sequence[str] = (),
    fresh: bool = False,
    accept_log: bool = False,
    begin: Begin | None = None,
    watch: Watch | None = None,
) -> int:
    """Train, evaluate, choose the best checkpoint, and read the test split once.

    Stopped at any moment and called again it resumes from the newest good checkpoint, and every
    later number is equal bit for bit. A finished run is left as it is; one whose result is damaged
    is tested again. Returns EXIT_DONE, or EXIT_STOPPED after one of `stop.SIGNALS`.

    `wandb` is "disabled", "offline" or "online", and of its options there are project, entity,
    group and tags; `tensorboard`: files for it as well; `profile` traces that
    many steps, see `profile.Profile`; `argv` the command, for the record; `fresh`
    moves what a run has left in the folder to a subfolder; for `accept_log` and `begin` see
    `restart.find`; `watch` may end the run early, see `Watch`. Raises FloatingPointError if a loss
    or gradient is not finite, and WorkdirBusy, ConfigMismatch, StateMismatch, CheckpointError or
    RunDamaged.
    """
    experiment.check_memory()
    with (
        Workdir(path) as workdir,
        StopRequest() as stop,
        jax.set_mesh(experiment.mesh),
        open_run(
            experiment, workdir, stop, wandb=wandb, wandb_options=wandb_options,
            tensorboard=tensorboard, profile=profile, argv=argv, fresh=fresh,
            accept_log=accept_log, begin=begin, watch=watch,
        ) as opened,
    ):  # fmt: skip
        if opened is None:
            say(f"{path} is finished; its result is in {workdir.summary.name}.")
            return EXIT_DONE
        run, state, start = opened
        finished = run.train(state, start) and run.conclude()
        run.profile.close(argv)
    return EXIT_DONE if finished else EXIT_STOPPED


@contextlib.contextmanager
def open_run(
    experiment: Experiment,
    workdir: Workdir,
    stop: StopRequest,
    *,
    checkpoints: Checkpoints | None = None,
    wandb: str = "disabled",
    wandb_options: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    profile: int = 0,
    argv: Sequence[str] = (),
    fresh: bool = False,
    accept_log: bool = False,
    begin: Begin | None = None,
    watch: Watch | None = None,
) -> Iterator[tuple["OpenRun", TrainState, int] | None]:
    """A run with its files open, the state that it goes on from and its step; None if finished.

    `checkpoints` are where its states are kept while it is trained: by default in its folder. The
    other arguments and errors are those of `train_and_evaluate`.
    """
    cfg, path, leads = experiment.cfg, workdir.path, processes.first()
    processes.same(f"another experiment or other data in {path}", repr(experiment.identity))
    with contextlib.ExitStack() as open_until:
        if fresh:
            processes.agreed(lambda: restart.start_anew(workdir))
        if checkpoints is None:
            checkpoints = open_until.enter_context(
                CheckpointStore(
                    workdir.checkpoints,
                    keep=cfg.checkpoint.keep,
                    identity=experiment.identity,
                    ranking=experiment.ranking,
                )
            )
        found = restart.find(
            experiment, workdir, checkpoints, argv, accept_log=accept_log, begin=begin
        )
        if found is None:
            yield None
            return
        for line in experiment.describe(data_init.kept(workdir.start)):
            say(line)
        if leads:
            Console(stderr=True).print(parameter_table(experiment.rows))
        name, options = f"{config_lib.title_of(cfg)}-{path.name}", config_lib.flatten(cfg)
        sinks: list[Sink] = []
        if leads:
            sinks.append(
                WandbSink(wandb, workdir=path, config=options, run_name=name, given=wandb_options)
            )
        state, meta, stamps = found
        processes.same("another state to begin from", lambda: describe(host_copies(state)))
        if tensorboard and leads:
            sinks.append(TensorBoardSink(workdir.tensorboard, meta.step))
        first = functools.partial(first_state, experiment, path)

        def beginning() -> int:
            parent = find_parent(None, path)
            return parent.step if parent and parent.whole else 0

        def log_in(log: Path) -> MetricsLog:
            stamp = stamps.pop(log.name, None)
            return MetricsLog(log, meta.step, stamp) if leads else NoLog(log)

        log, timing = (
            open_until.enter_context(log_in(file)) for file in (workdir.metrics, workdir.timing)
        )
        profiled = open_until.enter_context(Profile(workdir.profile, profile if leads else 0))
        open_until.enter_context(processes.doubting())
        if leads:
            cut(workdir.diagnostics, meta.step)
        run = OpenRun(
            experiment, workdir, checkpoints, log, timing, sinks, stop, argv,
            Diagnostics(experiment, first),
            best=meta.best,
            window=meta.extra["window"],
            arrays=stamps,
            noted=bool(meta.identity),
            evaluated_at=meta.step if meta.evaluated else 0,
            first=processes.agreed(beginning),
            profile=profiled,
            watch=watch,
        )  # fmt: skip
        yield run, state, meta.step
    for sink in sinks:
        sink.close()


def train(
    cfg: ConfigDict,
    workdir: str | Path,
    *,
    data_dir: Path | None = None,
    files: Path | None = None,
    init_from: str | Path | None = None,
    init_match: str = "",
    continue_from: str | Path | None = None,
    **options: Any,
) -> dict[str, Any] | None:
    """Train the experiment that a config describes in a folder, or continue it there.

    Returns the run's summary.json, or None if it was stopped on request: the same call continues
    it. `init_from` is the folder of a run, with a step after a colon (best, newest or a number),
    whose parameters it begins with, those whose path `init_match` finds; `continue_from` one whose
    whole state it goes on from, for more steps or at other rates.

    `data_dir` is by default $SSM_JAX_DATA_DIR or ./data; `files` see `experiment.build`, and for
    the `options` and the errors `train_and_evaluate`.
    """
    Process.index = jax.process_index()
    begin = begin_from(init_from, init_match, continue_from)
    anew = bool(options.get("fresh"))
    cfg = begun(cfg, begin, Workdir(workdir).path, anew=anew)
    experiment = build(cfg, data_dir=data_dir or default_data_dir(), files=files)
    if train_and_evaluate(experiment, Path(workdir), begin=begin, **options) == EXIT_STOPPED:
        return None
    return processes.agreed(lambda: parse_json(Workdir(workdir).summary.read_text()))


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
    argv: Sequence[str]
    diagnostics: Diagnostics
    best: dict[str, Any] | None  # {"step", "value"} of the best evaluation so far
    window: dict[str, float]  # sums since the last line of the log
    arrays: dict[str, Any]  # stamps of the diagnostics, by name
    noted: bool  # whether the record says that a step was saved
    evaluated_at: int  # last step that was evaluated, and what was found there
    profile: Profile
    watch: Watch | None
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
                f"no evaluation had a finite {experiment.ranking[0]}; no checkpoint can be tested."
            )
        checkpoints, leads = self.workdir.checkpoints, processes.first()

        def restored(step: int, *, or_next: bool) -> Opened:
            return restore(experiment, checkpoints, step, or_next=or_next)

        try:
            if leads:
                opened = restored(self.best["step"], or_next=True)
            step = processes.agreed(lambda: opened.meta.step)
            if not leads:
                opened = restored(step, or_next=False)
        except UNUSABLE as error:
            raise CheckpointError(
                f"the checkpoint of step {self.best['step']}, which has the best evaluation, is "
                f"lost ({' '.join(str(error).split())}), and no other one can be tested; bring one "
                "back, or start anew with --fresh."
            ) from error
        opened.warn()
        chosen = {"best": self.best}
        if opened.lost is not None:
            value = opened.meta.metrics[experiment.ranking[0]]
            chosen = {
                "best": {"step": opened.meta.step, "value": value},
                "best_lost": {**opened.lost, "value": self.best["value"]},
            }
        state = experiment.chosen(opened.state)
        test = self._means_of(state, "test", "raw" if train.select_ema else "ema")
        if test is None:
            say(f"{self.stop.requested}: training is complete; the same command evaluates.")
            return False
        self.workdir.confirm()
        if leads:
            restart.check_record(experiment, self.workdir, self.argv, self.evaluated_at)
            found = as_result(experiment.cfg, opened.meta.metrics)
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
        self, step: int, metrics: Metrics, state: TrainState | None, progress: Progress
    ) -> None:
        """Take in the metrics of a step, which the device may already have left behind.

        The state is looked into if they are not finite.
        """
        experiment = self.experiment
        with self.profile.part("device"):
            values = {name: float(value) for name, value in metrics.items()}
        if not values.pop("ok"):
            assert state is not None
            raise diverged(experiment, self.workdir.crash, state, values, self.last_finite)
        self.last_finite = f"step {step}, {values['loss']:.4g}"
        progress.update(step, values["loss"], values[experiment.task.headline])
        for name, value in {**values, "steps": 1.0}.items():
            self.window[name] = self.window.get(name, 0.0) + value
        if step % experiment.cfg.log.every == 0 or step == experiment.total_steps:
            count = self.window.pop("steps")
            means = {name: total / count for name, total in self.window.items()}
            self.window = {}
            rates = learning_rates(experiment.rows, experiment.schedule, step - 1)
            self._write("train", step, {**means, **rates})
            if (rate := progress.steps_per_second()) is not None:
                self.timing.write("train", step, {"steps_per_second": rate})

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
        self.diagnose(state, step)

    def _unpromising(self, step: int) -> bool:
        """Whether the run should end at this evaluation, as who watches it says."""
        if self.watch is None or self.found is None or self.ends(step):
            return False
        why = self.watch(step, self.found[self.experiment.ranking[0]])
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
