"""CAMELS-US from small imitations of its files, and the windows that are made of it."""

import numpy as np
import pytest
from camels_files import AREAS, MISSING, write_attributes, write_camels

from ssm_jax import config as config_lib
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.stories.runoff.bucket import bucket
from ssm_jax.stories.runoff.camels import ATTRIBUTES, read_camels
from ssm_jax.stories.runoff.data import open_runoff

L = 40
PERIODS = {
    "train": "2000-06-01..2001-05-31", "val": "2001-06-01..2001-12-31",
    "test": "2002-01-01..2002-07-31",
}  # fmt: skip


def opened(root, n_test=0, **options):
    cfg = config_lib.default("runoff")
    cfg.data.source, cfg.data.padded_length, cfg.data.n_test = "files", L, n_test
    cfg.data.runoff.update({**PERIODS, **options})
    return open_runoff(cfg.data.to_dict(), DataPaths(root / "data", root))


@pytest.fixture
def folder(tmp_path):
    return tmp_path, write_camels(tmp_path), write_attributes(tmp_path, ATTRIBUTES)


def test_a_folder_is_read_as_published(folder):
    root, made, static = folder
    found = read_camels(root, "daymet", None, attributes=True)
    assert found.names == tuple(AREAS) and len(ATTRIBUTES) == 27
    for k, (name, (x, q, dates)) in enumerate(made.items()):
        np.testing.assert_array_equal(found.weather[k], x)
        assert found.starts[k] == dates[0]
        for day in range(len(q)):  # one cubic foot is 28,316,846.592 mm3
            expected = 28_316_846.592 * q[day] * 86_400 / (AREAS[name] * 10**6)
            if q[day] == MISSING:
                assert np.isnan(found.flow[k][day])
            else:
                assert found.flow[k][day] == pytest.approx(expected, rel=1e-12)
        np.testing.assert_array_equal(found.attributes[k], static[name])


def test_a_list_of_basins_and_another_forcing_are_read(folder, tmp_path):
    root, _, _ = folder
    (tmp_path / "list.txt").write_text("12010000\n1013500  a comment\n")
    found = read_camels(root, "daymet", tmp_path / "list.txt", attributes=False)
    assert found.names == ("12010000", "01013500") and found.attributes.shape == (2, 0)
    (root / "basin_dataset_public_v1p2").mkdir()
    for name in ("basin_mean_forcing", "usgs_streamflow"):
        (root / name).rename(root / "basin_dataset_public_v1p2" / name)
    assert len(read_camels(root, "daymet", None, attributes=False).names) == 3


def test_windows_are_those_of_a_loop_over_days(folder):
    """Every example: a year's weather up to its day, standardized by training, and its flow."""
    root, made, static = folder
    dataset = opened(root)
    periods = {s: [np.datetime64(d) for d in p.split("..")] for s, p in PERIODS.items()}
    mm = {n: np.where(q < 0, np.nan, q * 0.3048**3 * 86.4e6 / AREAS[n])
          for n, (_, q, _) in made.items()}  # fmt: skip
    ends = {
        split: [
            (k, name, t)
            for k, (name, (_, _, dates)) in enumerate(made.items())
            for t in range(L - 1, len(dates))
            if first <= dates[t] <= last and np.isfinite(mm[name][t])
        ]
        for split, (first, last) in periods.items()
    }
    seen = {name: set() for name in made}
    for _, name, t in ends["train"]:
        seen[name] |= set(range(t - L + 1, t + 1))
    x = np.concatenate([made[name][0][sorted(days)] for name, days in seen.items()])
    flow = np.array([mm[name][t] for _, name, t in ends["train"]])
    a = np.array(list(static.values()))
    for split, expected in ends.items():
        assert dataset.size(split) == len(expected)
        numbers = np.array([0, len(expected) // 2, len(expected) - 1])
        batch = dataset.gather(split, numbers)
        for b, number in enumerate(numbers):
            k, name, t = expected[number]
            window = (made[name][0][t - L + 1 : t + 1] - x.mean(0)) / x.std(0)
            np.testing.assert_allclose(batch["inputs"][b, :, :5], window, rtol=1e-4, atol=1e-5)
            own = (np.array(static[name]) - a.mean(0)) / a.std(0)
            np.testing.assert_allclose(batch["inputs"][b, 0, 5:], own, rtol=1e-4, atol=1e-5)
            assert (batch["inputs"][b, :, 5:] == batch["inputs"][b, :1, 5:]).all()
            y = (mm[name][t] - flow.mean()) / flow.std()
            assert batch["targets"][b, 0] == pytest.approx(y, rel=1e-5, abs=1e-6)
            std = np.std([mm[n][s] for _, n, s in ends["train"] if n == name])
            assert batch["weight"][b] == pytest.approx(1 / (std + 0.1) ** 2, rel=1e-5)
            assert batch["basin"][b].tolist() == [float(i == k) for i in range(3)]
            of_basin = sorted(mm[n][s] for _, n, s in expected if n == name)
            least = of_basin[-max(1, round(0.02 * len(of_basin)))]
            levels = (np.array([0.0, least]) - flow.mean()) / flow.std()
            np.testing.assert_allclose(batch["levels"][b], levels, rtol=1e-5, atol=1e-6)
    assert (opened(root, weight="none").gather("train", np.arange(5))["weight"] == 1).all()
    assert dataset.d_input == 32 and opened(root, attributes=False).d_input == 5


def test_a_hydrograph_has_each_flow_at_its_time(folder):
    dataset = opened(folder[0])
    said = np.arange(dataset.size("test"), dtype=np.float32)[:, None] - 50
    rows = dataset.rows["test"]
    for k, (name, (y, p)) in enumerate(dataset.hydrographs("test", said)):
        own = np.flatnonzero(dataset.series_of("test") == k)
        first = dataset.times[rows[own[0]]]
        for number in own:
            t = int((dataset.times[rows[number]] - first).astype(int))
            about = dataset.preprocessing
            value = said[number, 0] * about.target_std[0] + about.target_mean[0]
            assert p[t] == pytest.approx(max(value, 0.0), rel=1e-5)
            assert y[t] == pytest.approx(dataset._parts["test"].targets[rows[number]])
        assert name == tuple(AREAS)[k] and np.isfinite(y).sum() == own.size


def test_a_basin_without_an_example_has_no_hydrograph(folder):
    dataset = opened(folder[0], n_test=2)  # of three basins
    basins = dataset.series_of("test")
    assert len(set(basins)) == 2
    found = list(dataset.hydrographs("test", np.zeros((2, 1), np.float32)))
    assert [name for name, _ in found] == [dataset.basins[k] for k in sorted(basins)]


def broken(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BASIN = "02011400"
WEATHER = f"basin_mean_forcing/daymet/02/{BASIN}_lump_cida_forcing_leap.txt"
CLIMATE = "camels_attributes_v2.0/camels_clim.txt"
FLOW = f"usgs_streamflow/02/{BASIN}_streamflow_qc.txt"


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (WEATHER, "410000000", "4x", "line 3 is '4x'; it must be the area"),
        (WEATHER, "Tmin(C)", "Tmean(C)", "has no column tmin"),
        (WEATHER, "12\t34800\t", "12\t34800\tdusk\t", "dusk"),
        (WEATHER, "2000 03 01", "2000 03 02", "2000-02-29 is followed by 2000-03-02"),
        (WEATHER, "2000 03 01", "2000 02 30", "2000-2-30 is no day"),
        (FLOW, "2000 03 01", "2000 13 01", "2000-13-1 is no day"),
        (FLOW, "2000 03 01", "2000 02 29", "has a day twice"),
        (CLIMATE, f"{BASIN};Mixed", "1;Mixed", f"no p_mean of .* {BASIN}"),
        (CLIMATE, ";p_mean", ";mean", "has no p_mean"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_in_a_line(folder, file, old, new, words):
    root, _, _ = folder
    broken(root / file, old, new)
    with pytest.raises(ValueError, match=words) as error:
        read_camels(root, "daymet", None, attributes=True)
    assert "\n" not in str(error.value) and file.split("/")[0] in str(error.value)


def test_what_is_not_there_is_named(folder, tmp_path):
    root, _, _ = folder
    with pytest.raises(FileNotFoundError, match=r"no folder .*nldas.* has daymet"):
        opened(root, forcing="nldas")
    (tmp_path / "list.txt").write_text("99999999\n")
    with pytest.raises(FileNotFoundError, match=r"no weather \(daymet\) of the basin 99999999"):
        opened(root, basins=str(tmp_path / "list.txt"))
    with pytest.raises(ValueError, match=r"01013500 has no flow after 40 steps .* 2002-08-07"):
        opened(root, test="2010-01-01..2011-01-01")
    with pytest.raises(FileNotFoundError, match="give the folder of CAMELS-US with --from"):
        open_runoff(load_config("runoff").data.to_dict(), DataPaths(tmp_path / "data"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": "2000"}, "'2000' is no period such as"),
        ({"val": "2008-01-01..2007-01-01"}, "is no period"),
        ({"test": "1989-13-01..1999-09-30"}, "is no period"),
        ({"val": "2000-01-01..2000-02-01"}, "share days"),
    ],
)
def test_periods_that_cannot_be_are_refused(options, words):
    cfg = config_lib.default("runoff")
    cfg.data.source, cfg.data.padded_length, cfg.train.steps = "files", L, 1
    cfg.train.select_metric = "loss"
    check(cfg)
    cfg.data.runoff.update(options)
    with pytest.raises(ValueError, match=words):
        check(cfg)


def test_the_bucket_keeps_its_water():
    """Rain = flow + what evaporates + what the stores have more at the end, by a loop."""
    rng = np.random.default_rng(0)
    rain, warmth = rng.gamma(0.1, 5, 500), rng.uniform(-5, 25, 500)
    flow = bucket(rain, warmth)
    soil, quick, slow, evaporated = 30.0, 0.0, 20.0, 0.0
    for t in range(500):
        share = min(soil / 60, 1)
        e = 0.01 * max(warmth[t], 0) * share
        change = rain[t] * (1 - share**2) - soil / 300 - e
        slow, quick = slow + soil / 300, quick + rain[t] * share**2
        assert soil + change > 0
        soil, evaporated = soil + change, evaporated + e
        assert flow[t] == pytest.approx(quick / 3 + slow / 200, rel=1e-12)
        quick, slow = quick * (2 / 3), slow * (199 / 200)
    assert rain.sum() == pytest.approx(flow.sum() + evaporated + soil + quick + slow - 50)
