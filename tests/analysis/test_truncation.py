"""Balanced truncation: that of SciPy by another route, and the bounds on its error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import cholesky, solve_discrete_lyapunov, svd

from ssm_jax.analysis.hankel import factored, reduced
from tests.analysis.small_systems import VIEWS, real_systems

OMEGA = np.linspace(0, np.pi, 400)


def transfer(A, B, C):
    """C (1 - A e^{-i w})^-1 B at OMEGA."""
    shift = np.exp(-1j * OMEGA)[:, None, None] * A
    return C @ np.linalg.solve(np.eye(len(A)) - shift, np.broadcast_to(B, (len(OMEGA), *B.shape)))


def of_modes(one):
    """That of y = Re C x."""
    pole, back = np.exp(one.log_pole_N), np.exp(-1j * OMEGA)
    halves = [
        np.einsum("on,wn,ni->woi", C, 1 / (1 - back[:, None] * p), B)
        for p, B, C in (
            (pole, one.B_NI, one.C_ON),
            (pole.conj(), one.B_NI.conj(), one.C_ON.conj()),
        )
    ]
    return (halves[0] + halves[1]) / 2


def by_scipy(A, B, C, order):
    """The textbook's balanced truncation of a minimal system."""
    root_c = cholesky(solve_discrete_lyapunov(A, B @ B.T), lower=True)
    root_o = cholesky(solve_discrete_lyapunov(A.T, C.T @ C), lower=True)
    U, s, V_T = svd(root_o.T @ root_c)
    left = (root_o @ U[:, :order] / np.sqrt(s[:order])).T
    right = root_c @ V_T[:order].T / np.sqrt(s[:order])
    return left @ A @ right, left @ B, C @ right


@pytest.mark.parametrize("name", VIEWS)
def test_the_error_is_within_the_bounds_and_the_system_is_scipys(name):
    """sup |G - G_r| is at most 2 (s_{r+1} + ...), and no system of r states is below s_{r+1}."""
    numbers = VIEWS[name]
    for system, dense in zip(factored(numbers), real_systems(numbers), strict=True):
        exact = transfer(*dense)
        values = svd(system.hankel_RPQ[0], compute_uv=False)
        orders = set()
        for modes in range(1, len(dense[0]) // 2 + 1):
            one = reduced(system, modes)
            orders.add(one.order)
            assert modes <= one.order <= 2 * modes
            poles = np.exp(one.log_pole_N)  # real ones may be negative
            assert one.order == poles.size + (abs(poles.imag) > 1e-12 * abs(poles)).sum()
            assert poles.size <= modes
            assert (one.log_pole_N.real < 0).all()
            left_out = values[one.order : len(dense[0])]
            assert one.bound == pytest.approx(2 * left_out.sum(), abs=1e-6 * values[0])
            error = np.linalg.norm(of_modes(one) - exact, 2, axis=(1, 2)).max()
            assert error <= one.bound + 1e-6 * values[0]
            if left_out.size:
                assert error >= 0.98 * left_out[0] - 1e-6 * values[0]  # 0.98: a grid
            if values[len(dense[0]) - 1] > 1e-6 * values[0]:
                scipys = transfer(*by_scipy(*dense, one.order))
                np.testing.assert_allclose(of_modes(one), scipys, atol=1e-5 * values[0])
        assert len(orders) > 1


def test_all_modes_are_the_system_itself():
    for name in ("s4d", "s5"):
        numbers = VIEWS[name]
        dense = next(real_systems(numbers))
        one = reduced(factored(numbers)[0], len(dense[0]) // 2)
        exact = transfer(*dense)
        np.testing.assert_allclose(of_modes(one), exact, atol=1e-6 * abs(exact).max())


def test_a_system_without_output_keeps_no_state():
    numbers = VIEWS["s4d"]
    silent = replace(numbers, C_CHN=np.zeros_like(numbers.C_CHN))
    one = reduced(factored(silent)[0], 2)
    assert one.order == 0 == one.bound and one.log_pole_N.size == 0
