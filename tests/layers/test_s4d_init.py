"""Where an S4D layer starts: named eigenvalues, given ones, real parts, modes per sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.init.modes import INITS, initial_modes
from ssm_jax.init.parameters import REAL_TRANSFORMS
from ssm_jax.layers import S4D

H, N = 6, 4
GIVEN = -0.5 + 1j * np.arange(1, N + 1)  # eigenvalues per unit of time, or per sample
REACHING_ZERO = ("relu", "clip", "none")  # real transforms at which Re A may be 0


def layer(**options):
    return S4D(H, **{"d_state": N, "bidirectional": False, **options}, rngs=nnx.Rngs(params=0))


def readout(model):
    C_ri = numbers(model)["C_ri"]
    return C_ri[..., 0] + 1j * C_ri[..., 1]


def apply(model, u):
    graphdef, state = nnx.split(model)
    return run(_forward, state, u, graphdef=graphdef)


def _forward(state, u, graphdef):
    return nnx.merge(graphdef, state)(u)


def inputs(length):
    return np.random.default_rng(length).normal(size=(1, length, H)).astype(np.float32)


@pytest.mark.parametrize("init", INITS)
def test_a_named_init_gives_its_eigenvalues_and_multiplies_c_by_its_input_vector(init):
    """With three sets of eigenvalues, and both scaled."""
    rule = "none" if INITS[init].discrete else "zoh"
    options = {"n_ssm": 3, "discretization": rule}
    model = layer(init=init, alpha=0.5, alpha_real=0.8, **options)
    A_SN, B_SN, _ = initial_modes(init, N, n_sets=3, alpha=0.5, alpha_real=0.8)
    np.testing.assert_allclose(model.eigenvalues(), np.tile(A_SN, (2, 1)), rtol=1e-5)
    drawn = readout(layer(init=GIVEN, **options))
    np.testing.assert_allclose(readout(model)[0], drawn[0] * np.tile(B_SN, (2, 1)), rtol=1e-5)


def test_seeds_of_an_init_that_draws_differ_and_repeat():
    ring = functools.partial(layer, init="ring", discretization="none")
    first, second = (numbers(ring(init_seed=s))["A_im"] for s in (0, 1))
    np.testing.assert_array_equal(first, numbers(ring())["A_im"])
    assert not np.allclose(first, second)


@pytest.mark.parametrize("n_ssm", [1, 2])
@pytest.mark.parametrize("shape", [(N,), "all"])
def test_given_eigenvalues_are_taken_as_they_are(n_ssm, shape):
    given = GIVEN if shape == (N,) else GIVEN[None, :] * np.arange(1, n_ssm + 1)[:, None]
    model = layer(init=given, n_ssm=n_ssm)
    exact = np.tile(np.broadcast_to(given, (n_ssm, N)), (H // n_ssm, 1))
    np.testing.assert_allclose(model.eigenvalues(), exact, rtol=1e-6)


@pytest.mark.parametrize("name", REAL_TRANSFORMS)
def test_a_real_transform_changes_the_parameter_and_not_the_start(name):
    model, default = layer(real_transform=name), layer()
    np.testing.assert_allclose(model.eigenvalues(), default.eigenvalues(), rtol=1e-6)
    u = inputs(33)
    exact = apply(default, u)
    np.testing.assert_allclose(apply(model, u), exact, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("name", REACHING_ZERO)
def test_undamped_modes_start_and_can_be_trained(name):
    """Re A = 0 exactly; the gradient by A_re_raw is finite and not 0."""
    model = layer(real_transform=name, alpha_real=0.0)
    assert (np.asarray(model.eigenvalues()).real == 0).all()
    graphdef, state = nnx.split(model)
    u = inputs(64)

    def energy(state):
        return jnp.sum(nnx.merge(graphdef, state)(u) ** 2)

    gradient = nnx.to_pure_dict(run(jax.grad(energy), state))["A_re_raw"]
    assert np.isfinite(gradient).all() and (gradient != 0).all()


def test_modes_given_per_sample_need_no_step_size():
    """y = sum_j 2 Re(sum_n C e^{A j}) u_{t-j} + D u: A_bar = e^A, and the gain is 1."""
    model, u = layer(init="dfout", discretization="none", beta=None), inputs(40)
    assert not hasattr(model, "dt_raw")
    assert set(numbers(model, nnx.Param)) == {"A_re_raw", "A_im", "C_ri", "D"}
    np.testing.assert_array_equal(model.step_sizes(), np.ones(H))
    A = np.asarray(model.eigenvalues(), complex)
    powers = np.exp(A[:, :, None] * np.arange(40))
    k = 2 * np.einsum("hn,hnl->hl", readout(model)[0], powers).real
    exact = oracles.convolve(u[0], k) + numbers(model)["D"] * u[0]
    np.testing.assert_allclose(apply(model, u)[0], exact, atol=3e-6 * np.abs(exact).max())


def test_lru_norm_gives_every_mode_the_variance_of_white_noise():
    """The norm of an impulse response, sum_l |gamma A_bar^l|^2, is 1: here by the sum."""
    options = {"init": "ring", "discretization": "none"}
    plain, normal = layer(**options), layer(input_norm="lru", **options)
    gamma = np.asarray(normal.readout())[0] / np.asarray(plain.readout())[0]
    assert np.abs(gamma.imag).max() < 1e-6
    decay = np.exp(np.asarray(normal.eigenvalues(), complex).real)
    variance = np.sum((gamma.real[..., None] * decay[..., None] ** np.arange(60_000)) ** 2, -1)
    np.testing.assert_allclose(variance, 1, rtol=1e-4)


def test_lru_norm_keeps_finite_gradients_on_the_unit_circle():
    options = {"init": "ring", "discretization": "none", "real_transform": "relu"}
    graphdef, state = nnx.split(layer(input_norm="lru", alpha_real=0.0, **options))
    u = inputs(16)

    def energy(state):
        return jnp.sum(nnx.merge(graphdef, state)(u) ** 2)

    gradient = run(jax.grad(energy), state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("init", INITS)
def test_a_layer_can_be_built_without_numbers(init):
    """nnx.eval_shape: nothing needs the values of random draws."""
    rule = "none" if INITS[init].discrete else "bilinear"
    abstract = nnx.eval_shape(lambda: layer(init=init, discretization=rule))
    shapes = jax.tree.map(lambda leaf: leaf.shape, nnx.to_pure_dict(nnx.state(abstract)))
    made = jax.tree.map(np.shape, numbers(layer(init=init, discretization=rule)))
    assert shapes == made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "legt"}, "unknown init 'legt'; choose one of s4d_lin"),
        (
            {"init": "ring"},
            "init 'ring' gives eigenvalues per sample.*'zoh' cannot take; use 'none'",
        ),
        ({"init": "dfout", "discretization": "bilinear"}, "'bilinear' cannot take; use 'none'"),
        ({"discretization": "none"}, "'s4d_lin' gives eigenvalues per unit of time.*other than"),
        ({"init": GIVEN[:2]}, r"= \(4,\) or \(n_sets, d_state\) = \(1, 4\), got \(2,\)"),
        ({"init": GIVEN[None], "n_ssm": 2}, r"= \(2, 4\), got \(1, 4\)"),
        ({"init": GIVEN, "alpha": 3.0}, "alpha=3.0 and alpha_real=1.0 scale named inits only"),
        ({"init": -GIVEN}, "Re A must start finite and at most 0, got 0.5"),
        ({"alpha_real": 0.0}, "real_transform 'exp': cannot represent Re A = 0; use 'relu'"),
        ({"alpha_real": -1.0}, "alpha_real must be at least 0"),
        ({"real_transform": "tanh"}, "unknown real_transform 'tanh'; choose one of exp"),
        ({"input_norm": "gamma"}, "unknown input_norm 'gamma'; choose one of none, lru"),
        ({"input_norm": "lru"}, "input_norm='lru' normalizes modes given per sample"),
    ],
)
def test_starts_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)
