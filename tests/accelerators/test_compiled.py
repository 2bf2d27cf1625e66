"""Every LRA experiment compiles for a GPU and a TPU that are not here, as it should run there.

`make aot`, or of one experiment `pytest -m aot -k listops-s4d_ft-h200`. For GPUs a step compiles in
half a minute, for TPUs in minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_jax.accelerators import program, targets
from ssm_jax.config.load import read_config

ROOT = Path(__file__).parents[2]
TASKS = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
ARMS = ("s4d_ft", "s4d", "s4", "s5")
TARGETS = ("h200", "v5e:2x2")
# A step of the whole batch does not fit into the 16 GiB of one v5e. In how many parts it is taken:
IN_PARTS = {(f"retrieval:{arm}", "v5e:2x2", 1): 5 for arm in ARMS}
IN_PARTS |= {("text:s5", "v5e:2x2", 1): 2, ("pathx:s5", "v5e:2x2", 1): 4}
IN_PARTS |= {("pathx:s4", "v5e:2x2", 1): 2}


def batch_for(cfg, devices, parts):
    """The batch, or the next larger one that both divide, and whose parts are not N long."""
    size = cfg.batch_size
    while size % (devices * parts) or cfg.model.d_state in (size, 2 * size, size // devices):
        size += 1
    return size


@pytest.mark.slow
@pytest.mark.aot
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("task", TASKS)
def test_a_train_step_compiles_and_does_what_it_should(task, arm, name, devices, tmp_path):
    target = targets.find_target(name)
    try:
        targets.require_compiler(target)
    except ValueError as error:
        pytest.skip(str(error))
    spec = f"lra/{task}:{arm}"
    cfg = read_config(spec)
    parts = IN_PARTS.get((f"{task}:{arm}", name, devices), 1)
    batch = batch_for(cfg, devices, parts)
    out, hlo = tmp_path / "found.json", tmp_path / "found.hlo"
    command = (
        f"aot --config={spec} --config.batch_size={batch} --target={name} --devices={devices} "
        f"--config.train.accumulate={parts} --steps=train --out={out} --hlo={hlo}"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from ssm_jax.commands import main; main()", *command.split()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]  # 1 where the memory does not suffice
    print(done.stdout)
    found = json.loads(out.read_text())["train"]
    read = program.read((tmp_path / "found.train.hlo").read_text(), on_chip=target.on_chip)

    assert found["planned_bytes"] < target.kind.memory
    assert set(found["collectives"]) == ({"all-reduce"} if devices > 1 else set())  # no gather
    assert not whole_kernels(read, cfg, batch // devices // parts)
    of_kernels = [p for p in read.products if p.source.startswith("ssm_jax/kernels/")]
    assert of_kernels
    assert {(p.dtype, p.precision) for p in of_kernels} == {("f32", "highest")}
    layers = cfg.model.depth in found["loops"]
    assert layers == (target.kind.platform == "tpu" or cfg.model.remat)
    assert not found["unknown_loops"]


def whole_kernels(read, cfg, batch):
    """Arrays in memory that have channels, modes and steps at once, (H, N, L).

    Of two modes, S4's in three tasks, they cannot be told from two halves of a gate, nor are large.
    What a loop over as many layers as there are modes keeps, (depth, B, L, H), is none.
    """
    found = set()
    if cfg.model.d_state <= 2:
        return found
    for kernel in read.kernels:
        for array in kernel.arrays:
            dims = list(array.dims)
            kept = [batch, cfg.data.padded_length, cfg.model.d_model]
            if dims == [cfg.model.depth, *kept]:
                continue
            for size in (cfg.model.d_model, cfg.model.d_state):
                if size in dims:
                    dims.remove(size)
            if len(dims) == len(array.dims) - 2 and max(dims, default=0) >= cfg.data.padded_length:
                found.add((kernel.source, str(array)))
    return found
