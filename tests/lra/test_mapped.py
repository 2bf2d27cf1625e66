"""Arrays written block by block: NumPy reads them, and they are there whole or not at all."""

import numpy as np
import pytest

from ssm_jax.lra.shards import write_mapped


def test_the_file_is_the_blocks_one_after_the_other(tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, (7, 5), np.uint8)
    path = tmp_path / "a.npy"
    path.write_bytes(b"something else")
    mapped = write_mapped(path, (7, 5), [whole[:3], whole[3:3], whole[3:]])
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, whole)
    np.testing.assert_array_equal(np.load(path), whole)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rows", [2, 4])
def test_a_wrong_number_of_bytes_and_an_error_leave_nothing(tmp_path, rows):
    with pytest.raises(
        ValueError, match=rf"a.npy was to have the shape \(3, 5\), but has {rows * 5}"
    ):
        write_mapped(tmp_path / "a.npy", (3, 5), [np.zeros((rows, 5), np.uint8)])

    def fails():
        yield np.zeros((1, 5), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mapped(tmp_path / "a.npy", (3, 5), fails())
    assert not list(tmp_path.iterdir())
