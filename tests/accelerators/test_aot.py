"""The command aot: what it refuses and writes, with this machine in an accelerator's place."""

from __future__ import annotations

import json
import os

import jax
import pytest

from ssm_jax.accelerators import planned, program, targets
from ssm_jax.commands.train import aot
from ssm_jax.training.experiment import batch_mesh

SHORT = "--config.data.listops.longer_than=3 --config.data.listops.shorter_than=24"
SMALL = "--config.data.padded_length=24 --config.model.d_model=8 --config.model.d_state=4"
TINY = f"--config=lra/listops:s4d_ft,smoke {SHORT} {SMALL}".split()


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """What the command sets for its process is not set in that of the tests."""
    monkeypatch.setattr(targets, "ENVIRONMENT", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h300", r"unknown target 'h300'; choose one of h100, h200, v4:2x2x1, v5e:2x2"),
        ("v5e", r"target 'v5e' lacks the shape of its topology, as in v5e:2x2\."),
        ("v5p:4", r"lacks the shape of its topology, as in v5p:2x2x1\."),
        ("h200:2x2", r"a GPU has no topology; write h200 and --devices=N\."),
    ],
)
def test_a_target_that_is_none_is_one_line(name, message):
    with pytest.raises(ValueError, match=message):
        aot([*TINY, f"--target={name}"])


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(targets, "_installed", lambda module: module != "libtpu")
    with pytest.raises(ValueError, match=r"for v6e:2x2 is not installed; pip install 'ssm-jax\["):
        aot([*TINY, "--target=v6e:2x2"])
    targets.require_compiler(targets.find_target("h100"))
    with pytest.raises(SystemExit):
        aot(TINY)
    assert "--target is missing" in capsys.readouterr().err
    with pytest.raises(ValueError, match="h200 has 8 devices at most, got 9"):
        targets.devices(targets.find_target("h200"), 9)


def test_the_texts_of_gpus_agree_with_the_table():
    """Memory and bandwidth stand in both: XLA reads one, the figures the other."""
    for name in ("h100", "h200"):
        kind = targets.KINDS[name]
        text = (targets.resources.files("ssm_jax.accelerators") / f"{name}.txtpb").read_text()
        assert f"device_memory_size: {kind.memory}\n" in text
        assert f"memory_bandwidth: {kind.bandwidth:.0f}\n" in text


def test_figures_and_programs_are_written_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planned, "mesh_of", lambda target, count: batch_mesh())
    monkeypatch.setattr(planned, "COMPILERS", {"gpu": ("jaxlib",)})
    monkeypatch.setattr(targets, "_installed", lambda module: True)
    out, hlo = tmp_path / "found.json", tmp_path / "found.hlo"
    code = aot([*TINY, "--target=h200", f"--out={out}", f"--hlo={hlo}"])
    assert code == 0
    found = json.loads(out.read_text())
    assert (found["target"], found["batch_size"], found["length"]) == ("h200", 4, 24)
    assert found["compilers"] == {"jaxlib": found["versions"]["jaxlib"]}
    for name in ("train", "eval"):
        step = found[name]
        read = program.read((tmp_path / f"found.{name}.hlo").read_text())
        assert step["bytes_moved"] == read.moved and step["kernels"] == read.launches > 0
        assert step["floor_ms"] == pytest.approx(1e3 * read.moved / 4.8e12, abs=1e-4)
        assert step["flops"] == sum(step["flops_of"].values()) == sum(read.flops.values())
        assert step["planned_bytes"] >= step["temp_bytes"] > 0
        assert not step["collectives"] and not step["unknown_loops"]
    assert found["train"]["flops"] > 2 * found["eval"]["flops"]
    movers = planned.movers_of(program.read((tmp_path / "found.train.hlo").read_text()))
    assert sum(row["bytes"] for row in movers) == found["train"]["bytes_moved"]
    shown = capsys.readouterr().out
    assert "NVIDIA H200" in shown and "bytes moved" in shown and "What moves most" in shown

    target = targets.find_target("h200")
    assert not planned.beyond_memory(found, target)
    found["eval"]["planned_bytes"] = 200 * 2**30
    line = planned.beyond_memory(found, target)
    assert line.startswith("the evaluation of 200.0 GiB does not fit into the 141.0 GiB of memory")


def test_a_step_that_a_compiler_refuses_for_its_size_is_one_line(monkeypatch):
    def refuse(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory")

    monkeypatch.setattr(planned, "mesh_of", lambda target, count: batch_mesh())
    monkeypatch.setattr(planned, "COMPILERS", {"tpu": ("jaxlib",)})
    monkeypatch.setattr(planned, "timed_compile", refuse)
    monkeypatch.setattr(targets, "_installed", lambda module: True)
    line = r"the training step does not fit into the 16.0 GiB of memory of one v5e; take a smaller"
    with pytest.raises(RuntimeError, match=line):
        aot([*TINY, "--target=v5e:2x2"])


def test_precision_is_said_in_words():
    def words(dtype, precision, platform):
        return planned.precision_of(program.Product(dtype, precision, 1, 1, ""), platform)

    assert words("f32", "default", "gpu") == "float32 as TF32"
    assert words("f32", "default", "tpu") == "float32 as bfloat16"
    assert words("f32", "highest", "tpu") == "float32 in full"
    assert words("bf16", "default", "tpu") == "bfloat16"
    assert words("f32", "dot_bf16_bf16_f32_x3", "gpu") == "float32 dot_bf16_bf16_f32_x3"


def test_what_compilers_say_of_missing_devices_is_left_out(capfd):
    with targets.quiet():
        os.write(2, b"I0000 cudart_stub.cc:31] Could not find cuda drivers\n")
        os.write(2, b"something that matters\n")
    assert capfd.readouterr().err == "something that matters\n"
