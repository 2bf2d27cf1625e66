"""The parts of the gradient by band: together autodiff's, each the integral of theorem T1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssm_jax.analysis.bands import BANDS, band_bins, gradient_per_band
from ssm_jax.analysis.spectra import view
from ssm_jax.kernels.response import pair_sensitivity
from ssm_jax.layers import S4, S4D, S5
from ssm_jax.layers.s4d import Probe, add_probe

LENGTHS = jnp.array([20, 7, 13])


def loss(layer: nnx.Module) -> jax.Array:
    u_BLH = jax.random.normal(jax.random.key(1), (3, 20, 6))
    return jnp.sum(jnp.tanh(layer(u_BLH, LENGTHS)) ** 2)


def by_taps(layer: nnx.Module, horizon: int) -> jax.Array:
    assert add_probe(layer, horizon)
    return gradient(layer, Probe)["probe"][...]


def gradient(layer: nnx.Module, kind: type[nnx.Variable]):
    return nnx.jit(nnx.grad(loss, argnums=nnx.DiffState(0, kind)))(layer)


@pytest.mark.parametrize(
    ("kind", "options", "horizon"),
    [
        (S4D, {"n_ssm": 1}, 20),
        (S4D, {"n_ssm": 3, "bidirectional": False, "discretization": "bilinear"}, 32),
        (S4, {"n_ssm": 2}, 32),
    ],
)
def test_parts_of_all_bands_are_the_gradient_that_autodiff_has(kind, options, horizon):
    def made():
        return kind(6, d_state=4, beta=0.4, horizon=horizon, **options, rngs=nnx.Rngs(params=0))

    layer = made()
    expected = gradient(layer, nnx.Param)["A_im"][...]
    parts = gradient_per_band(
        view("x", layer), by_taps(made(), horizon), 2 * horizon, options["n_ssm"]
    )
    assert parts.shape == (BANDS, options["n_ssm"], 4)
    np.testing.assert_allclose(parts.sum(axis=0), expected, rtol=1e-4, atol=1e-6 * abs(parts).max())


def test_a_part_is_the_integral_of_t1_over_its_band():
    """A tone's gradient and the closed form of dG/dy, in place of autodiff.

    With slow changes from sample to sample G(i w / dt) is the spectrum of the sampled kernel, but
    for the hold.
    """
    layer = S4D(
        2, d_state=3, n_ssm=2, beta=0.0, bidirectional=False, dt_min=0.02, dt_max=0.04,
        rngs=nnx.Rngs(params=0),
    )  # fmt: skip
    numbers, L = view("x", layer), 2048
    for k in (5, 30, 200):  # in the first three bands: up to 7, 45 and 304
        omega = np.pi * k / L
        g_HL = np.cos(omega * np.arange(L))[None] * np.ones((2, 1))
        taps = jnp.asarray(np.stack([g_HL, 0 * g_HL]), jnp.float32)
        parts = gradient_per_band(numbers, taps, 2 * L)
        # sum_l cos(w l) dk[l]/dy = Re dK(w)/dy
        by_y = pair_sensitivity(
            numbers.A_HN, numbers.C_CHN[0], jnp.asarray(omega / numbers.dt_H[:, None], jnp.float32)
        ).by_y_HFN[:, 0]
        hold_H1 = np.sinc(omega / 2 / np.pi) * np.exp(-0.5j * omega)
        expected = np.real(by_y * hold_H1)
        scale = np.abs(by_y).max()
        np.testing.assert_allclose(parts.sum(axis=0), expected, atol=0.05 * scale)
        own = np.searchsorted(band_bins(L), k) - 1
        assert (parts**2).sum(axis=(1, 2)).argmax() == own


def test_a_probe_changes_no_number():
    layer = S4D(6, d_state=4, rngs=nnx.Rngs(params=0))
    compiled = nnx.jit(loss)
    before = compiled(layer)
    assert add_probe(layer, 20)
    assert compiled(layer) == before


def test_s5_takes_no_probe():
    layer = S5(6, d_state=4, rngs=nnx.Rngs(params=0))
    assert not add_probe(layer, 20)
    with pytest.raises(ValueError, match="one input per channel"):
        gradient_per_band(view("x", layer), jnp.zeros((2, 6, 20)), 40)
