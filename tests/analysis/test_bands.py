"""Variation, energy and drift by band: against the adaptive integrals, Parseval, closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest
from flax import nnx
from oracles import oscillate
from running import run

from ssm_jax.analysis.bands import (
    BANDS,
    INPUTS,
    band_bins,
    band_edges,
    kernel_taps,
    pole_drift,
    spectra_per_band,
    taper,
)
from ssm_jax.analysis.spectra import view
from ssm_jax.kernels.response import frequency_per_radian
from ssm_jax.layers import S4, S4D, S5, LinOSS
from ssm_jax.layers.convs5 import ConvS5
from tests.analysis.exact.variation import discrete_variation_per_band

L = 512


def decayed(**options) -> S4D:
    """A layer whose kernels are over long before L / 2."""
    options = {"dt_min": 0.2, "dt_max": 0.5, "d_state": 4, "alpha": 3.0, **options}
    return S4D(4, **options, rngs=nnx.Rngs(params=0))


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 2048, 16384])
def test_bands_divide_the_frequencies_up_to_nyquist(length):
    bins, edges = band_bins(length), band_edges(length)
    assert len(bins) == BANDS + 1
    assert bins[0] == 0 and bins[-1] == length
    assert (np.diff(bins) >= 0).all()
    assert edges[-1] == np.pi
    if length >= 64:  # equal on a logarithmic axis, up to whole bins
        assert np.diff(np.log(edges[1:])) == pytest.approx(np.log(length) / BANDS, rel=0.13)


@pytest.mark.parametrize(
    ("rule", "unit", "alpha"),
    [("zoh", "hz_1e4", 3.0), ("bilinear", "rad", 0.2)],  # the bilinear rule undamps fast modes
)
def test_variation_is_that_of_the_adaptive_integral(rule, unit, alpha):
    layer = decayed(beta=0.7, beta_unit=unit, discretization=rule, alpha=alpha)
    numbers = view("x", layer)
    found = spectra_per_band(numbers, L, 2 * L)["variation"]
    for C_HN, found_HK in zip(numbers.C_CHN, found, strict=True):
        exact_HK = discrete_variation_per_band(
            numbers.A_HN,
            C_HN,
            numbers.dt_H,
            band_edges(L),
            rule,
            beta_H=numbers.beta_H,
            unit_H=frequency_per_radian(2 * L, unit),
        )
        np.testing.assert_allclose(found_HK, exact_HK, rtol=3e-3)


def test_energy_of_all_bands_is_that_of_the_taps():
    """Parseval: without a filter the integral up to Nyquist is pi times the sum of the squares."""
    slow = S4D(4, d_state=4, beta=0.0, rngs=nnx.Rngs(params=0))  # cut off by the taper
    for layer in (decayed(beta=0.0), slow):
        numbers = view("x", layer)
        found = spectra_per_band(numbers, L, 2 * L)["energy"].sum(axis=-1)
        taps = run(kernel_taps, numbers, length=L)[0].astype(np.float64) * taper(L)
        np.testing.assert_allclose(found, np.pi * (taps**2).sum(axis=-1), rtol=1e-5)


def test_the_taper_leaves_a_slow_mode_no_ripples_at_high_frequencies():
    """Its variation in the highest band is the endless one's, and without a taper far from it."""
    layer = S4D(8, d_state=4, dt_min=1e-3, dt_max=1e-3, beta=0.0, rngs=nnx.Rngs(params=0))
    numbers = view("x", layer)
    found = spectra_per_band(numbers, 256, 512)["variation"][0, :, -1]
    exact = discrete_variation_per_band(
        numbers.A_HN, numbers.C_CHN[0], numbers.dt_H, band_edges(256)
    )[:, -1]
    K_HF = np.fft.rfft(run(kernel_taps, numbers, length=256)[0, 0], 2 * 1024)
    sharp = np.abs(np.diff(K_HF))[:, 4 * band_bins(256)[-2] :].sum(axis=1)
    assert np.median(np.abs(found / exact - 1)) < 0.1
    assert np.median(sharp / exact) > 10


def test_s4_without_its_low_rank_is_s4d():
    """The same diagonal systems by another kernel: P = 0 leaves B and C."""
    s4 = S4(4, d_state=4, dt_min=0.2, dt_max=0.5, beta=0.5, rngs=nnx.Rngs(params=0))
    numbers = view("x", s4)
    assert numbers.PB_HN is not None
    P_HN, B_HN = numbers.PB_HN
    plain = replace(numbers, PB_HN=(0 * P_HN, B_HN))
    diagonal = replace(numbers, PB_HN=None, C_CHN=numbers.C_CHN * B_HN[None])
    for a, b in zip(
        *(spectra_per_band(v, L, 2 * L).values() for v in (plain, diagonal)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-3)


def test_s5_of_one_input_is_s4d_with_shared_modes():
    """With one channel a sign has no say, and the sum over inputs is that one input."""
    s5 = S5(1, d_state=4, dt_min=0.2, dt_max=0.5, beta=0.5, rngs=nnx.Rngs(params=0))
    numbers = view("x", s5)
    dt_N = numbers.dt_H
    residues = numbers.C_CHN * (numbers.B_NH[:, 0] * dt_N)[None, None] / 2
    single = replace(
        numbers, A_HN=(numbers.A_HN[:, 0] * dt_N)[None], C_CHN=residues, dt_H=np.ones(1), B_NH=None
    )
    for a, b in zip(
        *(spectra_per_band(v, L, 2 * L).values() for v in (numbers, single)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_variation_of_oscillators_is_that_of_their_recurrence(alpha):
    """In float64, of positions step by step, on 16 times as many nodes."""
    layer = LinOSS(1, d_state=4, alpha=alpha, bidirectional=False, rngs=nnx.Rngs(params=0))
    a, G, h = (np.asarray(x, float) for x in layer.oscillators())
    B, C = (np.asarray(x[...], float) @ [1, 1j] for x in (layer.B_ri, layer.C_ri))
    impulse_L1 = (np.arange(L) == 0)[:, None]
    taps = (oscillate(a, G, h, "im", impulse_L1 * B[:, 0]) @ C[0, 0]).real
    path = np.abs(np.diff(np.fft.rfft(taps * taper(L), 128 * L)))
    exact_K = [path[64 * low : 64 * high].sum() for low, high in pairwise(band_bins(L))]
    found = spectra_per_band(view("x", layer), L, 2 * L)["variation"]
    np.testing.assert_allclose(found, [[exact_K]], rtol=3e-3)


def test_s5_energy_estimates_the_sum_over_its_inputs():
    s5 = S5(16, d_state=8, dt_min=0.2, dt_max=0.5, bidirectional=False, rngs=nnx.Rngs(params=0))
    impulses = np.zeros((16, L, 16), np.float32)
    impulses[np.arange(16), 0, np.arange(16)] = 1
    taps = np.array(nnx.jit(lambda m: m(impulses))(s5), np.float64)
    taps[np.arange(16), 0, np.arange(16)] -= np.asarray(s5.D[...])
    every = np.pi * ((taps * taper(L)[None, :, None]) ** 2).sum()
    found = spectra_per_band(view("x", s5), L, 2 * L)["energy"]
    assert found.shape == (1, 16, BANDS)
    assert found.sum() == pytest.approx(every, rel=0.25)  # 16 outputs with 4 draws each


@pytest.mark.parametrize(("beta", "unit"), [(-1.0, "denoise"), (1.0, "rad")])
def test_a_causal_filter_is_in_the_energy_as_in_what_the_layer_does(beta, unit):
    """Against float64 sums over what comes out of impulses of signs, as the estimate takes them."""
    steps, H = 64, 4
    layer = ConvS5(
        H, d_state=8, window=1, beta=beta, beta_unit=unit, dt_min=0.05, dt_max=0.5,
        rngs=nnx.Rngs(params=0),
    )  # fmt: skip
    signs_HP = 2 * np.random.default_rng(0).integers(0, 2, (H, INPUTS)) - 1
    u = np.zeros((INPUTS, steps, 1, 1, H), np.float32)
    u[:, 0, 0, 0] = signs_HP.T
    taps_PLH = np.asarray(layer(u), np.float64)[:, :, 0, 0]
    omega_F = np.pi * np.arange(4 * steps + 1) / (4 * steps)
    turns_LF = np.exp(-1j * np.outer(np.arange(steps), omega_F))
    K_PHF = np.einsum("plh,lf->phf", taps_PLH * taper(steps)[None, :, None], turns_LF)
    power_HF = (np.abs(K_PHF) ** 2).mean(axis=0)
    panels_HF = (power_HF[:, 1:] + power_HF[:, :-1]) * np.pi / (8 * steps)
    found_HK = spectra_per_band(view("x", layer), steps, 2 * steps)["energy"][0]
    for k, (a, b) in enumerate(pairwise(4 * band_bins(steps))):
        np.testing.assert_allclose(found_HK[:, k], panels_HF[:, a:b].sum(axis=1), rtol=1e-3)


def test_drift_is_what_was_added():
    layer = decayed(n_ssm=4)
    before = view("x", layer)
    layer.A_im[...] = layer.A_im[...].at[1, 2].add(0.3)
    after = view("x", layer)
    drift = pole_drift(before, after)
    expected = np.zeros((4, 4))
    expected[1, 2] = 0.3
    np.testing.assert_allclose(drift["drift_im"], expected * before.dt_H[:, None], atol=1e-6)
    np.testing.assert_allclose(drift["drift_spacings"], expected / (3 * np.pi), atol=1e-6)
    assert not drift["drift_re"].any()
    np.testing.assert_allclose(drift["drift_with_dt"], drift["drift_im"], atol=1e-6)


def test_a_changed_dt_is_no_drift_of_a():
    before = view("x", decayed())
    drift = pole_drift(before, replace(before, dt_H=2 * before.dt_H))
    assert not drift["drift_im"].any() and not drift["drift_spacings"].any()
    np.testing.assert_allclose(
        drift["drift_with_dt"], np.abs(before.A_HN.imag) * before.dt_H[:, None]
    )


def test_a_pole_alone_has_no_spacing():
    one = view("x", decayed(d_state=1))
    assert np.isnan(pole_drift(one, one)["drift_spacings"]).all()
    s5 = view("x", S5(2, d_state=3, rngs=nnx.Rngs(params=jax.random.key(0))))
    assert np.isfinite(pole_drift(s5, s5)["drift_spacings"]).all()


def test_the_two_poles_of_an_oscillator_are_no_distance_apart():
    one = view("x", LinOSS(2, d_state=3, rngs=nnx.Rngs(params=jax.random.key(0))))
    other = replace(one, A_HN=one.A_HN + np.complex64(0.01j))
    angle = np.sort(one.A_HN[:3, 0].imag)
    gaps = np.diff(angle)
    nearest = np.minimum([np.inf, *gaps], [*gaps, np.inf])[
        np.argsort(np.argsort(one.A_HN[:3, 0].imag))
    ]
    found = pole_drift(one, other)["drift_spacings"][:, 0]
    np.testing.assert_allclose(found, 0.01 / np.tile(nearest, 2), rtol=1e-3)
