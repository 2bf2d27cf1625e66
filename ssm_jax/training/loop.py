"""The training of one run, from its start or from where it stopped, to its result."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.files import default_data_dir, parse_json
from ssm_jax.progress import say
from ssm_jax.stop import EXIT_STOPPED, Process, StopRequest
from ssm_jax.training import data_init, plan, processes, restart
from ssm_jax.training.checkpoint import Checkpoints, CheckpointStore
from ssm_jax.training.checkpoint.manifest import describe, host_copies
from ssm_jax.training.diagnose import Diagnostics, cut
from ssm_jax.training.experiment import Experiment, build
from ssm_jax.training.first_state import first_state
from ssm_jax.training.logs import MetricsLog, NoLog
from ssm_jax.training.parent import begin_from, begun, find_parent
from ssm_jax.training.profile import Profile
from ssm_jax.training.run import USUAL, OpenRun, Request
from ssm_jax.training.sinks import Sink, TensorBoardSink, WandbSink
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import Workdir

EXIT_DONE = 0


def train_and_evaluate(experiment: Experiment, path: Path, request: Request = USUAL) -> int:
    """Train, evaluate, choose the best checkpoint, and read the test split once.

    Stopped at any moment and called again it resumes from the newest good checkpoint, and every
    later number is equal bit for bit. A finished run is left as it is; one whose result is damaged
    is tested again. Returns EXIT_DONE, or EXIT_STOPPED after one of `stop.SIGNALS`.

    Raises FloatingPointError if a loss or gradient is not finite, and WorkdirBusy, ConfigMismatch,
    StateMismatch, CheckpointError or RunDamaged.
    """
    plan.check_memory(experiment)
    with (
        Workdir(path) as workdir,
        StopRequest() as stop,
        jax.set_mesh(experiment.mesh),
        contextlib.ExitStack() as files,
    ):
        if stop.requested is not None:  # before, while a sweep prepared this run
            return EXIT_STOPPED
        opened = files.enter_context(open_run(experiment, workdir, stop, request))
        if opened is None:
            say(f"{path} is finished; its result is in {workdir.summary.name}.")
            return EXIT_DONE
        run, state, start = opened
        finished = run.train(state, start) and run.conclude()
        run.profile.close(request.argv)
    return EXIT_DONE if finished else EXIT_STOPPED


@contextlib.contextmanager
def open_run(
    experiment: Experiment,
    workdir: Workdir,
    stop: StopRequest,
    request: Request,
    *,
    checkpoints: Checkpoints | None = None,
) -> Iterator[tuple[OpenRun, TrainState, int] | None]:
    """A run with its files open, the state that it goes on from and its step; None if finished.

    `checkpoints` are where its states are kept while it is trained: by default in its folder. The
    errors are those of `train_and_evaluate`.
    """
    cfg, path, leads = experiment.cfg, workdir.path, processes.first()
    processes.same(f"another experiment or other data in {path}", repr(experiment.identity))
    with contextlib.ExitStack() as open_until:
        if request.fresh:
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
            experiment,
            workdir,
            checkpoints,
            request.argv,
            accept_log=request.accept_log,
            begin=request.begin,
        )
        if found is None:
            yield None
            return
        for line in plan.describe(experiment, data_init.kept(workdir.start)):
            say(line)
        if leads:
            Console(stderr=True).print(plan.parameter_table(experiment.rows))
        name, options = f"{config_lib.title_of(cfg)}-{path.name}", config_lib.flatten(cfg)
        sinks: list[Sink] = []
        if leads:
            sinks.append(
                WandbSink(
                    request.wandb,
                    workdir=path,
                    config=options,
                    run_name=name,
                    given=request.wandb_options,
                )
            )
        state, meta, stamps = found
        processes.same("another state to begin from", lambda: describe(host_copies(state)))
        if request.tensorboard and leads:
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
        profiled = open_until.enter_context(
            Profile(workdir.profile, request.profile if leads else 0)
        )
        open_until.enter_context(processes.doubting())
        if leads:
            cut(workdir.diagnostics, meta.step)
        run = OpenRun(
            experiment, workdir, checkpoints, log, timing, sinks, stop, request,
            Diagnostics(experiment, first),
            best=meta.best,
            window=meta.extra["window"],
            arrays=stamps,
            noted=bool(meta.identity),
            evaluated_at=meta.step if meta.evaluated else 0,
            first=processes.agreed(beginning),
            profile=profiled,
        )  # fmt: skip
        yield run, state, meta.step
    for sink in sinks:
        sink.close()


def train(
    cfg: ConfigDict,
    workdir: str | Path,
    *,
    data_dir: str | Path | None = None,
    files: str | Path | None = None,
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

    `data_dir` is by default $SSM_JAX_DATA_DIR or ./data; `files` see `experiment.build`, the
    `options` `Request`, and the errors `train_and_evaluate`.
    """
    Process.index = jax.process_index()
    if not isinstance(cfg, ConfigDict):
        raise TypeError(
            f"train: cfg must be a ConfigDict, as of load_config(...), got {cfg!r:.60}."
        )
    begin = begin_from(init_from, init_match, continue_from)
    anew = bool(options.get("fresh"))
    cfg = begun(cfg, begin, Workdir(workdir).path, anew=anew)
    request = Request(begin=begin, **options)
    own = None if files is None else Path(files)
    experiment = build(cfg, data_dir=Path(data_dir or default_data_dir()), files=own)
    if train_and_evaluate(experiment, Path(workdir), request) == EXIT_STOPPED:
        return None
    return processes.agreed(lambda: parse_json(Workdir(workdir).summary.read_text()))
