"""LRU against its recurrence in float64, and against the formulas of its paper."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.layers import LRU
from ssm_jax.layers.base import Knob

H, N, L = 4, 6, 200


def layer(**options):
    return LRU(H, d_state=N, rngs=nnx.Rngs(params=0), **options)


def recurrence(p, u_LH):
    """y by the published parameters, both ways if there are two read-outs."""
    Lambda = np.exp(-np.exp(p["A_re_raw"]) + 1j * np.exp(p["A_im"]))
    B, C = (p[name] @ [1, 1j] for name in ("B_ri", "C_ri"))
    v_LN = np.exp(p["gamma_log"]) * (u_LH.astype(float) @ B.T)
    y = p["D"] * u_LH.astype(float)
    for C_HN, order in zip(C, (range(len(u_LH)), reversed(range(len(u_LH)))), strict=False):
        x = np.zeros(N, complex)
        for step in order:
            x = Lambda * x + v_LN[step]
            y[step] += (C_HN @ x).real
    return y


def _ways(variables, u, graphdef):
    model = nnx.merge(graphdef, variables)
    whole = model(u, mode="scan"), model(u, mode="conv")
    if model.bidirectional:
        return whole
    state, start = model.prefill(u[:, :70])
    _, rest = jax.lax.scan(model.step, state, jnp.swapaxes(u[:, 70:], 0, 1))
    return *whole, jnp.concatenate([start, jnp.swapaxes(rest, 0, 1)], axis=1)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_way_to_run_is_the_published_recurrence(bidirectional):
    model = layer(bidirectional=bidirectional, r_min=0.8, alpha=0.7)
    u = np.random.default_rng(1).normal(size=(2, L, H)).astype(np.float32)
    graphdef, variables = nnx.split(model)
    exact = np.stack([recurrence(numbers(model), u_LH) for u_LH in u])
    for y in run(_ways, variables, u, graphdef=graphdef):
        assert np.abs(y - exact).max() < 1e-5 * np.abs(exact).max()


def test_it_starts_as_published_on_a_ring_with_inputs_of_one_size():
    plain, slow = (
        LRU(64, d_state=3000, r_min=0.5, r_max=0.9, alpha=alpha, rngs=nnx.Rngs(0))
        for alpha in (1.0, 0.1)
    )
    z = np.asarray(plain.eigenvalues())
    square = np.exp(2 * z.real)
    assert 0.25 <= square.min() < 0.255 and 0.805 < square.max() <= 0.81 * (1 + 1e-6)
    assert abs(square.mean() - 0.53) < 0.01 and abs(z.imag.mean() - np.pi / 2) < 0.05
    assert z.imag.max() <= np.pi * (1 + 1e-6)
    np.testing.assert_allclose(np.exp(2 * plain.gamma_log[...]), 1 - square, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(slow.eigenvalues()).imag, 0.1 * z.imag, rtol=1e-5)
    np.testing.assert_allclose(np.std(plain.B_ri[...]), 1 / np.sqrt(2 * 64), rtol=0.02)
    np.testing.assert_allclose(np.std(plain.C_ri[...]), 1 / np.sqrt(3000), rtol=0.02)
    learned = {path[-1] for path, _ in nnx.to_flat_state(nnx.state(plain, nnx.Param))}
    assert learned == {"A_re_raw", "A_im", "gamma_log", "B_ri", "C_ri", "D"}
    assert type(plain.beta) is Knob


def test_at_another_rate_a_held_input_gives_what_it_gives():
    """Twice as many steps of half the length, each input twice: every second output is the same."""
    model = layer(bidirectional=False, r_min=0.8)
    model.D[...] = jnp.zeros(H)
    u = np.random.default_rng(2).normal(size=(1, 50, H)).astype(np.float32)
    y, finer = model(u), model(np.repeat(u, 2, axis=1), step_scale=0.5)
    np.testing.assert_allclose(finer[:, 1::2], y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"alpha": 1.5},
            r"alpha max_phase to be at most pi.* got alpha=1\.5 and max_phase=3\.14159",
        ),
        ({"r_min": 0.9, "r_max": 0.5}, r"r_min <= r_max, got r_min=0\.9 and r_max=0\.5"),
        ({"r_max": 1.5}, "r_max must be"),
        ({"max_phase": 4.0}, "max_phase must be"),
    ],
)
def test_a_ring_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^LRU: .*{message}"):
        layer(**options)
    assert layer(alpha=2.0, max_phase=1.5).A_im.shape == (N,)
