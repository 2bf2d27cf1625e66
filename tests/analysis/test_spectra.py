"""What is drawn of a layer is what its kernel does, and what float64 says."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from running import run
from small_model import before_and_after, classifier, moved

from ssm_jax.analysis import spectra
from ssm_jax.analysis.spectra import (
    LayerView,
    filter_gain,
    layers_of,
    mode_angles,
    quartiles,
    response_magnitude,
    share_aliased,
)
from ssm_jax.kernels import discretize_bilinear, s4d_kernel, sobolev_gain
from ssm_jax.kernels.response import BETA_UNITS
from ssm_jax.layers import LRU, S4D, S5, DLinOSS

FREQUENCY = {  # |s| at w radians per sample, for a transform of length n
    "lra": lambda w, n: w / (2 * np.pi),
    "hz_1e4": lambda w, n: w / (2 * np.pi) * n / 1e4,
    "denoise": lambda w, n: w / (2 * np.pi) * 52.4288,
    "rad": lambda w, n: w,
}


def slow_layer(**changes) -> LayerView:
    """Modes of 0.02..0.1 rad per sample that have died away after 4,000: ZOH is nearly G."""
    random = np.random.default_rng(1)
    H, N = 3, 4
    C_CHN = random.normal(size=(2, H, N)) + 1j * random.normal(size=(2, H, N))
    A_HN = -random.uniform(0.5, 1, (H, N)) + 1j * random.uniform(2, 10, (H, N))
    return replace(
        LayerView(
            name="slow",
            A_HN=A_HN.astype(np.complex64),
            C_CHN=C_CHN.astype(np.complex64),
            dt_H=np.full(H, 0.01, np.float32),
            beta_H=np.array([-0.5, 0.0, 1.5], np.float32),
            beta_unit="rad",
            beta_learned=True,
            D_H=np.ones(H, np.float32),
            discretization="zoh",
        ),
        **changes,
    )


def response_np(layer: LayerView, omega_F: np.ndarray) -> np.ndarray:
    """|G(i w / dt)| without the filter, in float64, one term at a time."""
    C, H, N = layer.C_CHN.shape
    magnitude_CHF = np.zeros((C, H, omega_F.size))
    for c, h, f in np.ndindex(C, H, omega_F.size):
        s = 1j * omega_F[f] / float(layer.dt_H[h])
        total = 0j
        for n in range(N):
            a, weight = complex(layer.A_HN[h, n]), complex(layer.C_CHN[c, h, n])
            total += weight / (s - a) + weight.conjugate() / (s - a.conjugate())
        magnitude_CHF[c, h, f] = abs(total)
    return magnitude_CHF


def kernel(layer: LayerView, length: int) -> np.ndarray:
    rule = layer.discretization
    k_CHL = run(s4d_kernel, layer.A_HN, layer.C_CHN, layer.dt_H, length=length, discretization=rule)
    return k_CHL.astype(np.float64)


def spectrum_of_kernel(layer: LayerView, length: int) -> np.ndarray:
    """|DFT| of the kernels in float64, at the bins of length 2L, filter included: (C, H, L + 1)."""
    k_CHL = kernel(layer, length)
    K_CHF = np.fft.rfft(k_CHL, 2 * length)
    return np.abs(K_CHF) * np.asarray(sobolev_gain(layer.beta_H, 2 * length, layer.beta_unit))


def test_a_view_holds_the_layers_parameters():
    model = moved(classifier(depth=3, n_ssm=2))
    views = layers_of(model)
    assert [view.name for view in views] == ["blocks/0/ssm", "blocks/1/ssm", "blocks/2/ssm"]
    for block, view in zip(model.blocks, views, strict=True):
        ssm = block.ssm
        A_SN = -np.exp(ssm.A_re_raw[...]) + 1j * np.asarray(ssm.A_im[...])
        np.testing.assert_allclose(view.A_HN, A_SN[[0, 1, 0, 1, 0, 1]], rtol=1e-6)
        np.testing.assert_allclose(view.dt_H, np.log1p(np.exp(ssm.dt_raw[...])), rtol=1e-5)
        np.testing.assert_array_equal(view.C_CHN.imag, ssm.C_ri[...][..., 1])
        np.testing.assert_array_equal(view.beta_H, ssm.beta[...])
        np.testing.assert_array_equal(view.D_H, ssm.D[...])
    assert all(isinstance(getattr(views[0], name), np.ndarray) for name in ("A_HN", "D_H"))


def test_a_layer_of_ones_own_with_a_readout_of_another_kind_has_no_view():
    class Mine(nnx.Module):
        def __init__(self):
            self.readout = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    assert layers_of(Mine()) == []


@pytest.mark.parametrize("learn", [True, False])
def test_a_view_says_whether_beta_is_learned(learn):
    (view,) = layers_of(classifier(depth=1, learn_beta=learn, beta=0.5, beta_unit="hz_1e4"))
    assert (view.beta_learned, view.beta_unit) == (learn, "hz_1e4")
    np.testing.assert_array_equal(view.beta_H, np.full(6, 0.5, np.float32))


@pytest.mark.parametrize("unit", BETA_UNITS)
def test_response_equals_float64_sum_times_filter(unit):
    _, (layer, _) = before_and_after(beta_unit=unit, beta=0.7)
    omega_F = np.concatenate([[0.0], np.geomspace(1e-3, np.pi, 40)])
    s_F = FREQUENCY[unit](omega_F, 128)
    expected = response_np(layer, omega_F) * (1 + s_F) ** layer.beta_H[:, None]
    found = response_magnitude(layer, omega_F, 128)
    assert found.shape == (2, 6, 41)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def test_response_beyond_nyquist_is_that_of_the_continuous_system():
    (layer, _), _ = before_and_after(beta=0.0)
    omega_F = np.geomspace(np.pi, 100, 20)
    found = response_magnitude(layer, omega_F, 128)
    np.testing.assert_allclose(found, response_np(layer, omega_F), rtol=2e-4, atol=1e-6)


def resolvents(A, B, C, s_HF) -> np.ndarray:
    """|C (s - A)^-1 B|, (H, F), for real matrices A_HRR, B_HRI and C_HR, one solve each.

    With I inputs the norm over them.
    """
    found = np.zeros(s_HF.shape)
    for h, f in np.ndindex(*s_HF.shape):
        x_RI = np.linalg.solve(s_HF[h, f] * np.eye(A.shape[-1]) - A[h], B[h])
        found[h, f] = np.linalg.norm(C[h] @ x_RI)
    return found


def real_form(A_N, B_NI, C_N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The real system of z' = A z + B u, y = 2 Re C z, on [Re z, Im z]."""
    A = np.block([[np.diag(A_N.real), -np.diag(A_N.imag)], [np.diag(A_N.imag), np.diag(A_N.real)]])
    return A, np.concatenate([B_NI.real, B_NI.imag]), 2 * np.concatenate([C_N.real, -C_N.imag])


def test_response_of_s4_is_that_of_its_dense_matrix():
    """A = diag(Lambda) - P P^*, in real numbers."""
    _, (layer, _) = before_and_after(layer="s4")
    P_HN, B_HN = layer.PB_HN
    omega_F = np.linspace(0.01, 3, 12)
    s_HF = 2j * np.tan(omega_F / 2)[None, :] / layer.dt_H[:, None].astype(float)
    parts = [
        real_form(*row) for row in zip(layer.A_HN, B_HN[..., None], layer.C_CHN[1], strict=True)
    ]
    A, B, C = (np.stack(part) for part in zip(*parts, strict=True))
    p = np.concatenate([P_HN.real, P_HN.imag], axis=-1)
    exact = resolvents(A - 2 * p[:, :, None] * p[:, None, :], B, C, s_HF)
    found = response_magnitude(layer, omega_F, 128)[1] / filter_gain(layer, omega_F, 128)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4 * exact.max())


@pytest.mark.parametrize("conj_sym", [True, False])
def test_response_of_s5_is_the_norm_of_its_answers_to_all_inputs(conj_sym):
    _, (layer, _) = before_and_after(layer="s5", conj_sym=conj_sym)
    assert layer.A_HN.shape == (4, 1) and layer.C_CHN.shape == (2, 6, 4)
    omega_F = np.linspace(0.01, 8, 12)
    found = response_magnitude(layer, omega_F, 128) / filter_gain(layer, omega_F, 128)
    exact = np.zeros_like(found)
    for c, h, f in np.ndindex(*found.shape):
        s_N = 1j * omega_F[f] / layer.dt_H
        for i in range(6):  # y = Re C x: half of each mode, and half of its conjugate
            C_N, B_N, A_N = layer.C_CHN[c, h], layer.B_NH[:, i], layer.A_HN[:, 0]
            G = np.sum(C_N * B_N / (s_N - A_N) + np.conj(C_N * B_N) / (s_N - A_N.conj())) / 2
            exact[c, h, f] += np.abs(G) ** 2
    np.testing.assert_allclose(found, np.sqrt(exact), rtol=1e-4)


RING = {"init": "ring", "discretization": "none", "d_state": 4}


@pytest.mark.parametrize(
    ("kind", "options"),
    [(S4D, RING), (S5, RING), (LRU, {"d_state": 4}), (DLinOSS, {"d_state": 32, "alpha_real": 6.0})],
)
def test_response_of_modes_given_per_sample_is_the_spectrum_of_the_kernel(kind, options):
    """Up to Nyquist and beyond, and where oscillators turn by nearly pi in a step."""
    layer = spectra.view("x", kind(6, **options, rngs=nnx.Rngs(0)))
    length = 8192
    A = np.exp(layer.A_HN.astype(complex))
    assert np.abs(A).max() ** length < 1e-6
    if layer.B_NH is None:
        powers_HNL = A[:, :, None] ** np.arange(length)
        taps = 2 * np.einsum("chn,hnl->chl", layer.C_CHN, powers_HNL).real[:, :, None]
    else:
        powers_NL = A[:, 0, None] ** np.arange(length)
        taps = np.einsum("chn,nl,ni->chil", layer.C_CHN, powers_NL, layer.B_NH).real
    exact = np.linalg.norm(np.fft.fft(taps), axis=2)
    omega_F = 2 * np.pi / length * np.arange(length)
    found = response_magnitude(layer, omega_F, 2 * length) / filter_gain(layer, omega_F, 2 * length)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4 * exact.max())
    assert kind is not DLinOSS or np.abs(layer.A_HN.imag).max() > 3.09


def test_response_at_zero_is_the_sum_of_the_kernel():
    layer = slow_layer()
    k_CHL = kernel(layer, 4096)
    found = response_magnitude(layer, np.zeros(1), 8192)[:, :, 0]
    np.testing.assert_allclose(found, np.abs(k_CHL.sum(axis=-1)), rtol=1e-4)


@pytest.mark.parametrize("unit", BETA_UNITS)
def test_response_is_the_spectrum_of_the_filtered_kernel_at_small_dt(unit):
    length = 4096
    layer = slow_layer(beta_unit=unit)
    low = slice(0, length // 16)  # w < 0.2, where the hold sin(w/2)/(w/2) is within 0.2 % of 1
    omega_F = np.arange(length + 1)[low] * np.pi / length
    found = response_magnitude(layer, omega_F, 2 * length)
    expected = spectrum_of_kernel(layer, length)[..., low]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3 * expected.max())


def test_bilinear_response_is_the_spectrum_of_the_kernel_up_to_nyquist():
    """The kernel's transform is G at the warped frequency times 2 / (1 + e^-iw), exactly."""
    length = 512
    layer = slow_layer(discretization="bilinear", dt_H=np.full(3, 0.3, np.float32))
    omega_F = np.arange(length) * np.pi / length
    found = response_magnitude(layer, omega_F, 2 * length)
    expected = spectrum_of_kernel(layer, length)[..., :-1] * np.cos(omega_F / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert np.isnan(response_magnitude(layer, np.array([3.2, 10.0]), 2 * length)).all()


@pytest.mark.parametrize("unit", BETA_UNITS)
def test_filter_gain_is_the_kernels_gain_at_the_bins_and_folds_beyond(unit):
    layer = slow_layer(beta_unit=unit)
    omega_F = np.arange(65) * np.pi / 64
    gain_HF = filter_gain(layer, omega_F, 128)
    np.testing.assert_allclose(gain_HF, sobolev_gain(layer.beta_H, 128, unit), rtol=1e-5)
    np.testing.assert_allclose(filter_gain(layer, 2 * np.pi - omega_F, 128), gain_HF)
    np.testing.assert_allclose(filter_gain(layer, 4 * np.pi + omega_F, 128), gain_HF)


def test_mode_angles_are_the_angles_of_the_discrete_modes():
    layer = slow_layer(dt_H=np.array([0.01, 0.4, 2.0], np.float32))
    angle_HN = mode_angles(layer)
    np.testing.assert_allclose(angle_HN, layer.A_HN.imag * layer.dt_H[:, None], rtol=1e-6)
    assert share_aliased(layer) == np.mean(angle_HN > np.pi)
    assert 0 < share_aliased(layer) < 1
    bilinear = replace(layer, discretization="bilinear")
    A_bar_HN, _ = discretize_bilinear(layer.A_HN, layer.dt_H[:, None])
    # Re A bends the angle by less than |Re A dt|^2 / 4 of it.
    np.testing.assert_allclose(mode_angles(bilinear)[0], np.angle(A_bar_HN)[0], rtol=1e-3)
    assert share_aliased(bilinear) == 0


def test_mode_angles_do_not_depend_on_which_conjugate_is_kept():
    layer = slow_layer()
    np.testing.assert_array_equal(
        mode_angles(layer), mode_angles(replace(layer, A_HN=layer.A_HN.conj()))
    )


def test_quartiles_leave_out_what_is_not_finite():
    values = np.arange(10.0).reshape(2, 5, 1) * np.ones((1, 1, 3))
    values[0, 0, 1] = np.nan
    values[1, 4, 1] = np.inf
    values[:, :, 2] = np.nan
    found = quartiles(values)
    np.testing.assert_allclose(found[:, 0], [2.25, 4.5, 6.75])
    np.testing.assert_allclose(found[:, 1], [2.75, 4.5, 6.25])
    assert np.isnan(found[:, 2]).all()


@pytest.mark.parametrize(
    ("module", "unwanted"), [("analysis.spectra", "matplotlib"), ("plots", "matplotlib.pyplot")]
)
def test_matplotlib_is_imported_by_figures_only_and_pyplot_by_none(module, unwanted):
    code = f"import sys, ssm_jax.{module}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
