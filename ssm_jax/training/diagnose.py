"""Diagnostics of a run at its start and at every evaluation, outside of the training step.

Numbers go to metrics.jsonl as kind "diagnostics", arrays to diagnostics/STEP.npz. Both are
functions of the state and the seed alone, so they are the same bytes after an interruption. What
they are is in `analysis.bands`.
"""

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ssm_jax.analysis import bands
from ssm_jax.analysis.hankel import SHARES, hankel_values, states_holding, states_key
from ssm_jax.analysis.spectra import LayerView, layers_of, modules_of, share_aliased, view
from ssm_jax.files import replace_atomically
from ssm_jax.layers.s4d import Probe, add_probe
from ssm_jax.tasks import mean_metrics
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import stamp_of

Arrays = dict[str, np.ndarray]
EXAMPLES = 16  # of the first training batch, whose gradient is taken


class Diagnostics:
    """Measures states of a run, whose first is `first()`."""

    def __init__(self, experiment: Experiment, first: Callable[[], TrainState]):
        self._experiment, self._first = experiment, first
        self._before: list[LayerView] | None = None

    def of(self, state: TrainState, *, gradient: bool = True) -> Arrays:
        """Arrays by "layer:quantity".

        variation, energy: (C, H, BANDS) of `bands.spectra_per_band`. drift_im, drift_re,
        drift_spacings, drift_with_dt: (R, N) of `bands.pole_drift` against the run's first state.
        beta: (H,). aliased: share of the modes beyond Nyquist. gradient: (BANDS,), norms of the
        parts of the gradient by Im A, of the first training examples without dropout; for S4D and
        S4, where the model calls them and A is trained; it costs a training step of `EXAMPLES`
        sequences. hankel: (R, 2N) of `hankel.hankel_values`. edges: of the bands, in rad per
        sample.
        """
        experiment = self._experiment
        length, n_fft = experiment.dataset.padded_length, experiment.filter_period
        if self._before is None:
            self._before = layers_of(experiment.model(self._first()))
        found: Arrays = {"edges": bands.band_edges(length)}
        by_taps = self._gradient(state.params, state.stats) if gradient else {}
        modules = modules_of(experiment.model(state))
        for old, (name, module) in zip(self._before, modules, strict=True):
            layer = view(name, module)
            each = {
                **bands.spectra_per_band(layer, length, n_fft),
                **bands.pole_drift(old, layer),
                "beta": layer.beta_H,
                "aliased": np.float64(share_aliased(layer)),
            }
            taps, A_im = by_taps.get(name), getattr(module, "A_im", None)
            if taps is not None and isinstance(A_im, nnx.Param) and np.any(taps):
                parts = bands.gradient_per_band(layer, taps, n_fft, A_im.shape[0])
                each["gradient"] = np.sqrt((parts**2).sum(axis=(1, 2)))
            if (values := hankel_values(layer)) is not None:
                each["hankel"] = values.astype(np.float32)
            found |= {f"{name}:{key}": np.asarray(value) for key, value in each.items()}
        return found

    @functools.cached_property
    def _gradient(self) -> Callable[[Any, Any], dict[str, jax.Array]]:
        """(params, stats) -> gradient of a training batch's loss by the taps of each layer."""
        experiment = self._experiment
        cfg, dataset, devices = experiment.cfg, experiment.dataset, experiment.mesh.size
        if experiment.task.circular:
            return lambda params, stats: {}
        indices, length = experiment.order.batch(0)
        # At most what a training step has in memory at a time, and a part for every device.
        most = min(-(-EXAMPLES // devices) * devices, cfg.batch_size // cfg.train.accumulate)
        part = experiment.part(indices[:most])
        batch = experiment.place_batch(dataset.gather("train", part, length))
        L = dataset.padded_length

        def by_taps(params: Any, stats: Any, batch: Any) -> dict[str, jax.Array]:
            model = nnx.merge(experiment.graphdef, params, stats)
            # For Flax's Dropout, which no key reaches
            model.set_attributes(deterministic=True, raise_if_not_found=False)
            names = [name for name, module in modules_of(model) if add_probe(module, L)]
            graphdef, *parts = nnx.split(model, Probe, ...)
            probes, rest = (nnx.to_pure_dict(part) for part in parts)

            def loss(probes: Any) -> jax.Array:
                model = nnx.merge(graphdef, probes, rest)
                return mean_metrics(experiment.task.train_sums(model, batch, None))["loss"]

            with jax.default_matmul_precision("highest"):
                slopes = jax.grad(loss)(probes)
            layers = dict(modules_of(nnx.merge(graphdef, slopes, rest)))
            return {name: layers[name].probe[...] for name in names}

        state = experiment.abstract_state()
        compile_ = functools.partial(experiment.compile, by_taps, state.params, state.stats, batch)
        program = experiment.compiled_once(f"the diagnostics for L = {length:,}", compile_)
        return lambda params, stats: program(params, stats, batch)


def layer_names(arrays: Arrays) -> list[str]:
    """The layers in what `Diagnostics.of` gives."""
    return [key.removesuffix(":beta") for key in arrays if key.endswith(":beta")]


def numbers_of(arrays: Arrays) -> dict[str, float]:
    """A line of the log, from `Diagnostics.of`.

    variation_K, energy_K: medians over the channels and directions of all layers, of band K = 1..;
    gradient_share_K: mean over the layers. drift_im_median, drift_im_max, drift_re_...: over all
    poles, in rad and nepers per sample; drift_spacings_...: in distances of neighbouring poles.
    beta_min, beta_median, beta_max: over all channels. aliased: mean share of modes beyond Nyquist.
    states_99_median, states_99_9_median: how many real states hold so much of the sum of the Hankel
    singular values, over all systems that have some. The medians of drift, beta and these states
    follow for each layer, as "drift_im_median/LAYER".
    """
    names = layer_names(arrays)
    if not names:
        return {}

    def every(quantity: str) -> np.ndarray:
        rows = [np.ravel(arrays[f"{name}:{quantity}"]) for name in names]
        return np.concatenate(rows).astype(np.float64)

    row: dict[str, float] = {}
    for quantity in ("variation", "energy"):
        medians_K = np.median(every(quantity).reshape(-1, bands.BANDS), axis=0)
        row |= {f"{quantity}_{k}": value for k, value in enumerate(medians_K.tolist(), start=1)}
    norms = [arrays[f"{name}:gradient"] for name in names if f"{name}:gradient" in arrays]
    if norms:
        shares_K = np.mean([norm / norm.sum() for norm in norms], axis=0)
        row |= {f"gradient_share_{k}": value for k, value in enumerate(shares_K.tolist(), start=1)}
    for quantity in ("drift_im", "drift_re", "drift_spacings"):
        values = every(quantity)
        if quantity == "drift_spacings":  # a pole alone has no neighbour
            values = values[~np.isnan(values)]
        if values.size:
            row[f"{quantity}_median"] = float(np.median(values))
            row[f"{quantity}_max"] = float(np.max(values))
    row |= {f"beta_{f.__name__}": float(f(every("beta"))) for f in (np.min, np.median, np.max)}
    row["aliased"] = float(np.mean(every("aliased")))
    for quantity in ("drift_im", "beta"):
        for name in names:
            row[f"{quantity}_median/{name}"] = float(np.median(arrays[f"{name}:{quantity}"]))
    for share in SHARES:
        of = {
            name: states_holding(arrays[f"{name}:hankel"].astype(np.float64), share)
            for name in names
            if f"{name}:hankel" in arrays
        }
        of = {name: states[np.isfinite(states)] for name, states in of.items()}
        of = {name: states for name, states in of.items() if states.size}
        if of:
            row[states_key(share)] = float(np.median(np.concatenate([*of.values()])))
        row |= {states_key(share, name): float(np.median(states)) for name, states in of.items()}
    return row


def write_arrays(folder: Path, step: int, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write folder/STEP.npz, atomically, and return its stamp; equal arrays give equal bytes."""
    folder.mkdir(exist_ok=True)
    np.savez(buffer := io.BytesIO(), allow_pickle=False, **arrays)
    replace_atomically(folder / f"{step}.npz", buffer.getvalue())
    return stamp_of(buffer.getvalue())


def cut(folder: Path, start_step: int) -> None:
    """Remove what is past the step from which a run resumes, as `MetricsLog` does."""
    for path in folder.glob("*.npz"):
        if path.stem.isdecimal() and (start_step == 0 or int(path.stem) > start_step):
            path.unlink()
