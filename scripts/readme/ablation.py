"""Tables of sweeps and of the spectra of inputs."""

from __future__ import annotations

from readme.common import commit_of, load, table, where
from ssm_jax.sweep.results import caption, to_markdown


def ablation() -> str:
    """A table for each sweep, with what is reduced and where it was measured."""
    tables = []
    for path, result in load("ablation/*.json").items():
        notes = f"\n{result['notes']}" if result["notes"] else ""
        head = f"`{result['name']}`\n\n"
        foot = f"\n{caption(result)}{notes}\n"
        tables.append(head + to_markdown(result) + foot + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def spectrum() -> str:
    """One row for each spectrum: slope, bands of energy, and the starting alpha and beta."""
    rows = []
    for path, result in load("spectrum/*.json").items():
        fit, below, layer = result["fit"], result["energy_below"], result["layer"]
        start = next(w for w in result["windows"] if w["alpha"] == result["alpha"])
        rows.append(
            (
                result["name"].split(":")[0],
                result["inputs"],
                f"{fit['gamma']:.2f} ± {fit['half_width']:.2f}",
                " / ".join(f"{below[share]:.2f}" for share in ("0.5", "0.9", "0.99")),
                f"{result['beta']:.2f}",
                f"{result['alpha']:.2g}",
                f"{start['aliased']:.0%} of {layer['d_state']}",
                f"{start['reached']:.0%}",
                commit_of(result),
                f"[file]({path})",
            )
        )
    head = (
        "task", "inputs", "gamma", "50 / 90 / 99 % of the energy below, rad per sample", "beta",
        "alpha", "modes beyond Nyquist", "energy within reach", "commit", "",
    )  # fmt: skip
    return table(head, rows)


def windows() -> str:
    """For each spectrum and alpha, what the modes of a new layer see of it."""
    rows = [
        (
            result["name"].split(":")[0],
            f"{w['alpha']:.3g}" + (" (start)" if w["alpha"] == result["alpha"] else ""),
            f"{w['lowest']:.3g} to {w['highest']:.3g}",
            f"{w['aliased']:.0%}",
            f"{w['clean']:.0%}",
            f"{w['reached']:.0%}",
            f"{w['within']:.1f} of {result['layer']['d_state']}",
            f"[file]({path})",
        )
        for path, result in load("spectrum/*.json").items()
        for w in result["windows"]
    ]
    head = (
        "task", "alpha", "highest mode, rad per sample", "modes beyond Nyquist",
        "channels without such", "energy within reach", "modes in the 90 % band", "",
    )  # fmt: skip
    return table(head, rows)
