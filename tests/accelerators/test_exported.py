"""Train steps as StableHLO for the platforms that this machine does not have."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from ssm_jax.config.load import read_config
from ssm_jax.kernels.devices import compiling_for
from ssm_jax.training.experiment import build


# Every arm, task and platform once at least: tracing them all takes a minute
@pytest.mark.parametrize(
    ("spec", "platform"),
    [
        ("listops:s4d_ft", "cpu"),
        ("text:s4d_ft", "cuda"),
        ("pathfinder:s4d_ft", "tpu"),
        ("image:s4d", "cuda"),
        ("pathx:s4", "tpu"),
        ("retrieval:s5", "cuda"),
    ],
)
def test_a_train_step_exports(spec, platform):
    """Shapes, types and operations are those that the platform knows; nothing is in float64."""
    experiment = build(read_config(f"lra/{spec},smoke"), data_dir=Path("none"), look_only=True)
    made_for = {"cuda": "gpu"}.get(platform, platform)
    with compiling_for(made_for), jax.set_mesh(experiment.mesh):
        step, shapes = experiment.step()
        exported = jax.export.export(jax.jit(step), platforms=[platform])(*shapes)
    assert exported.platforms == (platform,)
    text = exported.mlir_module()
    assert "f64" not in text and "stablehlo" in text
    state, *_ = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    before = jax.tree.leaves(shapes[0])
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(state)] == [
        (x.shape, x.dtype) for x in before
    ]
