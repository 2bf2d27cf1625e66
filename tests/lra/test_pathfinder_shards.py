"""Images over the cores: the same whatever the workers and whatever was there before."""

import subprocess
import sys

import numpy as np
import pytest
from small_pathfinder import Spec

from ssm_jax.lra import pathfinder_generator, shards
from ssm_jax.lra.pathfinder_generator import generate_images, generate_shard

SHORT = Spec(seed=2, n_images=24)


def generate(folder, spec=SHORT, workers=1):
    return generate_images(spec, folder, workers=workers, advance=lambda n: None)


@pytest.fixture
def drawn(monkeypatch):
    """The numbers of the shards that are drawn from now on."""
    numbers = []
    original = pathfinder_generator.generate_shard
    monkeypatch.setattr(
        pathfinder_generator, "generate_shard", lambda s, k: numbers.append(k) or original(s, k)
    )
    return numbers


def test_images_are_those_of_the_shards_in_order_and_stay_on_disk(tmp_path):
    pixels, targets = generate(tmp_path / "new")
    parts = [generate_shard(SHORT, k) for k in range(3)]
    np.testing.assert_array_equal(pixels, np.concatenate([p for p, _ in parts]))
    np.testing.assert_array_equal(targets, np.concatenate([t for _, t in parts]))
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    assert (pixels.shape, pixels.dtype, targets.dtype) == ((24, 1024), np.uint8, np.uint8)
    assert sorted(p.suffix for p in (tmp_path / "new").iterdir()) == [".npy", *[".npz"] * 3]


def test_the_result_does_not_depend_on_the_workers(tmp_path):
    alone = generate(tmp_path / "1")
    for workers in (2, 3):
        told = []
        folder = tmp_path / str(workers)
        others = generate_images(SHORT, folder, workers=workers, advance=told.append)
        for a, b in zip(alone, others, strict=True):
            np.testing.assert_array_equal(a, b)
        assert sorted(told) == [4, 10, 10]


def test_a_worker_draws_the_shards_of_the_generator_itself(tmp_path):
    """The second shard of 1,003 images, 3 of them."""
    spec = pathfinder_generator.Spec(n_images=1_003)
    shards.run_workers(spec, tmp_path, [1], 1, lambda n: None)
    pixels, labels = generate_shard(spec, 1)
    with np.load(tmp_path / "000001.npz") as arrays:
        np.testing.assert_array_equal(arrays["pixels"], pixels)
        np.testing.assert_array_equal(arrays["targets"], labels)


def test_missing_and_damaged_shards_are_drawn_again(tmp_path, drawn):
    whole = [np.array(a) for a in generate(tmp_path)]
    drawn.clear()
    cut = tmp_path / "000000.npz"
    cut.write_bytes(cut.read_bytes()[:-100])
    spoilt = tmp_path / "000001.npz"
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[:400] + bytes(40) + data[440:])
    (tmp_path / "000002.npz").unlink()
    (tmp_path / "pixels.npy").rename(tmp_path / "pixels.npy.tmp")  # killed while it was written
    told = []
    again = generate_images(SHORT, tmp_path, workers=1, advance=told.append)
    assert drawn == [0, 1, 2]
    assert sum(told) == 24
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_interrupted_generation_goes_on_from_its_whole_shards(tmp_path, drawn, monkeypatch):
    def fails(spec, shard):
        if shard == 1:
            raise KeyboardInterrupt
        return counting(spec, shard)

    counting = pathfinder_generator.generate_shard
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathfinder_generator, "generate_shard", fails)
        generate(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["000000.npz"]
    assert len(generate(tmp_path)[0]) == 24
    assert drawn == [0, 1, 2]


def test_shards_of_fewer_or_other_images_are_drawn_again(tmp_path, drawn):
    """The last shard grows with the number of images; another size never fits."""
    generate(tmp_path)
    drawn.clear()
    generate(tmp_path, Spec(seed=2, n_images=27))
    assert drawn == [2]
    arrays = shards.finish(SHORT, tmp_path, 0)
    for part, other in (
        ("pixels", arrays["pixels"][:, :-1]),
        ("pixels", arrays["pixels"].astype(int)),
        ("targets", arrays["targets"][:-1]),
    ):
        with pytest.raises(ValueError, match=f"{part} of shard 0 must be bytes"):
            SHORT.check(0, {**arrays, part: other})


def test_a_worker_that_fails_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    spec = pathfinder_generator.Spec(n_images=1_001)
    with pytest.raises(ValueError, match="a Pathfinder worker failed: NotADirectoryError"):
        shards.run_workers(spec, tmp_path / "file", [1], 1, lambda n: None)


def test_a_worker_starts_with_numpy_alone():
    code = (
        "import sys, ssm_jax.lra.shards, ssm_jax.lra.pathfinder_generator;"
        "heavy = ('jax', 'grain', 'tensorflow_datasets', 'rich', 'numba', 'PIL', 'scipy');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
