"""The split of the JAX benchmark is that of `np.unique` and `jax.random`, from its files."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from ssm_jax.commands import train as make
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config
from ssm_jax.data.arrays import open_arrays
from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.series import Columns, read
from ssm_jax.data.splits import distinct, published_order
from ssm_jax.layers import LAYERS
from ssm_jax.report import benchmark
from ssm_jax.tasks import find_task
from ssm_jax.trained import load

RNG = np.random.default_rng(2)


def published(seed, n):
    """What the published programs do, with the raw keys of their JAX."""
    with jax.threefry_partitionable(False):
        dataset_key = jax.random.split(jax.random.PRNGKey(seed), 4)[0]
        return np.asarray(jax.random.permutation(jax.random.split(dataset_key)[0], n))


@pytest.mark.parametrize("seed", [0, 2345, 6789, 2**32 - 1])
def test_the_permutation_is_that_of_jax(seed):
    for n in (1, 2, 259, 1_700):  # of more than 1,625 the keys are drawn twice
        np.testing.assert_array_equal(published_order(n, seed), published(seed, n))


def archive(folder, form, name="Toy", n=(22, 18), L=7, C=3):
    """A set of the archive with repetitions, in one of its formats; all series and classes."""
    x = RNG.integers(-2, 3, (sum(n), L, C)) / 4  # ties, and both zeros
    x[x == 0] *= RNG.choice([-1, 1], (x == 0).sum())
    x[5], x[25], x[30] = x[2], x[2], -x[11]
    x[30] = -x[30]
    y = np.array(["walk", "run"])[np.arange(sum(n)) % 2]
    (folder / name).mkdir(parents=True)
    for part, rows in (("TRAIN", range(n[0])), ("TEST", range(n[0], sum(n)))):
        cases = [[",".join(map(repr, c)) for c in x[i].T.tolist()] for i in rows]
        if form == "ts":
            text = "#about\n@problemName Toy\n@timestamps false\n@classLabel true walk run\n@data\n"
            text += "".join(":".join([*c, y[i]]) + "\n" for c, i in zip(cases, rows, strict=True))
        else:
            text = "%about\n@relation 'Toy'\n\n@attribute all relational\n"
            text += "".join(f"  @attribute att{k} numeric\n" for k in range(L))
            text += "@end all\n@attribute class {walk,run}\n\n@data\n"
            text += "".join(
                "'" + "\\n".join(c) + f"',{y[i]}\n" for c, i in zip(cases, rows, strict=True)
            )
        (folder / name / f"{name}_{part}.{form}").write_text(text)
    return x, y


@pytest.mark.parametrize("form", ["ts", "arff"])
def test_a_folder_of_the_archive_is_merged_and_split_as_published(tmp_path, form):
    x, y = archive(tmp_path, form)
    x32, first = np.unique(x.astype(np.float32), axis=0, return_index=True)
    assert len(x32) == 37
    cfg = load_config("uea:EigenWorms,s4d")
    cfg.data.arrays.set = "Toy"
    for seed in (2345, 6789):
        cfg.seed = seed
        dataset = find_task(cfg.task).open(cfg, DataPaths(tmp_path / "data", tmp_path))
        order = published(seed, 37)
        for split, part in zip(
            ("train", "val", "test"), np.split(order, [int(37 * 0.7), int(37 * 0.85)]), strict=True
        ):
            batch = dataset.gather(split, np.arange(dataset.size(split)))
            np.testing.assert_array_equal(batch["inputs"][..., 1:], x32[part])
            time = np.broadcast_to(np.arange(7)[:, None] / 7, (len(part), 7, 1))
            np.testing.assert_allclose(batch["inputs"][..., :1], time, rtol=1e-6)
            names = np.array(dataset.class_names)[batch["targets"]]
            np.testing.assert_array_equal(names, y[first[part]])
    cfg.seed = 2345
    same = find_task(cfg.task).open(cfg, DataPaths(tmp_path / "data", tmp_path / "Toy"))
    assert same.fingerprint == dataset.fingerprint  # runs of other seeds are repetitions
    assert (same.rows["test"] != dataset.rows["test"]).any()


def test_equal_series_are_one_and_shorter_ones_come_first(tmp_path):
    lines = ["1,2,3:a", "1,2:b", "-0.0,5:a", "0.0,5:b", "1,2,3:b"]
    (tmp_path / "A.ts").write_text("@classLabel true a b\n@data\n" + "\n".join(lines) + "\n")
    found = read(tmp_path / "A.ts", Columns()).parts[""]
    series = replace(found, steps=found.steps.astype(np.float32))
    assert distinct(series).tolist() == [2, 1, 0]


def test_what_cannot_be_merged_is_refused_in_a_line(tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.integers(0, 4, (40, 6)), y=np.arange(40) % 2)
    cfg = load_config("uea:Heartbeat,s4d")
    with pytest.raises(ValueError, match="split=merged takes real series that have the same"):
        open_arrays(cfg.task, cfg.data.to_dict() | {"seed": 0}, tmp_path / "a.npz")
    cfg.data.arrays.split = "random"
    cfg.data.arrays.elapsed = True
    with pytest.raises(ValueError, match="elapsed is of real inputs; these are tokens"):
        open_arrays(cfg.task, cfg.data.to_dict() | {"seed": 0}, tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="neither a folder Heartbeat nor Heartbeat_TRAIN"):
        find_task(cfg.task).open(cfg, DataPaths(tmp_path / "data", tmp_path))
    with pytest.raises(ValueError, match=r"set=Heartbeat is another set than that of a\.npz; give"):
        find_task(cfg.task).open(cfg, DataPaths(tmp_path / "data", tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="s4d has no published point for Heartbeat"):
        load_config("uea:Heartbeat,s4d,published")


def test_a_run_of_the_benchmark_ends_with_its_data_and_steps(tmp_path):
    archive(tmp_path / "uea", "ts", name="Heartbeat")
    small = [
        "model.depth=1", "model.d_model=4", "model.d_state=2", "batch_size=8", "train.steps=4",
        "train.eval_every=2", "figures=false", "log.diagnostics=false",
    ]  # fmt: skip
    words = [f"--config.{word}" for word in small]
    words += [f"--from={tmp_path / 'uea'}", f"--data_dir={tmp_path / 'data'}"]
    assert make.train(["--config=uea:Heartbeat,s4d", f"--workdir={tmp_path / 'run'}", *words]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["seed"] == 2345 and summary["name"] == "uea/Heartbeat:s4d"
    assert "40 series of 3 channels" in summary["data"]["detail"]
    trained = load(tmp_path / "run")
    assert trained.predict(np.zeros((2, 7, 3))).shape == (2, 2)
    with pytest.raises(ValueError, match="knows how much of a series is over"):
        trained.stream()


@pytest.mark.parametrize("variant", ["s4d_ft", *LAYERS])
def test_every_variant_is_a_config_at_one_budget(variant):
    points = set()
    for name in ("EigenWorms", "SelfRegulationSCP2", "PPG", "BasicMotions"):
        cfg = load_config(f"uea:{name},{variant}")
        check(cfg)
        assert cfg.model.layer == variant.removesuffix("_ft")
        points.add((name, cfg.model.depth, cfg.model.d_model, cfg.model.d_state, cfg.batch_size))
        assert {cfg.optim.groups[g].lr for g in cfg.optim.groups if g not in ("A_im",)} == {
            {"SelfRegulationSCP2": 1e-5}.get(name, 1e-3)
        }
    assert points == {
        ("EigenWorms", 2, 128, 64, 4), ("SelfRegulationSCP2", 6, 64, 256, 32),
        ("PPG", 6, 16, 64, 4), ("BasicMotions", 4, 64, 64, 32),
    }  # fmt: skip
    if variant in ("s5", "lru", "linoss"):
        for name in benchmark.SETS:
            check(load_config(f"uea:{name},{variant},published"))
