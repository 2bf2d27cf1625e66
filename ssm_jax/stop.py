"""The end of a command: its exit codes, and signals to stop before, during and after a run.

Schedulers and people send SIGTERM, Ctrl-C, SIGUSR1, SIGUSR2 (SLURM, submitit) and SIGHUP (a lost
connection). All mean one thing: save, and exit with EXIT_STOPPED; the same command continues.
"""

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, Self

EXIT_STOPPED = 75  # EX_TEMPFAIL: saved on request, the same command continues; schedulers requeue
EXIT_STORAGE = 74  # EX_IOERR: the storage failed or is full; what was saved is kept
EXIT_INTERRUPTED = 130

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Process:
    """What is known of this process."""

    ours = False  # it is a command of ours, which a handler may end
    begun = False  # it has written to a run: its failures are no longer those of a start
    stuck = False  # threads are left that never end, so that it must not wait for them
    index = 0  # among those of one run; 0 alone writes and speaks
    last: Callable[[int], None] | None = None  # called with the exit code, see training.processes


def _catch(number: int, handler: Any) -> Any:
    """Install a handler; the one before. One that is ignored stays so: that is what nohup asks."""
    ignored = signal.getsignal(number) is signal.SIG_IGN
    if ignored and number not in (signal.SIGTERM, signal.SIGINT):
        return signal.SIG_IGN
    return signal.signal(number, handler)


def end_at_once(code: int, text: str) -> NoReturn:
    """End the process with a line, whatever else is under way.

    An exception may be swallowed or come late, and other threads may print, or wait for ever.
    """
    with contextlib.suppress(OSError):
        shown = "\x1b[?25h\n" if os.isatty(2) else ""  # a progress bar hides the cursor
        os.write(2, f"{shown}{text}\n".encode(errors="backslashreplace"))
    os._exit(code)


def catch_signals() -> None:
    """End this process with EXIT_STOPPED on a signal, until a `StopRequest` takes over.

    For commands that train, before their imports: what they do before training can be done again.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        end_at_once(EXIT_STOPPED, f"{name}: stopped; the same command goes on.")

    Process.ours = True
    for number in SIGNALS:
        _catch(number, leave)
    # The first to be registered is the last to be called. Python gives all handlers up before it
    # is gone; a signal would then change the exit code.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in SIGNALS])


@contextlib.contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Have a Ctrl-C wait for the end of the block: some libraries make another error of it."""
    usual = signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not usual:
        yield  # a handler of ours raises nothing
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def end(code: int) -> NoReturn:
    """End the process, whose streams are flushed, with this code, whatever signals come now."""
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, lambda *_: os._exit(code))
    if Process.last is not None:
        Process.last(code)
    if Process.stuck:
        os._exit(code)
    raise SystemExit(code)


class StopRequest:
    """Turns the signals into a flag that the loop polls, so that it can save and stop.

    `requested` is the name of the signal that came, else None. A second Ctrl-C stops at once. Enter
    it in the main thread. One within another, as that of a run within its sweep's, knows what came
    before, and hands on what comes. Of several JAX processes all stop at one step, whichever got
    the signal: JAX's own notifier of SIGTERM sees to it, which a Python handler would disable. So
    it gets the other signals as SIGTERM.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._heard: str | None = None  # of signals alone: others may set `requested`
        self._interrupts = 0
        self._previous: dict[int, Any] = {}
        self._many, self._polls = False, 0

    def __enter__(self) -> Self:
        import jax  # here, so that the rest of this module starts without it

        self._many = jax.process_count() > 1
        ours = [number for number in SIGNALS if not (self._many and number == signal.SIGTERM)]
        self._previous = {number: _catch(number, self._receive) for number in ours}
        if (outer := self._outer) is not None:
            self._interrupts += outer._interrupts
            self.requested = self._heard = self._heard or outer.requested
        return self

    @property
    def _outer(self) -> "StopRequest | None":
        found = getattr(self._previous.get(signal.SIGINT), "__self__", None)
        return found if isinstance(found, StopRequest) else None

    def __exit__(self, *error: object) -> None:
        outer = self._outer
        for number, handler in self._previous.items():
            # None: the old handler was not set from Python; the default is the nearest to it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if outer is not None and self._heard is not None:
            outer.requested = outer._heard = self._heard
            outer._interrupts = max(outer._interrupts, self._interrupts)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGINT and self._interrupts > 1:
            if not Process.ours:
                raise KeyboardInterrupt
            # What is being written is whole or not there
            end_at_once(EXIT_INTERRUPTED, "interrupted.")
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.requested = self._heard = signal.Signals(number).name

    def poll(self, step: int) -> bool:
        """Whether to stop after this step; several processes, which must all poll, agree on it."""
        return self.asked()

    def asked(self) -> bool:
        """Whether to stop now; several processes, which must all ask as often, agree on it."""
        self._polls += 1
        if self._many and self.requested is None:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(self._polls):
                self.requested = "SIGTERM"
        return self.requested is not None
