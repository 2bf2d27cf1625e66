"""One run over four devices is the run over one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from tiny import tiny_experiment
from ssm_jax.data.loader import train_batches
from ssm_jax.training.data_init import initialized

experiment = tiny_experiment(Path(sys.argv[2]), train__accumulate=int(sys.argv[3]))
assert experiment.mesh.size == int(sys.argv[1])
state, found = experiment.fresh_state(), []
step = experiment.compile_step()
batches = train_batches(experiment.dataset, "train", experiment.order, 0)
with jax.set_mesh(experiment.mesh):
    for _ in range(12):
        batch = experiment.place_batch(next(batches))
        state, metrics = step(state, experiment.key, batch)
        found.append({name: float(value) for name, value in metrics.items()})
    evaluate = experiment.compile_step(training=False)
    batch = experiment.dataset.gather("val", list(range(8)))
    mask = [1.0] * 5 + [0.0] * 3
    batch["mask"] = jax.numpy.asarray(mask, jax.numpy.float32)
    sums = evaluate(state.params, state.stats, experiment.place_batch(batch))
inputs = experiment.place_batch(batch)["inputs"]
shards = {str(shard.data.shape) for shard in inputs.addressable_shards}
gathers = step.as_text().count("all-gather(")
ruled = tiny_experiment(Path(sys.argv[2]), model__dt_rule="autocorrelation")
with jax.set_mesh(ruled.mesh):
    _, measured = initialized(ruled, ruled.fresh_state())
print(json.dumps({
    "steps": found,
    "sums": {name: float(value) for name, value in sums.items()},
    "shards": sorted(shards),
    "gathers": gathers,
    "measured": measured,
}))
"""


def run(devices: int, data_dir: Path, parts: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(devices), str(data_dir), str(parts)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_four_devices_have_the_losses_of_one_and_none_gathers_the_batch(data_dir, parts):
    """Dropout is on; float32 sums in another order are all that differs.

    XLA alone would gather the whole batch before every FFT.
    """
    one, four = (run(devices, data_dir, parts) for devices in (1, 4))
    assert four["shards"] == ["(2, 24)"]
    for a, b in zip(one["steps"], four["steps"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-6 * max(1, abs(a["loss"])))
        assert b["accuracy"] == a["accuracy"]
    assert four["sums"]["count"] == one["sums"]["count"] == 5
    assert four["sums"]["loss"] == pytest.approx(one["sums"]["loss"], rel=1e-5)
    assert four["gathers"] == 0
    for a, b in zip(one["measured"], four["measured"], strict=True):
        assert b == {k: pytest.approx(v, rel=1e-5) if k != "layer" else v for k, v in a.items()}
