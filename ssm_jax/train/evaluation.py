"""The metrics of a state over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax

from ssm_jax.progress import Progress, say
from ssm_jax.tasks import mean_metrics
from ssm_jax.train.experiment import Experiment, timed_compile
from ssm_jax.train.step import TrainState


class PerLength:
    """A step, compiled for each length of batches when the first one of it comes.

    Args:
      what: it, for the line that says how long that took.
      length_of: L of a batch.
      compile_step: compiles it for a length.
    """

    def __init__(
        self,
        what: str,
        length_of: Callable[[Mapping[str, jax.Array]], int],
        compile_step: Callable[[int], jax.stages.Compiled],
    ) -> None:
        self._what = what
        self._length_of = length_of
        self._compile = compile_step
        self._compiled: dict[int, jax.stages.Compiled] = {}

    def of(self, batch: Mapping[str, jax.Array]) -> jax.stages.Compiled:
        """The step for a batch."""
        length = self._length_of(batch)
        if length not in self._compiled:
            step, seconds = timed_compile(lambda: self._compile(length))
            say(f"compiled {self._what} for L = {length:,} in {seconds:.1f} s.")
            self._compiled[length] = step
        return self._compiled[length]


def evaluation_step(experiment: Experiment) -> PerLength:
    """The evaluation of a batch, for `split_means`."""
    return PerLength("the evaluation", experiment.dataset.steps_of, experiment.compile_eval_step)


def split_means(
    experiment: Experiment,
    step: PerLength,
    state: TrainState,
    split: str,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Means over every example of a split; None if `stopped` says so meanwhile.

    Args:
      experiment: of the run.
      step: from `evaluation_step`.
      state: its parameters and statistics are evaluated.
      split: "train", "val" or "test".
      stopped: asked after every batch.
    """
    total = -(-experiment.dataset.size(split) // experiment.eval_batch_size)
    headline = experiment.task.headline
    sums: dict[str, float] = {}
    with Progress(split, total, metric=headline) as progress:
        for number, numbered in enumerate(experiment.eval_batches(split), start=1):
            batch = experiment.place_batch(numbered)
            for name, value in step.of(batch)(state.params, state.stats, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            means = mean_metrics(sums)
            progress.update(number, means["loss"], means[headline])
            if stopped():
                return None
    return mean_metrics(sums)
