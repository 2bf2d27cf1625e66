"""Truncated models are models: they predict, stream and are saved, and refuse what cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from run_of_arrays import EXAMPLES
from small_models import CAUSAL, S4, S5, SERIES_OF, trained

import ssm_jax
from ssm_jax.analysis.hankel import factored, reduced
from ssm_jax.analysis.spectra import layers_of
from ssm_jax.commands.runs import truncate
from tests.analysis.small_systems import real_systems
from tests.analysis.test_truncation import transfer

KINDS = {
    "s4d": {},
    "s4d, bilinear": {"discretization": "bilinear", **CAUSAL},
    "s4d, per sample": {"init": "ring", "discretization": "none", "s4d.input_norm": "lru"},
    "s4": S4,
    "s4, causal": {**S4, **CAUSAL},
    "s5": S5,
    "lru": {"layer": "lru", **CAUSAL},
    "s5, all modes stored": {**S5, **CAUSAL, "s5.conj_sym": False, "s5.clip_eigs": True},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    whole = trained(depth=1, d_state=6, **KINDS[request.param])
    return whole, whole.truncated(3)


def test_its_layers_change_by_no_more_than_the_singular_values_left_out(pair):
    """Of the parameters as they are stored, in float32."""
    whole, small = (layers_of(model.network)[0] for model in pair)
    assert small.C_CHN.shape[2] == 3 and whole.C_CHN.shape[2] == 6
    pairs = zip(real_systems(whole), real_systems(small), factored(whole), strict=True)
    for dense, fewer, system in pairs:
        values = np.linalg.svd(system.hankel_RPQ[0], compute_uv=False)
        left_out = values[reduced(system, 3).order :].sum()
        error = np.linalg.norm(transfer(*dense) - transfer(*fewer), 2, axis=(1, 2)).max()
        assert error <= 2 * left_out + 1e-4 * values[0]
    said = pair[1].provenance["truncated"]["layers"][0]["real_states"]
    assert 3 <= said[0] <= said[1] <= said[2] <= 6


def test_it_is_saved_and_loaded_and_predicts_the_same(pair, tmp_path):
    _, small = pair
    assert small.cfg.model.d_state == 3 and small.cfg.is_locked
    small.save(tmp_path / "small.safetensors")
    loaded = ssm_jax.load(tmp_path / "small.safetensors")
    x = SERIES_OF[None]
    np.testing.assert_array_equal(loaded.predict(x), small.predict(x))
    assert loaded.provenance["truncated"]["from_d_state"] == 6 and not loaded.provenance["metrics"]
    if not pair[0].cfg.model.bidirectional:
        stream = loaded.stream()
        steps = [stream.step(step)[0] for step in np.asarray(x[0], np.float32)]
        np.testing.assert_allclose(steps[-1], small.predict([x[0]])[0][0], rtol=2e-4, atol=2e-5)


def test_a_filter_stays_and_little_is_lost_where_the_values_left_out_are_small():
    """Two real states of four modes count for nothing: equal poles."""
    whole = trained(depth=1, d_state=4)
    layer = whole.network.blocks[0].ssm
    for name in ("A_re_raw", "A_im"):
        old = getattr(layer, name)[...]
        getattr(layer, name).set_value(old.at[:, 3].set(old[:, 2]))
    small = whole.truncated(3)
    assert (np.asarray(small.network.blocks[0].ssm.beta[...]) != 0).any()
    np.testing.assert_array_equal(small.network.blocks[0].ssm.beta[...], layer.beta[...])
    assert small.provenance["truncated"]["layers"][0]["lost_of_sum"] < 1e-6
    x = SERIES_OF[None]
    np.testing.assert_allclose(small.predict(x), whole.predict(x), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_truncated_is_said_in_a_line():
    whole = trained(depth=1, d_state=4, **CAUSAL)
    for wrong in (0, 4, 2.0):
        with pytest.raises(ValueError, match=r"d_state=.* below the 4 modes of the layers"):
            whole.truncated(wrong)
    with pytest.raises(ValueError, match=r"only S4D, S4, S5 and LRU can be .* has LinOSS"):
        trained(depth=1, d_state=4, layer="linoss", **CAUSAL).truncated(2)
    ssm = whole.network.blocks[0].ssm
    ssm.real_transform = "none"
    ssm.A_re_raw.set_value(ssm.A_re_raw[...].at[0, 0].set(0.5))
    with pytest.raises(ValueError, match=r"blocks/0/ssm: 4 of 4 systems have a pole of radius 1"):
        whole.truncated(2)


def test_the_command_scores_the_model_and_the_truncated_ones(finished, tmp_path, capsys):
    run, result = finished
    data = tmp_path / "mine.npz"
    np.savez(data, **EXAMPLES)
    words = [f"--from={data}", f"--data_dir={tmp_path / 'data'}", f"--out={tmp_path / 'out'}"]
    assert truncate([str(run), "--d_state=2,1", *words]) == 0
    said = json.loads((tmp_path / "out/truncation.json").read_text())
    assert [model["d_state"] for model in said["models"]] == [3, 2, 1]
    whole = said["models"][0]
    assert whole["test"]["accuracy"] == pytest.approx(result["accuracy"])
    assert whole["test"]["loss"] == pytest.approx(result["loss"], rel=1e-5)
    own = np.array([list("abc").index(name[0]) for name in EXAMPLES["y_test"]])
    for model in said["models"][1:]:
        path = tmp_path / f"out/d_state_{model['d_state']}.safetensors"
        logits = ssm_jax.load(path).predict(EXAMPLES["x_test"]).astype(float)
        loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(9), own]).mean()
        assert loss == pytest.approx(model["test"]["loss"], rel=1e-4)
        assert model["parameters"] != whole["parameters"] and model["layers"]
    assert "modes kept by balanced truncation" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        truncate([str(run), "--d_state=2,2", *words])
    assert "different whole numbers" in capsys.readouterr().err
