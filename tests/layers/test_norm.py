"""Batch norm with PyTorch's statistics, layer norm with PyTorch's epsilon."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads
from running import numbers

from ssm_jax.kernels.devices import compiling_for
from ssm_jax.layers.norm import BatchNorm, LayerNorm, _normalized, make_norm

RNG = np.random.default_rng(0)


def with_affine(norm):
    """Scale and bias away from 1 and 0."""
    for variable in (norm.scale, norm.bias):
        variable[...] = jnp.asarray(RNG.normal(size=variable[...].shape), jnp.float32)
    return norm


def features(*shape):
    return (3 + 2 * RNG.normal(size=shape)).astype(np.float32)


def test_batch_norm_in_training_normalizes_by_the_biased_variance_of_batch_and_time():
    norm, x = with_affine(BatchNorm(4)), features(3, 5, 4)
    p = numbers(norm)
    exact = oracles.normalize(x.astype(float), (0, 1), p["scale"], p["bias"])
    np.testing.assert_allclose(norm(x, train=True), exact, atol=2e-6)


def test_running_statistics_move_by_a_tenth_and_the_variance_is_unbiased():
    """PyTorch: momentum 0.1, and n / (n - 1) in the running variance (OC-16)."""
    norm = BatchNorm(4)
    mean, var = np.zeros(4), np.ones(4)
    for _ in range(3):
        x = features(2, 3, 4)
        norm(x, train=True)
        rows = x.astype(float).reshape(-1, 4)
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-6)


def test_batch_norm_in_evaluation_uses_the_running_statistics_and_keeps_them():
    norm = with_affine(BatchNorm(4))
    norm(features(2, 3, 4), train=True)
    p, x = numbers(norm), features(2, 3, 4)
    exact = (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(norm(x, train=False), exact, atol=3e-6)
    for name, value in numbers(norm).items():
        np.testing.assert_array_equal(value, p[name])


def test_batch_norm_of_a_single_step_keeps_finite_statistics():
    """n - 1 = 0; PyTorch refuses such a batch."""
    norm = BatchNorm(4)
    y = norm(features(1, 1, 4), train=True)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(norm.var[...], 0.9, rtol=1e-6)


def test_gradient_goes_through_the_batch_statistics_and_not_through_the_running_ones():
    """dx = (w - mean w - x_hat mean(w x_hat)) / sigma for the sum of w x_hat."""
    x, w = features(2, 5, 3), RNG.normal(size=(2, 5, 3))

    def objective(x):
        norm = BatchNorm(3)
        y = norm(x, train=True)
        return jnp.sum(y * jnp.asarray(w, jnp.float32)) + jnp.sum(norm.mean[...] + norm.var[...])

    rows, weight = x.astype(float).reshape(-1, 3), w.reshape(-1, 3)
    sigma = np.sqrt(rows.var(0) + 1e-5)
    x_hat = (rows - rows.mean(0)) / sigma
    exact = (weight - weight.mean(0) - x_hat * (weight * x_hat).mean(0)) / sigma
    np.testing.assert_allclose(jax.grad(objective)(x), exact.reshape(x.shape), atol=2e-6)


def test_all_gradients_of_batch_norm_pass_finite_differences_in_float64():
    """Of input, scale and bias, with a mean of twice the deviation."""

    def normalized(x, scale, bias):
        return _normalized(x, scale, bias)[0]

    point = (2 + RNG.normal(size=(2, 5, 3)), 1 + RNG.normal(size=3), RNG.normal(size=3))
    with jax.enable_x64(True):
        check_grads(jax.jit(normalized), point, order=1, modes=["rev"], atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("present", [None, np.array([True, False, True])])
@pytest.mark.parametrize("off", [0.0, 2.0, 100.0])
def test_with_a_guess_of_the_mean_one_pass_is_as_exact_as_said(off, present):
    """A mean of 1,000 deviations, guessed to within `off` deviations; the rest in float64."""
    x, w = (1000 + RNG.normal(size=(3, 400, 4)) for _ in range(2))
    x, w = x.astype(np.float32), (w - 1000).astype(np.float32)
    taken = slice(None) if present is None else present
    scale, bias = np.float32([1, -2, 0.5, 0]), np.float32([0, 1, 2, 3])
    near = np.full(4, 1000 + off, np.float32)

    def objective(x, scale, bias):
        y, mean, var = _normalized(x, scale, bias, present, near)
        return jnp.sum((y * w)[taken]), (y, mean, var)

    gradient = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))
    with compiling_for("gpu"):  # whose sums for the gradient are one, too
        slopes, (y, mean, var) = gradient(x, scale, bias)
    rows = x[taken].astype(float).reshape(-1, 4)
    error = 2e-6 * (1 + off**2)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, rows.var(0), rtol=error)
    exact = oracles.normalize(x[taken].astype(float), (0, 1), scale, bias)
    np.testing.assert_allclose(y[taken], exact, atol=1e-3 + error)
    x_hat, g = (exact - bias)[..., :3] / scale[:3], w[taken].astype(float)
    np.testing.assert_allclose(slopes[1][:3], (g[..., :3] * x_hat).sum((0, 1)), atol=0.1 + error)
    np.testing.assert_allclose(slopes[2], g.sum((0, 1)), atol=1e-3)
    centered = g - g.mean((0, 1))
    centered[..., :3] -= x_hat * (g[..., :3] * x_hat).mean((0, 1))
    expected = centered * scale / np.sqrt(rows.var(0) + 1e-5)
    np.testing.assert_allclose(slopes[0][taken], expected, atol=1e-3 + error)


LENGTHS = np.array([3, 5], np.int32)


def test_with_lengths_batch_norm_sees_the_real_steps_alone():
    """Output, running statistics and gradient are those of the real steps laid end to end."""
    x, w = features(2, 5, 4), RNG.normal(size=(2, 5, 4)).astype(np.float32)
    real = np.arange(5)[None, :] < LENGTHS[:, None]
    other = np.where(real[:, :, None], x, 1e3).astype(np.float32)

    def objective(x, *lengths, w=w):
        norm = BatchNorm(4)
        y = norm(x, *lengths, train=True)
        return jnp.sum(y * w), (y, norm.mean[...], norm.var[...])

    gradient = jax.grad(objective, has_aux=True)
    slope, (y, mean, var) = gradient(other, LENGTHS, w=w * real[:, :, None])
    exact_slope, (exact, exact_mean, exact_var) = gradient(x[real][None], w=w[real][None])
    np.testing.assert_allclose(y[real], exact[0], atol=2e-5)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-5)
    np.testing.assert_allclose(var, exact_var, rtol=1e-5)
    np.testing.assert_allclose(slope[real], exact_slope[0], atol=2e-5)
    assert (np.asarray(slope)[~real] == 0).all()


def test_layer_norm_normalizes_each_step_over_its_channels():
    norm, x = with_affine(LayerNorm(7)), features(2, 3, 7)
    p = numbers(norm)
    exact = oracles.normalize(x.astype(float), -1, p["scale"], p["bias"])
    for train in (True, False):
        np.testing.assert_allclose(norm(x, train=train), exact, atol=2e-6)


def test_epsilon_is_1e_5_inside_the_root():
    x = np.full((1, 4, 2), 5, np.float32) + np.float32([[[0.0], [0.001], [0.0], [0.001]]])
    deviation = x.astype(float) - x.astype(float).mean(axis=(0, 1))
    exact = deviation / np.sqrt((deviation**2).mean(axis=(0, 1)) + 1e-5)
    np.testing.assert_allclose(BatchNorm(2)(x, train=True), exact, rtol=2e-3)
    assert np.abs(exact).max() < 0.2


def test_norms_are_made_by_name():
    assert isinstance(make_norm("batch", 3), BatchNorm)
    assert isinstance(make_norm("layer", 3), LayerNorm)
    with pytest.raises(ValueError, match="unknown norm 'group'; choose one of batch, layer"):
        make_norm("group", 3)


def test_running_statistics_are_no_parameters():
    assert set(numbers(BatchNorm(3), nnx.Param)) == {"scale", "bias"}
    assert set(numbers(BatchNorm(3), nnx.BatchStat)) == {"mean", "var"}


@pytest.mark.parametrize("padding", [False, True])
def test_sequences_without_a_step_leave_no_trace_in_the_statistics(padding):
    """Output, statistics and gradient are those without them; of such alone nothing moves."""
    x, w = features(3, 5, 4), RNG.normal(size=(3, 5, 4)).astype(np.float32)

    def objective(x, lengths, w):
        norm = BatchNorm(4)
        y = norm(x, lengths, train=True, padding=padding)
        return jnp.sum(y * w), (y, norm.mean[...], norm.var[...])

    gradient = jax.grad(objective, has_aux=True)
    weight = w.copy()
    weight[1] = 0
    slope, (y, mean, var) = gradient(x, np.array([3, 0, 5]), weight)
    rest = [0, 2]
    exact_slope, (exact, exact_mean, exact_var) = gradient(x[rest], np.array([3, 5]), w[rest])
    np.testing.assert_allclose(y[np.array(rest)], exact, atol=1e-6)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(var, exact_var, rtol=1e-5)
    np.testing.assert_allclose(slope[np.array(rest)], exact_slope, atol=1e-5)
    assert (np.asarray(slope)[1] == 0).all()
    norm = with_affine(BatchNorm(4))
    before = numbers(norm)
    assert np.isfinite(norm(x, np.zeros(3, int), train=True, padding=padding)).all()
    for name in ("mean", "var"):
        np.testing.assert_array_equal(numbers(norm)[name], before[name])


def test_with_all_sequences_present_the_statistics_keep_their_bits():
    x = features(3, 5, 4)
    plain, told = BatchNorm(4), BatchNorm(4)
    lengths = np.array([1, 5, 2])
    np.testing.assert_array_equal(plain(x, train=True), told(x, lengths, train=True, padding=True))
    np.testing.assert_array_equal(plain.mean[...], told.mean[...])
    np.testing.assert_array_equal(plain.var[...], told.var[...])


@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
def test_norms_keep_the_type_of_their_input_and_refuse_what_does_not_fit(kind):
    norm = kind(3)
    for dtype, out in ((jnp.bfloat16, jnp.bfloat16), (jnp.int32, jnp.float32)):
        assert norm(jnp.ones((2, 4, 3), dtype), train=True).dtype == out
    for wrong in (jnp.ones((4, 3)), jnp.ones((2, 0, 3)), jnp.ones((2, 4, 1))):
        with pytest.raises(ValueError, match=f"^{kind.__name__}: the input must be"):
            norm(wrong, train=True)
    for value in (0, 1.5, True):
        with pytest.raises(ValueError, match="num_features must be"):
            kind(value)
    for value in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="BatchNorm: momentum must be at least 0 and at most"):
            BatchNorm(3, momentum=value)
