"""PPG-DaLiA from imitations of its pickles, against a loop over windows; nothing of them is run."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.series import Columns, read
from ssm_jax.tasks import find_task

LABELS = 2_700  # of which 15 % are 405, one window of validation and of testing


def recording(rng, n=LABELS):
    wrist = {
        name: rng.normal(size=(n * 128 // times, C)).cumsum(0)
        for name, times, C in (("ACC", 2, 3), ("BVP", 1, 1), ("EDA", 16, 1), ("TEMP", 16, 1))
    }
    signal = {"wrist": wrist, "chest": {"ECG": np.zeros((10, 1))}}
    return {
        "signal": signal,
        "label": 60 + rng.random(n - 3),
        "subject": "S",
        "rate": np.float64(2),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people; the second pickle as Python 2 wrote them."""
    where, rng = tmp_path_factory.mktemp("ppg"), np.random.default_rng(0)
    people = []
    for number, protocol in ((1, 5), (2, 2)):
        people.append(recording(rng))
        (where / f"S{number}").mkdir()
        (where / f"S{number}/S{number}.pkl").write_bytes(pickle.dumps(people[-1], protocol))
    return where, people


def between(x):
    return (x - x.min()) / (x.max() - x.min()) * 2 - 1


def test_windows_are_those_of_a_loop(folder, tmp_path):
    where, people = folder
    cfg = load_config("uea:PPG,s4d")
    cfg.data.arrays.elapsed = False
    paths = DataPaths(tmp_path, where)
    for dataset in (find_task(cfg.task).open(cfg, paths) for _ in range(2)):  # again: as kept
        expected = {"train": [], "val": [], "test": []}
        for person, cuts in zip(people, ((0, 0.7, 0.85), (0, 0.85, 0.7)), strict=True):
            wrist = person["signal"]["wrist"]
            values = [between(wrist[k]) for k in ("ACC", "BVP", "EDA", "TEMP")]
            rate = between(np.array([person["label"][0]] * 3 + list(person["label"])))
            for split, first in zip(expected, cuts, strict=True):
                size = 0.7 if split == "train" else 0.15
                for k in range(int(first * LABELS), int((first + size) * LABELS + 1e-9) - 389, 39):
                    t = np.arange(k * 128, (k + 390) * 128)
                    x = [v[t // times] for v, times in zip(values, (2, 1, 16, 16), strict=True)]
                    expected[split].append((np.concatenate(x, axis=1), rate[k : k + 390]))
        for split, windows in expected.items():
            assert dataset.size(split) == len(windows)
            number = len(windows) - 1
            batch = dataset.gather(split, np.array([number]))
            np.testing.assert_allclose(batch["inputs"][0], windows[number][0], atol=1e-6)
            y = batch["targets"][0, :, 0]
            np.testing.assert_allclose(y[127::128], windows[number][1], atol=1e-6)
            assert np.isnan(np.delete(y, np.arange(127, 49_920, 128))).all()


class Evil:
    def __reduce__(self):
        return eval, ("1 / 0",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"signal": Evil()}), "calls builtins.eval, .* it was not run"),
        (b"\x80\x04", "is no recording of PPG-DaLiA .EOFError"),
        (pickle.dumps({"signal": {}}), "is no recording of PPG-DaLiA .KeyError: 'wrist'"),
        (pickle.dumps(recording(np.random.default_rng(0), 400)), "no window of 780 s fits"),
    ],
)
def test_what_is_no_recording_is_refused_unrun(tmp_path, content, said):
    (tmp_path / "S1").mkdir()
    (tmp_path / "S1/S1.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=said) as refused:
        read(tmp_path, Columns())
    assert "\n" not in str(refused.value)
