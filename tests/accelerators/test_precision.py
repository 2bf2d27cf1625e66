"""What programs for accelerators multiply in, and what a run says and records of it.

Initializations, what is measured of data before step 0, and diagnostics are the same on every
platform: lowered for a GPU, no product is left to its default, which is TF32.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from running import products_for_a_gpu

from ssm_jax.analysis import bands
from ssm_jax.analysis.spectra import view
from ssm_jax.config.load import read_config
from ssm_jax.layers import S4D, S5
from ssm_jax.models import SequenceClassifier
from ssm_jax.training import data_init, numerics
from ssm_jax.training.experiment import build

FULL = "HIGHEST, HIGHEST"


def experiment_of(spec, **options):
    cfg = read_config(f"lra/{spec},smoke")
    cfg.update_from_flattened_dict({key.replace("__", "."): v for key, v in options.items()})
    return build(cfg, data_dir=Path("none"), look_only=True)


def test_a_seed_starts_at_one_place_on_every_platform():
    """The initialization of S5 multiplies its draws with eigenvectors; others multiply nothing."""
    for arm, some in (("s5", True), ("s4", False), ("s4d_ft", False)):
        found = products_for_a_gpu(experiment_of(f"listops:{arm}").fresh_state)
        assert bool(found) == some and set(found) <= {FULL}, arm


def test_what_is_measured_before_step_0_is_the_same_on_every_platform():
    small = {"d_model": 4, "depth": 1, "ssm": {"d_state": 2}, "rngs": nnx.Rngs(params=0)}
    model = SequenceClassifier(n_classes=2, d_input=3, **small)
    x_BLH = np.ones((2, 8, 4), np.float32)
    encode, after = data_init._encode, data_init._after
    found = products_for_a_gpu(encode, *nnx.split(model), x_BLH[:, :, :3], None)
    assert found == [FULL]
    found = products_for_a_gpu(after, *nnx.split(model.blocks[0]), x_BLH, None, True)
    assert len(found) > 1 and set(found) == {FULL}


def test_diagnostics_of_layers_are_the_same_on_every_platform():
    s5, s4d = (make(4, d_state=4, rngs=nnx.Rngs(params=0)) for make in (S5, S4D))
    found = products_for_a_gpu(bands._spectra_per_band, view("", s5), 16, 1.0)
    assert len(found) > 1 and set(found) == {FULL}
    by_taps_2HL = np.ones((2, 4, 16), np.float32)
    found = products_for_a_gpu(bands._gradient_per_band, view("", s4d), by_taps_2HL)
    assert found and set(found) == {FULL}


@pytest.mark.parametrize(("precision", "left"), [("default", True), ("highest", False)])
def test_the_option_reaches_encoder_gate_and_decoder(precision, left):
    small = {"model__depth": 1, "model__d_model": 8, "model__d_state": 4, "model__n_ssm": 1}
    experiment = experiment_of("image:s4d", **small, model__precision=precision)
    step, shapes = experiment.step()
    found = products_for_a_gpu(step, *shapes)
    # Each gives two products more in the backward pass, but for the encoder, whose input is data
    assert found.count("DEFAULT, DEFAULT") == (2 + 3 + 3 if left else 0)
    assert found.count(FULL) == len(found) - found.count("DEFAULT, DEFAULT") > 0


@pytest.mark.parametrize(
    ("precision", "platform", "made_of"),
    [
        ("default", "gpu", "TF32"),
        ("high", "gpu", "TF32"),
        ("default", "tpu", "bfloat16"),
        ("highest", "tpu", None),
        ("default", "cpu", None),
    ],
)
def test_a_run_says_where_products_are_of_less_than_float32(precision, platform, made_of):
    experiment = experiment_of("listops:s4d", model__precision=precision)
    lines = [*numerics.describe(experiment.cfg, platform, experiment.paths)]
    assert len(lines) == (made_of is not None)
    for line in lines:
        assert f"multiply as {made_of} (model.precision={precision}; highest: float32)" in line
    assert not [*numerics.describe(experiment.cfg, platform, ["mix/kernel"])]


def test_the_record_says_whether_a_resumed_run_has_the_same_bits(monkeypatch):
    def says(platform, vocab_size=18, deterministic=False):
        cfg.train.deterministic = deterministic
        return numerics.determinism(cfg, platform, vocab_size)

    cfg = read_config("lra/listops:s4d,smoke")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert says("cpu").deterministic and "tested" in says("cpu").reason
    assert not says("tpu").deterministic
    assert not says("gpu").deterministic and "embeddings" not in says("gpu").reason
    assert "the gradient of 2,000 embeddings is a sum in any order" in says("gpu", 2000).reason
    assert says("gpu", deterministic=True).deterministic
    assert numerics.compiler_options(cfg, "gpu") == {"xla_gpu_deterministic_ops": True}
    assert numerics.compiler_options(cfg, "cpu") == {}
    for flags, said in (("=true --xla_x=1", True), ("", True), ("=false", False)):
        monkeypatch.setenv("XLA_FLAGS", f"--xla_y=2 --xla_gpu_deterministic_ops{flags}")
        assert says("gpu").deterministic is said


def test_with_a_deterministic_run_steps_are_compiled_so(monkeypatch):
    """The option is asked of the compiler, which is not here; on CPUs nothing is."""
    given = []
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda self, options=None: given.append(options)
    )
    experiment = experiment_of("listops:s4d", train__deterministic=True)
    experiment.compile(lambda x: x, np.ones(2))
    monkeypatch.setattr(numerics, "platform_of", lambda mesh: "gpu")
    experiment.compile(lambda x: x, np.ones(2))
    assert given == [None, {"xla_gpu_deterministic_ops": True}]
