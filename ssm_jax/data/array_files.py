"""Series in .npy and .npz files, mapped where the file has the array as it is; see `series`."""

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.series import Columns, Found, Series, numbered_channels, rows_of_splits, words_of

UNPACKED = 1 << 31  # bytes of an array that cannot be mapped, and is read into memory
NOT_MAPPED = (
    "is compressed, or in Fortran's order, and has {:,} bytes, too many for memory; write it "
)
NOT_MAPPED += "by numpy.savez or numpy.save, in C order"
_NO_SPLIT = ("valid", "validation")  # in the name of an array, where val is
# What zipfile says of damage, of a password, and of a way to compress that it does not know
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, OverflowError)


def read_npy(files: list[Path], columns: Columns) -> Found:
    """A lone .npy, or the files x.npy, y.npy, ... of a folder; errors as of `series.read`."""
    arrays = {}
    for path in files:
        try:
            array = open_npy(path)
        except (OSError, OverflowError) as error:
            raise ValueError(f"{path} is no array that can be read ({error}).") from error
        if array.nbytes > UNPACKED and not array.flags.c_contiguous:
            raise ValueError(f"{path} {NOT_MAPPED.format(array.nbytes)}.")
        arrays[path.stem] = array
    if len(files) == 1:
        arrays = {columns.x: next(iter(arrays.values()))}
    return _of_arrays(arrays, columns, tuple(files), {p.stem: str(p) for p in files})


def open_npy(path: Path, name: str = "") -> np.ndarray:
    """The array of a .npy, mapped; a ValueError that begins with `name` where it holds none."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        why = str(error)
        if "pickle" in why:  # NumPy's advice is to run what the file says
            why = "it holds no numbers in the format of numpy.save"
        raise ValueError(f"{name or path} is no array that can be read ({why}).") from error
    return array


def read_npz(files: list[Path], columns: Columns) -> Found:
    """One .npz; errors as of `series.read`."""
    if len(files) > 1:
        raise ValueError(f"give one .npz, not {', '.join(p.name for p in files[:4])}.")
    path = files[0]
    wanted = [columns.x, columns.y, "lengths", "split"]
    wanted += [f"{name}_{split}" for name in wanted[:3] for split in SPLITS]
    wanted += [f"{columns.x}_{word}" for word in _NO_SPLIT]
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            arrays = {name: entry_of(archive, name) for name in wanted if name in names}
    except (*_DAMAGED, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is no .npz that can be read ({error}).") from error
    if not names:
        raise ValueError(f"{path} has no arrays; save them with numpy.savez(FILE, x=..., y=...).")
    if not {columns.x, *(f"{columns.x}_{split}" for split in SPLITS)} & arrays.keys():
        raise ValueError(
            f"{path} has no array {columns.x!r} but {', '.join(names)}; name yours with "
            "--config.data.arrays.x=NAME, and the targets with --config.data.arrays.y=NAME."
        )
    return _of_arrays(arrays, columns, (path,), {name: f"{path}:{name}" for name in arrays})


def entry_of(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz, mapped where it is stored as it is."""
    assert archive.filename is not None
    names = archive.namelist()
    info = archive.getinfo(name if name in names else f"{name}.npy")
    with archive.open(info) as entry:
        version = np.lib.format.read_magic(entry)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(entry)
        start = entry.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects; save words as y.astype(str)")
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.filename} says that it is {dtype} {shape}, and is not that long")
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    if stored and dtype.kind in "biuf" and 0 not in shape and not fortran:
        with open(archive.filename, "rb") as file:
            file.seek(info.header_offset)
            head = file.read(30)  # of which the lengths of name and extra field are the last four
            named, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
            at = info.header_offset + 30 + named + extra + start
            return np.memmap(file, dtype, "r", at, shape)
    if info.file_size > UNPACKED:
        raise ValueError(f"{info.filename} {NOT_MAPPED.format(info.file_size)}")
    return np.load(io.BytesIO(archive.read(info)), allow_pickle=False)


def _of_arrays(
    arrays: Mapping[str, np.ndarray], columns: Columns, files: tuple[Path, ...],
    names: Mapping[str, str],
) -> Found:  # fmt: skip
    """Series of arrays x, y, lengths and split, or of x_train, ..."""
    splits = [s for s in SPLITS if f"{columns.x}_{s}" in arrays]
    if splits and columns.x in arrays:
        raise ValueError(
            f"{files[0].parent} has both {columns.x} and {columns.x}_{splits[0]}; keep one."
        )
    unread = {f"{columns.x}_{word}": f"{columns.x}_val" for word in _NO_SPLIT}
    if splits:
        unread["lengths"] = " and ".join(f"lengths_{s}" for s in splits)
    else:
        unread |= {f"lengths_{s}": "lengths" for s in SPLITS}
    for name in [name for name in unread if name in arrays][:1]:  # padding would count as steps
        beside = f"{columns.x}_{splits[0]}" if splits else columns.x
        raise ValueError(f"{names[name]} is not read beside {beside}; write it as {unread[name]}.")
    parts, rows = {}, None
    for split in splits or [""]:
        end = f"_{split}" if split else ""
        found = {name: arrays.get(name + end) for name in (columns.x, columns.y, "lengths")}
        x = found[columns.x]
        if x is None:
            there = ", ".join(path.name for path in files[:4])
            raise ValueError(
                f"{files[0].parent} has {there} and no {columns.x}.npy: all series are one array "
                "(n, L, C), with lengths.npy where they differ; name yours with "
                "--config.data.arrays.x=NAME, and the targets with --config.data.arrays.y=NAME."
            )
        shown = names.get(columns.x + end, str(files[0]))
        parts[split] = _rectangular(x, found[columns.y], found["lengths"], columns, shown)
    if not splits and (labels := arrays.get("split")) is not None:
        if labels.shape != (len(parts[""]),):
            raise ValueError(
                f"{files[0]}: split has the shape {labels.shape}; it must have a word for each of "
                f"{len(parts['']):,} series."
            )
        rows = rows_of_splits(words_of(labels), f"{files[0]}: split")
    return Found(parts, rows, files)


def _rectangular(
    x: np.ndarray, y: np.ndarray | None, lengths: np.ndarray | None, columns: Columns, name: str
) -> Series:
    """Series of an array (n, L, C), (n, L), or (L,) for one series."""
    if x.dtype.kind not in "biuf" or x.ndim not in (1, 2, 3) or not x.size:
        raise ValueError(
            f"{name} has {x.dtype} {x.shape}; it must be real or whole numbers (n, L) or (n, L, C)."
        )
    if x.ndim == 1:  # one series
        y = y[None] if y is not None and y.shape[:1] == x.shape else y
        x = x[None]
    n, L = x.shape[:2]
    tokens = x.dtype.kind in "iu" and x.ndim == 2
    steps = x.reshape(n * L) if tokens else x.reshape(n * L, -1)
    starts = np.arange(n, dtype=np.int64) * L
    found = np.full(n, L, np.int64) if lengths is None else np.asarray(lengths)
    if (
        found.shape != (n,)
        or found.dtype.kind not in "iu"
        or not 1 <= found.min() <= found.max() <= L
    ):
        raise ValueError(
            f"{name}: lengths must be {n:,} whole numbers from 1 to {L}, got {found.dtype} "
            f"{found.shape}, {f'{found.min()} to {found.max()}' if found.size else 'none'}."
        )
    per_step, targets = False, y
    if targets is not None:
        if targets.ndim == 0 or len(targets) != n or not targets.size:
            raise ValueError(f"{name} has {n:,} series and targets of the shape {targets.shape}.")
        # (n, L) may also be L numbers of each series
        at_steps = targets.ndim == 3 or (targets.ndim == 2 and columns.per_step)
        if per_step := at_steps and targets.shape[1] == L:
            targets = targets.reshape(n * L, -1)
        elif targets.ndim > 2:
            raise ValueError(
                f"the targets of {name} have the shape {targets.shape}; they must be (n,), (n, K), "
                f"(n, {L}) or (n, {L}, K)."
            )
        elif targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
    width = 1 if targets is None or targets.ndim == 1 else targets.shape[1]
    channels = ("token",) if tokens else numbered_channels(steps.shape[1])
    named = columns.target if len(columns.target) == width else [f"y{k}" for k in range(width)]
    return Series(
        steps, starts, found.astype(np.int64), targets, per_step, channels, tuple(named),
        where=lambda number, step: f"{name}[{number}, {step}]",
    )  # fmt: skip
