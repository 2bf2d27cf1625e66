"""Perturbed HiPPO-LegS: what it must solve, how good the solution is, and its file."""

import numpy as np
import pytest
from scipy.linalg import expm

from ssm_jax.init import legs, legs_nplr, legs_ptd
from ssm_jax.init.ptd import _objective, _solved_once, solve


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Of the files; what other tests have solved is still in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ssm_jax"


@pytest.fixture
def forgotten():
    """Nothing is in memory."""
    _solved_once.cache_clear()


def vectors(basis):
    return np.hstack([basis.V, basis.V.conj()])


def matrix(basis):
    """W diag(Lambda) W^-1, by solving with W."""
    W = vectors(basis)
    Lambda = np.concatenate([basis.Lambda_N, basis.Lambda_N.conj()])
    found = np.linalg.solve(W.T, (W * Lambda).T).T
    assert np.abs(found.imag).max() < 1e-9 * np.abs(found).max()
    return found.real


def responses(basis):
    """Frequencies that include the peaks, and the responses of the basis and of LegS there."""
    A, B = legs(len(basis.V))
    w = np.concatenate([[0], np.geomspace(0.01, 1e5, 60), basis.Lambda_N.imag])
    exact = np.stack([np.linalg.solve(1j * x * np.eye(len(A)) - A, B) for x in w])
    Lambda = np.concatenate([basis.Lambda_N, basis.Lambda_N.conj()])
    B_both = np.concatenate([basis.B_N, basis.B_N.conj()])
    return w, (B_both / (1j * w[:, None] - Lambda)) @ vectors(basis).T, exact


def quality(basis):
    """(cond(W), ||E|| / ||A||)"""
    A, _ = legs(len(basis.V))
    size = np.linalg.norm(matrix(basis) - A, 2) / np.linalg.norm(A, 2)
    return np.linalg.cond(vectors(basis)), size


@pytest.mark.parametrize("order", [2, 4, 16, 32])
def test_solution_is_stable_and_its_eigenvectors_are_usable(order):
    basis = legs_ptd(order)
    assert (basis.Lambda_N.real < 0).all() and (basis.Lambda_N.imag > 0).all()
    assert (np.diff(basis.Lambda_N.imag) > 0).all()
    cond, size = quality(basis)
    assert cond < 10 and size < 0.07


def test_eigenvectors_of_legs_itself_are_not_usable():
    """Two bits of every number are lost per order: at 26 no float64 has any left."""
    for order in (8, 16, 24):
        assert np.linalg.cond(np.linalg.eig(legs(order)[0])[1]) > 4**order


@pytest.mark.parametrize(
    ("gamma", "cond", "size"), [(30.0, 3.36, 0.086), (300.0, 9.1, 0.024), (3000.0, 25.0, 0.007)]
)
def test_gamma_trades_the_condition_for_the_perturbation(gamma, cond, size):
    """The objective is at its known value: the one part may give for the other by 10 %."""
    found_cond, found_size = quality(legs_ptd(16, gamma))
    assert found_cond + gamma * found_size < 1.03 * (cond + gamma * size)
    assert found_cond == pytest.approx(cond, rel=0.1)
    assert found_size == pytest.approx(size, rel=0.1)


def test_objective_is_lower_than_on_the_way_to_the_normal_matrix():
    """A + share P P^T is the family that the search starts from."""
    A, B = legs(16)
    scale = np.linalg.norm(A, 2)
    cond, size = quality(legs_ptd(16))
    for share in np.geomspace(1e-3, 1, 30):
        W = np.linalg.eig(A + share / 2 * np.outer(B, B))[1]
        other = np.linalg.cond(W) + 300 * share / 2 * (B @ B) / scale
        assert cond + 300 * size < 0.6 * other


def test_basis_is_that_of_the_perturbed_system():
    """2 Re V e^{Lambda t} B_N is e^{(A + E) t} B, and V_inv the inverse of V and its conjugates."""
    _, B = legs(16)
    basis = legs_ptd(16)
    AE = matrix(basis)
    for t in (0.0, 0.02, 0.3, 2.0):
        found = 2 * (basis.V @ (np.exp(basis.Lambda_N * t) * basis.B_N)).real
        np.testing.assert_allclose(found, expm(t * AE) @ B, atol=1e-10)
    np.testing.assert_allclose(basis.V_inv @ vectors(basis), np.eye(16)[:8], atol=1e-12)


def test_eigenvectors_are_scaled_and_turned_as_documented():
    basis = legs_ptd(16)
    s = np.linalg.svd(vectors(basis), compute_uv=False)
    assert np.log(s).mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(basis.V[0].imag, 0, atol=1e-15)
    assert (basis.V[0].real > 0).all()


def test_transfer_function_differs_from_that_of_legs_by_no_more_than_the_perturbation_allows():
    """G_E - G = (i w - A - E)^-1 E (i w - A)^-1 B, so much in norms; half of it is reached."""
    basis = legs_ptd(16)
    A, _ = legs(16)
    AE = matrix(basis)
    w, found, exact = responses(basis)
    inverses = [np.linalg.norm(np.linalg.inv(1j * x * np.eye(16) - AE), 2) for x in w]
    bound = np.array(inverses) * np.linalg.norm(AE - A, 2) * np.linalg.norm(exact, axis=1)
    share = np.linalg.norm(found - exact, axis=1) / bound
    assert share.max() <= 1 + 1e-9
    assert share.max() > 0.5


def test_transfer_function_is_closer_to_that_of_legs_than_without_the_part_of_rank_one():
    """S4D-LegS has peaks where LegS has none: of 20 times its largest response, at order 16."""
    errors = []
    for basis in (legs_ptd(16), legs_nplr(16)):
        _, found, exact = responses(basis)
        size = np.linalg.norm(exact, axis=1).max()
        errors.append(np.linalg.norm(found - exact, axis=1).max() / size)
    assert errors[0] < 0.8 and errors[1] > 15


@pytest.mark.unoptimized
def test_gradient_of_the_objective_passes_finite_differences():
    rng = np.random.default_rng(0)
    A, _ = legs(6)
    x = rng.normal(size=6 * 6 + 6)
    _, gradient = _objective(x, A, 0.3, 0.1)
    steps = 1e-6 * np.eye(len(x))
    slopes = [
        (_objective(x + s, A, 0.3, 0.1)[0] - _objective(x - s, A, 0.3, 0.1)[0]) / 2e-6
        for s in steps
    ]
    np.testing.assert_allclose(gradient, slopes, atol=1e-7 * np.abs(gradient).max())


def test_smoothed_objective_tends_to_the_norms_from_above():
    rng = np.random.default_rng(0)
    A, _ = legs(6)
    x = rng.normal(size=6 * 6 + 6)
    T, a, b = x[:36].reshape(6, 6), -np.exp(x[36:39]), np.exp(x[39:])
    D = np.block([[np.diag(a), np.diag(b)], [-np.diag(b), np.diag(a)]])
    exact = np.linalg.cond(T) + 0.3 * np.linalg.norm(T @ D @ np.linalg.inv(T) - A, 2)
    assert _objective(x, A, 0.3, 0.1)[0] > _objective(x, A, 0.3, 0.02)[0] >= exact
    assert _objective(x, A, 0.3, 1e-3)[0] == pytest.approx(exact, rel=1e-9)


def count_solutions(monkeypatch):
    """The orders that are solved from here on."""
    orders = []

    def counted(order, gamma):
        orders.append(order)
        return solve(order, gamma)

    monkeypatch.setattr("ssm_jax.init.ptd.solve", counted)
    return orders


@pytest.mark.unoptimized
def test_solution_is_kept_in_memory_and_cannot_be_changed(forgotten, monkeypatch):
    orders = count_solutions(monkeypatch)
    assert legs_ptd(4) is legs_ptd(4, gamma=300)
    assert legs_ptd(4, gamma=30.0) is not legs_ptd(4)
    assert orders == [4, 4]
    with pytest.raises(ValueError, match="read-only"):
        legs_ptd(4).Lambda_N[0] = 0


def test_solution_read_from_the_file_is_the_one_that_was_found(forgotten, monkeypatch, folder):
    found = legs_ptd(8)
    assert [file.name for file in folder.iterdir()] == ["ptd_8_300.0_v2.npz"]
    _solved_once.cache_clear()
    orders = count_solutions(monkeypatch)
    for before, after in zip(found, legs_ptd(8), strict=True):
        np.testing.assert_array_equal(before, after)
    assert orders == []


def replaced(content, array, entry):
    """The content of a file, with another value in an array."""
    other = array.copy()
    other.flat[entry] = 3.0
    assert content.count(array.tobytes()) == 1
    return content.replace(array.tobytes(), other.tobytes())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-8],
        lambda content: content + b"12345678",
        lambda content: b"\0" * len(content),
        lambda content: b"\xff" * len(content),
        lambda content: replaced(content, legs_ptd(4).Lambda_N, 0),
        lambda content: replaced(content, legs_ptd(4).V, -1),
        lambda content: np.float64(30.0).tobytes() + content[8:],
    ],
    ids=["empty", "short", "long", "zeros", "ones", "eigenvalue", "eigenvector", "start"],
)
def test_damaged_file_is_solved_again_and_replaced(forgotten, monkeypatch, folder, damage):
    found = legs_ptd(4)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    _solved_once.cache_clear()
    orders = count_solutions(monkeypatch)
    np.testing.assert_array_equal(legs_ptd(4).V, found.V)
    assert orders == [4]
    assert file.read_bytes() == content
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize("where", ["a file", "a file/below"])
def test_cache_folder_that_cannot_be_written_is_no_error(forgotten, monkeypatch, tmp_path, where):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / where))
    assert legs_ptd(4).V.shape == (4, 2)


def test_without_xdg_cache_home_the_file_is_in_the_home_folder(monkeypatch, tmp_path):
    for value in (None, "", "relative"):
        _solved_once.cache_clear()
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        home = tmp_path / f"home of {value!r}"
        monkeypatch.setenv("HOME", str(home))
        legs_ptd(2)
        assert (home / ".cache/ssm_jax/ptd_2_300.0_v2.npz").is_file()


@pytest.mark.parametrize("order", [0, 1, 7, 2.5, None])
def test_order_that_is_no_number_of_pairs_is_refused(order):
    with pytest.raises(ValueError, match=f"must be even and at least 2, got {order}"):
        legs_ptd(order)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_gamma_that_weighs_nothing_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma must be positive and finite, got {gamma}"):
        legs_ptd(4, gamma)
