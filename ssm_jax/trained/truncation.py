"""A trained model with less state: balanced truncation of its layers, and what that costs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssm_jax import config as config_lib
from ssm_jax.analysis.hankel import Reduced, factored, log_poles, reduced
from ssm_jax.analysis.spectra import LayerView, modules_of, view
from ssm_jax.files import check_writable, write_json
from ssm_jax.init.parameters import DT_TRANSFORMS
from ssm_jax.layers import LRU, S4, S4D, S5
from ssm_jax.trained.model import Trained
from ssm_jax.trained.opening import Weights
from ssm_jax.training.checkpoint.manifest import flatten
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.record import PROVENANCE, made_by, setup_digest, without_folders
from ssm_jax.training.runs import open_run
from ssm_jax.training.step import split

SPLITS = ("val", "test")
KINDS = (S4D, S4, S5, LRU)
SMALLEST_ANGLE = -40.0  # log of the angle of a pole that is real to every float
PADDING = -1.0  # log of the pole of a stored mode that is not needed, whose read-out is 0


def truncated(trained: Trained, d_state: int) -> Trained:
    """The model whose layers keep this many modes; see `Trained.truncated`."""
    model, layers = trained.cfg.model, modules_of(trained.network)
    if not layers or any(type(layer) not in KINDS for _, layer in layers):
        names = {type(layer).__name__ for _, layer in layers} or {"no state space layer"}
        has = f"this model has {', '.join(sorted(names))}."
        raise ValueError(f"only S4D, S4, S5 and LRU can be truncated; {has}")
    if not isinstance(d_state, (int, np.integer)) or not 0 < d_state < model.d_state:
        raise ValueError(
            f"d_state={d_state} must be a whole number from 1, below the {model.d_state} modes of "
            "the layers."
        )
    changes = {"model.d_state": int(d_state), "model.real_transform": "clip"}
    if model.layer == "s5":
        changes |= {"model.s5.n_blocks": 1, "model.s5.conj_sym": True, "model.s5.clip_eigs": False}
    elif model.layer != "lru":  # every channel has modes of its own
        changes |= {"model.n_ssm": model.d_model, "model.s4d.input_norm": "none"}
    cfg = config_lib.altered(trained.cfg, changes)

    numbers: dict[str, np.ndarray] = {}
    said: list[dict[str, Any]] = []
    for name, layer in layers:
        systems = _reduced(name, view(name, layer), d_state)
        if model.layer in ("s5", "lru"):
            arrays = (_of_s5 if model.layer == "s5" else _of_lru)(layer, systems[0], d_state)
        else:
            arrays = _of_channels(layer, systems, d_state)
        numbers |= {f"params/{name}/{key}": array for key, array in arrays.items()}
        orders, lost = ([getattr(one, key) for one in systems] for key in ("order", "lost"))
        ends = [float(f(orders)) for f in (np.min, np.median, np.max)]
        said.append({"layer": name, "real_states": ends, "lost_of_sum": float(np.median(lost))})

    weights = Weights(cfg, trained.built_from)
    _, params, stats = split(trained.network)
    own = flatten({"params": params, "stats": stats}) | numbers
    if wrong := weights.misfits(own):
        raise ValueError(
            f"the network of task {cfg.task} does not follow model.d_state: {wrong[0]}."
        )
    origin = {
        **trained.provenance,
        "config_digest": config_lib.digest(cfg),
        "setup_digest": setup_digest(cfg),
        "metrics": {},  # those of the whole model are not its own
        "truncated": {"from_d_state": model.d_state, "layers": said},
    }
    return Trained(cfg, weights.built_from, weights.filled(own), origin)


def _reduced(name: str, numbers: LayerView, d_state: int) -> list[Reduced]:
    systems = factored(numbers) or []
    unstable = sum(system is None for system in systems)
    if unstable:
        raise ValueError(
            f"{name}: {unstable} of {len(systems)} systems have a pole of radius 1 or more, or are "
            "not finite, and no balanced truncation; train with model.real_transform=exp."
        )
    try:
        return [reduced(system, d_state) for system in systems if system is not None]
    except ValueError as error:
        raise ValueError(f"{name}: {error}; keep all of its state.") from None


def _stored(numbers: LayerView, z_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A as it is stored, complex64, for these logarithms of poles, and the gain of its step."""
    dt_R1 = numbers.dt_H[:, None].astype(np.float64)
    turned_RN = 2 * np.tanh(z_RN / 2) if numbers.discretization == "bilinear" else z_RN
    A_RN = (turned_RN / dt_R1).astype(np.complex64)  # of "none" dt is 1
    return A_RN, log_poles(replace(numbers, A_HN=A_RN))[1]


def _parts(x: np.ndarray) -> np.ndarray:
    return np.stack([x.real, x.imag], axis=-1).astype(np.float32)


def _of_channels(layer: Any, systems: Sequence[Reduced], d_state: int) -> dict[str, np.ndarray]:
    """The parameters of an S4D or S4 whose channels have these modes, each its own set."""
    H, directions = len(systems), layer.readout().shape[0]
    z_HN = np.full((H, d_state), PADDING, complex)
    residues_OHN = np.zeros((directions, H, d_state), complex)
    for h, one in enumerate(systems):
        kept = len(one.log_pole_N)
        z_HN[h, :kept] = one.log_pole_N
        residues_OHN[:, h, :kept] = one.C_ON * one.B_NI[:, 0]
    A_HN, gain_HN = _stored(view("", layer), z_HN)
    found = {
        "A_re_raw": A_HN.real,
        "A_im": A_HN.imag,
        # The kernel is 2 Re sum C gain A_bar^l.
        "C_ri": _parts(residues_OHN / (2 * gain_HN)),
    }
    if hasattr(layer, "P_ri"):  # S4: without its low rank, and with B = 1
        found |= {"P_ri": _parts(np.zeros_like(A_HN)), "B_ri": _parts(np.ones_like(A_HN))}
    return found


def _of_s5(layer: Any, system: Reduced, d_state: int) -> dict[str, np.ndarray]:
    """The parameters of an S5 with these modes and one step, the geometric mean of its own."""
    z_N, B_NH, C_ON = _padded(system, d_state)
    numbers = view("", layer)
    dt_N = np.full(d_state, np.exp(np.log(numbers.dt_H.astype(np.float64)).mean()))
    A_N1, gain_N1 = _stored(replace(numbers, dt_H=dt_N), z_N[:, None])
    found = {
        "A_re_raw": A_N1[:, 0].real,
        "A_im": A_N1[:, 0].imag,
        "B_ri": _parts(B_NH / gain_N1),
        # conj_sym: the read-out is twice the parameter.
        "C_ri": _parts(C_ON.reshape(-1, *layer.D.shape, d_state) / 2),
    }
    if layer.discretization != "none":
        found["dt_raw"] = np.asarray(DT_TRANSFORMS[layer.dt_transform][1](dt_N), np.float32)
    return found


def _of_lru(layer: Any, system: Reduced, d_state: int) -> dict[str, np.ndarray]:
    """The parameters of an LRU with these modes; gamma is 1, and a real pole has a tiny angle."""
    z_N, B_NH, C_ON = _padded(system, d_state)
    with np.errstate(divide="ignore"):
        log_angle_N = np.maximum(np.log(z_N.imag), SMALLEST_ANGLE)
    return {
        "A_re_raw": np.log(-z_N.real).astype(np.float32),
        "A_im": log_angle_N.astype(np.float32),
        "gamma_log": np.zeros(d_state, np.float32),
        "B_ri": _parts(B_NH),
        "C_ri": _parts(C_ON.reshape(-1, *layer.D.shape, d_state)),
    }


def _padded(system: Reduced, d_state: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log A_bar_N, B_NI, C_ON) with modes that are not needed, up to d_state."""
    more = d_state - len(system.log_pole_N)
    z_N = np.concatenate([system.log_pole_N, np.full(more, PADDING, complex)])
    B_NI = np.pad(system.B_NI.astype(complex), ((0, more), (0, 0)))
    return z_N, B_NI, np.pad(system.C_ON.astype(complex), ((0, 0), (0, more)))


def truncate_run(
    path: Path,
    d_states: Sequence[int],
    *,
    step: str = "best",
    out: Path | None = None,
    argv: Sequence[str] = (),
    **data: Any,
) -> tuple[dict[str, Any], list[Path]]:
    """Truncate a checkpoint to each number of modes, and score all on validation and test.

    Returns the result, as truncation.json has it, and the files written: that and a .safetensors
    for each model, to `out`, or to `truncated` in the run's folder. The other arguments are those
    of `evaluate_run`.
    """
    folder = path / "truncated" if out is None else out
    check_writable(folder, "folder")
    record, experiment, opened = open_run(path, step, **data)
    if experiment.built_from is None:
        raise ValueError(
            f"the model in {path} is built from more of its data than a file can hold."
        )
    network = experiment.model(opened.state)
    origin = {key: record[key] for key in PROVENANCE} | {"step": opened.meta.step}
    whole = Trained(experiment.cfg, experiment.built_from, network, origin)
    models = [(n, truncated(whole, n)) for n in d_states]
    rows, files = [], []
    for n, model in [(whole.cfg.model.d_state, whole), *models]:
        scored = experiment if model is whole else Experiment(model.cfg, experiment.dataset)
        _, params, stats = split(model.network)
        state = replace(opened.state, params=params, stats=stats)
        with jax.set_mesh(scored.mesh):
            means = {name: scored.means(state, name, title=f"{n}, {name}") for name in SPLITS}
        layers = model.provenance.get("truncated", {}).get("layers", [])
        size = sum(leaf.size for leaf in flatten(params).values())
        rows.append({"d_state": n, "parameters": size, **means, "layers": layers})
        if model is not whole:
            model = replace(model, provenance={**model.provenance, "metrics": means["val"]})
            files.append(folder / f"d_state_{n}.safetensors")
            model.save(files[-1])
    result = without_folders(
        {
            **{key: experiment.cfg[key] for key in ("name", "task", "notes")},
            "step": opened.meta.step,
            "metric": experiment.task.headline,
            "examples": {name: experiment.dataset.size(name) for name in SPLITS},
            "models": rows,
            "run": {key: record[key] for key in PROVENANCE},
            "truncation": made_by(argv),
        }
    )
    write_json(folder / "truncation.json", result)
    return result, [*files, folder / "truncation.json"]
