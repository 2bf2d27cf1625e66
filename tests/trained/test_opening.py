"""Models of runs without their data, best, newest or of a step; and of files, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from run_of_arrays import EXAMPLES
from safetensors.numpy import save as tensor_bytes
from small_models import CAUSAL, S4, S5, SERIES_OF, trained

import ssm_jax
from ssm_jax.tasks import Watched, facts_of, stand_in
from ssm_jax.trained import load
from ssm_jax.trained.opening import arrays_of, read_tensors
from ssm_jax.training.checkpoint.io import read_arrays, read_meta
from ssm_jax.training.checkpoint.manifest import CheckpointError, flatten
from ssm_jax.training.step import split
from ssm_jax.training.workdir import sealed

OLD = Path(__file__).parents[1] / "training/old_runs/finished"


def numbers_of(model):
    _, params, stats = split(model.network)
    return flatten({"params": params, "stats": stats})


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a run, to be changed."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


@pytest.mark.parametrize("step", ["best", "newest", 2, "checkpoint"])
def test_a_run_whose_data_are_gone_gives_the_numbers_of_its_checkpoint(finished, step):
    path, result = finished
    number = {"best": result["step"], "newest": 6}.get(step, 2)
    if step == "checkpoint":
        model = ssm_jax.load(path / "checkpoints/2")
    else:
        model = ssm_jax.load(str(path), step)
    folder = path / "checkpoints" / str(number)
    saved = read_arrays(folder, read_meta(folder)[1])
    found = numbers_of(model)
    assert found.keys() == {k for k in saved if k.startswith(("params/", "stats/"))}
    for name, array in found.items():
        np.testing.assert_array_equal(array, saved[name])
    assert model.provenance["step"] == number and model.provenance["git"]
    assert repr(model) == f"<Trained classification: classification, s4d, step {number}>"
    assert model.classes == ("ant", "bee", "cow") and model.cfg.model.d_model == 4


def test_its_predictions_of_raw_arrays_have_the_accuracy_of_the_evaluation(finished):
    path, result = finished
    right = load(path).labels(EXAMPLES["x_test"]) == EXAMPLES["y_test"]
    assert right.mean() == pytest.approx(result["accuracy"])
    logits = load(path).predict(EXAMPLES["x_test"])
    lse = np.log(np.exp(logits.astype(float)).sum(1))
    own = np.array([list("abc").index(name[0]) for name in EXAMPLES["y_test"]])
    loss = (lse - logits[np.arange(9), own]).mean()
    assert loss == pytest.approx(result["loss"], rel=1e-5)


def test_nothing_is_written_into_the_run(finished):
    before = {p: p.stat().st_mtime_ns for p in finished[0].rglob("*")}
    load(finished[0]).predict(EXAMPLES["x_test"][:2])
    assert {p: p.stat().st_mtime_ns for p in finished[0].rglob("*")} == before


def test_the_next_best_stands_in_for_a_damaged_one(run, finished, capsys):
    best = finished[1]["step"]
    for file in (run / f"checkpoints/{best}/state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"?" * file.stat().st_size)
    model = load(run)
    assert model.provenance["step"] in {2, 4, 6} - {best}
    assert f"step {best}, which has the best evaluation, is lost" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=f"step {best} .* is damaged"):
        load(run, best)


def test_what_is_missing_is_said_in_a_line(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load(tmp_path)
    with pytest.raises(ValueError, match="the step 3 is not in"):
        load(run, 3)
    with pytest.raises(ValueError, match="both name a step"):
        load(run / "checkpoints/2", 4)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors is not there"):
        load(tmp_path / "none.safetensors")
    record = json.loads((run / "record.json").read_text())
    del record["built_from"], record["crc32"]
    (run / "record.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(ValueError, match=r"recorded without what its model reads.*give data_dir="):
        load(run)


def test_a_run_of_an_older_version_opens_its_data(tmp_path_factory):
    with pytest.raises(ValueError, match="give data_dir="):
        load(OLD)
    model = load(OLD, data_dir=tmp_path_factory.mktemp("data"))
    tokens = np.arange(30).reshape(3, 10) % model.built_from["vocab_size"]
    expected = model.network(tokens)
    np.testing.assert_allclose(model.predict(tokens), expected, atol=1e-5)
    assert model.classes == tuple("0123456789") and model.provenance["step"] == 10


class Own:
    """A data set of somebody else."""

    def __init__(self):
        self.width, self.names, self.table = np.int64(3), ("a", "b"), {"x": 1.5}

    def size(self):
        return 7

    def __len__(self):
        return 5

    def __getitem__(self, key):
        return "row"[key]


def test_what_is_read_of_a_data_set_is_kept_as_json_and_read_again():
    watched = Watched(Own())
    assert isinstance(watched, Own) and not hasattr(watched, "height")
    assert watched.width == 3 and watched.names[1] == "b" and watched.table["x"] == 1.5
    facts = facts_of(watched)
    assert facts == {"names": ["a", "b"], "table": {"x": 1.5}, "width": 3}
    again = stand_in(json.loads(json.dumps(facts)))
    assert again.names == ("a", "b") and again.width == 3 and not hasattr(again, "size")


def test_what_is_no_json_needs_the_data_set_itself():
    for look in (lambda w: w.size() == 7, lambda w: len(w) == 5, lambda w: [*w] == ["r", "o", "w"]):
        watched = Watched(Own())
        assert facts_of(watched) == {} and look(watched)
        assert facts_of(watched) is None


# Files


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("classification", {}),
        ("classification", {"vocab_size": 6, **S5, "norm": "layer"}),
        ("forecasting", {"horizon": 3, **S4, **CAUSAL}),
    ],
)
def test_a_file_has_the_same_bits_config_and_preprocessing(head, options, tmp_path):
    model = trained(head, **options)
    model.save(tmp_path / "a/mine.safetensors")
    again = load(tmp_path / "a/mine.safetensors")
    assert again.cfg == model.cfg and again.preprocessing == model.preprocessing
    assert again.provenance == model.provenance
    found, expected = numbers_of(again), numbers_of(model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(np.asarray(found[name]), array)
    series = SERIES_OF[model.preprocessing.vocab_size]
    np.testing.assert_array_equal(again.predict(series), model.predict(series))
    again.save(tmp_path / "twice.safetensors")
    one, two = (tmp_path / name for name in ("a/mine.safetensors", "twice.safetensors"))
    assert one.read_bytes() == two.read_bytes()


def test_the_file_of_a_run_has_its_origin_and_no_path_of_this_machine(finished, tmp_path):
    load(finished[0]).save(tmp_path / "mine.safetensors")
    arrays, header = read_tensors(tmp_path / "mine.safetensors")
    assert arrays.keys() == arrays_of(load(finished[0]).network).keys()
    said = json.loads(header["ssm_jax"])
    origin = said["provenance"]
    assert origin["step"] == finished[1]["step"] and origin["git"].keys() == {"commit", "dirty"}
    assert said["config"]["model.d_model"] == 4
    assert said["built_from"]["preprocessing"]["classes"] == ["ant", "bee", "cow"]
    assert str(finished[0].parent) not in str(header)


def test_files_that_are_no_model_are_refused(tmp_path):
    model = trained(depth=1)
    with pytest.raises(ValueError, match=r"NAME\.safetensors"):
        model.save(tmp_path / "mine.bin")
    path = tmp_path / "mine.safetensors"
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        load(path)
    path.write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(ValueError, match="has the format 9, this version reads 1"):
        load(path)
    path.write_bytes(content.replace(b'"ssm_jax":', b'"foreign":'))
    with pytest.raises(ValueError, match="is no model of ssm_jax"):
        load(path)
    for said in ("{}", "[]", "1"):
        path.write_bytes(tensor_bytes({}, {"ssm_jax": said}))
        lacking = "has a header without format, config, built_from, provenance"
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))} {lacking}"):
            load(path)
    path.write_bytes(content.replace(b'\\"model.depth\\": 1', b'\\"model.depth\\": 2'))
    with pytest.raises(ValueError, match="have been changed: their digest"):
        load(path)
    other = b"params.blocks.0.ssm.A_re_raw"
    path.write_bytes(content.replace(other, other.replace(b"raw", b"war")))
    with pytest.raises(ValueError, match="is not the model that its header describes"):
        load(path)
    path.write_bytes(content)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]
    assert jax.tree.structure(nnx.state(load(path).network))
