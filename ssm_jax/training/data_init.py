"""Parameters of a new model that are set by a sample of its training inputs, before step 0.

The timescale, `model.dt_rule=autocorrelation`: all dt of a layer start at kappa / sqrt(L lambda),
lambda the mean over channels of the largest eigenvalue of E[x x^T] of what the layer gets as input,
L the longest sequence of the sample (shorter ones end in zeros, as the layer sees them). Layers are
set in turn, so that the input of each is that which it gets at step 0. With `model.spectrum_steps`
the response of the first layer is fitted to the spectrum of its input (`spectrum_match`). The rule
is that of arXiv:2411.19455 for one layer with one input; several layers, and S5 with its many
inputs, are ours (docs/autocorrelation.md).

What is set is a function of config, data and seed. `training.first_state` keeps the state that it
makes in the run's folder: a resumed run measures nothing.
"""

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from ssm_jax.analysis.autocorrelation import lambda_max
from ssm_jax.analysis.timescale import SILENT
from ssm_jax.files import parse_json, write_json
from ssm_jax.models import SequenceClassifier
from ssm_jax.tasks import Batch
from ssm_jax.training import spectrum_match
from ssm_jax.training import step as step_lib
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import document_checksum, sealed

if TYPE_CHECKING:
    from ssm_jax.training.experiment import Experiment

SEQUENCES = 1_024  # of the sample, at most ...
NUMBERS = 2**24  # ... and so many numbers of a layer's input, of ...
CHANNELS = 16  # ... so many channels, evenly spread
TOLERANCE, STEPS = 1e-2, 200  # of the power iteration: dt is its root
Measured = list[dict[str, Any]]  # of each layer that was set


def measures(cfg: Any) -> bool:
    """Whether an experiment sets parameters by its data."""
    return bool(cfg.model.dt_rule == "autocorrelation" or cfg.model.spectrum_steps)


def announce(cfg: Any, found: Measured | None = None) -> Iterator[str]:
    """What a run sets by its data, for a person who looks at its plan.

    `found` is what was measured for its first state, None before that. A run that begins from
    another one keeps what it takes of it.
    """
    begins, unless = bool(cfg.parent), ", unless it is taken from the other run," * bool(cfg.parent)
    if cfg.parent.endswith(": continued"):
        found = []
    if cfg.model.dt_rule == "autocorrelation":
        which = "the first layer" if cfg.model.dt_apply_to == "first" else "every layer"
        if begins and found is not None and not any("dt" in row for row in found):
            yield f"timescale: dt of {which} is taken from the other run, and nothing is measured"
        else:
            yield (
                f"timescale: dt of {which}{unless} = {cfg.model.dt_kappa:g} / sqrt(L lambda_max), "
                "measured once, of what it gets as input before step 0"
            )
    if cfg.model.spectrum_steps:
        fitted = "spectrum: A, dt and C of the first layer are"
        if begins and found is not None and not any("spectrum_steps" in row for row in found):
            yield f"{fitted} taken from the other run, and nothing is fitted"
        else:
            yield (
                f"{fitted}{unless.replace('it is', 'they are')} fitted to that of its input, once, "
                f"in {cfg.model.spectrum_steps:,} steps before step 0"
            )


def layer_inputs(model: nnx.Module, batch: Batch, *, train: bool = True) -> Iterator[jax.Array]:
    """What the state space layer of each block gets of a batch, u_BLH in turn, 0 at padded steps.

    A block is run when the next input is asked for, so a caller may set its layer before. `train`:
    batch norms take the statistics of the batch, as at step 0; else running ones. No dropout; the
    model stays as it is. Of pairs of sequences there are 2B. ValueError: it has no blocks.
    """
    blocks = _blocks(model)
    x_BLH, lengths_B = _encode(*nnx.split(model), batch["inputs"], batch.get("lengths"))
    for block in blocks:
        yield _layer_input(*nnx.split(block), x_BLH, lengths_B, train)
        x_BLH = _after(*nnx.split(block), x_BLH, lengths_B, train)


def _blocks(model: Any) -> Any:
    if not isinstance(model, SequenceClassifier):
        raise ValueError(
            "the layers' inputs and dt are known of networks of blocks (SequenceClassifier), and "
            f"this one is a {type(model).__name__}; leave model.dt_rule at log_uniform."
        )
    return model.blocks


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, state: Any, inputs: Any, lengths: Any) -> Any:
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graphdef, state).encode(inputs, lengths)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _layer_input(graphdef: Any, state: Any, x_BLH: Any, lengths_B: Any, train: bool) -> Any:
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graphdef, state).layer_input(x_BLH, lengths_B, train=train)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _after(graphdef: Any, state: Any, x_BLH: Any, lengths_B: Any, train: bool) -> Any:
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graphdef, state)(x_BLH, lengths_B, train=train, key=None)


def set_fixed(model: Any, options: Mapping[str, Any]) -> None:
    """Start the layers that `dt_apply_to` names from dt_min, if the rule is "fixed"."""
    if options.get("dt_rule") == "fixed":
        for block in list(_blocks(model))[: 1 if options["dt_apply_to"] == "first" else None]:
            block.ssm.set_step_sizes(options["dt_min"])


def initialized(
    experiment: "Experiment", state: TrainState, keep: Collection[str] = ()
) -> tuple[TrainState, Measured]:
    """The state of step 0 with what its data say, and what was measured of each layer.

    Of a dt that was set: "lambda_max" (its estimate, mean over "channels"), the ends "low" and
    "high" of its interval (None of one sequence), that "of_sample", too large on average, and its
    "length" and "sequences". Of a fit to the spectrum: `spectrum_match.distance` in dB, "before"
    and "after".

    The paths in `keep` are left as they are. The optimizer starts anew. ValueError: a layer gets
    zeros, or what rounding leaves of them behind a norm, or numbers that are not finite.
    """
    options, model = experiment.cfg.model.to_dict(), experiment.model(state)
    found: Measured = []
    for number, block in enumerate(_blocks(model)):
        name, first = f"blocks/{number}/ssm", number == 0
        sets_dt = options["dt_rule"] == "autocorrelation" and f"{name}/dt_raw" not in keep
        sets_dt &= first or options["dt_apply_to"] == "all"
        fits = first and options["spectrum_steps"] > 0
        fits &= not any(f"{name}/{fitted}" in keep for fitted in spectrum_match.FITTED)
        if not (sets_dt or fits):
            continue
        u_nLC = _inputs_of(experiment, model, number)
        try:
            if sets_dt:
                normed = options["prenorm"] or not first  # else the encoder's output, of any scale
                least = SILENT if normed else 0.0
                row = _set_dt(block.ssm, u_nLC, options["dt_kappa"], least)
                found.append({"layer": name, **row})
            if fits:
                wanted_F, steps = spectrum_match.input_power(u_nLC), options["spectrum_steps"]
                length = experiment.dataset.padded_length
                before, after = spectrum_match.match(block.ssm, wanted_F, length, steps)
                row = {"layer": name, "spectrum_steps": steps, "before": before, "after": after}
                found.append({**row, "sequences": len(u_nLC)})
        except ValueError as error:
            raise ValueError(f"what {name} gets as input: {error}") from None
    _, params, _ = step_lib.split(model)
    state = step_lib.init_state(params, state.stats, experiment.tx, ema=state.ema is not None)
    return experiment.replicate(state), found


def _set_dt(layer: Any, u_nLC: np.ndarray, kappa: float, least: float = 0.0) -> dict[str, Any]:
    """Set dt of a layer by a sample of its inputs; what was found, see `initialized`.

    ValueError: their mean square is below `least`, or 0.
    """
    measured = lambda_max(u_nLC, tolerance=TOLERANCE, max_steps=STEPS)
    if 0 < measured.power < least:
        raise ValueError(
            f"their mean square behind the norm is {measured.power:.1g}, which is rounding: inputs "
            "that never change have no timescale; leave model.dt_rule at log_uniform."
        )
    dt = measured.timescale(kappa)
    layer.set_step_sizes(dt)
    known = measured.sequences > 1  # of one there is no interval, and JSON has no NaN
    ends = (measured.low, measured.high) if known else (None, None)
    told = {"lambda_max": measured.estimate, "low": ends[0], "high": ends[1]}
    size = {"length": measured.length, "sequences": measured.sequences}
    return {"dt": dt, **told, "of_sample": measured.mean, **size, "channels": u_nLC.shape[2]}


def _inputs_of(experiment: "Experiment", model: Any, number: int) -> np.ndarray:
    """What layer `number` gets of the first training batches, (n, L, channels) in float32."""
    order, dataset = experiment.order, experiment.dataset
    H = experiment.cfg.model.d_model
    channels = np.unique(np.linspace(0, H - 1, min(CHANNELS, H)).astype(int))
    most = min(SEQUENCES, NUMBERS // (channels.size * dataset.padded_length))
    found: list[np.ndarray] = []
    for step in range(order.steps_per_epoch):
        indices_B, length = order.batch(step)
        batch = experiment.place_batch(dataset.gather("train", experiment.part(indices_B), length))
        *_, u_BLH = itertools.islice(layer_inputs(model, batch), number + 1)
        found.append(experiment.whole(u_BLH[:, :, channels]).astype(np.float32))
        if sum(map(len, found)) >= most:
            break
    longest = max(u_BLC.shape[1] for u_BLC in found)
    ends = [((0, 0), (0, longest - u_BLC.shape[1]), (0, 0)) for u_BLC in found]
    return np.concatenate([np.pad(u, end) for u, end in zip(found, ends, strict=True)])


def describe(measured: Measured) -> Iterator[str]:
    """A line of each layer that was set."""
    for row in measured:
        if "spectrum_steps" in row:
            yield (
                f"{row['layer']}: its response is {row['after']:.2f} dB from the spectrum of its "
                f"input after {row['spectrum_steps']:,} steps, {row['before']:.2f} dB before; "
                f"{row['sequences']:,} training sequences"
            )
            continue
        ends = "no interval: of one sequence it is the sum of squares"
        if row["low"] is not None:
            ends = f"{row['low']:.4g} to {row['high']:.4g}"
        yield (
            f"{row['layer']}: dt = {row['dt']:.3g}, as lambda_max of its inputs is "
            f"{row['lambda_max']:.4g} ({ends}) and L = {row['length']:,}: "
            f"{row['sequences']:,} training sequences, {row['channels']} of their channels"
        )


def keep(start: Path, measured: Measured) -> None:
    """Note what was measured in the folder of a run's first state."""
    write_json(start / "measured.json", sealed({"layers": measured}))


def kept(start: Path) -> Measured | None:
    """What `keep` noted; None if there is nothing, or it is damaged."""
    try:
        document = parse_json((start / "measured.json").read_bytes())
        if document.pop("crc32") != document_checksum(document):
            return None
        return list(document["layers"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
