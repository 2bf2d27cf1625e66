"""Several processes for one run: how they find each other, agree, and end together.

    srun --ntasks=4 ssm-jax train --config=... --workdir=...        SLURM says who is who
    JAX_COORDINATOR_ADDRESS=host:port JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=1 ssm-jax train ...

All make the same calls in the same order, as JAX asks of them. Process 0 alone writes and speaks,
and what a disk may show differently to each it decides for all (`agreed`).

Each says every BEAT_S seconds that it is alive. Where one has ended with an error, the others end
with its code; where one is silent for LOST_S seconds, or process 0 cannot be reached, they end with
EXIT_STOPPED: nothing is wrong with them, and the same command goes on from the last save. The one
that was lost has a code of its own (137 after kill -9), which schedulers count.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax._src import distributed  # its client is the way to tell a word without a device

from ssm_jax.outside import ours
from ssm_jax.progress import say
from ssm_jax.stop import EXIT_STOPPED, Process, end_at_once
from ssm_jax.training.places import Place, place_of

WAIT_S = 60  # for the others, at the start
BEAT_S, LOST_S = 2.0, 30.0
DOUBT_S = 8.0  # in the place of LOST_S, once a computation has failed
_FOR_EVER_MS = 1_000_000_000
_HEARTBEAT_S, _SHUTDOWN_S = 100, 30  # JAX's own, which come after ours

T = TypeVar("T")
_numbers = itertools.count()


def _client() -> Any:
    return distributed.global_state.client


def first() -> bool:
    """Whether this is process 0, the one that writes and speaks."""
    return jax.process_index() == 0


def agreed(make: Callable[[], T]) -> T:
    """What `make` gives process 0, as JSON has it, on all, which call this together.

    The others do not call `make`, and go on when process 0 has: so they see what it has written.
    """
    if jax.process_count() == 1:
        return make()
    key, client = f"ssm_jax/agreed/{next(_numbers)}", _client()
    if first():
        text = json.dumps(make())
        client.key_value_set(key, text)
    else:
        text = client.blocking_key_value_get(key, _FOR_EVER_MS)
    value: T = json.loads(text)
    return value


def same(what: str, make: Callable[[], Any] | str) -> None:
    """Refuse, with a ValueError, a process that has `what`: other words than process 0."""
    if jax.process_count() == 1:
        return
    own = make if isinstance(make, str) else json.dumps(make())
    if agreed(lambda: own) != own:
        raise ValueError(f"here is {what} than on process 0; give all the same command.")


def meet() -> None:
    """Wait for all, so that none still reads what process 0 writes next."""
    if jax.process_count() > 1:
        name = f"ssm_jax/meet/{next(_numbers)}"
        _client().wait_at_barrier(name, _FOR_EVER_MS)


def in_turn(make: Callable[[], T]) -> T:
    """What `make` gives each process: process 0 first, as the others may find its files then."""
    made = make() if first() else None
    agreed(lambda: None)
    return make() if made is None else made


def begin(wait_s: float = WAIT_S) -> None:
    """Meet the other processes of the run, if the environment says that there are any.

    To be called before anything asks JAX for a device. The process ends with EXIT_STOPPED if they
    do not come in time.
    """
    place = place_of()
    if place is None:
        return
    host, _, port = place.address.rpartition(":")
    # gRPC would ask a proxy for the way to a host of the cluster, and wait for ever
    known = os.environ.get("no_grpc_proxy", os.environ.get("no_proxy", ""))  # noqa: SIM112
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [known, host.strip("[]")]))  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)
    number = _find(place, host.strip("[]"), int(port), time.monotonic() + wait_s)
    say(
        f"process {place.index} of {place.count} on {socket.gethostname()}: process 0 is at "
        f"{place.address} ({number})."
    )
    Process.index = place.index
    if place.index:
        logging.getLogger("ssm_jax").setLevel(logging.ERROR)
    global _joined
    _joined = _Joined(place)
    jax.distributed.initialize(
        place.address,
        place.count,
        place.index,
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, round(wait_s)),
        heartbeat_timeout_seconds=_HEARTBEAT_S,
        shutdown_timeout_seconds=_SHUTDOWN_S,
    )
    _joined.watch()


def _find(place: Place, host: str, port: int, deadline: float) -> str:
    """The number of process 0's host, once it answers there; of process 0 that of its own."""
    where, why = "unknown", ""
    while True:
        try:
            where = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
            if place.index == 0:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", port))
                return where
            if place.elsewhere and where.startswith("127."):
                raise ValueError(
                    f"{host}, the host of process 0, is {where} here, which is this host itself; "
                    "give another name of it by JAX_COORDINATOR_ADDRESS=host:port."
                )
            socket.create_connection((host, port), timeout=5).close()
            return where
        except OSError as error:
            why = error.strerror or str(error)
            if place.index == 0 and not isinstance(error, socket.gaierror):
                raise ValueError(
                    f"port {port} of this host cannot be used ({why}); choose another by "
                    "JAX_COORDINATOR_ADDRESS=host:port."
                ) from None
        if time.monotonic() > deadline:
            what = f"process 0 does not answer at {place.address} ({where}: {why})"
            end_at_once(
                EXIT_STOPPED, f"process {place.index}: {what}; the same command tries again."
            )
        time.sleep(0.2)


class _Joined:
    """This process among the others, from the moment it looks for them."""

    def __init__(self, place: Place) -> None:
        self.place, self._met = place, False
        self._patience_s = LOST_S
        self._over, self._code = threading.Event(), 0
        Process.last = self.end
        atexit.register(lambda: self.end(1))  # after a traceback
        # JAX ends a process that has lost process 0 by SIGABRT, from a thread of C++
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        self._signal = ctypes.CDLL(None).signal
        self._signal(signal.SIGABRT, self._handler)

    def _aborted(self, number: int) -> None:
        place, again = self.place, "the same command goes on from the last save."
        if self._over.is_set():
            os._exit(self._code)
        if not self._met:
            what = f"not all of the {place.count} processes have come to {place.address} in time"
            end_at_once(
                EXIT_STOPPED, f"process {place.index}: {what}; the same command tries again."
            )
        host, _, port = place.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            end_at_once(EXIT_STOPPED, f"process {place.index}: process 0 was lost; {again}")
        # It is there: this is another fault, and SIGABRT goes its way

    def watch(self) -> None:
        """All have come: look after them from now on."""
        self._met = True
        threading.Thread(target=self._watch, name="processes", daemon=True).start()

    def _tell(self, what: str, word: object) -> None:
        key = f"ssm_jax/{what}/{self.place.index}"
        _client().key_value_set(key, str(word), allow_overwrite=True)

    def _told(self, what: str) -> dict[int, str]:
        """The words of all, by process."""
        found = _client().key_value_dir_get(f"ssm_jax/{what}/")
        return {int(key.rpartition("/")[2]): word for key, word in found}

    def _watch(self) -> None:
        place, others = self.place, set(range(self.place.count)) - {self.place.index}
        beats, since = dict[int, str](), dict.fromkeys(others, time.monotonic())
        for number in itertools.count():
            if self._over.wait(BEAT_S):
                return
            try:
                self._tell("beat", number)
                found, ended = self._told("beat"), self._told("end")
            except Exception:  # process 0 is gone, and JAX will say so
                continue
            for index, code in ended.items():
                if index != place.index and not self._over.is_set():
                    self._tell("end", code)
                    what = f"process {index} ended with code {code}, and so does this one"
                    end_at_once(int(code), f"process {place.index}: {what}.")
            now = time.monotonic()
            for index in others:
                if found.get(index) != beats.get(index):
                    since[index] = now
            beats = found
            silent = [index for index in others if now - since[index] > self._patience_s]
            if silent and not self._over.is_set():
                names = ", ".join(map(str, silent))
                again = "the same command goes on from the last save"
                end_at_once(
                    EXIT_STOPPED, f"process {place.index}: process {names} was lost; {again}."
                )

    def doubt(self) -> None:
        """Wait for the watch to find who was lost, as a computation has failed."""
        self._patience_s = DOUBT_S
        time.sleep(DOUBT_S + 2 * BEAT_S)

    def end(self, code: int) -> None:
        """End with the others, or tell them of an error and end without them."""
        if self._over.is_set():
            return
        self._code = code
        if not self._met or code not in (0, EXIT_STOPPED):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            if self._met:
                self._over.set()
                with contextlib.suppress(Exception):
                    self._tell("end", code)
                    end = time.monotonic() + 3 * BEAT_S
                    while self.place.index == 0 and time.monotonic() < end:
                        if len(self._told("end")) == self.place.count:
                            break
                        time.sleep(0.1)
            os._exit(code)
        with contextlib.suppress(Exception):  # the work is done
            _client().wait_at_barrier("ssm_jax/end", 1_000 * _SHUTDOWN_S)
        self._over.set()
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
        self._signal(signal.SIGABRT, None)  # the usual


_joined: _Joined | None = None


@contextlib.contextmanager
def doubting() -> Iterator[None]:
    """Where the block fails, find out first whether another process was lost meanwhile."""
    try:
        yield
    except Exception as error:
        if _joined is not None and not (ours(error) or isinstance(error, OSError)):
            _joined.doubt()
        raise
