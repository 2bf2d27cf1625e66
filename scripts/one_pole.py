"""One pole, trained towards a target at a growing distance: the |s - y|^-2 law, and what beta does.

    python scripts/one_pole.py --out=results/theory/one_pole.json

The pole is -0.5 + i with residue 1 + i; see ssm_jax/stories/one_pole.py for the three targets.
Beside the JSON file a figure of the same name is written. Some seconds on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag

BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)
DISTANCES = np.geomspace(1e2, 1e4, 13)
WAYS = np.geomspace(2, 16, 7)
STEPS, RATE = 100, 1.0
ARRIVAL_RATE = 1e-2


def main(argv: list[str]) -> int:
    flags = (
        Flag(
            "out",
            "file for the results, JSON",
            Path("runs/one_pole.json"),
            kind=Path,
            writes="file",
        ),
    )
    out = cli.load_flags(argv, flags=flags, about=__doc__ or "")["out"]
    if out.suffix != ".json":
        cli.fail(f"--out={out} does not fit: it must be a .json.")

    from ssm_jax.files import write_json
    from ssm_jax.plots import save
    from ssm_jax.stories import one_pole  # after the options: importing JAX takes a second
    from ssm_jax.stories.one_pole import one_pole_figure
    from ssm_jax.train.record import run_record

    pole = one_pole.Pole()

    def row(beta: float, *, wish: bool) -> dict[str, object]:
        pulls = [
            one_pole.pull_of_band(pole, d, beta, wish=wish, steps=STEPS, rate=RATE)
            for d in DISTANCES
        ]
        moved = np.array([pull.moved for pull in pulls])
        formula = np.array([pull.formula for pull in pulls])
        gradient = np.array([pull.gradient for pull in pulls])
        return {
            "beta": beta,
            "law": (2 if wish else 1) * beta - 2,
            "slope": one_pole.steepness(DISTANCES, moved),
            "slope_of_gradient": one_pole.steepness(DISTANCES, gradient),
            "worst_gradient_error": float(np.max(np.abs(gradient / formula - 1))),
            "distance": DISTANCES.tolist(),
            "moved": moved.tolist(),
            "moved_by_formula": (-STEPS * RATE * formula).tolist(),
        }

    steps = [one_pole.steps_to_halve(d, pole, ARRIVAL_RATE) for d in WAYS]
    record = run_record({}, "", 0, {}, ["scripts/one_pole.py", *argv])
    results = {
        "bands": [row(beta, wish=False) for beta in BETAS],
        "wishes": [row(beta, wish=True) for beta in BETAS],
        "arrival": {
            "distance": WAYS.tolist(),
            "steps": steps,
            "steps_by_formula": [one_pole.time_to_halve(d, pole) / ARRIVAL_RATE for d in WAYS],
            "slope": one_pole.steepness(WAYS[-4:], np.array(steps[-4:], float)),
        },
        "steps": STEPS,
        **{key: record[key] for key in ("command", "git", "versions", "devices", "started")},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, results)
    save(out.with_suffix(".png"), one_pole_figure(results))
    for kind, label in (("bands", "band"), ("wishes", "wish")):
        for found in results[kind]:
            print(
                f"{label} beta {found['beta']:4}: slope {found['slope']:.3f}, "
                f"law {found['law']:.1f}; gradient within {found['worst_gradient_error']:.0e}"
            )
    print(f"arrival: slope {results['arrival']['slope']:.3f}; {out}, {out.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
