"""The model of the wave experiment: how much of each wave is in a signal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init import initial_modes
from ssm_jax.kernels.filter import circular_gain
from ssm_jax.kernels.response import discrete_transfer_function
from ssm_jax.layers import S4D
from ssm_jax.layers.inputs import checked_input, in_type, returned_in
from ssm_jax.models.block import gelu, linear
from ssm_jax.options import SIZE, check

CHUNK = 1_024  # time steps that are in memory at once


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
        rngs: nnx.Rngs,
    ):
        """Args:
        waves: whole periods of each wave in a sequence, below length / 2; of 2 pi seconds, so
          these are rad/s too.
        length: L, samples of a sequence; dt = 2 pi / L.
        d_model: channels H.
        d_state: modes N of each channel, conjugates not counted.
        alpha: factor on the frequencies of the modes.
        beta, learn_beta: of the filter, whose |s| is the frequency in rad/s over 10,000.
        legacy_unsymmetric: the gain that the official program has in effect, see `circular_gain`.
        rngs: with a "params" stream.
        """
        knobs = {"alpha": alpha, "beta": beta, "learn_beta": learn_beta}
        sizes = {"length": length, "d_model": d_model, "d_state": d_state}
        check("WaveRegressor", **sizes, **knobs, legacy_unsymmetric=legacy_unsymmetric)
        given = np.asarray(waves).tolist()
        listed = given if isinstance(given, list) else [0]
        if not listed or not all(SIZE.holds(w) and 2 * w < length for w in listed):
            raise ValueError(
                "WaveRegressor: waves must be integers of at least 1 and below half the length "
                f"{length}, got {waves!r}."
            )
        self.waves = tuple(listed)
        self.length = length
        self.legacy_unsymmetric = legacy_unsymmetric
        self.encoder = linear(1, d_model, rngs)
        dt = 2 * math.pi / length
        start_N = -0.5 + 1j * np.pi * (1.3 + np.arange(d_state))
        self.ssm = S4D(
            d_model,
            d_state=d_state,
            n_ssm=d_model,
            init=initial_modes(start_N, d_state, n_sets=d_model, alpha=alpha).A_SN,
            beta=beta,
            learn_beta=learn_beta,
            beta_unit="hz_1e4",
            dt_min=dt,
            dt_max=dt,
            dt_transform="exp",
            bidirectional=False,
            rngs=rngs,
        )
        self.decoder = linear(d_model, len(self.waves), rngs)

    def responses(self) -> Array:
        """K g + D at 0 and at the waves, complex (H, 1 + waves)."""
        with jax.numpy_dtype_promotion("standard"):
            periods = np.array([0, *self.waves])
            H = self.ssm.D[...].shape[0]
            omega_F = jnp.asarray(2 * np.pi * periods / self.length, self.ssm.D[...].dtype)
            K_HF = discrete_transfer_function(
                self.ssm.eigenvalues(),
                self.ssm.readout()[0],
                self.ssm.step_sizes(),
                jnp.broadcast_to(omega_F, (H, periods.size)),
                self.ssm.discretization,
                self.length,
            )
            gain_HF = circular_gain(
                self.ssm.beta[...], periods, self.length, unsymmetric=self.legacy_unsymmetric
            )
            return K_HF * gain_HF + self.ssm.D[...][:, None]

    def __call__(self, amplitudes_BF: ArrayLike) -> Array:
        """Estimates (B, waves) of the amplitudes (B, waves) of the waves in a signal."""
        inputs = checked_input("WaveRegressor", amplitudes_BF, "(B, F)", len(self.waves))
        model, dtype = in_type(self, inputs)
        with jax.numpy_dtype_promotion("standard"):
            return model._estimates(inputs.astype(dtype)).astype(returned_in(inputs, dtype))

    def _estimates(self, amplitudes_BF: Array) -> Array:
        W_H, b_H = self.encoder.kernel[...][0], self.encoder.bias
        assert b_H is not None
        G_HF = self.responses()
        wave_BFH = amplitudes_BF[:, :, None] * (W_H[None, :] * G_HF[:, 1:].T)[None]
        constant_H = b_H[...] * G_HF[:, 0].real
        # Re[G e^{iwt}] = Re G cos wt - Im G sin wt
        parts_BFH = jnp.concatenate([wave_BFH.real, -wave_BFH.imag], axis=1)
        return self.decoder(self._mean_activation(parts_BFH, constant_H))

    def _mean_activation(self, parts_BFH: Array, constant_H: Array) -> Array:
        """mean_t GELU(y(t)), (B, H), over blocks of time that are computed again backwards."""
        L, dtype = self.length, parts_BFH.dtype
        chunks = -(-L // CHUNK)
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

        def add(total_BH: Array, start: Array) -> tuple[Array, None]:
            return total_BH + chunk_sum(start), None

        B, _, H = parts_BFH.shape
        zero_BH = jnp.zeros((B, H), parts_BFH.dtype)
        total_BH, _ = jax.lax.scan(add, zero_BH, jnp.arange(chunks, dtype=jnp.int32))
        return total_BH / L
