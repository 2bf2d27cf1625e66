"""Small imitations of CAMELS-US: its folders, headers and columns, with few basins and days."""

import numpy as np

HEADER = "Year Mnth Day Hr\tDayl(s)\tPRCP(mm/day)\tSRAD(W/m2)\tSWE(mm)\tTmax(C)\tTmin(C)\tVp(Pa)"
AREAS = {"01013500": 2_252_696_896, "02011400": 410_000_000, "12010000": 50_000_000}
MISSING = -999.0


def write_camels(root, days=900, start="2000-02-20", forcing="daymet", seed=0):
    """Write a folder; by basin the weather (days, 5) and the flow in cubic feet per second."""
    rng, made = np.random.default_rng(seed), {}
    dates = np.datetime64(start) + np.arange(days)
    for number, (name, area) in enumerate(AREAS.items()):
        x = rng.gamma(0.3, 8, (days, 5)).round(2)
        q = (3 + 40 * x[:, 0] + rng.uniform(0, 1, days)).round(2) * (number + 1)
        q[rng.integers(0, days, 30)] = MISSING
        huc = root / "basin_mean_forcing" / forcing / name[:2]
        huc.mkdir(parents=True)
        lines = ["  47.24", " 250.31", str(area), HEADER]
        for day, (prcp, srad, tmax, tmin, vp) in zip(dates.tolist(), x.tolist(), strict=True):
            when = f"{day.year} {day.month:02} {day.day:02} 12"
            lines.append(f"{when}\t34800\t{prcp}\t{srad}\t0.00\t{tmax}\t{tmin}\t{vp}")
        (huc / f"{name}_lump_cida_forcing_leap.txt").write_text("\n".join(lines) + "\n")
        huc = root / "usgs_streamflow" / name[:2]
        huc.mkdir(parents=True)
        lines = []  # it begins earlier, and the first of its days have no weather
        for day, flow in zip((dates - 3).tolist(), [9.0] * 3 + q[:-3].tolist(), strict=True):
            flag = "M" if flow == MISSING else "A"
            lines.append(f"{name} {day.year} {day.month:02} {day.day:02} {flow:8.2f} {flag}")
        (huc / f"{name}_streamflow_qc.txt").write_text("\n".join(lines) + "\n")
        made[name] = x, np.r_[q[:-3], [MISSING] * 3], dates
    return made


def write_attributes(root, names, seed=1):
    """Write tables of attributes; by basin those of `names` in their order."""
    rng, folder = np.random.default_rng(seed), root / "camels_attributes_v2.0"
    folder.mkdir()
    values = {basin: rng.normal(size=len(names)).round(4).tolist() for basin in AREAS}
    for part, chosen in (("clim", slice(0, 9)), ("rest", slice(9, None))):
        lines = [";".join(["gauge_id", "dom_land_cover", *names[chosen]])]
        lines += [
            ";".join([basin, "Mixed Forests", *map(str, row[chosen])])
            for basin, row in values.items()
        ]
        (folder / f"camels_{part}.txt").write_text("\n".join(lines) + "\n")
    return values
