"""Where the numbers of a run go besides metrics.jsonl: Weights & Biases, TensorBoard."""

import abc
import contextlib
import importlib.util
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssm_jax.progress import warn


class Sink(abc.ABC):
    """Takes the numbers and figures of a run. Its first error is one warning, and its end: none
    stops the run."""

    broken: str  # what a warning says of a sink that had an error
    _to: Any = None  # what takes them; None: nothing does any more

    @abc.abstractmethod
    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None: ...

    @abc.abstractmethod
    def draw(self, step: int, figures: Sequence[Path]) -> None:
        """Show figures, each as "figures/NAME"; of a .pdf or .svg there is none to show."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def _call(self, name: str, *args: Any, **options: Any) -> None:
        if self._to is None:
            return
        try:
            getattr(self._to, name)(*args, **options)
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._to = None
        warn(
            f"{self.broken} ({_in_a_line(error)}) and gets no more; metrics.jsonl has all metrics, "
            "the run goes on."
        )


def require_tensorboard() -> None:
    """ValueError where tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "--tensorboard needs the package tensorboardX: pip install 'ssm-jax[tensorboard]'."
        )


class TensorBoardSink(Sink):
    """Metrics and figures in a folder, for `tensorboard --logdir`.

    A restart at `start_step` hides what an earlier process wrote of later steps.
    """

    def __init__(self, folder: Path, start_step: int = 0):
        require_tensorboard()
        self.broken = f"TensorBoard in {folder} failed"
        try:
            from tensorboardX import SummaryWriter

            logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # a line for each nan
            # A name of its own, also for a restart within a second.
            name = {"filename_suffix": f".{start_step}"}
            self._to = SummaryWriter(str(folder), purge_step=start_step + 1, **name)
        except Exception as error:  # as for wandb
            self._end(error)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Add each value as "kind/name" at `step`; arguments as in MetricsLog.write."""
        for name, value in values.items():
            self._call("add_scalar", f"{kind}/{name}", float(value), int(step))

    def draw(self, step: int, figures: Sequence[Path]) -> None:
        """Add figures, see `Sink.draw`."""
        from PIL import Image  # here, as few runs need it

        for path in _images(figures):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            name = f"figures/{path.stem}"
            self._call("add_image", name, pixels, int(step), dataformats="HWC")

    def close(self) -> None:
        """Write what is left; a second call does nothing."""
        self._call("close")
        self._to = None


# The modes of wandb, and in which of its own each is tried
MODES: dict[str, tuple[Literal["online", "offline"], ...]] = {
    "disabled": (), "offline": ("offline",), "online": ("online", "offline"),
}  # fmt: skip


def default_wandb() -> str:
    """The mode unless a command says otherwise: $WANDB_MODE, or "disabled"."""
    mode = os.environ.get("WANDB_MODE", "").lower() or "disabled"
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


class WandbSink(Sink):
    """Metrics and figures for Weights & Biases.

    `given` are project, entity, group and tags, as wandb.init takes them. wandb's environment
    variables (WANDB_NAME, WANDB_DIR, WANDB_RUN_ID, ...) win over all else that is set here. `mode`
    is "disabled" (wandb is not even imported, which takes 2 s), "offline" (files in workdir/wandb,
    for `wandb sync`) or "online", which without a key or a network falls back to offline, after
    half a minute at most and with one warning. The run's folder keeps the wandb run's id, so that a
    restart adds to the same run.
    """

    broken = "wandb failed"

    def __init__(
        self,
        mode: str,
        *,
        workdir: Path,
        config: Mapping[str, Any],
        run_name: str,
        given: Mapping[str, Any] | None = None,
    ):
        failed = ""
        for attempt in MODES[mode]:
            try:
                self._to = _init(attempt, workdir, config, run_name, given or {})
                break
            except Exception as error:  # the sink's promise: no error of wandb's stops a run
                failed = failed or _in_a_line(error)
        if failed and self._to is None:
            warn(f"wandb cannot start ({failed}); metrics.jsonl has all metrics, the run goes on.")
        elif failed:
            warn(f"wandb cannot go online ({failed}); it logs offline instead.")

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log each value as "kind/name" at `step`; arguments as in MetricsLog.write."""
        row = {f"{kind}/{name}": float(value) for name, value in values.items()}
        self._call("log", row, step=int(step))

    def draw(self, step: int, figures: Sequence[Path]) -> None:
        """Upload figures, see `Sink.draw`."""
        if self._to is not None and (figures := _images(figures)):
            with contextlib.suppress(Exception):  # `_call` warns, if wandb is broken
                import wandb

                images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
                self._call("log", images, step=int(step))

    def close(self) -> None:
        """Send what is left, for a minute at most; a second call does nothing."""
        self._call("finish", exit_code=0)
        self._to = None


def _init(
    mode: Literal["online", "offline"],
    workdir: Path,
    config: Mapping[str, Any],
    run_name: str,
    asked: Mapping[str, Any],
) -> Any:
    import wandb

    keeper = workdir / "wandb_id"
    if not keeper.exists():
        keeper.write_text(os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12])
    settings = {
        "console": "off",  # else it takes hold of stdout, and with it of the progress bar
        "quiet": True,
        "init_timeout": 5,  # measured: 16 s until it gives up; with wandb's own 90 it is 101 s
        "login_timeout": 15,  # at a terminal it asks for a key
        "finish_timeout": 60,
        "finish_timeout_raises": True,
    }
    usual = {"dir": workdir, "resume": "allow", "name": run_name, "project": "ssm_jax"}
    usual["id"] = keeper.read_text().strip()

    def unset(values: Mapping[str, Any]) -> dict[str, Any]:
        """Those that wandb's own environment does not set."""
        names = {name: f"WANDB_{'RUN_ID' if name == 'id' else name.upper()}" for name in values}
        return {name: v for name, v in values.items() if not os.environ.get(names[name])}

    try:
        given = {"settings": wandb.Settings(**unset(settings)), **unset(usual), **asked}
        return wandb.init(mode=mode, config=dict(config), **given)
    except Exception:
        wandb.teardown()  # else the id counts as in use, and offline fails as well
        raise


def _images(figures: Sequence[Path]) -> list[Path]:
    """Those that are of pixels."""
    return [path for path in figures if path.suffix == ".png"]


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
