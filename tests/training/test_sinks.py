"""The sinks of a run's numbers: none can stop a run, none is loaded unasked."""

import os
import struct
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

import ssm_jax
from ssm_jax.training import loop, sinks
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.run import Request

ROOT = Path(ssm_jax.__file__).parents[1]


def start(mode: str, workdir: Path) -> sinks.WandbSink:
    return sinks.WandbSink(mode, workdir=workdir, config={"model.alpha": 3.0}, run_name="a")


def test_wandb_is_not_imported_unless_asked(tmp_path):
    code = (
        "import sys, pathlib; from ssm_jax.training import sinks\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "sink = sinks.WandbSink('disabled', workdir=path, config={}, run_name='a')\n"
        "sink.write('train', 1, {'loss': 1.0}); sink.close()\n"
        "assert not any(name.partition('.')[0] == 'wandb' for name in sys.modules)\n"
        "assert not list(path.iterdir())"
    )
    env = {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code, tmp_path], env=env).returncode == 0


def test_wandb_offline_keeps_its_id_over_a_restart(tmp_path):
    """In a process of its own: wandb leaves a service and a logger behind."""
    code = (
        "import sys, pathlib; from ssm_jax.training import sinks\n"
        "for step in (1, 2):\n"
        "    sink = sinks.WandbSink('offline', workdir=pathlib.Path(sys.argv[1]), "
        "config={'model.alpha': 3.0}, run_name='a')\n"
        "    sink.write('train', step, {'loss': float('nan'), 'accuracy': 0.5}); sink.close()\n"
    )
    (tmp_path / "run").mkdir()
    env = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", code, tmp_path / "run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    kept = (tmp_path / "run" / "wandb_id").read_text()
    written = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in written] == [f"run-{kept}.wandb"] * 2
    assert all(b"accuracy" in path.read_bytes() for path in written)


class Broken(types.ModuleType):
    """A wandb in which the things named in `bad` raise; the others note how they were called."""

    def __init__(self, *bad: str):
        super().__init__("wandb")
        self.bad, self.calls = bad, []
        for name in ("Settings", "init", "log", "finish", "teardown", "Image"):
            setattr(self, name, self._make(name))

    def _make(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            if name in self.bad or kwargs.get("mode") in self.bad:
                raise RuntimeError(f"{name} is\nbroken")
            return self

        return call


def use(sink: sinks.WandbSink) -> None:
    sink.write("train", 1, {"loss": 1.0})
    sink.write("train", 2, {"loss": 1.0})
    sink.close()
    sink.close()


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(
    "bad",
    [("Settings",), ("init",), ("init", "teardown"), ("log",), ("log", "finish"), ("finish",)],
)
def test_a_broken_wandb_is_one_warning(mode, bad, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", Broken(*bad))
    use(start(mode, tmp_path))
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("warning: wandb ") and "broken" in err and "the run goes on." in err


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_wandb_that_cannot_be_imported_is_one_warning(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    use(start(mode, tmp_path))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_online_falls_back_to_offline_with_one_warning(tmp_path, monkeypatch, capsys):
    wandb = Broken("online")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    use(start("online", tmp_path))
    assert "logs offline instead" in capsys.readouterr().err.splitlines().pop()
    assert [name for name, _, _ in wandb.calls] == [
        *("Settings", "init", "teardown"),
        *("Settings", "init", "log", "log", "finish"),
    ]
    (_, _, online), (_, _, offline) = (call for call in wandb.calls if call[0] == "init")
    assert online["id"] == offline["id"] and offline["mode"] == "offline"
    assert wandb.calls[5] == ("log", ({"train/loss": 1.0},), {"step": 1})


def test_the_environment_of_wandb_wins_over_our_defaults_and_an_option_over_it(
    tmp_path, monkeypatch
):
    wandb = Broken()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    defaults = {"dir", "id", "resume", "name", "project"}
    for name in ("DIR", "RUN_ID", "RESUME", "NAME", "PROJECT", "CONSOLE"):
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    for name in ("TAGS", "NOTES", "ENTITY", "RUN_GROUP", "JOB_TYPE"):  # which wandb reads by itself
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    start("offline", tmp_path)
    (_, _, settings), (_, _, given) = wandb.calls[:2]
    assert "console" not in settings and settings["quiet"] is True
    assert given.keys() == {"mode", "config", "settings"} and given["mode"] == "offline"
    assert (tmp_path / "wandb_id").read_text() == "mine", "a restart without it goes on with it"
    monkeypatch.delenv("WANDB_RUN_ID")
    monkeypatch.delenv("WANDB_PROJECT")
    start("offline", tmp_path)
    given = wandb.calls[3][2]
    assert (given["id"], given["project"]) == ("mine", "ssm_jax")
    assert given.keys() & defaults == {"id", "project"}
    for text, mode in (("offline", "offline"), ("dryrun", "offline"), ("", "disabled")):
        monkeypatch.setenv("WANDB_MODE", text)
        assert sinks.default_wandb() == mode


def test_an_unknown_wandb_mode_is_refused():
    with pytest.raises(ValueError, match="unknown wandb mode 'on'; choose one of disabled"):
        Request(wandb="on")


def events(folder: Path) -> list[tuple[str, int, float | None]]:
    """(tag, step, value) of TensorBoard's files, as TensorBoard shows them after restarts.

    Records are framed by lengths and checksums; None stands for an image.
    """
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    found: list[tuple[str, int, float | None]] = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = proto.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.HasField("session_log"):
                found = [row for row in found if row[1] < event.step]
            for value in event.summary.value:
                scalar = None if value.HasField("image") else value.simple_value
                found.append((value.tag, event.step, scalar))
    return found


def test_tensorboard_gets_numbers_and_figures_and_a_restart_hides_what_was_past_it(tmp_path):
    pytest.importorskip("tensorboardX")
    Image.fromarray(np.full((4, 6, 4), 200, np.uint8)).save(tmp_path / "curves.png")
    (tmp_path / "poles.svg").write_text("<svg/>")  # of no pixels: neither shown nor an error
    for start, stop in ((0, 5), (3, 6)):
        sink = sinks.TensorBoardSink(tmp_path / "tb", start)
        for step in range(start + 1, stop + 1):
            sink.write("train", step, {"loss": 1 / (step + start), "bad": np.nan})
        sink.draw(stop, [tmp_path / "curves.png", tmp_path / "poles.svg"])
        sink.close()
        sink.close()
    rows = events(tmp_path / "tb")
    losses = {step: value for tag, step, value in rows if tag == "train/loss"}
    exact = {1: 1, 2: 1 / 2, 3: 1 / 3, 4: 1 / 7, 5: 1 / 8, 6: 1 / 9}
    assert losses == {step: np.float32(value) for step, value in exact.items()}
    assert [row[:2] for row in rows if row[2] is None] == [("figures/curves", 6)]


def test_a_run_writes_for_tensorboard_what_is_in_its_log(data_dir, tmp_path):
    pytest.importorskip("tensorboardX")
    cfg = tiny_config(train__steps=6, train__eval_every=3)
    loop.train(cfg, tmp_path / "run", data_dir=data_dir, tensorboard=True)
    logged = {
        (f"{row['kind']}/{name}", row["step"]): np.float32(value)
        for row in read_metrics(tmp_path / "run/metrics.jsonl")
        for name, value in row.items()
        if name not in ("step", "kind")
    }
    shown = {(tag, step): value for tag, step, value in events(tmp_path / "run/tensorboard")}
    assert logged == {key: shown[key] for key in logged}
    assert {tag for tag, _ in shown.keys() - logged.keys()} == {"test/loss", "test/accuracy"}


def test_tensorboard_that_cannot_write_is_one_warning(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tb").write_text("a file")
    use(sinks.TensorBoardSink(tmp_path / "tb"))
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "the run goes on." in err


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'ssm-jax\[tensorboard\]'"):
        sinks.TensorBoardSink(tmp_path)


def test_wandb_gets_what_was_asked_for_over_its_environment_and_the_figures(tmp_path, monkeypatch):
    wandb = Broken()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    given = {"project": "mine", "entity": "we", "group": "g", "tags": ["a", "b"]}
    about = {"workdir": tmp_path, "config": {}, "run_name": "a"}
    sink = sinks.WandbSink("offline", given=given, **about)
    sink.draw(7, [tmp_path / "poles.pdf"])
    sink.draw(7, [tmp_path / "curves.png"])
    init, image, log = wandb.calls[1:]
    assert init[2].items() >= given.items()
    assert image == ("Image", (str(tmp_path / "curves.png"),), {})
    assert log == ("log", ({"figures/curves": wandb},), {"step": 7})
