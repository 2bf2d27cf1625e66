"""The denoising autoencoder against the official computation in float64 (OC-21..OC-23)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import run

from ssm_jax.stories.denoise.task import Denoiser

N, L = 8, 96


def model(**options):
    return Denoiser(width=12, d_state=N, rngs=nnx.Rngs(params=0), **options)


def official(denoiser, u_BL3, alpha, beta):
    """y = W (K (1 + |k| / 1e4)^beta u) + b on the circle of 2L steps, by complex FFTs in float64.

    The frequency of bin k is that of a transform of 2 x 2048 x 128 steps at the same angle.
    """
    length = u_BL3.shape[1]
    A = np.where(np.arange(N) == 0, -np.exp(-5.0), -3.0) + 1j * alpha * np.pi * np.arange(N)
    C_3N = np.asarray(denoiser.ssm.C_ri[...], float)[0] @ np.array([1, 1j])
    dt = 1e-4
    taps = np.arange(length)
    k_3L = 2 * np.real((C_3N * np.expm1(dt * A) / A) @ np.exp(dt * A[:, None] * taps))
    bins = np.fft.fftfreq(2 * length, 1 / (2 * length))
    gain = (1 + np.abs(bins) * (2 * 2048 * 128) / (2 * length) / 1e4) ** beta
    spectrum = np.fft.fft(k_3L, 2 * length) * gain
    y_B3L = np.fft.ifft(np.fft.fft(u_BL3.transpose(0, 2, 1), 2 * length) * spectrum).real
    W, b = (np.asarray(v[...], float) for v in (denoiser.mix.kernel, denoiser.mix.bias))
    return y_B3L[..., :length].transpose(0, 2, 1) @ W + b


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (156.137, -1.0), (10.0, 0.5)])
def test_it_is_the_official_computation(alpha, beta):
    denoiser = model(alpha=alpha, beta=beta)
    # At its start C is small; as after training:
    denoiser.ssm.C_ri[...] = 30 * jax.random.normal(jax.random.key(1), denoiser.ssm.C_ri.shape)
    u = np.random.default_rng(0).uniform(-1, 1, (2, L, 3)).astype(np.float32)
    graphdef, state = nnx.split(denoiser)
    found = run(_forward, state, u, graphdef=graphdef)
    np.testing.assert_allclose(found, official(denoiser, u.astype(float), alpha, beta), atol=2e-5)


def _forward(state, u, graphdef):
    return nnx.merge(graphdef, state)(u)


def test_C_starts_in_proportion_to_the_frequency_and_at_0_for_the_slow_mode():
    plain = model(alpha=1.0).ssm.C_ri[...]
    tenfold = model(alpha=10.0).ssm.C_ri[...]
    np.testing.assert_allclose(tenfold, 10 * plain, rtol=1e-5)
    assert (plain[:, :, 0] == 0).all() and (plain[:, :, 1:] != 0).all()


def test_the_filter_is_fixed_and_nothing_is_skipped():
    params = nnx.to_pure_dict(nnx.state(model(beta=0.5), nnx.Param))
    assert set(params["ssm"]) == {"A_re_raw", "A_im", "dt_raw", "C_ri"}
    assert set(params["mix"]) == {"kernel", "bias"}
    assert jnp.array_equal(model(beta=0.5).ssm.beta[...], jnp.full(3, 0.5))


def test_what_does_not_fit_is_refused_and_types_are_kept():
    denoiser = model()
    for wrong in (np.zeros((8, 3)), np.zeros((1, 0, 3)), np.zeros((1, 8, 1))):
        with pytest.raises(ValueError, match=r"^Denoiser: the input must be \(B, L, 3\)"):
            denoiser(wrong)
    found = jax.eval_shape(denoiser, jax.ShapeDtypeStruct((1, 8, 3), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    for key, value in (("width", 0), ("alpha", np.nan), ("d_state", 0), ("dt_min", 0.0)):
        with pytest.raises(ValueError, match=f"^Denoiser: {key} must be"):
            Denoiser(**{"width": 4, "d_state": 2, key: value}, rngs=nnx.Rngs(0))
