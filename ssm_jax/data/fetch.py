"""Downloading one file whose size and sha256 are known: whole and right, or one line of error."""

import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ssm_jax.data.release import sha256_of
from ssm_jax.data.store import locked
from ssm_jax.files import move_into_place
from ssm_jax.progress import stage

_CHUNK = 1 << 18  # bytes; what Ctrl-C can lose
_SILENCE = 30.0  # seconds that a server may pause within a file
_PATIENCE = 8.0  # seconds for all of: resolving names, connecting, the servers' first answers
_REASONS = (OSError, http.client.HTTPException)  # what a connection that fails raises


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set, as its authors publish it."""

    name: str  # in a folder here, no path
    urls: tuple[str, ...]  # where it is, http or https; tried in this order
    size: int  # bytes
    sha256: str

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or PurePosixPath(self.name).name != self.name:
            raise ValueError(f"a remote file's name must be that of a file, got {self.name!r}.")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"only http and https URLs are fetched, got {url!r}.")


def fetch(file: RemoteFile, folder: Path) -> Path:
    """The path of a file in a folder, downloaded unless it is there, where it is never changed.

    A download that breaks off (ConnectionError) leaves NAME.part, from which the next call resumes.
    Another file than the right one is a ValueError; a FileNotFoundError says what to put where.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"

    def is_there() -> bool:
        if os.path.lexists(path) and (found := sha256_of(path)) != file.sha256:
            raise ValueError(
                f"{path} has sha256 {found} ({path.stat().st_size:,} bytes), expected "
                f"{file.sha256} ({file.size:,} bytes); move it away, or put the right file there."
            )
        return os.path.lexists(path)

    if is_there():
        return path
    with locked(folder / f".{file.name}.lock"):
        if is_there():  # the process before us brought it
            return path
        _download(file, part)
        if (found := sha256_of(part)) != file.sha256:
            part.unlink()  # ours, and nothing can be made of it
            raise ValueError(
                f"the download of {file.name} has sha256 {found}, expected {file.sha256}; it was "
                f"deleted. Run the same command again, or put the right file into {folder}."
            )
        move_into_place(part, path)
    return path


def _download(file: RemoteFile, part: Path) -> None:
    """Fill .part, or go on with it, up to the size of the file."""
    have = part.stat().st_size if part.is_file() else 0
    if have == file.size:
        return
    have = have if have < file.size else 0
    deadline, reasons = time.monotonic() + _PATIENCE, []
    for url in file.urls:
        try:
            response = _open(url, have, deadline)
            if not (other := _other_than(file, have, response)):
                break
            response.close()
            reasons.append(f"{url} answers with {other}")
        except (*_REASONS, ValueError) as error:
            reasons.append(f"{url} cannot be reached ({_reason(error)})")
    else:
        raise FileNotFoundError(
            f"{', '.join(reasons)}; put {file.name} (sha256 {file.sha256}) into {part.parent} and "
            "run the same command again."
        )
    with response, open(part, "ab") as out:
        have = have if response.status == http.client.PARTIAL_CONTENT else 0
        out.truncate(have)
        with stage(f"downloading {file.name}", file.size, "bytes") as advance:
            advance(have)
            while have < file.size:
                reason = "the server closed the connection"
                try:
                    chunk = response.read1(min(_CHUNK, file.size - have))
                except _REASONS as error:
                    chunk, reason = b"", _reason(error)
                if not chunk:
                    raise ConnectionError(
                        f"{url} broke off after {have:,} of {file.size:,} bytes ({reason}); run "
                        "the same command again, it goes on from there."
                    )
                out.write(chunk)
                have += len(chunk)
                advance(len(chunk))
        out.flush()
        os.fsync(out.fileno())


def _open(url: str, have: int, deadline: float) -> Any:
    """A response with the file, or with what follows its first bytes; TimeoutError at the deadline.

    Asked by a daemon thread, for which a process that gave up does not wait: no timeout of a socket
    bounds the resolving of a name, several addresses tried in turn, or headers byte by byte.
    """
    headers = {"User-Agent": "ssm-jax"} | ({"Range": f"bytes={have}-"} if have else {})
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # As `urllib.request.urlopen`, proxies included, but without ftp:, file: and data:.
    opener = urllib.request.OpenerDirector()
    for name in ["Proxy", "Unknown", "HTTP", "HTTPS", "HTTPDefaultError", "HTTPRedirect"]:
        opener.add_handler(getattr(urllib.request, f"{name}Handler")())
    opener.add_handler(urllib.request.HTTPErrorProcessor())

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers=headers)
            answers.put(opener.open(request, timeout=_SILENCE))
        except (*_REASONS, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(deadline - time.monotonic(), 0.0))
    except queue.Empty:
        raise TimeoutError("no answer in time") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        if have and answer.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(url, 0, deadline)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _other_than(file: RemoteFile, have: int, response: Any) -> str:
    """The file or part that the headers announce, if it is not the one asked for."""
    if response.status == http.client.PARTIAL_CONTENT:
        right = f"bytes {have}-{file.size - 1}/{file.size}"
        other = f"another part than bytes {have:,} to {file.size:,}"
        return "" if response.headers.get("Content-Range", "") == right else other
    length = response.headers.get("Content-Length", "")
    # A server need not say the length; whoever says another, a log-in page say, has another file.
    other = f"another file ({length[:20]!r} bytes, expected {file.size:,})"
    return "" if length in ("", str(file.size)) else other


def _reason(error: Exception) -> str:
    """Why a connection failed, in a few words that do not come from the server."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
    if isinstance(error, urllib.error.URLError):
        if not isinstance(error.reason, Exception):
            return str(error.reason)
        error = error.reason
    if isinstance(error, http.client.HTTPException):
        return f"not HTTP: {type(error).__name__}"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
