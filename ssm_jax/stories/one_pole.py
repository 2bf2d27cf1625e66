"""One pole and a distant target: how the pull on the pole falls with the distance.

The pole a = x + iy acts by Re G(i s), G(i s) = c / (i s - a), under the filter (1 + |s|)^beta. The
loss is half the integral of the squared difference to a target. Three targets pull at y:

    band      differs by eps in a narrow band at s. By T1 and T2 the pull is the integral over it
              of -eps (1 + |s|)^beta K(s), which falls as |s - y|^(beta - 2).
    wish      differs by eps before the filter, so the filter acts twice: |s - y|^(2 beta - 2).
    arrival   the same pole at y + d, at all frequencies, beta = 0: the pull is
              8 pi |c|^2 |x| d / (4 x^2 + d^2)^2, so the time to arrive grows as d^4.

Gradients are autodiff's, in float64, and compared with these formulas. Source: arXiv:2410.02035.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from ssm_jax.kernels.response import pole_sensitivity
from ssm_jax.plots import BEFORE, log_ticks, titled

GAUSS = 32  # nodes of Gauss and Legendre in a band
EPS = 1e-3  # what a target differs by
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)
DISTANCES = np.geomspace(1e2, 1e4, 13)
STEPS, RATE = 100, 1.0  # of gradient descent towards a band
WAYS, ARRIVAL_RATE = np.geomspace(2, 16, 7), 1e-2
# The trapezoid rule is exact to e^(-2 pi |x| / h) for a pole |x| off the axis; beyond the reach is
# less than a thousandth of the pull at distance 16.
SPACING, REACH = 0.1, 400.0
COLOURS = ("#8a4fb0", "#1f6fb4", "0.2", "#2f8f5b", "#d1590a")


@dataclass(frozen=True)
class Pole:
    """x + iy and its residue, per unit of time."""

    x: float = -0.5
    y: float = 1.0
    c: complex = 1.0 + 1.0j


def output(way: Array, pole: Pole, s_F: np.ndarray, beta: float) -> Array:
    """(1 + |s|)^beta Re[c / (i s - x - i (y + way))]; y + way in one number loses digits."""
    sigma_F = (s_F - pole.y) - way
    # c / (-x + i sigma) = c (-x - i sigma) / (x^2 + sigma^2)
    real_F = (-pole.x * pole.c.real + pole.c.imag * sigma_F) / (pole.x**2 + sigma_F**2)
    return (1 + np.abs(s_F)) ** beta * real_F


def pull_of_band(
    pole: Pole, distance: float, beta: float, *, wish: bool = False, steps: int = STEPS
) -> tuple[float, float, float]:
    """Train y by gradient descent towards a target that differs in a band of width 1.

    The centre of the band is at `distance` from y; the target differs by EPS after the filter, or
    before it if `wish`. Returns dL/dy at the start, the integral of the sensitivity that it is by
    the theorems, and how far y moves.
    """
    node_F, weight_F = np.polynomial.legendre.leggauss(GAUSS)
    s_F, weight_F = pole.y + distance + node_F / 2, weight_F / 2
    with jax.enable_x64(True):
        apart_F = EPS * ((1 + np.abs(s_F)) ** beta if wish else np.ones_like(s_F))
        target_F = np.asarray(output(jnp.zeros(()), pole, s_F, beta)) + apart_F

        def loss(way: Array) -> Array:
            return jnp.sum(weight_F * (output(way, pole, s_F, beta) - target_F) ** 2) / 2

        slope = jax.grad(loss)
        start = jnp.zeros((), jnp.float64)
        end = jax.lax.fori_loop(0, steps, lambda _, way: way - RATE * slope(way), start)
        K_F = pole_sensitivity(
            jnp.asarray([[pole.x + 1j * pole.y]]),
            jnp.asarray([[pole.c]]),
            jnp.asarray(s_F)[None],
            jnp.asarray([beta], jnp.float64),
        ).by_y_HFN[0, :, 0]
        formula = -float(np.sum(weight_F * apart_F * np.asarray(K_F)))
        return float(slope(start)), formula, float(end)


def steepness(distances: np.ndarray, values: np.ndarray) -> float:
    """The exponent p of |values| ~ distance^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(distances), np.log(np.abs(values)), 1)[0])


def arrival_loss(distance: Array, pole: Pole) -> Array:
    """Half the integral of |G - G_target|^2 over the axis, by quadrature."""
    s_F = jnp.arange(-REACH, REACH, SPACING)
    apart_F = abs(pole.c) * (1 / (1j * s_F - pole.x) - 1 / (1j * (s_F - distance) - pole.x))
    return SPACING * jnp.sum(apart_F.real**2 + apart_F.imag**2) / 2


def steps_to_halve(distance: float, pole: Pole, rate: float = ARRIVAL_RATE) -> int:
    """Steps of gradient descent on `arrival_loss` until the pole has gone half of the way."""
    with jax.enable_x64(True):
        slope = jax.grad(lambda d: arrival_loss(d, pole))
        start = jnp.asarray(distance, jnp.float64), jnp.asarray(0)
        _, steps = jax.lax.while_loop(
            lambda state: state[0] > distance / 2,
            lambda state: (state[0] - rate * slope(state[0]), state[1] + 1),
            start,
        )
        return int(steps)


def time_to_halve(distance: float, pole: Pole) -> float:
    """The same for infinitely small steps, times the rate: the integral of 1 / pull."""
    x = abs(pole.x)

    def primitive(u: float) -> float:
        return 16 * x**4 * np.log(u) + 4 * x**2 * u**2 + u**4 / 4

    scale = 8 * np.pi * abs(pole.c) ** 2 * x
    return (primitive(distance) - primitive(distance / 2)) / scale


def measure() -> dict[str, Any]:
    """How far the pole moves and how long it takes: "bands", "wishes", "arrival" and "steps"."""
    pole = Pole()

    def row(beta: float, *, wish: bool) -> dict[str, Any]:
        pulls = [pull_of_band(pole, d, beta, wish=wish) for d in DISTANCES]
        gradient, formula, moved = np.array(pulls).T
        return {
            "beta": beta,
            "law": (2 if wish else 1) * beta - 2,
            "slope": steepness(DISTANCES, moved),
            "slope_of_gradient": steepness(DISTANCES, gradient),
            "worst_gradient_error": float(np.max(np.abs(gradient / formula - 1))),
            "distance": DISTANCES.tolist(),
            "moved": moved.tolist(),
            "moved_by_formula": (-STEPS * RATE * formula).tolist(),
        }

    steps = [steps_to_halve(d, pole) for d in WAYS]
    return {
        "bands": [row(beta, wish=False) for beta in BETAS],
        "wishes": [row(beta, wish=True) for beta in BETAS],
        "arrival": {
            "distance": WAYS.tolist(),
            "steps": steps,
            "steps_by_formula": [time_to_halve(d, pole) / ARRIVAL_RATE for d in WAYS],
            "slope": steepness(WAYS[-4:], np.array(steps[-4:], float)),
        },
        "steps": STEPS,
    }


def describe(results: Mapping[str, Any]) -> str:
    """Lines for a person about what `measure` found."""
    lines = [
        f"{label} beta {found['beta']:4}: slope {found['slope']:.3f}, law {found['law']:.1f}; "
        f"gradient within {found['worst_gradient_error']:.0e}"
        for kind, label in (("bands", "band"), ("wishes", "wish"))
        for found in results[kind]
    ]
    return "\n".join([*lines, f"arrival: slope {results['arrival']['slope']:.3f}"])


def one_pole_figure(results: Mapping[str, Any]) -> Figure:
    """How far a pole moves in a number of steps, and how long it takes to arrive, by `measure`."""
    title = "A pole feels its neighbourhood: what a target at a distance does to it"
    figure = titled(title, 10.5, 4.2)
    left, right = figure.subplots(1, 2)
    for row, colour in zip(results["bands"], COLOURS, strict=True):
        distance = np.array(row["distance"])
        label = f"beta = {row['beta']:g}: slope {row['slope']:.2f} (law {row['law']:.2f})"
        left.plot(distance, np.abs(row["moved"]), "o", color=colour, ms=4, label=label)
        left.plot(distance, np.abs(row["moved_by_formula"]), color=colour, lw=1)
    way = f"way of the pole in {results['steps']} steps"
    left.set(xlabel="distance $|s - y|$ of the band that pulls (rad / unit of time)", ylabel=way)
    left.set_title("points: trained; lines: formula of T1 and T2", fontsize=9)
    arrival = results["arrival"]
    distance = np.array(arrival["distance"])
    right.plot(distance, arrival["steps"], "o", color="#1f6fb4", ms=5, label="trained")
    right.plot(distance, arrival["steps_by_formula"], color="#1f6fb4", lw=1, label="formula")
    fourth = arrival["steps"][-1] * (distance / distance[-1]) ** 4
    right.plot(distance, fourth, color=BEFORE, ls="--", lw=1, label="distance$^4$")
    way = "steps until half of the way is done"
    right.set(xlabel="distance of the target pole (rad / unit of time)", ylabel=way)
    right.set_title("the whole spectrum of a pole as target, beta = 0", fontsize=9)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(color="0.92")
        axes.legend(frameon=False, fontsize=8)
    log_ticks(right.xaxis)
    return figure
