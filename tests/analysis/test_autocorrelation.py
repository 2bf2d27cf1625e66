"""lambda_max against NumPy's eigenvalues of the explicit matrix, and autocorrelations of known
processes."""

import json
import tracemalloc

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from ssm_jax.analysis import lambda_max
from ssm_jax.analysis.autocorrelation import Padded, autocorrelation
from ssm_jax.analysis.timescale import correlation_facts, describe_correlation, root_mean_square
from ssm_jax.stories.denoise.images import photographs


def ar1(phi: float, n: int, length: int, seed: int = 0) -> np.ndarray:
    """x_t = phi x_{t-1} + e_t, past its start."""
    noise = np.random.default_rng(seed).normal(size=(n, length + 2_000))
    return lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 2_000:]


def constant(n: int, length: int, seed: int = 0) -> np.ndarray:
    return np.repeat(np.random.default_rng(seed).normal(size=(n, 1)), length, axis=1)


KINDS = {
    "white": lambda n, length: ar1(0.0, n, length),
    "ar 0.9": lambda n, length: ar1(0.9, n, length),
    "ar 0.99": lambda n, length: ar1(0.99, n, length),
    "constant": constant,
    "offset": lambda n, length: 3 + 0.1 * ar1(0.5, n, length),
    "alternating": lambda n, length: ar1(-0.95, n, length),
}


def eigenvalue(x_nL: np.ndarray) -> float:
    """By NumPy, of the explicit matrix."""
    return float(np.linalg.eigvalsh(x_nL.T @ x_nL / len(x_nL))[-1])


@pytest.mark.parametrize(
    ("kind", "length"),
    [*((kind, length) for kind in KINDS for length in (1, 2, 17, 256)),
     ("white", 1_024), ("ar 0.9", 1_024), ("ar 0.99", 1_024), ("constant", 1_024)],
)  # fmt: skip
def test_it_is_the_largest_eigenvalue_of_the_explicit_matrix(kind, length):
    x_nL = KINDS[kind](150, length)
    found = lambda_max(x_nL)
    assert found.converged and found.error <= 1e-3
    assert found.mean == pytest.approx(eigenvalue(x_nL), rel=1e-3)
    exact = lambda_max(x_nL, tolerance=1e-10)
    assert exact.converged and exact.steps >= found.steps
    assert exact.mean == pytest.approx(eigenvalue(x_nL), rel=1e-9)
    assert (found.length, found.sequences) == (length, 150)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_the_unit_of_the_inputs_does_not_matter(scale):
    x_nL = ar1(0.9, 100, 256)
    found, scaled = lambda_max(x_nL), lambda_max(scale * x_nL)
    assert scaled.mean / scale**2 == pytest.approx(found.mean, rel=1e-9)
    assert scaled.steps == found.steps


def test_photographs_read_row_by_row_have_their_eigenvalue():
    """Real inputs: crops of 16 x 32 pixels, 512 steps of three colours."""
    pixels = photographs((16, 32), {"train": 300, "val": 1, "test": 1}, 0).pixels
    x_nLC = np.stack([pixels("train", i).reshape(-1, 3) for i in range(300)]) / 255
    found = lambda_max(x_nLC)
    each = [eigenvalue(x_nLC[:, :, c]) for c in range(3)]
    np.testing.assert_allclose(found.channels_C, each, rtol=1e-3)
    assert found.mean == pytest.approx(np.mean(each), rel=1e-3)


def test_channels_are_independent_of_each_other():
    x_nLC = np.stack([ar1(0.9, 80, 128), 5 * ar1(0.0, 80, 128, 1), constant(80, 128)], axis=2)
    found = lambda_max(x_nLC)
    each = [lambda_max(x_nLC[:, :, c]) for c in range(3)]
    np.testing.assert_allclose(found.channels_C, [one.mean for one in each], rtol=2e-3)
    assert found.held_out == pytest.approx(np.mean([one.held_out for one in each]), rel=5e-3)


@pytest.mark.parametrize("seed", [43, 50, 52])
def test_a_channel_that_is_done_stays_so_while_the_others_go_on(seed):
    """One of rank 1 was found at once, and lost again: 30 times too small, and "converged"."""
    random = np.random.default_rng(seed)
    noise, of_rank_1 = random.normal(size=(50, 150)), random.normal(size=(50, 1))
    x = np.stack([noise, of_rank_1 @ random.normal(size=(1, 150))], axis=2)
    found = lambda_max(x)
    exact = [np.linalg.eigvalsh(x[:, :, c].T @ x[:, :, c] / 50)[-1] for c in (0, 1)]
    np.testing.assert_allclose(found.channels_C, exact, rtol=2e-3)
    assert found.converged


def test_too_few_steps_are_said():
    """The true error is below the one that is named, at any step."""
    x_nL = ar1(0.0, 400, 512)
    exact = eigenvalue(x_nL)
    for steps in (3, 6, 12, 24):
        found = lambda_max(x_nL, max_steps=steps, tolerance=1e-9)
        assert not found.converged and found.steps == steps
        assert 0 <= exact / found.mean - 1 < found.error


def test_the_limits_of_the_timescale():
    """1/L of constant input, 1 / sqrt(L) of white noise; of the sample's own eigenvalue the latter
    would be off by its bias, (1 + sqrt(L / n))."""
    L = 256
    assert lambda_max(np.ones((50, L))).timescale() == pytest.approx(1 / L, rel=1e-9)
    found = lambda_max(ar1(0.0, 256, L))
    assert found.timescale(2.0) == pytest.approx(2 * L**-0.5, rel=0.05)
    assert (L * found.mean) ** -0.5 == pytest.approx(L**-0.5 / 2, rel=0.05)
    with pytest.raises(ValueError, match="the inputs are zero"):
        lambda_max(np.zeros((5, 10))).timescale()


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("n", [20, 200])
def test_the_interval_holds_the_value_of_the_process(phi, n):
    """By its own matrix, phi^|i-j| / (1 - phi^2); at least 57 of 60 draws would do, 51 are asked
    for."""
    length = 64
    exact = np.linalg.eigvalsh(toeplitz(phi ** np.arange(length)) / (1 - phi**2))[-1]
    x = ar1(phi, 60 * n, length)
    draws = [lambda_max(x[i * n : (i + 1) * n], resamples=200) for i in range(60)]
    inside = sum(one.low <= exact <= one.high for one in draws)
    assert inside >= 51, inside
    assert np.mean([one.held_out for one in draws]) <= exact * 1.05
    assert np.mean([one.mean for one in draws]) >= exact * 0.95


def test_no_estimate_is_below_the_mean_of_the_eigenvalues():
    """E[x^2] = trace(R) / L. Of few nearly white sequences the eigenvectors of two halves may be
    orthogonal, as here, where all sequences are: then the held-out value says nothing."""
    x_nL = np.linalg.svd(ar1(0.0, 20, 64), full_matrices=False)[2]
    power, found = float(np.mean(x_nL**2)), lambda_max(x_nL)
    assert found.held_out < power / 100 and found.power == pytest.approx(power, rel=1e-12)
    assert found.estimate == found.power
    assert found.low == pytest.approx(power, rel=1e-12)  # as each has the same power
    assert found.timescale() == pytest.approx((64 * power) ** -0.5)  # that of white inputs
    plain = lambda_max(ar1(0.9, 200, 64))
    assert plain.estimate == plain.held_out > 2 * plain.power


def test_intervals_are_the_seed_s_and_none_of_one_sequence():
    x_nL = ar1(0.9, 50, 64)
    one, again, other = (lambda_max(x_nL, seed=seed) for seed in (0, 0, 1))
    assert (one.low, one.high) == (again.low, again.high) != (other.low, other.high)
    single = lambda_max(x_nL[:1])
    assert np.isnan([single.low, single.high, single.held_out]).all()
    assert single.estimate == single.mean == pytest.approx(np.sum(x_nL[0] ** 2))


def test_sequences_of_unequal_lengths_are_padded_with_zeros():
    rows = [ar1(0.9, 1, length, length)[0] for length in (5, 64, 33, 64, 1)]
    padded_nL = np.zeros((5, 64))
    for row, values in zip(padded_nL, rows, strict=True):
        row[: len(values)] = values
    assert lambda_max(Padded(rows)).mean == lambda_max(padded_nL).mean
    assert lambda_max(padded_nL).mean == pytest.approx(eigenvalue(padded_nL), rel=1e-3)


class Counting:
    """Path-X-like sequences, made when they are asked for; counts passes and chunks."""

    def __init__(self, chunks: int, rows: int, length: int):
        self.chunks, self.rows, self.length, self.begun, self.given = chunks, rows, length, 0, 0

    def __iter__(self):
        self.begun += 1
        for number in range(self.chunks):
            self.given += 1
            noise = np.random.default_rng(number).normal(size=(self.rows, self.length))
            yield lfilter([1.0], [1.0, -0.99], noise, axis=1).astype(np.float32)


def test_memory_does_not_grow_with_the_number_of_sequences():
    """At the length of Path-X, far below 1 GB; and each step reads the sequences once."""
    peaks = []
    for chunks in (2, 8):
        source = Counting(chunks, 32, 16_384)
        tracemalloc.start()
        found, r = lambda_max(source, max_steps=4, tolerance=1e-9), autocorrelation(source, 512)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.sequences == r.sequences == 32 * chunks
        assert chunks * (found.steps + 3) <= source.given <= chunks * (found.steps + 3) + 4
    assert max(peaks) < 2**28
    assert peaks[1] < 1.1 * peaks[0] + 2**20


def test_chunks_give_what_the_whole_gives():
    x_nL = ar1(0.9, 90, 128)
    whole, parts = lambda_max(x_nL), lambda_max([x_nL[:7], x_nL[7:8], x_nL[8:]])
    assert parts.mean == pytest.approx(whole.mean, rel=1e-6)
    assert parts.held_out == pytest.approx(whole.held_out, rel=1e-4)
    r, chunked = autocorrelation(x_nL), autocorrelation([x_nL[:7], x_nL[7:8], x_nL[8:]])
    np.testing.assert_allclose(chunked.r_K, r.r_K, rtol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 17, 200])
def test_the_autocorrelation_is_the_mean_over_pairs(length):
    x_nLC = np.random.default_rng(0).normal(size=(9, length, 2)) + 0.5
    found = autocorrelation(x_nLC, length)
    for lag in range(length):
        pairs = x_nLC[:, : length - lag] * x_nLC[:, lag:]
        assert found.r_K[lag] == pytest.approx(pairs.mean(), abs=1e-12)
    assert found.mean == pytest.approx(x_nLC.mean())


def test_intervals_of_the_autocorrelation_hold_that_of_the_process():
    found = autocorrelation(ar1(0.9, 300, 128), 40)
    exact_K = 0.9 ** np.arange(40) / (1 - 0.9**2)
    np.testing.assert_allclose(found.r_K, exact_K, atol=0.25)
    rho_K = 0.9 ** np.arange(1, 40)
    assert np.mean((found.low_K[1:] <= rho_K) & (rho_K <= found.high_K[1:])) > 0.8
    assert found.low_K[0] == found.high_K[0] == 1


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((3, 4, 5, 6)), r"got the shape \(3, 4, 5, 6\)"),
        (np.ones((3, 0)), r"got the shape \(3, 0\)"),
        (np.ones((0, 5)), "no sequences"),
        ([], "no sequences"),
        ([np.ones((3, 5)), np.ones((3, 6))], "pad them with zeros"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), "sequence 1 has a value that is not finite"),
        ((np.ones((2, 5)) for _ in range(3)), "can be gone through once"),
    ],
)
def test_what_is_no_source_is_one_line(x, words):
    with pytest.raises(ValueError, match=words):
        lambda_max(x)


def test_facts_name_the_timescale_its_limits_and_the_layer_s():
    L = 200
    x_nL = 2 * ar1(0.0, 400, L)  # of power 4
    facts = correlation_facts(lambda_max(x_nL), autocorrelation(x_nL), (1e-3, 1e-1))
    assert facts["dt_limits"] == pytest.approx([1 / (2 * L), 1 / (2 * L**0.5)], rel=0.01)
    assert facts["dt"] == pytest.approx(facts["dt_limits"][1], rel=0.05)
    low, high = facts["dt_interval"]
    assert low < facts["dt"] < high and facts["converged"]
    drawn = 10 ** np.random.default_rng(0).uniform(-3, -1, 100_000)
    assert facts["dt_layer"][2] == pytest.approx(np.sqrt(np.mean(drawn**2)), rel=0.01)
    assert root_mean_square((0.1, 0.1)) == 0.1
    said = describe_correlation(facts)
    assert f"dt = 1 / sqrt(L lambda_max) = {facts['dt']:.3g}" in said and "held out" in said


def test_facts_of_one_sequence_and_of_zeros_say_what_they_do_not_know():
    one, zeros = (
        correlation_facts(lambda_max(x), autocorrelation(x), (1e-3, 1e-1))
        for x in (ar1(0.9, 1, 100), np.zeros((3, 100)))
    )
    assert one["interval"] is None and one["lags"]["low"] is None and one["dt"] > 0
    assert "no interval" in describe_correlation(one)
    assert zeros["dt"] is None and describe_correlation(zeros).endswith("the inputs are zero")
    for facts in (one, zeros):
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
