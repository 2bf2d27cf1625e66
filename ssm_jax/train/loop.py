"""One run, from start or from where it stopped, to its result."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ssm_jax import config as config_lib
from ssm_jax.data.loader import batch_indices, eval_batches, train_batches
from ssm_jax.train.checkpoint import CheckpointStore, Meta
from ssm_jax.train.console import Progress, parameter_table
from ssm_jax.train.experiment import Experiment, timed_compile
from ssm_jax.train.logs import MetricsLog, WandbSink, open_wandb, read_metrics
from ssm_jax.train.record import run_record
from ssm_jax.train.state import TrainState
from ssm_jax.train.step import non_finite_leaves
from ssm_jax.train.workdir import StopRequest, Workdir, write_json_atomic
from ssm_jax.tasks import mean_metrics

EXIT_DONE = 0
EXIT_STOPPED = 75  # EX_TEMPFAIL: saved on request; the same command goes on. Schedulers requeue on it.


def say(text: str) -> None:
    """A line for the person who watches, on stderr."""
    print(text, file=sys.stderr, flush=True)


def train_and_evaluate(
    experiment: Experiment,
    path: Path,
    *,
    wandb: str = "disabled",
    argv: Sequence[str] = (),
) -> int:
    """Train, evaluate, choose the best checkpoint, and read the test split once.

    Stopped at any moment and called again it goes on from the newest good checkpoint, and every later number is equal to
    the bit. A finished run is left as it is.

    Args:
      experiment: see `experiment.build`.
      path: the run's folder.
      wandb: "disabled", "offline" or "online".
      argv: the command, for the record.

    Returns:
      EXIT_DONE, or EXIT_STOPPED after SIGTERM or Ctrl-C.

    Raises:
      FloatingPointError: a loss or gradient is not finite.
      WorkdirBusy, ConfigMismatch, StateMismatch, CheckpointError: see those.
    """
    with Workdir(path) as workdir, StopRequest() as stop:
        store = CheckpointStore(
            workdir.checkpoints,
            keep=experiment.cfg.checkpoint.keep,
            best_metric=experiment.cfg.train.select_metric,
            best_mode="max" if experiment.cfg.train.select_metric == "accuracy" else "min",
            identity=config_lib.identity(experiment.cfg),
            data_fingerprint=experiment.dataset.fingerprint,
        )
        with store, jax.set_mesh(experiment.mesh):
            restored = store.restore_newest(experiment.abstract_state())
            if workdir.done:
                say(f"{path} is finished; its result is in {workdir.summary.name}.")
                return EXIT_DONE
            for line in experiment.describe():
                say(line)
            parameter_table_to_stderr(experiment)
            state, meta = restored or (experiment.fresh_state(), None)
            start = meta.step if meta else 0
            if meta is None:
                write_json_atomic(workdir.record, record(experiment, argv))
            else:
                say(f"going on from step {start:,} of {experiment.total_steps:,}.")
            sink = open_wandb(
                wandb,
                workdir=workdir.path,
                config=config_lib.flatten(experiment.cfg),
                run_name=f"{experiment.cfg.name}-{workdir.path.name}",
            )
            with (
                MetricsLog(workdir.metrics, start) as log,
                MetricsLog(workdir.path / "timing.jsonl", start) as timing,
            ):
                run = _Run(experiment, workdir, store, log, timing, sink, stop, meta)
                finished = run.train(state, start) and run.conclude()
            sink.close()
            return EXIT_DONE if finished else EXIT_STOPPED


def record(experiment: Experiment, argv: Sequence[str]) -> dict[str, Any]:
    """The run record of an experiment."""
    cfg, dataset = experiment.cfg, experiment.dataset
    data = {"fingerprint": dataset.fingerprint, **dataset.provenance.as_dict()}
    return run_record(config_lib.flatten(cfg), config_lib.digest(cfg), cfg.seed, data, argv)


def parameter_table_to_stderr(experiment: Experiment) -> None:
    """Print the groups of parameters."""
    from rich.console import Console

    Console(stderr=True).print(parameter_table(experiment.rows))


class _Run:
    """What the loop carries besides the state: its files, its best result, and the sums since the last log line."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: Workdir,
        store: CheckpointStore,
        log: MetricsLog,
        timing: MetricsLog,
        sink: WandbSink,
        stop: StopRequest,
        meta: Meta | None,
    ):
        self.experiment = experiment
        self.workdir = workdir
        self.store = store
        self.log = log
        self.timing = timing
        self.sink = sink
        self.stop = stop
        self.best: dict[str, Any] | None = meta.best if meta else None
        self.evaluated = bool(meta and meta.evaluated)
        # Sums of the metrics since the last log line; in the checkpoint, so that a resumed run logs the same means.
        self.window: dict[str, float] = dict(meta.extra["window"]) if meta else {}
        self.last_finite: tuple[int, float] | None = None
        self.eval_step, seconds = timed_compile(experiment.compile_eval_step)
        say(f"compiled the evaluation in {seconds:.1f} s.")

    def train(self, state: TrainState, start: int) -> bool:
        """Train to the last step; False if stopped before."""
        experiment, cfg = self.experiment, self.experiment.cfg
        total = experiment.total_steps
        if start and self._due(start) and not self.evaluated:
            if not self._evaluate_and_save(state, start, replace=True):
                return False
        if start >= total:
            return True
        train_step, seconds = timed_compile(experiment.compile_train_step)
        say(f"compiled the training step in {seconds:.1f} s.")
        batches = train_batches(experiment.dataset, "train", cfg.batch_size, cfg.seed, start)
        pending: tuple[int, Mapping[str, jax.Array]] | None = None
        with Progress("train", total, start=start) as progress:
            for step in range(start + 1, total + 1):
                state, metrics = train_step(
                    state, experiment.key, experiment.place_batch(next(batches))
                )
                # The metrics of step k are read after step k + 1 is dispatched: the device never waits for the host.
                if pending is not None:
                    self._read(*pending, state, progress)
                pending = (step, metrics)
                stopping = self.stop.poll(step)
                if self._due(step) or stopping or step % cfg.checkpoint.every == 0:
                    self._read(*pending, state, progress)
                    pending = None
                    if stopping or not self._due(step):
                        self._save(step, state)
                    elif not self._evaluate_and_save(state, step):
                        stopping = True
                    if stopping:
                        self.store.wait()
                        say(f"{self.stop.requested}: saved step {step:,}; the same command goes on.")
                        return False
        return True

    def _due(self, step: int) -> bool:
        """Whether an evaluation belongs to this step."""
        return step % self.experiment.eval_every == 0 or step == self.experiment.total_steps

    def _read(
        self, step: int, metrics: Mapping[str, jax.Array], state: TrainState, progress: Progress
    ) -> None:
        """Take in the metrics of a step, which may already be behind the device."""
        values = {name: float(value) for name, value in metrics.items()}
        if not values.pop("ok"):
            self._diverged(step, values, state)
        self.last_finite = (step, values["loss"])
        progress.update(step, values["loss"], values["accuracy"])
        for name, value in {**values, "steps": 1.0}.items():
            self.window[name] = self.window.get(name, 0.0) + value
        if step % self.experiment.cfg.log.every == 0:
            count = self.window.pop("steps")
            means = {name: total / count for name, total in self.window.items()}
            self.window = {}
            self.log.write("train", step, means)
            self.sink.write("train", step, means)
            if (rate := progress.steps_per_second()) is not None:
                self.timing.write("train", step, {"steps_per_second": rate})

    def evaluate(self, state: TrainState, split: str) -> dict[str, float] | None:
        """Means over every example of a split; None if asked to stop meanwhile."""
        experiment = self.experiment
        total = -(-experiment.dataset.size(split) // experiment.eval_batch_size)
        sums: dict[str, float] = {}
        with Progress(split, total) as progress:
            batches = eval_batches(experiment.dataset, split, experiment.eval_batch_size)
            for number, batch in enumerate(batches, start=1):
                found = self.eval_step(state.params, state.stats, experiment.place_batch(batch))
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                means = mean_metrics(sums)
                progress.update(number, means["loss"], means["accuracy"])
                if self.stop.requested is not None:
                    return None
        return mean_metrics(sums)

    def _evaluate_and_save(self, state: TrainState, step: int, *, replace: bool = False) -> bool:
        """Evaluate, note the result and save; False (the state saved all the same) if asked to stop meanwhile.

        replace: the step is on the disk already, saved by a run that was stopped during this evaluation.
        """
        train = self.experiment.cfg.train
        found = self.evaluate(state, train.select_split)
        if found is None:
            if not replace:
                self._save(step, state)
            return False
        value = found[train.select_metric]
        sign = 1 if train.select_metric == "accuracy" else -1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best["value"]):
            self.best = {"step": step, "value": value}
        kind = "train_eval" if train.select_split == "train" else train.select_split
        self.log.write(kind, step, found)
        self.sink.write(kind, step, found)
        self._save(step, state, metrics=found, replace=replace)
        return True

    def _save(
        self,
        step: int,
        state: TrainState,
        *,
        metrics: Mapping[str, float] | None = None,
        replace: bool = False,
    ) -> None:
        """Save in the background. The log is on the disk first: a restart can cut lines, not make them up."""
        self.log.flush()
        self.store.save(
            step,
            state,
            metrics=metrics,
            best=self.best,
            extra={"window": self.window},
            replace=replace,
            final=step == self.experiment.total_steps,
        )

    def _diverged(self, step: int, values: Mapping[str, float], state: TrainState) -> None:
        """Save what is needed to look into it, and stop. `state` is still the one before the bad step."""
        experiment, cfg = self.experiment, self.experiment.cfg
        n = experiment.dataset.size("train")
        indices = batch_indices(n, cfg.batch_size, cfg.seed, step - 1)
        batch = experiment.place_batch(experiment.dataset.gather("train", indices))
        leaves = non_finite_leaves(experiment.graphdef, state, experiment.key, batch)
        with CheckpointStore(
            self.workdir.crash,
            keep=1,
            best_metric=None,
            best_mode="max",
            identity=config_lib.identity(cfg),
            data_fingerprint=experiment.dataset.fingerprint,
        ) as crash:
            crash.save(step - 1, state, final=True)
        last = f"step {self.last_finite[0]}, {self.last_finite[1]:.4g}" if self.last_finite else "none"
        report = {
            "step": step,
            "loss": repr(values["loss"]),
            "last_finite_loss": last,
            "non_finite": leaves,
            "examples": [int(i) for i in indices],
        }
        write_json_atomic(self.workdir.crash / "report.json", report)
        shown = ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")
        raise FloatingPointError(
            f"loss {values['loss']:.4g} or its gradient is not finite at step {step} (last finite loss: {last}); "
            f"not finite: {shown}; the state before that step and a report are in {self.workdir.crash}."
        )

    def conclude(self) -> bool:
        """Read the test split once, with the best checkpoint; write the result and the figures."""
        experiment, cfg = self.experiment, self.experiment.cfg
        self.store.wait()
        if self.best is None:
            raise FloatingPointError(
                f"no evaluation had a finite {cfg.train.select_metric}; there is no best checkpoint to test."
            )
        state, _ = self.store.restore(self.best["step"], experiment.abstract_state())
        test = self.evaluate(state, "test")
        if test is None:
            say(f"{self.stop.requested}: training is complete; the same command evaluates.")
            return False
        summary = self._summary(test)
        write_json_atomic(self.workdir.summary, summary)
        if cfg.figures:
            for figure in self._draw(state):
                say(f"figure: {figure}")
        self.workdir.mark_done({"test": test})
        self.sink.write("test", experiment.total_steps, test)
        say(
            f"test accuracy {test['accuracy']:.4f} (majority class {summary['majority_rate']:.4f}) of the checkpoint "
            f"with the best {cfg.train.select_split} {cfg.train.select_metric}, step {self.best['step']:,}; "
            f"all results: {self.workdir.summary}"
        )
        return True

    def _draw(self, state: TrainState) -> list[Path]:
        """The figures of the run, its first state against the best one."""
        from ssm_jax.analysis.figures import draw_run  # matplotlib takes half a second to import
        from ssm_jax.analysis.spectra import layers_of

        graphdef, fresh = self.experiment.graphdef, self.experiment.fresh_state()
        return draw_run(
            self.workdir.figures,
            rows=read_metrics(self.workdir.metrics),
            before=layers_of(nnx.merge(graphdef, fresh.params, fresh.stats)),
            after=layers_of(nnx.merge(graphdef, state.params, state.stats)),
            length=self.experiment.dataset.padded_length,
            title=self.experiment.cfg.name,
        )

    def _summary(self, test: Mapping[str, float]) -> dict[str, Any]:
        experiment, cfg = self.experiment, self.experiment.cfg
        run = json.loads(self.workdir.record.read_text())
        return {
            "name": cfg.name,
            "notes": cfg.notes,
            "test": dict(test),
            "selected_by": f"{cfg.train.select_split} {cfg.train.select_metric}",
            "best": self.best,
            "steps": experiment.total_steps,
            "parameters": sum(row.size for row in experiment.rows),
            "majority_rate": experiment.dataset.majority_rate("test"),
            "examples": {s: experiment.dataset.size(s) for s in ("train", "val", "test")},
            **{key: run[key] for key in ("seed", "data", "git", "versions", "devices", "command")},
            "config_digest": config_lib.digest(cfg),
        }
