"""E|y_L|^2 and its bound against a loop, eigenvalues of NumPy, and closed forms."""

import json

import numpy as np
import pytest
from scipy.linalg import toeplitz

from ssm_jax.commands.studies import autocorrelation
from ssm_jax.init.modes import initial_modes
from ssm_jax.stories.autocorrelation import bound

MODES = initial_modes("s4d_lin", bound.N).A_SN[0].imag
KINDS = list(bound.INPUTS.items())


def covariance(rho: float, length: int) -> np.ndarray:
    return toeplitz(rho ** np.arange(length)) if rho else np.eye(length)


@pytest.mark.parametrize(("name", "rho"), KINDS)
@pytest.mark.parametrize("length", [2, 65, 512])
def test_the_largest_eigenvalue_is_that_of_numpy(name, rho, length):
    largest = np.linalg.eigvalsh(covariance(rho, length))[-1]
    assert bound.exact_lambda_max(rho, length) == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize(("name", "rho"), KINDS)
def test_samples_have_the_covariance_that_they_are_said_to_have(name, rho):
    x = bound.sample(rho, 6, 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(x.T @ x / len(x), covariance(rho, 6), atol=0.03)


def outputs_by_a_loop(x_nL: np.ndarray, A_N: np.ndarray, dt: float) -> np.ndarray:
    """The states after L steps, x_0 = 0: h <- exp(dt a) h + (exp(dt a) - 1) / a x, in float64."""
    A_bar = np.exp(dt * A_N)
    gain = np.array([np.expm1(dt * a) / a if a else dt for a in A_N])
    h_nN = np.zeros((len(x_nL), len(A_N)), complex)
    for x_n in x_nL.T:
        h_nN = A_bar * h_nN + gain * x_n[:, None]
    return h_nN


@pytest.mark.parametrize("re", bound.REALS)
@pytest.mark.parametrize("dt", [1e-3, 3e-2])
def test_the_mean_over_read_outs_is_that_of_a_loop_and_of_drawn_read_outs(re, dt):
    A_N = re + 1j * MODES
    x_nL = bound.sample(0.9, 300, 4, np.random.default_rng(1))
    h_nN = outputs_by_a_loop(x_nL, A_N, dt)
    expected = np.mean(np.abs(h_nN) ** 2, axis=1)
    np.testing.assert_allclose(bound.squares(x_nL, A_N, dt), expected, rtol=1e-4)
    rng, m = np.random.default_rng(2), len(A_N)
    C = (rng.normal(size=(100_000, m)) + 1j * rng.normal(size=(100_000, m))) / np.sqrt(2 * m)
    drawn = np.mean(np.abs(C @ h_nN.T) ** 2, axis=0)
    np.testing.assert_allclose(drawn, expected, rtol=0.03)


@pytest.mark.parametrize(("name", "rho"), KINDS)
@pytest.mark.parametrize("re", bound.REALS)
@pytest.mark.parametrize("dt", [1e-4, 1e-2, 0.3])
def test_the_bound_holds_for_the_exact_expectation(name, rho, re, dt):
    """phi^H R phi, in float64, is at most dt^2 L lambda_max for each mode."""
    L, A_N = 400, re + 1j * MODES
    gain = np.array([np.expm1(dt * a) / a if a else dt for a in A_N])
    phi_LN = gain * np.exp(dt * A_N * np.arange(L)[::-1, None])
    assert np.abs(phi_LN).max() <= dt * (1 + 1e-12)
    exact_N = np.einsum("ln,lk,kn->n", phi_LN.conj(), covariance(rho, L), phi_LN).real
    assert exact_N.max() <= dt**2 * L * bound.exact_lambda_max(rho, L) * (1 + 1e-9)


def test_with_an_unstable_mode_it_does_not_hold():
    """So the test above can fail: Re A = 0.5 grows past it."""
    x_nL = bound.sample(0.0, 400, 64, np.random.default_rng(0))
    assert bound.squares(x_nL, 0.5 + 1j * MODES, 1e-2).mean() > 1e-4 * 400


def test_it_is_tight_without_damping_for_white_noise():
    """At dt = 1 / sqrt(L): between 0.76 and 1, and 1 where the modes are slow."""
    L, n = 1_024, 512
    x_nL = bound.sample(0.0, L, n, np.random.default_rng(0))
    fast = bound.squares(x_nL, 1j * MODES, L**-0.5).mean()
    # The hold takes sinc^2 of each mode; the expectation of white noise is exact
    expected = np.mean(np.sinc(MODES * L**-0.5 / 2 / np.pi) ** 2)
    assert 0.76 <= expected <= 1
    assert fast == pytest.approx(expected, rel=0.03)
    assert bound.squares(x_nL, 1j * MODES / 100, L**-0.5).mean() == pytest.approx(1, abs=0.1)


@pytest.fixture(scope="module")
def measured():
    return bound.measure(lengths=(64, 256), sequences=512)


def test_the_rule_is_1_over_sqrt_l_for_white_noise_and_1_over_l_for_a_constant(measured):
    for row in measured["rows"]:
        limit = {"white noise": row["length"] ** -0.5, "constant": 1 / row["length"]}
        if row["rule"] == "rule" and row["input"] in limit:
            assert row["dt"] == pytest.approx(limit[row["input"]], rel=0.15)


def test_what_is_measured_stays_below_the_bound(measured):
    assert len(measured["rows"]) == 2 * len(bound.INPUTS) * len(bound.RULES) * len(bound.REALS)
    for row in measured["rows"]:
        assert 0 < row["measured"] - 4 * row["error"] < row["bound"], row


def test_the_steps_of_the_log_uniform_rule_are_those_of_the_layers():
    dts = bound.steps_of("log-uniform", 64, 1.0)
    np.testing.assert_allclose(np.diff(np.log(dts)), np.log(100) / bound.DRAWS)
    assert np.exp(np.log(dts).mean()) == pytest.approx(1e-2)


def test_the_command_writes_numbers_with_their_origin_and_the_figure(
    tmp_path, monkeypatch, capsys, measured
):
    monkeypatch.setattr(bound, "measure", lambda: measured)
    assert autocorrelation(["--part=bound", f"--folder={tmp_path}", "--compiled=off"]) == 0
    found = json.loads((tmp_path / "bound.json").read_text())
    assert found["rows"] == measured["rows"] and found["command"][1] == "autocorrelation"
    assert (tmp_path / "bound.png").stat().st_size > 10_000
    assert "of the bound" in capsys.readouterr().out
