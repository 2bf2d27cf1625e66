"""CAMELS-US, weather and flow of basins in the United States, from its folder as published.

    basin_mean_forcing/FORCING/HUC/ID_lump_..._forcing_leap.txt
        latitude, elevation and area in m2, a header, and a line for each day
    usgs_streamflow/HUC/ID_streamflow_qc.txt
        lines of ID, year, month, day, cubic feet per second, flag
    camels_attributes_v2.0/camels_*.txt
        a line for each basin, fields end at semicolons

Sources: Newman et al., HESS 19 (2015); Addor et al., HESS 21 (2017). What of it is used, and the 27
attributes: Kratzert et al., HESS 23 (2019).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORCING = ("prcp", "srad", "tmax", "tmin", "vp")  # mm/day, W/m2, C, C, Pa
ATTRIBUTES = (
    *("p_mean", "pet_mean", "p_seasonality", "frac_snow", "aridity", "high_prec_freq"),
    *("high_prec_dur", "low_prec_freq", "low_prec_dur", "elev_mean", "slope_mean", "area_gages2"),
    *("frac_forest", "lai_max", "lai_diff", "gvf_max", "gvf_diff", "soil_depth_pelletier"),
    *("soil_depth_statsgo", "soil_porosity", "soil_conductivity", "max_water_content"),
    *("sand_frac", "silt_frac", "clay_frac", "carbonate_rocks_frac", "geol_permeability"),
)
CUBIC_FOOT = 0.3048**3  # m3
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Basins:
    """Basins whose weather and flow are known at equal steps from a first time on."""

    names: tuple[str, ...]
    starts: np.ndarray  # datetime64, one for each basin: of days, or of hours
    weather: tuple[np.ndarray, ...]  # (steps, channels) of each
    flow: tuple[np.ndarray, ...]  # (steps,) of each, in mm a step over the basin; NaN: missing
    attributes: np.ndarray  # (basins, attributes)
    channels: tuple[str, ...]
    attribute_names: tuple[str, ...]
    files: tuple[Path, ...]


def read_camels(root: Path, forcing: str, basins: Path | None, *, attributes: bool) -> Basins:
    """The basins of a folder, or those of a text file with an ID in each line.

    ValueError or FileNotFoundError: a file is not there, or not as it is published.
    """
    inside = root / "basin_dataset_public_v1p2"  # as the archive is unpacked
    root = inside if inside.is_dir() else root
    weather_of = _by_id(root / "basin_mean_forcing" / forcing, "*_forcing_leap.txt")
    flow_of = _by_id(root / "usgs_streamflow", "*_streamflow_qc.txt")
    names = sorted(weather_of.keys() & flow_of.keys()) if basins is None else _ids(basins)
    for name in names:
        for found, what in ((weather_of, f"weather ({forcing})"), (flow_of, "flow")):
            if name not in found:
                raise FileNotFoundError(f"{root} has no {what} of the basin {name} of {basins}.")
    if not names:
        raise FileNotFoundError(f"{root} has no basin with both weather ({forcing}) and flow.")
    starts, weather, flow = [], [], []
    for name in names:
        start, x, area = _weather(weather_of[name])
        starts.append(start)
        weather.append(x)
        flow.append(_flow(flow_of[name], start, len(x), area))
    files = [path for name in names for path in (weather_of[name], flow_of[name])]
    static, tables = np.zeros((len(names), 0)), list[Path]()
    if attributes:
        static, tables = _attributes(root / "camels_attributes_v2.0", names)
    return Basins(
        tuple(names), np.array(starts), tuple(weather), tuple(flow), static, FORCING,
        ATTRIBUTES if attributes else (), (*files, *tables),
    )  # fmt: skip


def _by_id(folder: Path, pattern: str) -> dict[str, Path]:
    """The files below a folder by the ID with which their names begin."""
    if not folder.is_dir():
        there = sorted(p.name for p in folder.parent.glob("*")) if folder.parent.is_dir() else []
        named = f"; {folder.parent} has {', '.join(there[:6])}" if there else ""
        raise FileNotFoundError(
            f"there is no folder {folder}{named}: give that of CAMELS-US, which has "
            "basin_mean_forcing and usgs_streamflow, by --from=FOLDER."
        )
    return {path.name.partition("_")[0]: path for path in sorted(folder.rglob(pattern))}


def _ids(path: Path) -> list[str]:
    """The IDs of a list, in eight digits; what follows an ID in its line is left out."""
    found = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    for word in found:
        if not word.isdigit() or len(word) > 8:
            raise ValueError(f"{path} has the line {word!r}; each must be the ID of a basin.")
    return list(dict.fromkeys(word.zfill(8) for word in found))


def _table(path: Path, columns: Sequence[int], skip: int = 0) -> np.ndarray:
    """Some columns of the lines of a text file, (n, columns)."""
    try:
        return np.loadtxt(path, skiprows=skip, usecols=columns, ndmin=2)
    except ValueError as error:
        after = f", after {skip} lines" if skip else ""
        raise ValueError(f"{path}{after}: {error}.".replace("..", ".")) from None


def _days(path: Path, table: np.ndarray) -> np.ndarray:
    """The dates of rows that begin with year, month and day."""
    if not len(table):
        raise ValueError(f"{path} has no lines of numbers.")
    year, month, day = table[:, :3].T.astype(np.int64)
    first = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    found = first.astype("datetime64[D]") + (day - 1)
    wrong = (month < 1) | (month > 12) | (day < 1) | (found.astype("datetime64[M]") != first)
    for row in np.flatnonzero(wrong)[:1]:
        raise ValueError(f"{path}: {year[row]}-{month[row]}-{day[row]} is no day.")
    return found


def _weather(path: Path) -> tuple[np.datetime64, np.ndarray, float]:
    """The first day, the FORCING of each day, and the area of a basin in m2."""
    with path.open() as file:
        *_, area_line, header = (file.readline() for _ in range(4))
    names = [word.lower().partition("(")[0] for word in header.split()]
    if lacking := [name for name in ("year", "mnth", "day", *FORCING) if name not in names]:
        raise ValueError(
            f"{path} line 4 has no column {lacking[0]}; it must be the header after latitude, "
            "elevation and area."
        )
    try:
        area = float(area_line)
    except ValueError:
        area = 0.0
    if not 0 < area < np.inf:
        raise ValueError(f"{path} line 3 is {area_line.strip()!r}; it must be the area in m2.")
    columns = [names.index(name) for name in ("year", "mnth", "day", *FORCING)]
    table = _table(path, columns, skip=4)
    days = _days(path, table)
    for row in np.flatnonzero(np.diff(days) != DAY)[:1]:
        raise ValueError(f"{path}: {days[row]} is followed by {days[row + 1]}; no day may miss.")
    for row, column in np.argwhere(~np.isfinite(table[:, 3:]))[:1]:
        raise ValueError(
            f"{path}, {days[row]}: {FORCING[column]} is {table[row, 3 + column]}, no number."
        )
    return days[0], table[:, 3:], area


def _flow(path: Path, start: np.datetime64, steps: int, area: float) -> np.ndarray:
    """The flow of some days in mm, NaN where it is missing: negative, or without a line."""
    table = _table(path, (1, 2, 3, 4))
    at = ((_days(path, table) - start) / DAY).astype(np.int64)
    if len(np.unique(at)) < len(at):
        raise ValueError(f"{path} has a day twice.")
    q = table[:, 3]
    there = (at >= 0) & (at < steps) & (q >= 0) & np.isfinite(q)
    flow = np.full(steps, np.nan)
    flow[at[there]] = q[there] * CUBIC_FOOT * 86_400 / area * 1_000
    return flow


def _attributes(folder: Path, names: Sequence[str]) -> tuple[np.ndarray, list[Path]]:
    """The ATTRIBUTES of basins (n, 27), and the files that have them."""
    found = dict[tuple[str, str], float]()
    files = sorted(folder.glob("camels_*.txt"))
    for path in files:
        found |= dict(_numbers(path))
    table = np.array([[found.get((b, a), np.nan) for a in ATTRIBUTES] for b in names])
    for row, column in np.argwhere(~np.isfinite(table))[:1]:
        raise ValueError(
            f"{folder} has no {ATTRIBUTES[column]} of the basin {names[row]}; take it from the "
            "list of basins, or leave attributes out: --config.data.runoff.attributes=false."
        )
    return table, files


def _numbers(path: Path) -> Iterator[tuple[tuple[str, str], float]]:
    """(basin, attribute) and its number, where it is one of ATTRIBUTES."""
    with path.open(newline="") as file:
        for line in csv.DictReader(file, delimiter=";"):
            for name in ATTRIBUTES:
                if word := line.get(name):
                    try:
                        yield (line.get("gauge_id", "").zfill(8), name), float(word)
                    except ValueError:
                        if word.strip() != "NA":
                            raise ValueError(f"{path}: {name} is {word!r}, no number.") from None
