"""Wave regression: how much of each of four waves is in their sum.

    x(t) = sum_i a_i cos(w_i t),    w = 1, 16, 256, 4096 rad/s,    0 <= t < 2 pi

Only the amplitudes are data. The official code (waves_gen.py, arXiv:2410.02035) stores signals,
2.5 GB for training and as much for testing. Its step is 1e-4 s, here it is 2 pi / L, which at the
official L = 62,832 is 2.3e-6 less: so all waves end where they began.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS, spread
from ssm_jax.data.prepare import DataPaths
from ssm_jax.init import initial_modes
from ssm_jax.kernels.arrays import returned_in
from ssm_jax.kernels.response import circular_gain, discrete_transfer_function
from ssm_jax.layers import S4D, LinOSS
from ssm_jax.layers.inputs import checked_input, in_type
from ssm_jax.models.block import linear
from ssm_jax.models.gate import gelu
from ssm_jax.options.arguments import arguments_of, check
from ssm_jax.options.rows import SIZE
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.metrics import masked_sums

WAVES = (1, 16, 256, 4096)  # rad/s, and periods in a sequence
LEVELS = np.arange(1, 11) / 10  # of each amplitude in training
DRAWN = 10_000  # examples for validation, and for testing
CHUNK = 1_024  # time steps that are in memory at once


class WaveDataset(Dataset):
    """Amplitudes: in training all of the grid {0.1, .., 1.0}^4, else uniform in [0, 1)^4.

    `gather` returns "inputs", float32 (B, 4), which are the targets as well.
    """

    def __init__(self, length: int, counts: Mapping[str, int], seed: int) -> None:
        """`counts` of 0 are 10,000 examples; fewer for training are spread over the grid."""
        if length <= 2 * WAVES[-1]:
            raise ValueError(
                f"data.padded_length={length} puts the wave of {WAVES[-1]} rad/s beyond Nyquist; "
                f"use more than {2 * WAVES[-1]}."
            )
        grid = np.stack(np.meshgrid(*(LEVELS,) * len(WAVES), indexing="ij"), axis=-1)
        rows = grid.reshape(-1, len(WAVES))
        chosen = spread(np.arange(len(rows)), counts["train"], "train")
        self.rows = {"train": rows[chosen].astype(np.float32)}
        for stream, split in enumerate(SPLITS[1:], 1):
            drawn = uniform(seed, stream, (counts[split] or DRAWN) * len(WAVES))
            self.rows[split] = drawn.reshape(-1, len(WAVES)).astype(np.float32)
        sha256 = hashlib.sha256(b"".join(rows.tobytes() for rows in self.rows.values()))
        detail = f"amplitudes of waves of {', '.join(map(str, WAVES))} rad/s, seed {seed}"
        super().__init__("waves", length, Provenance("generated", detail, sha256.hexdigest()))

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        return {"inputs": self.rows[split][self.check(split, indices)]}

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return self.padded_length


def open_waves(options: Mapping[str, Any], paths: DataPaths) -> WaveDataset:
    """The amplitudes that a config asks for; no files are read."""
    if options["source"] != "generated" or paths.files is not None:
        raise ValueError("waves are generated: leave data.source at generated, and give no files.")
    counts = {split: options[f"n_{split}"] for split in SPLITS}
    return WaveDataset(options["padded_length"], counts, options["seed"])


class WaveRegressor(nnx.Module):
    r"""mean_t V GELU(y(t)) + v, with y = k^(beta) * (W x + b) + D (W x + b) on the circle.

    One layer between two linear maps, without residual and norm; a_n = -1/2 + i alpha pi (1.3 + n)
    in each channel, dt fixed. Source: waves.py of the official code of arXiv:2410.02035 (OC-20).

    Signals are sums of waves with whole periods in the sequence, x(t) = sum_i a_i cos(w_i t), and
    the convolution is circular, so the layer's answer is known without a convolution:

        y_h(t) = sum_i a_i W_h Re[(K_h(w_i) g_h(w_i) + D_h) e^{i w_i t}] + b_h (K_h(0) + D_h)

    with the spectrum K of the first L taps and the filter's gain g. The signals never exist.
    """

    def __init__(
        self,
        *,
        waves: Sequence[int],
        length: int,
        d_model: int = 16,
        d_state: int = 4,
        alpha: float = 1.0,
        beta: float = 0.0,
        learn_beta: bool = False,
        legacy_unsymmetric: bool = False,
        oscillators: bool = False,
        rngs: nnx.Rngs,
    ):
        """Of L = `length` samples in 2 pi seconds, so that dt = 2 pi / L and the `waves`, whole
        periods in a sequence and below L / 2, are rad/s too.

        alpha scales the frequencies of the N modes of each channel, conjugates not counted; |s| of
        the filter is in rad/s over 10,000. `legacy_unsymmetric` is for the gain that the official
        program has in effect, see `circular_gain`. `oscillators`: the layer is a LinOSS of N
        oscillators for all channels, which has time steps of its own.
        """
        own = {"length": length, "alpha": alpha, "legacy_unsymmetric": legacy_unsymmetric}
        shared: dict[str, Any] = {"d_state": d_state, "beta": beta, "learn_beta": learn_beta}
        check("WaveRegressor", {"d_model": d_model, "oscillators": oscillators, **own, **shared})
        given = np.asarray(waves).tolist()
        listed = given if isinstance(given, list) else [0]
        if not listed or not all(SIZE.holds(w) and 2 * w < length for w in listed):
            raise ValueError(
                "WaveRegressor: waves must be integers of at least 1 and below half the length "
                f"{length}, got {waves!r}."
            )
        self.waves, self.length = tuple(listed), length
        self.legacy_unsymmetric = legacy_unsymmetric
        self.encoder = linear(1, d_model, rngs, "highest")
        shared |= {"beta_unit": "hz_1e4", "bidirectional": False, "rngs": rngs}
        if oscillators:
            self.ssm: S4D | LinOSS = LinOSS(d_model, alpha=alpha, **shared)
        else:
            start_N = -0.5 + 1j * np.pi * (1.3 + np.arange(d_state))
            A_HN = initial_modes(start_N, d_state, n_sets=d_model, alpha=alpha).A_SN
            dt = 2 * math.pi / length
            shared |= {"dt_min": dt, "dt_max": dt, "dt_transform": "exp"}
            self.ssm = S4D(d_model, n_ssm=d_model, init=A_HN, **shared)
        if legacy_unsymmetric:
            self.ssm.unsymmetric = True  # for those that look at the layer alone
        self.decoder = linear(d_model, len(self.waves), rngs, "highest")

    def answers(self) -> Array:
        """To the constant b and to each wave times W: complex (H, 1 + waves)."""
        with jax.numpy_dtype_promotion("standard"):
            W_H, b_H = self.encoder.kernel[...][0], self.encoder.bias
            assert b_H is not None
            ssm, periods = self.ssm, np.array([0, *self.waves])
            D_H = ssm.D[...]
            omega_F = jnp.asarray(2 * np.pi * periods / self.length, D_H.dtype)

            def spectrum(A_HN: Array, C_HN: Array, dt_H: Array, omega_F: Array) -> Array:
                omega_HF = jnp.broadcast_to(omega_F, (D_H.size, omega_F.size))
                how = ssm.discretization, self.length
                return discrete_transfer_function(A_HN, C_HN, dt_H, omega_HF, *how)

            gain_HF = circular_gain(
                ssm.beta[...], periods, self.length, unsymmetric=self.legacy_unsymmetric
            )
            v_HF = jnp.concatenate([b_H[...][:, None], *[W_H[:, None]] * len(self.waves)], axis=1)
            if isinstance(ssm, S4D):
                K_HF = spectrum(ssm.eigenvalues(), ssm.readout()[0], ssm.step_sizes(), omega_F)
                return (K_HF * gain_HF + D_H[:, None]) * v_HF
            # A mode hears all channels: what it hears becomes part of its read-out, per wave.
            C_HN, B_NH, ones_H = ssm.readout()[0], ssm.input_matrix(), jnp.ones_like(D_H)
            A_HN = jnp.broadcast_to(ssm.eigenvalues(), C_HN.shape)
            parts = []
            for v_H, part in ((b_H[...], slice(0, 1)), (W_H, slice(1, None))):
                heard_N = jnp.sum(B_NH * v_H[None], axis=1)
                parts.append(spectrum(A_HN, C_HN / 2 * heard_N[None], ones_H, omega_F[part]))
            return jnp.concatenate(parts, axis=1) * gain_HF + D_H[:, None] * v_HF

    def __call__(self, amplitudes_BF: ArrayLike) -> Array:
        """Estimates (B, waves) of the amplitudes (B, waves) of the waves in a signal."""
        inputs = checked_input("WaveRegressor", amplitudes_BF, "(B, F)", len(self.waves))
        model, dtype = in_type(self, inputs)
        with jax.numpy_dtype_promotion("standard"):
            return model._estimates(inputs.astype(dtype)).astype(returned_in(inputs, dtype))

    def _estimates(self, amplitudes_BF: Array) -> Array:
        """V mean_t GELU(y(t)) + v, over blocks of time that are computed again backwards."""
        L, dtype = self.length, amplitudes_BF.dtype
        answer_HF = self.answers()
        wave_BFH = amplitudes_BF[:, :, None] * answer_HF[:, 1:].T[None]
        constant_H = answer_HF[:, 0].real
        # Re[G e^{iwt}] = Re G cos wt - Im G sin wt
        parts_BFH = jnp.concatenate([wave_BFH.real, -wave_BFH.imag], axis=1)
        periods_F = jnp.asarray(self.waves, jnp.int32)

        @jax.checkpoint
        def chunk_sum(start: Array) -> Array:
            t_T = start * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)
            phase_TF = (t_T[:, None] * periods_F[None, :]) % L  # exact: the waves are on bins
            angle_TF = phase_TF.astype(dtype) * dtype.type(2 * np.pi / L)
            basis_TF = jnp.concatenate([jnp.cos(angle_TF), jnp.sin(angle_TF)], axis=1)
            y_BTH = jnp.einsum("tf,bfh->bth", basis_TF, parts_BFH, precision="highest")
            active_BTH = gelu(y_BTH + constant_H[None, None, :])
            return jnp.sum(jnp.where((t_T < L)[None, :, None], active_BTH, 0.0), axis=1)

        zero_BH = jnp.zeros_like(parts_BFH[:, 0])
        starts = jnp.arange(-(-L // CHUNK), dtype=jnp.int32)
        total_BH, _ = jax.lax.scan(
            lambda total_BH, start: (total_BH + chunk_sum(start), None), zero_BH, starts
        )
        return self.decoder(total_BH / L)


def build_regressor(
    dataset: WaveDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> WaveRegressor:
    own = arguments_of(WaveRegressor, options, "waves")
    return WaveRegressor(waves=WAVES, length=dataset.padded_length, **own, rngs=rngs)


def regression_sums(model: Any, batch: Batch, key: Array | None = None) -> Sums:
    """Squared error per wave, absolute error of each wave (error_16, ..) and their mean (error)."""
    del key  # there is no dropout
    amplitudes_BF = batch["inputs"]
    apart_BF = model(amplitudes_BF) - amplitudes_BF
    error_BF = jnp.abs(apart_BF)
    each = {f"error_{wave}": error_BF[:, i] for i, wave in enumerate(WAVES)}
    means = {"loss": jnp.mean(apart_BF**2, axis=1), "error": jnp.mean(error_BF, axis=1), **each}
    return masked_sums(means, batch)
