"""The study of a search: what Optuna draws, and the database in which it is kept."""

import contextlib
import importlib.util
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.space import Axis
from ssm_jax.lock import Held, Lock
from ssm_jax.stop import EXIT_STORAGE
from ssm_jax.sweep import STUDY, Search, shown_address

if importlib.util.find_spec("optuna") is None:
    raise ValueError("--sampler=optuna needs the package optuna: pip install 'ssm-jax[search]'.")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import optuna
    import sqlalchemy
    from optuna.trial import FrozenTrial, Trial

HEARTBEAT_S, GRACE_S = 15, 60  # a worker without a sign for so long is taken for dead
TURN_S = 300.0  # as long a command waits for others that make the database


class StorageLost(RuntimeError):  # noqa: N818 - it reads as what happened
    """The database of a search cannot be reached."""

    exit_code = EXIT_STORAGE


class ProposalSampler(optuna.samplers.BaseSampler):
    """A sampler whose draws are a function of the seed, the number of the proposal and what is
    known by then: a search that is stopped and goes on proposes what it would have."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed
        self._now: Any = optuna.samplers.RandomSampler(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        trials = study.get_trials(deepcopy=False)
        number = sum(is_proposal(other) for other in trials if other.number < trial.number)
        seed = (self._seed * 1_000_003 + number) % 2**32
        if self._kind == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # constant_liar: workers side by side stay away from what is being tried
                self._now = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            self._now = optuna.samplers.RandomSampler(seed)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: Any
    ) -> Any:
        return self._now.sample_independent(study, trial, param_name, param_distribution)


def is_proposal(trial: FrozenTrial) -> bool:
    """Whether a trial is a proposal of its own: not made again, nor by one worker too many."""
    return trial.user_attrs.keys().isdisjoint(("again", "surplus"))


def draw(trial: Trial, axis: Axis) -> Any:
    if axis.values:
        return trial.suggest_categorical(axis.key, axis.values)
    draw = trial.suggest_int if axis.kind is int else trial.suggest_float
    return draw(axis.key, axis.low, axis.high, log=axis.log)


def distribution(axis: Axis) -> Any:
    if axis.values:
        return optuna.distributions.CategoricalDistribution(axis.values)
    if axis.kind is int:
        return optuna.distributions.IntDistribution(axis.low, axis.high, log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


@contextlib.contextmanager
def open_study(search: Search, cfg: ConfigDict, folder: Path) -> Iterator[optuna.Study]:
    """The study of a folder, which one command at a time makes or opens.

    ValueError for another search, or a database that cannot be had; StorageLost if it goes later.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "search.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = f"{cfg.name.replace('/', '_')}-{uuid.uuid4().hex[:8]}"
        plan = search.agree(folder, config_lib.digest(cfg), name)
        storage = _storage(search.storage, folder)
        study = optuna.create_study(
            storage=storage,
            study_name=plan["study"],
            sampler=ProposalSampler(plan["sampler"].partition(":")[2], cfg.seed),
            direction="maximize" if config_lib.ranking_of(cfg)[1] == "max" else "minimize",
            load_if_exists=True,
        )
    try:
        yield study
    except Exception as error:
        if (lost := _storage_error(error)) is None:
            raise
        raise StorageLost(
            f"the database of the search cannot be reached ({_why(lost)}); what the runs have "
            "saved is kept, and the same command goes on."
        ) from error
    finally:
        with contextlib.suppress(Exception):  # it may be gone
            storage.remove_session()
            storage.engine.dispose()


def _storage_error(error: BaseException | None) -> BaseException | None:
    """What the database said, of what it led to: Optuna 5 makes an UnboundLocalError of it."""
    while error is not None:
        if isinstance(
            error, optuna.exceptions.StorageInternalError | sqlalchemy.exc.SQLAlchemyError
        ):
            return error
        error = error.__cause__ or error.__context__
    return None


def _storage(address: str, folder: Path) -> Any:
    """The database at an address, or the file of a folder."""
    file, options = folder.absolute() / STUDY, dict[str, Any]()
    shown, else_ = f"--storage={shown_address(address)}", "give none for a file in the folder"
    if not address:
        address, shown = f"sqlite:///{file}", str(file)
        else_ = f"move {STUDY} away: it is made again from the runs"
        options = {"connect_args": {"timeout": 120}}  # seconds that one command waits for others
    if address.startswith(("postgresql://", "postgres://")):
        if importlib.util.find_spec("psycopg") is None:
            raise ValueError(f"{shown} needs a driver: pip install 'psycopg[binary]'.")
        address = f"postgresql+psycopg://{address.partition('://')[2]}"
    signs: dict[str, Any] = {"heartbeat_interval": HEARTBEAT_S, "grace_period": GRACE_S}
    try:
        storage = optuna.storages.RDBStorage(address, engine_kwargs=options, **signs)
    except Exception as error:
        ours = isinstance(error, (ImportError, ValueError, optuna.exceptions.OptunaError))
        if not ours and "sqlalchemy" not in type(error).__module__:
            raise
        if "database is locked" in str(error):
            else_ = (
                "another command is in the middle of a write: wake it if it is frozen, or end it"
            )
        raise ValueError(f"{shown} cannot be used ({_why(error)}); {else_}.") from None
    if address.startswith("sqlite:"):
        # No waiting for the disk, which a kill does not need: after a power cut there is the folder
        storage.engine.dispose()
        sqlalchemy.event.listen(storage.engine, "connect", _without_waiting)
    return storage


def _without_waiting(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()


def _why(error: BaseException) -> str:
    """The first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other command has a lock, which none keeps for long."""
    lock, end = Lock(path), time.monotonic() + TURN_S
    while True:
        try:
            lock.acquire()
            break
        except Held as held:
            if time.monotonic() > end:
                raise ValueError(f"{path} is held by {held}; stop that, or wait for it.") from None
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()
