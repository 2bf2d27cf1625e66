"""The wave model against the official computation in float64 (OC-19, OC-20)."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import run
from scipy.special import erf

from ssm_jax.analysis.bands import band_bins, spectra_per_band
from ssm_jax.analysis.spectra import filter_gain, layers_of
from ssm_jax.kernels.response import circular_gain
from ssm_jax.stories.waves.task import WaveRegressor

H, N = 3, 4


def model(length, waves, seed=0, **options):
    regressor = WaveRegressor(
        waves=waves, length=length, d_model=H, d_state=N, rngs=nnx.Rngs(params=seed), **options
    )
    rng = np.random.default_rng(seed)  # the channels' modes apart, as after training
    for variable, size in ((regressor.ssm.A_im, 5.0), (regressor.ssm.A_re_raw, 0.5)):
        noise = size * rng.normal(size=variable.shape)
        variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
    return regressor


def official(regressor, amplitudes, length, waves, beta, *, legacy):
    """Signals, encoder, circular convolution on all n bins and its real part, GELU, decoder, mean.

    `legacy`: the factor (1 + k / 1e4)^beta on bins 0..n - 1; else by the distance to bin 0.
    """
    t = 2 * np.pi * np.arange(length) / length
    signal = amplitudes @ np.cos(np.outer(waves, t))
    ssm = regressor.ssm
    A = -np.exp(np.asarray(ssm.A_re_raw[...], float)) + 1j * np.asarray(ssm.A_im[...], float)
    C = np.asarray(ssm.C_ri[...], float)[0] @ np.array([1, 1j])
    D = np.asarray(ssm.D[...], float)
    dt = 2 * np.pi / length
    taps = np.arange(length)
    w = C * np.expm1(dt * A) / A
    k_HL = np.stack([2 * np.real(w[h] @ np.exp(dt * A[h][:, None] * taps)) for h in range(H)])
    k = np.arange(length)
    gain = (1 + (k if legacy else np.minimum(k, length - k)) / 1e4) ** beta
    W, b = (np.asarray(v[...], float) for v in (regressor.encoder.kernel, regressor.encoder.bias))
    V, v = (np.asarray(x[...], float) for x in (regressor.decoder.kernel, regressor.decoder.bias))
    outputs = []
    for x in signal:
        u_HL = W[0][:, None] * x + b[:, None]
        y = np.fft.ifft(np.fft.fft(u_HL) * np.fft.fft(k_HL) * gain).real + D[:, None] * u_HL
        g = y * 0.5 * (1 + erf(y / np.sqrt(2)))
        outputs.append((g.T @ V + v).mean(axis=0))
    return np.array(outputs)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (100.0, 1.0), (0.01, -1.0)])
@pytest.mark.parametrize("length", [1500, 2048])  # not a whole number of chunks, and one
def test_it_is_the_official_computation(length, alpha, beta, legacy):
    waves = (1, 16, 256, 700)
    regressor = model(length, waves, alpha=alpha, beta=beta, legacy_unsymmetric=legacy)
    amplitudes = np.random.default_rng(1).uniform(0, 1, (3, 4))
    graphdef, state = nnx.split(regressor)
    found = run(_forward, state, amplitudes.astype(np.float32), graphdef=graphdef)
    expected = official(regressor, amplitudes, length, waves, beta, legacy=legacy)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_with_oscillators_it_is_their_recurrence_on_the_circle(alpha):
    """x'' = -a x + B u by implicit steps, of a unit impulse into each channel in turn."""
    length, waves = 1500, (1, 16, 256, 700)
    how = {"alpha": alpha, "beta": 0.5, "oscillators": True, "rngs": nnx.Rngs(params=3)}
    regressor = WaveRegressor(waves=waves, length=length, d_model=H, d_state=N, **how)
    ssm = regressor.ssm
    B_NH, C_HN = (np.asarray(x[...], float) @ [1, 1j] for x in (ssm.B_ri, ssm.C_ri))
    a_N, h_N = np.asarray(ssm.A_im[...], float), np.asarray(ssm.oscillators()[2], float)
    one_L1 = (np.arange(length) == 0)[:, None]
    x_HLN = [oracles.oscillate(a_N, 0 * a_N, h_N, "im", one_L1 * B_NH[:, h]) for h in range(H)]
    k_LHH = np.stack([(x_LN @ C_HN[0].T).real for x_LN in x_HLN], axis=2)
    K_FHH = np.fft.fft(k_LHH, axis=0)
    amplitudes = np.random.default_rng(1).uniform(0, 1, (3, 4))
    k = np.arange(length)
    gain_F = (1 + np.minimum(k, length - k) / 1e4) ** 0.5
    W, b = (np.asarray(v[...], float) for v in (regressor.encoder.kernel, regressor.encoder.bias))
    V, v = (np.asarray(x[...], float) for x in (regressor.decoder.kernel, regressor.decoder.bias))
    expected = []
    for x in amplitudes @ np.cos(np.outer(waves, 2 * np.pi * k / length)):
        u_LH = x[:, None] * W[0] + b
        Y_FH = np.einsum("fhj,fj->fh", K_FHH, np.fft.fft(u_LH, axis=0)) * gain_F[:, None]
        y = np.fft.ifft(Y_FH, axis=0).real + np.asarray(ssm.D[...], float) * u_LH
        expected.append((y * 0.5 * (1 + erf(y / np.sqrt(2))) @ V + v).mean(axis=0))
    graphdef, state = nnx.split(regressor)
    found = run(_forward, state, amplitudes.astype(np.float32), graphdef=graphdef)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def _forward(state, amplitudes, graphdef):
    return nnx.merge(graphdef, state)(amplitudes)


def test_its_gradient_passes_finite_differences_of_the_official_computation():
    length, waves = 600, (1, 5, 40, 250)
    regressor = model(length, waves, alpha=3.0, beta=0.5)
    amplitudes = np.random.default_rng(2).uniform(0, 1, (2, 4))
    graphdef, state = nnx.split(regressor)

    def loss(state):
        return jnp.sum(_forward(state, jnp.asarray(amplitudes, jnp.float32), graphdef) ** 2)

    slope = run(jax.grad(loss), state)["ssm"]["A_im"][...]
    for h, n in ((0, 0), (2, 3)):
        values = []
        for step in (-1e-3, 1e-3):
            moved = np.asarray(regressor.ssm.A_im[...], float)
            moved[h, n] += step
            whole = _WithA(regressor, moved)
            expected = official(whole, amplitudes, length, waves, 0.5, legacy=False)
            values.append(np.sum(expected**2))
        difference = (values[1] - values[0]) / 2e-3
        np.testing.assert_allclose(slope[h, n], difference, rtol=2e-2, atol=1e-6)


class _WithA:
    """A regressor whose A_im has all its digits."""

    def __init__(self, regressor, A_im):
        self.encoder, self.decoder = regressor.encoder, regressor.decoder
        self.ssm = type("Layer", (), {})()
        for name in ("A_re_raw", "C_ri", "D"):
            setattr(self.ssm, name, getattr(regressor.ssm, name))
        self.ssm.A_im = A_im


@pytest.mark.parametrize(
    ("beta", "gains"),
    [
        (-1.0, (0.569, 0.568, 0.556, 0.427)),
        (0.5, (1.849, 1.850, 1.853, 1.905)),
        (1.0, (4.1416, 4.1416, 4.1416, 4.1416)),
    ],
)
def test_the_official_filter_has_these_gains_in_effect(beta, gains):
    """OC-19, measured with the official module at 1, 16, 256 and 4,096 rad/s."""
    bins = np.array([1, 16, 256, 4096])
    found = circular_gain(jnp.asarray([beta]), bins, 62_832, unsymmetric=True)[0]
    np.testing.assert_allclose(found, gains, atol=1e-3)
    nominal = circular_gain(jnp.asarray([beta]), bins, 62_832)[0]
    np.testing.assert_allclose(nominal, (1 + bins / 1e4) ** beta, rtol=1e-5)


@pytest.mark.parametrize("unsymmetric", [False, True])
def test_gains_are_real_parts_of_complex_filters(unsymmetric):
    """On every bin of an odd and of an even circle, against a delta through NumPy's FFT."""
    for n in (7, 12):
        k = np.arange(n)
        factor = (1 + (k if unsymmetric else np.minimum(k, n - k)) / 1e4) ** -40.0
        spectrum = np.fft.fft(np.fft.ifft(factor).real).real
        found = circular_gain(jnp.asarray([-40.0]), k, n, unsymmetric=unsymmetric)[0]
        np.testing.assert_allclose(found, spectrum, rtol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_measured_of_the_layer_has_the_filter_that_it_has(legacy):
    """Energy by band and the gain that is drawn, against float64 sums over the taps."""
    n, beta = 2048, 1.0
    regressor = model(n, (1, 16), beta=beta, legacy_unsymmetric=legacy)
    (layer,) = layers_of(regressor)
    A, C, dt = (np.asarray(x, complex) for x in (layer.A_HN, layer.C_CHN[0], layer.dt_H))
    steps, z = np.arange(n), A * dt[:, None]
    taps = 2 * np.real(np.einsum("hn,hnl->hl", C * np.expm1(z) / A, np.exp(z[..., None] * steps)))
    omega = np.pi * np.arange(4 * n + 1) / (4 * n)
    k = n * omega / (2 * np.pi)
    gain = (1 + k / 1e4) ** beta
    if legacy:
        gain = (gain + (1 + (n - k) / 1e4) ** beta) / 2
    np.testing.assert_allclose(filter_gain(layer, omega, n)[0], gain, rtol=1e-5)
    tapered = taps * np.cos(np.pi / 2 * np.maximum(0, 2 * steps / n - 1)) ** 2
    power = np.abs(np.fft.rfft(tapered, 8 * n) * gain) ** 2
    panels = (power[:, 1:] + power[:, :-1]) * np.pi / (8 * n)
    edges = 4 * band_bins(n)
    energy = np.stack([panels[:, a:b].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    found = spectra_per_band(layer, n, n)["energy"][0]
    np.testing.assert_allclose(found, energy, rtol=1e-3)


def test_what_does_not_fit_is_refused_and_types_are_kept():
    regressor = WaveRegressor(waves=(1, 2), length=16, rngs=nnx.Rngs(0))
    for wrong in (np.zeros(2), np.zeros((3, 1)), np.zeros((3, 1, 2))):
        with pytest.raises(ValueError, match=r"^WaveRegressor: the input must be \(B, F\)"):
            regressor(wrong)
    with jax.numpy_dtype_promotion("strict"):
        found = jax.eval_shape(regressor, jax.ShapeDtypeStruct((3, 2), jnp.bfloat16))
        jax.eval_shape(regressor.answers)
    assert found.dtype == jnp.bfloat16
    for waves in ((), (0,), (8,), (1.5,), 3, None):
        with pytest.raises(ValueError, match="waves must be integers of at least 1 and below half"):
            WaveRegressor(waves=waves, length=16, rngs=nnx.Rngs(0))
    for key, value in (("length", 0), ("d_model", 0), ("alpha", 0.0), ("legacy_unsymmetric", 1)):
        with pytest.raises(ValueError, match=f"^WaveRegressor: {key} must be"):
            WaveRegressor(**{"waves": (1,), "length": 16, key: value}, rngs=nnx.Rngs(0))


def test_float64_amplitudes_are_computed_in_float64():
    """With float32 parameters too: as with the same ones in float64."""
    with jax.enable_x64(True):
        regressor = WaveRegressor(waves=(1, 3), length=16, beta=0.5, rngs=nnx.Rngs(0))
        graphdef, state = nnx.split(regressor)
        wide = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.float64), state))
        a = np.random.default_rng(0).normal(size=(2, 2))
        exact = jax.jit(wide)(a)
        assert exact.dtype == jnp.float64
        np.testing.assert_allclose(jax.jit(regressor)(a), exact, rtol=1e-13)
