"""Hankel singular values: against SciPy's Gramians, the Hankel matrix itself, and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import hankel, solve_discrete_lyapunov

from ssm_jax.analysis.hankel import (
    SHARES,
    hankel_values,
    kautz,
    log_poles,
    states_holding,
    states_key,
    summary,
)
from ssm_jax.analysis.spectra import view
from ssm_jax.layers import S4D
from tests import oracles
from tests.analysis.small_systems import STEPS, VIEWS, impulse, of, real_systems


@pytest.mark.parametrize("name", VIEWS)
def test_values_are_those_of_scipys_gramians_and_of_the_hankel_matrix(name):
    """Two routes that share nothing with each other."""
    numbers = VIEWS[name]
    found = hankel_values(numbers)
    systems = list(real_systems(numbers))
    assert found.shape == (len(systems), len(systems[0][0]))
    for values, (A, B, C) in zip(found, systems, strict=True):
        W_c = solve_discrete_lyapunov(A, B @ B.T)
        W_o = solve_discrete_lyapunov(A.T, C.T @ C)
        squares = np.linalg.eigvals(W_c @ W_o)
        by_scipy = np.sort(np.sqrt(np.maximum(squares.real, 0)))[::-1]
        np.testing.assert_allclose(values, by_scipy, rtol=1e-6, atol=3e-7 * values[0])
        L = int(-32 / np.log(abs(np.linalg.eigvals(A)).max()))  # after which the kernel is over
        assert L < 300
        k = impulse(A, B, C, 2 * L)
        blocks = [
            np.concatenate([hankel(one[:L], one[L - 1 : -1]) for one in k[:, :, i].T])
            for i in range(B.shape[1])
        ]
        matrix = np.concatenate(blocks, axis=1)
        largest = np.linalg.svd(matrix, compute_uv=False)[: len(values)]
        exact = numbers.B_NH is None and numbers.PB_HN is None
        limit = 1e-12 if exact else 1e-7
        np.testing.assert_allclose(values, largest, rtol=1e-9, atol=limit * values[0])


def one_mode(log_pole, residue):
    """A causal channel 2 Re residue e^{log_pole l}."""
    numbers = of(S4D, bidirectional=False, d_state=1, init="ring", discretization="none")
    A_HN, C_CHN = np.full((4, 1), log_pole, complex), np.full((1, 4, 1), residue, complex)
    return replace(numbers, A_HN=A_HN, C_CHN=C_CHN)


@pytest.mark.parametrize("slowness", [0.5, 1e-3, 1e-9, 1e-15])
def test_a_real_pole_counts_once_however_near_it_is_to_the_unit_circle(slowness):
    """Its one value is residue / (1 - p^2), exactly; its conjugate adds no state."""
    values = hankel_values(one_mode(-slowness, 1.5 + 2j))
    assert values.shape == (4, 2)
    np.testing.assert_allclose(values[:, 0], 3.0 / -np.expm1(-2 * slowness), rtol=1e-13)
    assert (values[:, 1] <= 1e-14 * values[:, 0]).all()


def test_the_functions_of_the_poles_reproduce_their_gramian():
    """f f^* is the Cauchy matrix 1 / (1 - x_i x_j^*), also where poles lie close together."""
    z = np.array([[-0.3 + 1j, -0.3 + 1.0000001j, -1e-8 + 3j, -2 + 0j, -1e-5 + 1e-5j]])
    f = kautz(z)[0]
    size = np.linalg.norm(f, axis=1)
    for conjugate in (np.conj, np.array):
        exact = 1 / -np.expm1(z.T + conjugate(z))
        error = abs(f @ conjugate(f).T - exact) / size[:, None] / size
        assert error.max() < 1e-13 and np.linalg.matrix_rank(f / size[:, None]) == 5


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_log_poles_are_exact_also_beyond_nyquist_and_at_zero(rule):
    numbers = of(S4D, d_state=2, discretization=rule)
    A = np.array([[0, -1e-4 + 1j], [-0.5, -3 + 900j], [-1e9, -1], [-2, -0.1 + 3j]], np.complex64)
    numbers = replace(numbers, A_HN=A, dt_H=np.array([1, 0.1, 1, 1], np.float32))
    z, gain = log_poles(numbers)
    A_bar, exact = oracles.discretize(A, numbers.dt_H[:, None], rule)
    if rule == "bilinear":  # a pole at -2 is forgotten at once
        np.testing.assert_allclose(np.exp(z[3, 0]), A_bar[3, 0], atol=1e-16)
        z, A_bar = (np.delete(x.ravel(), 6) for x in (z, A_bar))
    np.testing.assert_allclose(np.exp(z), A_bar, rtol=2e-12, atol=1e-17)
    finite = abs(A) < 1e8
    np.testing.assert_allclose(gain[finite], exact[finite], rtol=1e-11)


@pytest.mark.parametrize("name", ["s4d", "s4", "s5"])
def test_a_system_that_does_not_decay_has_no_values_and_is_counted(name):
    numbers = VIEWS[name]
    A_HN, PB_HN = numbers.A_HN.copy(), numbers.PB_HN
    A_HN[0, 0] = 9 + 1j  # one pole of one channel, too far for the low rank of S4 to damp
    found = hankel_values(replace(numbers, A_HN=A_HN, PB_HN=PB_HN))
    assert np.isnan(found[0]).all() and np.isfinite(found[1:]).all()
    said = summary(found)
    assert said["unstable"] == 1 and said["systems"] == len(found)
    assert (said["states_99"] is None) == (name == "s5")


def test_states_are_counted_on_the_sum_of_the_values():
    values = np.array([[8, 1, 0.9, 0.1], [1, 1, 1, 1], [1, 0, 0, 0], [np.nan] * 4])
    np.testing.assert_array_equal(states_holding(values, 0.99), [3, 4, 1, np.nan])
    np.testing.assert_array_equal(states_holding(values, 0.5), [1, 2, 1, np.nan])
    assert summary(values[:3])["states_99"] == [1, 3, 4]
    assert [states_key(share) for share in SHARES] == ["states_99_median", "states_99_9_median"]
    assert states_key(0.99, "blocks/0/ssm") == "states_99_median/blocks/0/ssm"


def test_of_a_layer_so_many_channels_are_measured():
    wide = view("x", S4D(40, **STEPS))
    assert hankel_values(wide).shape == (16, 6)
    every = hankel_values(wide, most=40)
    np.testing.assert_array_equal(hankel_values(wide, most=2), every[[0, -1]])
