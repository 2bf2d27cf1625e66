"""The statements of the theory as wholes: L1, L1-cor, and T1 and T2 as integrals and in the layer.

L1's bound is tested on both sides in test_variation.py, the kernel K and its exponents in
tests/kernels/test_sensitivity.py. Source: Tuning Frequency Bias of State Space Models,
arXiv:2410.02035.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import run
from scipy.integrate import quad

from ssm_jax.init import initial_modes
from ssm_jax.kernels.response import pair_sensitivity
from ssm_jax.layers import S4D
from tests.analysis.exact.variation import tail_bound, total_variation

L, H, N = 256, 2, 3  # of the layer


def test_beyond_one_pole_the_variation_is_its_arc_and_in_the_limit_the_residue_over_B():
    """L1 exact: |c| / |x| (pi/2 - atan((B - y) / |x|)), by the integration of the package."""
    x, y, c = -0.5, 7.0, 3 - 4j
    for B in (8.0, 20.0, 1e3, 1e5):
        found = total_variation([[x + 1j * y]], [[c]], B, conjugates=False, rtol=1e-9)[0]
        exact = 5 / -x * np.arctan2(-x, B - y)  # pi/2 - atan without cancellation
        assert found == pytest.approx(exact, rel=1e-8)
        above = tail_bound([[x + 1j * y]], [[c]], B, conjugates=False).above_H[0]
        assert exact < above == pytest.approx(5 / (B - y))
    assert B * found == pytest.approx(5, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0, 10.0])
def test_beyond_k_windows_of_s4d_lin_the_variation_is_the_sum_of_residues_over_B(alpha):
    """L1-cor with equal phases: between sum |c| / B and k / (k - 1) of it at B = k alpha pi N.

    There sum |c_n| / (B - alpha pi n) is no bound but the value, up to the damping.
    """
    modes = 16
    A = initial_modes("s4d_lin", modes, alpha=alpha).A_SN[0][None]
    size = np.abs(np.random.default_rng(17).normal(size=(1, modes)))
    C = size * np.exp(0.7j)
    shares = []
    for k in (2, 10, 100, 1000):
        B = k * alpha * np.pi * modes
        share = B * total_variation(A, C, B, conjugates=False)[0] / size.sum()
        undamped = (size / (1 - alpha * np.pi * np.arange(modes) / B)).sum() / size.sum()
        assert share == pytest.approx(undamped, rel=1e-3)
        assert 0.999 < share < k / (k - 1)
        shares.append(share)
    assert shares[-1] == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("beta", [0.0, -1.0, 0.7])
def test_gradient_of_an_integral_is_the_integral_of_its_gradient_weighed_with_the_kernel(beta):
    """T1, and T2 for beta: dL/dy_j = integral dL/dG(is) (1 + |s|)^beta K_j(s) ds, three poles.

    L = integral over [-40, 60] of cosh(Re G - sin s), G without conjugates. Left JAX's derivative
    on a grid of Gauss and Legendre, right SciPy's quadrature with G and K in their real forms.
    """
    A = np.array([-0.5 + 3j, -1 - 8j, -2 + 30j])
    C = np.array([1 - 2j, 0.5j, -1 + 1j])
    cuts = np.array([-40, -10, -6, 0, 2, 4, 10, 30, 60.0])
    node, weight = np.polynomial.legendre.leggauss(60)
    half = np.diff(cuts)[:, None] / 2
    s, ds = (cuts[:-1, None] + half * (node + 1)).ravel(), (half * weight).ravel()

    def of_poles(y):
        G = jnp.sum(C[:, None] / (1j * s[None] - (A.real + 1j * y)[:, None]), axis=0)
        return jnp.sum(ds * jnp.cosh((1 + jnp.abs(s)) ** beta * G.real - jnp.sin(s)))

    with jax.enable_x64(True):
        found = run(jax.grad(of_poles), A.imag)

    def by_G(s):
        sigma = s - A.imag
        G = np.sum((C.imag * sigma - C.real * A.real) / (A.real**2 + sigma**2))
        return np.sinh((1 + abs(s)) ** beta * G - np.sin(s))

    def kernel(s, a, c):
        sigma = s - a.imag
        top = c.imag * (sigma**2 - a.real**2) - 2 * c.real * a.real * sigma
        return (1 + abs(s)) ** beta * top / (a.real**2 + sigma**2) ** 2

    for j, (a, c) in enumerate(zip(A, C, strict=True)):
        parts = [
            quad(lambda s: by_G(s) * kernel(s, a, c), *ends, epsabs=0, epsrel=1e-10)[0]  # noqa: B023
            for ends in itertools.pairwise(cuts)
        ]
        assert found[j] == pytest.approx(sum(parts), rel=1e-8)


def layer_in_float64(beta):
    """Two channels that share their poles; every kernel has died away after L steps."""
    layer = S4D(
        H, d_state=N, alpha=0.8, beta=beta, learn_beta=False, beta_unit="rad", dt_min=0.2,
        dt_max=0.4, discretization="bilinear", bidirectional=False, rngs=nnx.Rngs(params=0),
    )  # fmt: skip
    nnx.update(layer, jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), nnx.state(layer)))
    return layer


@pytest.mark.parametrize("beta", [0.0, -0.8, 0.7])
def test_gradient_by_the_poles_of_a_layer_is_the_losss_gradient_by_G_weighed_with_the_kernel(beta):
    """T1 and T2 in the layer: dL/dy_n = sum over s of p Re(by_y) + q Im(by_y).

    p and q are the loss's derivatives by Re G(is) and Im G(is). The bilinear rule samples G
    exactly: K(omega) = 2 / (1 + e^{-i omega}) G(is) at s = 2 / dt tan(omega / 2). With g = dL/dy_t
    and transforms of length 2L, dL = Re sum over omega of conj(g^) (1 + |omega|)^beta u^ dK / 2L.
    The loss is no square: the sum of cosh(output - target).
    """
    u, target = np.random.default_rng(0).normal(size=(2, L, H))
    with jax.enable_x64(True):
        layer = layer_in_float64(beta)
        graphdef, state = nnx.split(layer)

        def loss(state):
            y_LH = nnx.merge(graphdef, state)(jnp.asarray(u)[None])[0]
            return jnp.sum(jnp.cosh(y_LH - target)), y_LH

        by_state, y_LH = jax.jit(jax.grad(loss, has_aux=True))(state)
        found = np.asarray(by_state["A_im"][...])[0]
        A, C, dt = layer.eigenvalues(), layer.readout()[0], np.asarray(layer.step_sizes())
        bins = np.r_[0:L, L + 1 : 2 * L]  # but Nyquist: s is infinite there, and the kernel 0
        omega = 2 * np.pi * np.fft.fftfreq(2 * L)[bins]
        s_HF = 2 / dt[:, None] * np.tan(omega / 2)[None]
        by_y = np.asarray(pair_sensitivity(A, C, jnp.asarray(s_HF)).by_y_HFN)
    assert y_LH.dtype == found.dtype == np.float64
    g = np.sinh(np.asarray(y_LH) - target)
    g_hat, u_hat = (np.fft.fft(x, 2 * L, axis=0)[bins].T for x in (g, u))
    by_K = g_hat.conj() * (1 + np.abs(omega)) ** beta * u_hat / (2 * L)
    by_G = by_K * 2 / (1 + np.exp(-1j * omega))
    p, q = by_G.real, -by_G.imag
    expected = np.einsum("hf,hfn->n", p, by_y.real) + np.einsum("hf,hfn->n", q, by_y.imag)
    assert (np.abs(expected) > 1e-3).all()
    np.testing.assert_allclose(found, expected, rtol=1e-7)
