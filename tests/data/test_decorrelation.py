"""Decorrelated inputs: against NumPy, fitted on training alone, kept with the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

import ssm_jax
from ssm_jax.config import check as config_check
from ssm_jax.config.load import load_config
from ssm_jax.data.arrays import open_arrays
from ssm_jax.data.preprocessing import (
    LONGEST,
    Preprocessing,
    autocorrelation_matrix,
    packed,
    unpacked,
    whitening,
)
from ssm_jax.data.series import sha256_of_files
from ssm_jax.layers.base import NoStateForm
from ssm_jax.training import loop
from ssm_jax.training.experiment import build

RNG = np.random.default_rng(3)
L, C, EPS = 20, 2, 0.01
STEPS = 0.2 * np.cumsum(RNG.normal(size=(300, L, C)), axis=1) + 5  # smooth, and not around 0
CLASSES = np.arange(300) % 3


def config(tmp_path, eps=EPS, **arrays):
    np.savez(tmp_path / "mine.npz", **({"x": STEPS, "y": CLASSES} | arrays))
    cfg = load_config("arrays")
    cfg.data.arrays.decorrelate = eps
    return cfg


def opened(tmp_path, eps=EPS, **arrays):
    cfg = config(tmp_path, eps, **arrays)
    return open_arrays("classification", cfg.data.to_dict(), tmp_path / "mine.npz")


def inputs_of(dataset, split="train"):
    return dataset.gather(split, np.arange(dataset.size(split)))["inputs"].astype(np.float64)


def test_the_autocorrelation_by_a_loop_over_pairs_of_steps():
    x = STEPS[:5]
    expected = np.zeros((L, L))
    for series in x:
        for channel in series.T:
            for i in range(L):
                for j in range(L):
                    expected[i, j] += channel[i] * channel[j] / (5 * C)
    np.testing.assert_allclose(autocorrelation_matrix(iter(x), L), expected, rtol=1e-12)


def test_lambda_max_of_training_becomes_nearly_1(tmp_path):
    """Of the eigenvalues r of R each becomes r / (r + eps), for R of power 1."""
    raw, white = (inputs_of(opened(tmp_path, eps)) for eps in (0.0, EPS))

    def eigenvalues(x):
        return np.linalg.eigvalsh(np.einsum("nic,njc->ij", x, x) / (len(x) * C))

    before, after = eigenvalues(raw), eigenvalues(white)
    assert before[-1] > 15  # of L, the most there can be
    np.testing.assert_allclose(after, before / (before + EPS * before.mean()), atol=1e-5)
    assert 0.999 < after[-1] < 1


def test_the_share_that_is_over_has_no_part_in_the_matrix(tmp_path):
    """It was taken for one of the channels; a run of that matrix is one of other data."""
    cfg = config(tmp_path)
    cfg.data.arrays.elapsed = True
    beside = open_arrays("classification", cfg.data.to_dict(), tmp_path / "mine.npz")
    alone = opened(tmp_path)
    np.testing.assert_array_equal(inputs_of(beside)[..., 1:], inputs_of(alone))
    used = {"decorrelate": EPS, "elapsed": True, "head": "classification", "seed": cfg.data.seed}
    text = sha256_of_files([tmp_path / "mine.npz"]) + json.dumps(used, sort_keys=True)
    assert beside.provenance.sha256 != hashlib.sha256(text.encode()).hexdigest()


def test_the_matrix_is_the_symmetric_inverse_root():
    x = RNG.normal(size=(8, 6))
    R = x.T @ x / 8
    W = whitening(R, 0.1)
    np.testing.assert_allclose(W, W.T, atol=1e-14)
    np.testing.assert_allclose(
        W @ (R + 0.1 * np.trace(R) / 6 * np.eye(6)) @ W, np.eye(6), atol=1e-12
    )
    np.testing.assert_array_equal(unpacked(packed(W)), np.float32(W))
    with pytest.raises(
        ValueError, match=r"inputs that are 0 cannot .* use data\.arrays\.decorrelate=0"
    ):
        whitening(np.zeros((3, 3)), 0.1)
    for text in ("*", packed(W)[:-4]):
        with pytest.raises(ValueError, match="the decorrelation of the inputs is damaged"):
            unpacked(text)


def test_it_is_of_the_training_split_alone(tmp_path):
    """Other numbers for validation and testing leave it as it is; without it nothing changes."""
    split = np.array(["train"] * 200 + ["val"] * 50 + ["test"] * 50)
    found = opened(tmp_path, split=split).preprocessing
    other = STEPS.copy()
    other[200:] = RNG.normal(size=(100, L, C))
    assert opened(tmp_path, x=other, split=split).preprocessing == found
    other[0] += 1
    assert opened(tmp_path, x=other, split=split).preprocessing.decorrelation != found.decorrelation
    assert opened(tmp_path, 0.0).preprocessing.decorrelation == ""


def test_what_cannot_be_decorrelated_is_refused_in_a_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"decorrelate=0\.01 needs real inputs; these are tokens"):
        opened(tmp_path, x=RNG.integers(0, 5, (300, L)))
    with pytest.raises(ValueError, match="needs series of one length; these have 18 to 20 steps"):
        opened(tmp_path, lengths=np.r_[18, np.full(299, L)])
    monkeypatch.setattr("ssm_jax.data.fitting.LONGEST", 19)
    with pytest.raises(ValueError, match="takes at most 19 steps; these series have 20"):
        opened(tmp_path)
    assert LONGEST == 4_096
    cfg = load_config("arrays:forecasting")
    cfg.data.arrays.decorrelate = 0.1
    with pytest.raises(ValueError, match=r"decorrelate=0\.1 needs whole series, and a forecast"):
        config_check.check(cfg)


def test_a_trained_model_decorrelates_what_it_is_given(tmp_path):
    cfg = config(tmp_path)
    cfg.figures, cfg.log.diagnostics, cfg.log.gradient = False, False, False
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 3
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 2, 2
    cfg.batch_size, cfg.train.eval_batch_size = 8, 30
    experiment = build(cfg, data_dir=tmp_path / "data", files=tmp_path / "mine.npz")
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    trained = ssm_jax.load(tmp_path / "run")
    trained.save(tmp_path / "model.safetensors")
    (tmp_path / "mine.npz").unlink()
    rows = experiment.dataset.rows["test"]
    call = jax.jit(lambda inputs: trained.network(inputs))
    expected = call(np.float32(inputs_of(experiment.dataset, "test")))
    for model in (trained, ssm_jax.load(tmp_path / "model.safetensors")):
        found = model.predict(STEPS[rows], batch_size=len(rows))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"series 0: a series has 19 steps; .* inputs of 20"):
        trained.predict(STEPS[:2, :-1])
    with pytest.raises(NoStateForm, match=r"decorrelates whole series.*arrays\.decorrelate=0"):
        trained.stream()


def test_a_record_of_before_has_none():
    fields = {f.name for f in dataclasses.fields(Preprocessing)} - {"decorrelation"}
    old = dict.fromkeys(fields, ())
    assert Preprocessing.of_json(old).decorrelation == ""
