"""How a script ends: each fault one line on stderr, and an exit code that schedulers can read.

The exit codes are in the docstring of `run_main`; those of signals are in `stop`.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ssm_jax import stop
from ssm_jax.files import os_fault, printable
from ssm_jax.outside import one_line, ours

EXIT_GONE = 141  # 128 + SIGPIPE, as shells say it
STDOUT = "standard output"
LESS_MEMORY = (
    "take a smaller model or --config.batch_size, compute a batch in parts "
    "(--config.train.accumulate=N), or save memory by --config.model.remat=true and "
    "--config.model.activations=bfloat16"
)


class _Stream(io.FileIO):
    """A standard stream: errors of stdout name it, those of stderr stop nothing."""

    def write(self, content: Any) -> int:
        try:
            written: int | None = super().write(content)
        except OSError as error:
            if self.fileno() == 1:
                error.filename = STDOUT
                raise
            written = None
        if written is None and self.fileno() == 1:  # it does not block, and is full
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), STDOUT)
        return memoryview(content).nbytes if written is None else written


def steady_streams() -> None:
    """Make stdout and stderr fit for every text and every terminal, also where they are closed.

    What their encoding lacks is written as an escape. A closed stderr is as /dev/null: otherwise
    the next file opened would get its number, and warnings with it. A closed stdout is an error.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if old is not getattr(sys, f"__{name}__"):
            continue  # a test's
        raw = _Stream(number, "w", closefd=False)
        if old is not None:
            with contextlib.suppress(OSError):
                old.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding if old is not None else "utf-8",
            errors="backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, stream)


def fail(message: str) -> NoReturn:
    """End the script with code 2 and one line on stderr for each line of `message`."""
    _error(message)
    raise SystemExit(2)


def _error(message: str) -> None:
    for word in sys.argv:  # a name with a line break in it is no new line
        name = word.partition("=")[2] if word.startswith("-") else word
        if len(name.splitlines()) > 1:
            message = message.replace(name, printable(name))
    for line in message.splitlines():
        of = f"process {stop.Process.index}: " if stop.Process.index else ""
        print(f"{of}error: {printable(line)}", file=sys.stderr)


def run_main(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Run `main(argv)` and exit with its code; an error of the user's is one line and code 2.

    The user's are a ValueError of our own raise statements (`outside.ours`), every OSError, and a
    platform on which JAX cannot start. Once a run has begun, an OSError that is no check of ours
    has code 74: the storage failed or is full, what was saved is kept. Our RuntimeError or
    FloatingPointError (a loss that is nan) is one line and code 1, or its own `exit_code` (75 for a
    workdir in use). Too little memory is two lines and code 1. Ctrl-C is code 130, a reader of our
    output that went away 141. All else is a bug, also a ValueError out of NumPy or JAX, and keeps
    its traceback.
    """
    steady_streams()
    try:
        code = _ended(main)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = stop.EXIT_INTERRUPTED
    except OSError as error:
        of_stdout = error.filename == STDOUT
        if of_stdout:  # what is left in its buffer has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if of_stdout and error.errno == errno.EPIPE:  # `script.py --help | head` has read enough
            code = EXIT_GONE
        else:
            check = ours(error) and error.errno is None
            storage = stop.Process.begun and not (of_stdout or check)
            code = stop.EXIT_STORAGE if storage else 2
            _error(os_fault(error))
    except Exception as error:
        full = is_out_of_memory(error)
        ended = ValueError | RuntimeError | FloatingPointError
        known = not full and isinstance(error, ended) and ours(error)
        fault = None if known or full else missing_platform()
        if not (known or full or fault):
            raise
        code = 2 if fault or isinstance(error, ValueError) else getattr(error, "exit_code", 1)
        said = str(error) if code == 2 else one_line(error)
        if full:
            said = f"out of memory: {said}\n{LESS_MEMORY}; train --dry_run says what a step needs."
        _error(fault or said)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    stop.end(code)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device or of the machine did not suffice: Python's, NumPy's or
    JAX's error."""
    named = "jaxlib" in type(error).__module__ or "jax" in type(error).__module__.split(".")
    return isinstance(error, MemoryError) or (
        named and any(word in str(error) for word in ("RESOURCE_EXHAUSTED", "Out of memory"))
    )


def missing_platform() -> str | None:
    """One line, if JAX cannot start on the platforms that its environment names."""
    asked = [f"{k}={v}" for k in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if (v := os.environ.get(k))]
    if not asked:
        return None  # it takes what there is
    import jax

    try:
        jax.devices()
    except Exception as error:  # of any kind: without a GPU, cuda is a failed assertion
        why = one_line(error) if str(error) else "its plugin or its hardware is missing"
        return f"{' '.join(asked)}: JAX cannot start on it ({why}); unset it, or set it to cpu."
    return None


def _ended(main: Callable[[list[str]], int | None]) -> int:
    """The code of `main(argv)`, with all that it has printed written out."""
    try:
        code = main(sys.argv[1:]) or 0
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich ends the process with code 1 then
            raise end.__context__ from None
        if isinstance(end.code, str):
            _error(end.code)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    return code
