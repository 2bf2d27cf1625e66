"""A search: Optuna proposes the settings of a sweep's runs, and bad runs end early.

The folder of runs is the ledger. A proposal is a cell of a sweep, its runs are ordinary ones, and
what became of them is read from their folders: a study that was lost is made again from there, and
a proposal that was made before costs nothing. The study says who takes which proposal. It is kept
in a database: a file in the folder (SQLite), or a server that many machines can reach. Workers say
there that they live; a run whose worker has died is proposed once more, and continues from its
checkpoint, since its folder is the same. The lock of that folder alone says who may write.

Optuna's journal file is no choice here: it has no heartbeat, and one line torn by a kill ends it.
"""

import contextlib
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.load import faults_of
from ssm_jax.lock import holder_of
from ssm_jax.progress import say, warn
from ssm_jax.stop import StopRequest
from ssm_jax.sweep import Run, Search, runs_of
from ssm_jax.sweep import study as study_lib
from ssm_jax.sweep.pruning import Curve, Rule, idle, rungs_of
from ssm_jax.sweep.runs import Job, run_one
from ssm_jax.sweep.standing import Standing, line_of, progress_of, runs_in, validation_curve
from ssm_jax.sweep.study import distribution, draw, is_proposal, open_study, optuna
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.run import Watch

TrialState = optuna.trial.TrialState
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
LIVE = (TrialState.RUNNING, TrialState.WAITING)


class _Left(Exception):  # noqa: N818
    """A worker leaves a proposal: its run is another's, was stopped or failed, or is surplus."""


def run_search(search: Search, cfg: ConfigDict, job: Job) -> bool:
    """Make proposals and run them until all are made and none is left over.

    Returns and raises as `runs.run_sweep`; StorageLost if the database is gone.
    """
    with StopRequest() as stop, open_study(search, cfg, job.folder) as study:
        return _Worker(search, cfg, job, study, stop).work()


@dataclass
class _Worker:
    """One command of a search."""

    search: Search
    cfg: ConfigDict
    job: Job
    study: optuna.Study
    stop: StopRequest
    _standings: dict[str, Standing] = field(default_factory=dict)  # of runs that have ended
    _trial: int = -1  # the one that is being run, or was last
    _error: Exception | None = None  # what was raised in it
    _told_idle: bool = False  # that no run can end early
    _lost: dict[int, float] = field(default_factory=dict)  # when trials were first found unheld

    def work(self) -> bool:
        """As `run_search`."""
        self._tidy(anew=True)
        while not self.stop.requested:
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if waiting or sum(map(is_proposal, trials)) < self.search.size:
                try:
                    self.study.optimize(self._objective, n_trials=1, catch=(_Left,))
                except (ValueError, AssertionError) as error:  # see `_taken_for_dead`
                    if error is self._error or not self._taken_for_dead():
                        raise
                    # Its run is in its folder, where `_tidy` finds it.
                    warn(
                        f"this worker was silent for {study_lib.GRACE_S} s, and was taken for dead."
                    )
            elif self._unheld(trials):
                time.sleep(min(1.0, study_lib.GRACE_S / 4))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    optuna.storages.fail_stale_trials(self.study)
            else:
                self.search.note_end(self.job.folder)
                return True
            self._tidy()
        return False

    def _taken_for_dead(self) -> bool:
        """Whether another worker has ended our trial: Optuna 5 then fails to take its value, with a
        ValueError or, on a complete one, with an AssertionError ("Should not reach.")."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return any(trial.number == self._trial for trial in trials)

    def _objective(self, trial: optuna.Trial) -> float:
        self._trial, self._error = trial.number, None
        try:
            return self._value_of(trial)
        except Exception as error:
            self._error = error
            raise

    def _value_of(self, trial: optuna.Trial) -> float:
        """Run a proposal: the mean over its seeds of the best value on validation."""
        trials = self.study.get_trials(deepcopy=False)
        number = sum(is_proposal(other) for other in trials if other.number < trial.number)
        if "again" not in trial.user_attrs and number >= self.search.size:
            trial.set_user_attr("surplus", True)  # two workers took the last one
            raise _Left
        cell = {key: axis.fit(draw(trial, axis)) for key, axis in self.search.axes.items()}
        runs = self._runs(cell)
        trial.set_user_attr("run", runs[0].name)
        if faults := faults_of(self.cfg, cell, self.job.overrides):
            say(f"{runs[0].name} is passed over: {faults[0]}")
            raise optuna.TrialPruned
        values = []
        for run in runs:
            end: str
            end, document = run.status(self.cfg, self.job.folder)
            if end in ("unfinished", "missing", "failed"):
                place = f"[{number + 1} of {self.search.size}] "
                about = ("" if "again" in trial.user_attrs else place) + run.name
                end, document = self._run(trial, run, about, prunes=run is runs[0])
            if end in ("diverged", "pruned"):
                raise optuna.TrialPruned  # no failure: the sampler is to keep away from here
            if end != "finished":
                raise _Left
            values.append(float(document["best"]["value"]))
        return statistics.fmean(values)

    def _run(self, trial: optuna.Trial, run: Run, about: str, *, prunes: bool) -> tuple[str, Any]:
        """Begin or continue a run, a bad one to an early end; how it ended, and its document."""
        metric, better = config_lib.ranking_of(self.cfg)
        told: dict[int, float] = {}

        def tell(step: int, value: float) -> None:
            if step not in told:  # a worker that was taken for dead tells nobody
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                    trial.report(value, step)
            told[step] = value

        def watching(experiment: Experiment) -> Watch:
            rungs = rungs_of(experiment.total_steps, experiment.eval_every)
            rule = Rule(self.search.pruner, better, rungs)  # type: ignore[arg-type]
            steps = experiment.total_steps, experiment.eval_every
            why = idle(rule.kind, self.search.size, *steps)
            if why and not self._told_idle:
                say(f"{why}.")
                self._told_idle = True

            def watch(step: int, value: float) -> str:
                tell(step, value)
                return rule.prunes(sorted(told.items()), self._others(run.name))

            return watch

        if prunes:  # a proposal that is made again knows nothing of its run
            for step, value in validation_curve(run.config(self.cfg), self.job.folder / run.name):
                tell(step, value)
        say(f"{about}: begins; its lines are in log.txt")
        start = time.monotonic()
        outcome: str = run_one(run, self.cfg, self.job, watching if prunes else None)
        document: Mapping[str, Any] = {}
        if outcome in ("finished", "pruned", "failed"):
            outcome, document = run.status(self.cfg, self.job.folder)
        found = f": {document['error']}" if "error" in document else ""
        if outcome == "finished":
            found = f": {self.cfg.train.select_split} {metric} {document['best']['value']:.4g}"
        say(f"{about}: {outcome} after {time.monotonic() - start:.0f} s{found}")
        axes, ended = [*self.search.axes], self._standings
        runs = [known.run for known in ended.values()]
        runs += runs_in(self.job.folder, axes, self.job.overrides, list(ended))
        left = self._left(runs, goes_on=outcome == "finished")
        say(line_of(progress_of(runs, self.job.folder, self.cfg, left, ended)))
        if outcome == "stopped":
            self.stop.requested = "stopped"
        if outcome == "busy":
            time.sleep(min(5.0, study_lib.GRACE_S / 4))
        return outcome, document

    def _left(self, runs: Sequence[Run], *, goes_on: bool) -> int:
        """How many runs have not begun, beside those that have; `goes_on`: with the next seed of
        our proposal."""
        trials, seeds = self.study.get_trials(deepcopy=False), self.search.seeds
        heads = {
            trial.user_attrs["run"].rpartition("seed=")[0]
            for trial in trials
            if trial.state in LIVE and "run" in trial.user_attrs
            if goes_on or trial.number != self._trial
        }
        begun = {run.name for run in runs}
        waiting = sum(f"{head}seed={seed}" not in begun for head in heads for seed in seeds)
        return waiting + max(0, self.search.size - sum(map(is_proposal, trials))) * len(seeds)

    def _others(self, name: str) -> list[Curve]:
        """The curves that a run is compared with: of each other run the longest that is known."""
        states = (TrialState.COMPLETE,) if self.search.pruner == "median" else None
        curves: dict[str, Curve] = {}
        for trial in self.study.get_trials(deepcopy=False, states=states):
            other, curve = (
                trial.user_attrs.get("run", ""),
                sorted(trial.intermediate_values.items()),
            )
            if curve and other != name and len(curve) > len(curves.get(other, ())):
                curves[other] = curve
        return list(curves.values())

    def _runs(self, cell: Mapping[str, Any]) -> list[Run]:
        return runs_of([cell], self.search.seeds, self.job.overrides)

    def _tidy(self, anew: bool = False) -> None:
        """Bring the study to what the folder says, and have what was left over proposed again.

        `anew`, at the start of a command: also what has failed.
        """
        known: dict[str, set[TrialState]] = {}
        cells: dict[str, Mapping[str, Any]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if params.keys() == self.search.axes.keys():  # else it was killed while it was drawn
                cell = {key: axis.fit(params[key]) for key, axis in self.search.axes.items()}
                name = self._runs(cell)[0].name
                known.setdefault(name, set()).add(trial.state)
                if "surplus" not in trial.user_attrs:
                    cells[name] = cell
        for run in runs_in(self.job.folder, [*self.search.axes], self.job.overrides, known):
            fits = all(axis.holds(run.cell[key]) for key, axis in self.search.axes.items())
            if run.seed == self.search.seeds[0] and fits:
                cells.setdefault(run.name, run.cell)
        for point in self.search.points[: self.search.size]:
            cells.setdefault(self._runs(point)[0].name, point)
        for name, left in cells.items():
            if known.get(name, set()).isdisjoint((*ENDED, *LIVE)):
                self._add(left, again=name in known, anew=anew)

    def _add(self, cell: Mapping[str, Any], *, again: bool, anew: bool) -> None:
        """Put a cell of which no trial is left into the study: its end, or to be run."""
        runs, axes = self._runs(cell), self.search.axes
        found = [run.status(self.cfg, self.job.folder) for run in runs]
        ends = {end for end, _ in found}
        attrs: dict[str, Any] = {"run": runs[0].name} | ({"again": True} if again else {})
        if ends == {"finished"} or not ends.isdisjoint(("diverged", "pruned")):
            finished, path = ends == {"finished"}, self.job.folder / runs[0].name
            values = [document["best"]["value"] for _, document in found if finished]
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.COMPLETE if finished else TrialState.PRUNED,
                    value=statistics.fmean(values) if finished else None,
                    params=dict(cell),
                    distributions={key: distribution(axis) for key, axis in axes.items()},
                    intermediate_values=dict(validation_curve(runs[0].config(self.cfg), path)),
                    user_attrs=attrs,
                )
            )
        elif ("failed" not in ends or anew) and not any(self._held(run.name) for run in runs):
            self.study.enqueue_trial(dict(cell), user_attrs=attrs)

    def _held(self, name: str) -> bool:
        return holder_of(self.job.folder / name / "LOCK") is not None

    def _unheld(self, trials: Sequence[optuna.trial.FrozenTrial]) -> bool:
        """Whether somebody's run has no writer. Its worker has died, or prepares or ends it.

        One that is not even known to be stale after twice GRACE_S died before its first sign.
        """
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        unheld = [t.number for t in running if not self._held(t.user_attrs.get("run", "-"))]
        self._lost = {number: self._lost.get(number, time.monotonic()) for number in unheld}
        for number, since in self._lost.items():
            if time.monotonic() - since > 2 * study_lib.GRACE_S:
                with contextlib.suppress(ValueError):
                    self.study.tell(number, state=TrialState.FAIL)
        return bool(unheld)
