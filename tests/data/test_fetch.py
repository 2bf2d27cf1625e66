"""A file is fetched whole and right, goes on where it broke off, or fails in one line."""

import contextlib
import hashlib
import http.server
import random
import socket
import threading
import time

import pytest

from ssm_jax.data import fetch as module
from ssm_jax.data.fetch import RemoteFile, fetch
from ssm_jax.data.store import locked

CONTENT = random.Random(0).randbytes(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the path says how."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        how, asked = self.path.strip("/"), self.headers.get("Range")
        if how.isdigit():
            self.send_error(int(how), "a reason\tof the server's own")
            return
        if how == "silent":
            self.server.released.wait(20)
            return
        if how in ("ftp", "moved"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/x" if how == "ftp" else "/ok")
            self.end_headers()
            return
        body, start = CONTENT, 0
        if how == "wrong":
            body = CONTENT[:-1] + b"?"
        if asked and how != "no-ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            start += how == "shifted"
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        else:
            self.send_response(200)
        if how == "page":
            body = b"please log in"
        if how != "no-length":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        # Half of what was asked for, then the line goes dead.
        self.wfile.write(
            body[start : start + (SIZE - start) // 2] if how == "cut" else body[start:]
        )

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.released = threading.Event()
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(server, monkeypatch):
    """A remote file whose URLs end in what the server shall do; its requests so far forgotten."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.seen.clear()

    def make(*hows):
        urls = tuple(f"http://127.0.0.1:{server.server_port}/{how}" for how in hows)
        return RemoteFile("data.bin", urls, SIZE, SHA256)

    return make


def names(folder):
    """What is in a folder, the lock apart."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".data.bin.lock")


@contextlib.contextmanager
def one_line(kind, *parts):
    """An error of a kind whose only line has all the parts."""
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value).isprintable()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("how", ["ok", "no-length", "moved"])
def test_a_file_is_downloaded_once(remote, server, tmp_path, capsys, how):
    path = fetch(remote(how), tmp_path / "new")
    assert path == tmp_path / "new" / "data.bin" and path.read_bytes() == CONTENT
    assert names(path.parent) == ["data.bin"]
    assert f"downloading data.bin: {SIZE:,} bytes in " in capsys.readouterr().err
    server.seen.clear()
    assert fetch(remote("404"), path.parent) == path
    assert server.seen == []


@pytest.mark.parametrize("how", ["ok", "no-ranges", "no-length"])
@pytest.mark.parametrize("have", [1, SIZE - 1])
def test_a_part_is_gone_on_with(remote, server, tmp_path, how, have):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:have])
    assert fetch(remote(how), tmp_path).read_bytes() == CONTENT
    assert server.seen == [(f"/{how}", f"bytes={have}-")]


def test_a_part_that_is_whole_needs_no_server(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(remote("404"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [] and names(tmp_path) == ["data.bin"]


def test_a_part_that_is_too_long_is_begun_anew(remote, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"x")
    assert fetch(remote("ok"), tmp_path).read_bytes() == CONTENT


def test_a_connection_that_breaks_leaves_a_part_to_go_on_with(remote, server, tmp_path):
    with one_line(ConnectionError, f"broke off after {SIZE // 2:,} of {SIZE:,} bytes", "again"):
        fetch(remote("cut"), tmp_path)
    assert names(tmp_path) == ["data.bin.part"]
    assert fetch(remote("ok"), tmp_path).read_bytes() == CONTENT
    assert server.seen[-1] == ("/ok", f"bytes={SIZE // 2}-")


def test_an_interrupt_leaves_only_the_part(remote, tmp_path, monkeypatch):
    shown = []

    @contextlib.contextmanager
    def interrupted(*_):
        def advance(n):
            shown.append(n)
            if sum(shown) > SIZE // 2:
                raise KeyboardInterrupt

        yield advance

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "stage", interrupted)
        fetch(remote("ok"), tmp_path)
    assert names(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[: sum(shown)]
    assert fetch(remote("ok"), tmp_path).read_bytes() == CONTENT


def test_a_download_with_a_wrong_hash_is_deleted(remote, tmp_path):
    wrong = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    with one_line(ValueError, wrong, SHA256, "data.bin", str(tmp_path)):
        fetch(remote("wrong"), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"the user's own"])
def test_a_wrong_file_of_the_user_is_named_and_kept(remote, server, tmp_path, content):
    path = tmp_path / "data.bin"
    path.write_bytes(content)
    with one_line(ValueError, str(path), hashlib.sha256(content).hexdigest(), SHA256):
        fetch(remote("ok"), tmp_path)
    assert path.read_bytes() == content and server.seen == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [("403", "HTTP 403 Forbidden"), ("404", "HTTP 404 Not Found"), ("ftp", "unknown url type: ftp"),
     ("page", "another file ('13' bytes, expected 700,001)")],
)  # fmt: skip
def test_a_refusal_says_what_to_put_where(remote, tmp_path, how, reason):
    with one_line(
        FileNotFoundError,
        reason,
        f"put data.bin (sha256 {SHA256}) into {tmp_path} and run the same command again.",
    ):
        fetch(remote(how), tmp_path)
    assert names(tmp_path) == []


def test_the_next_url_is_tried(remote, server, tmp_path):
    assert fetch(remote("403", "page", "ok"), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.seen] == ["/403", "/page", "/ok"]


def test_another_part_than_the_one_asked_for_is_refused(remote, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:9])
    with one_line(FileNotFoundError, "another part than bytes 9 to 700,001"):
        fetch(remote("shifted"), tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:9]


def test_a_server_that_cannot_go_on_is_asked_for_the_whole(remote, server, tmp_path, monkeypatch):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:9])
    answer = Handler.do_GET

    def refuse_ranges(handler):
        if handler.headers.get("Range"):
            handler.path = "/416"
        answer(handler)

    monkeypatch.setattr(Handler, "do_GET", refuse_ranges)
    assert fetch(remote("ok"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/416", "bytes=9-"), ("/ok", None)]


def test_a_silent_server_and_a_hanging_name_share_the_patience(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    start = time.perf_counter()
    with one_line(FileNotFoundError, "cannot be reached (no answer in time)", SHA256):
        fetch(remote("silent", "silent"), tmp_path)
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20) and [])
    named = RemoteFile("data.bin", ("https://data.invalid/data.bin",), SIZE, SHA256)
    try:
        with one_line(FileNotFoundError, "https://data.invalid/data.bin cannot be reached"):
            fetch(named, tmp_path)
    finally:
        released.set()
    assert time.perf_counter() - start < 3.0
    assert names(tmp_path) == []


def test_a_closed_port_is_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"
    with one_line(FileNotFoundError, url, "Connection refused", SHA256, str(tmp_path)):
        fetch(RemoteFile("data.bin", (url,), SIZE, SHA256), tmp_path)


def test_a_second_process_waits_and_takes_what_the_first_has_brought(remote, tmp_path, capsys):
    brought = []
    with locked(tmp_path / ".data.bin.lock"):
        second = threading.Thread(target=lambda: brought.append(fetch(remote("404"), tmp_path)))
        second.start()
        time.sleep(0.2)
        (tmp_path / "data.bin").write_bytes(CONTENT)
    second.join(20)
    assert brought == [tmp_path / "data.bin"]
    assert "is preparing the same data" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "data.bin", ""])
def test_only_http_is_fetched(url):
    with one_line(ValueError, "only http and https"):
        RemoteFile("data.bin", (url,), 1, SHA256)


@pytest.mark.parametrize("name", ["", "..", "../a", "/a", "a/"])
def test_a_name_is_no_path(name):
    with one_line(ValueError, "must be that of a file"):
        RemoteFile(name, (), 1, SHA256)
