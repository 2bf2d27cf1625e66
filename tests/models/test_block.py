"""The residual block against float64: the order of its parts, and where padding is masked."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run
from scipy import stats

from ssm_jax.kernels.devices import compiling_for
from ssm_jax.layers import S4D
from ssm_jax.models import Block
from ssm_jax.models.block import apply_blocks, linear
from ssm_jax.models.gate import gated_linear, gelu
from ssm_jax.training.step import split

H, LENGTHS = 4, np.array([5, 12, 9], np.int32)


def block(
    *, norm="batch", prenorm=True, gate="glu", dropout=0.0, tie_dropout=True, ssm_dropout=0.0
):
    """A block none of whose parameters is 0 or 1."""
    rngs = nnx.Rngs(params=0)
    ssm = S4D(H, d_state=3, dropout=ssm_dropout, tie_dropout=tie_dropout, rngs=rngs)
    model = Block(
        H, ssm, norm=norm, prenorm=prenorm, gate=gate, dropout=dropout, tie_dropout=tie_dropout,
        rngs=rngs,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for variable in (model.norm.scale, model.norm.bias, model.ssm.beta):
        variable[...] = jnp.asarray(rng.normal(size=variable[...].shape), jnp.float32)
    if norm == "batch":
        model.norm.mean[...] = jnp.asarray(rng.normal(size=H), jnp.float32)
        model.norm.var[...] = jnp.asarray(rng.uniform(0.5, 2, size=H), jnp.float32)
    return model


def inputs():
    return np.random.default_rng(1).normal(size=(3, 12, H)).astype(np.float32)


def _forward(state, x, lengths, key, graphdef, train):
    return nnx.merge(graphdef, state)(x, lengths, train=train, key=key)


def apply(model, x, *, train=False, key=None):
    graphdef, state = nnx.split(model)
    return run(_forward, state, x, LENGTHS, key, graphdef=graphdef, train=train)


@pytest.fixture(params=["cpu", "gpu"])
def backend(request):
    """Programs take the forms of either, and run here."""
    with compiling_for(request.param):
        yield request.param


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("kind", "prenorm", "train"),
    [("batch", True, True), ("batch", False, False), ("layer", False, True)],
)
def test_block_is_norm_ssm_gelu_linear_glu_and_residual_in_this_order(kind, prenorm, train):
    """x + GLU(W GELU(ssm(norm x))), or the norm after the sum; GELU by SciPy's erf."""
    model, x = block(norm=kind, prenorm=prenorm), inputs()
    exact = oracles.block(
        numbers(model), x.astype(float), LENGTHS, kind=kind, prenorm=prenorm, train=train
    )
    np.testing.assert_allclose(
        apply(model, x, train=train), exact, rtol=0, atol=2e-6 * np.abs(exact).max()
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("gate", ["half_glu1", "half_glu2"])
def test_half_gates_are_those_of_s5(gate):
    """g sigmoid(W g), and y sigmoid(W g), for g = GELU(y): W has H outputs, not 2 H."""
    model, x = block(gate=gate), inputs()
    p = numbers(model)
    assert p["glu"]["kernel"].shape == (H, H)
    u = oracles.norm(p["norm"], x.astype(float), "batch", False)
    rows = zip(u, LENGTHS, strict=True)
    y = np.stack([oracles.s4d_layer(p["ssm"], row, length=n) for row, n in rows])
    g = oracles.gelu(y)
    passed = {"half_glu1": g, "half_glu2": y}[gate]
    exact = x + passed / (1 + np.exp(-oracles.linear(p["glu"], g)))
    np.testing.assert_allclose(apply(model, x), exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda u_BLH: u_BLH[:, :1], r"\(3, 1, 4\)"),
        (lambda u_BLH: u_BLH[0], r"\(12, 4\)"),
        (lambda u_BLH: (u_BLH, None), "tuple"),
        (lambda u_BLH: None, "NoneType"),
        (lambda u_BLH: u_BLH * 1j, r"complex64 \(3, 12, 4\)"),  # its imaginary part was lost
    ],
)
def test_what_a_layer_of_ones_own_returns_has_the_shape_of_its_input(returned, got):
    """One step would be added to all of them."""

    class Mine(nnx.Module):
        def __call__(self, u_BLH, lengths_B=None, *, key=None):
            return returned(u_BLH)

    model = Block(H, Mine(), rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match=rf"^Mine must return an array \(3, 12, 4\), .* {got}"):
        model(inputs(), LENGTHS, train=False, key=None)


def test_an_unknown_gate_is_refused():
    with pytest.raises(ValueError, match="unknown gate 'relu'; choose one of glu, half_glu1, half"):
        block(gate="relu")


def test_padding_is_masked_before_the_ssm_and_nowhere_else():
    """It counts in the batch norm's statistics, and stays in the residual stream (OC-15)."""
    model, x = block(), inputs()
    padding = np.arange(12)[None, :] >= LENGTHS[:, None]
    other = np.where(padding[:, :, None], x + 3, x).astype(np.float32)
    frozen, changed = apply(model, x), apply(model, other)
    np.testing.assert_array_equal(changed[~padding], frozen[~padding])
    assert np.abs((changed - frozen)[padding] - 3).max() < 1e-5
    trained, changed = apply(model, x, train=True), apply(model, other, train=True)
    assert np.abs(changed[~padding] - trained[~padding]).max() > 1e-3


@pytest.mark.usefixtures("backend")
def test_gelu_is_x_times_the_normal_distribution_function():
    """Within 1e-6, also far out on the negative side."""
    x = np.linspace(-12, 12, 2001).astype(np.float32)
    exact = x.astype(float) * stats.norm.cdf(x.astype(float))
    np.testing.assert_allclose(run(gelu, x), exact, rtol=2e-7, atol=1e-6)
    slope = stats.norm.cdf(x.astype(float)) + x * stats.norm.pdf(x.astype(float))
    np.testing.assert_allclose(run(jax.vmap(jax.grad(gelu)), x), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("backend")
def test_gated_linear_is_the_first_half_times_the_logistic_function_of_the_second():
    """With its gradient by the input: W v s + W' value s (1 - s), for s of the gate."""
    layer, x = linear(3, 8, nnx.Rngs(params=0)), inputs()[:, :, :3]
    weight, bias = (np.asarray(a, float) for a in (layer.kernel[...], layer.bias[...]))
    value, gate = np.split(x.astype(float) @ weight + bias, 2, axis=-1)
    s, w = 1 / (1 + np.exp(-gate)), np.random.default_rng(2).normal(size=value.shape)
    np.testing.assert_allclose(run(lambda x: gated_linear(x, layer), x), value * s, atol=1e-6)
    by_x = run(jax.grad(lambda x: jnp.sum(w.astype(np.float32) * gated_linear(x, layer))), x)
    by_parts = np.concatenate([w * s, w * value * s * (1 - s)], axis=-1)
    np.testing.assert_allclose(by_x, by_parts @ weight.T, atol=3e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_dropout_acts_after_the_gelu_and_on_the_branch(tied):
    """A dropped branch leaves the input; a dropped GELU output still passes through W."""
    x, key = inputs(), jax.random.key(0)
    model = block(dropout=0.5, tie_dropout=tied)
    dropped = apply(model, x, key=key)
    branch = dropped == x
    assert 0.2 < branch.mean() < 0.8
    assert (branch == branch[:, :1]).all() == tied
    kept = ~branch
    alone = apply(model, x)
    assert (alone != x).all()
    doubled = x + 2 * (alone - x)
    assert np.abs(dropped - doubled)[kept].max() > 1e-2, "no dropout before W"


def test_the_three_dropouts_draw_with_their_own_keys(monkeypatch):
    """The same key for all would drop the same channels in each place."""
    keys = []
    draw = jax.random.bernoulli

    def recording(key, *args):
        keys.append(jax.random.key_data(key))
        return draw(key, *args)

    def keys_of(state, x, key, graphdef):
        nnx.merge(graphdef, state)(x, LENGTHS, train=False, key=key)
        return jnp.stack(keys)

    monkeypatch.setattr(jax.random, "bernoulli", recording)
    graphdef, state = nnx.split(block(dropout=0.5, ssm_dropout=0.5))
    found = run(keys_of, state, inputs(), jax.random.key(0), graphdef=graphdef)
    assert len(found) == 3
    assert len({key.tobytes() for key in found}) == 3


def test_linear_starts_uniform_within_one_over_root_fan_in():
    """As torch.nn.Linear: kernel and bias alike."""
    p = numbers(linear(64, 200, nnx.Rngs(params=0)))
    assert p["kernel"].shape == (64, 200)
    for values in p.values():
        assert np.abs(values).max() <= 1 / 8
        assert np.abs(values).max() > 0.95 / 8
        assert abs(values.std() - 1 / 8 / np.sqrt(3)) < 0.01
        assert abs(values.mean()) < 0.02


def _through(params, running, x, graphdef, remat):
    blocks = nnx.merge(graphdef, params, running)
    y = apply_blocks(blocks, x, LENGTHS, train=True, key=None, remat=remat)
    return jnp.sum(jnp.sin(y - y.mean())), (y, split(blocks)[2])


@pytest.mark.parametrize(("prenorm", "remat"), [(True, False), (True, True), (False, False)])
def test_guessed_means_of_a_stream_far_from_zero_change_no_number(prenorm, remat):
    """At the first step, of a mean of 1,000 deviations: outputs, gradients, running statistics.

    GPUs take both statistics in one pass, about a guess; a guess of 0 would cost three digits.
    """
    blocks = nnx.List([block(prenorm=prenorm) for _ in range(3)])
    graphdef, params, running = split(blocks)
    x = 1000 + inputs()
    gradient = jax.value_and_grad(_through, has_aux=True)
    plain, guessed = [], []
    for backend, found in (("cpu", plain), ("gpu", guessed)):
        with compiling_for(backend):
            found += jax.tree.leaves(
                run(gradient, params, running, x, graphdef=graphdef, remat=remat)
            )
    for a, b in zip(guessed, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * np.abs(b).max() + 1e-4)
