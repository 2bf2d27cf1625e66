"""Derivatives of derivatives, in both modes, against central differences of gradients in float64.

What is computed by exact phases has no derivative of its own: rules bring it, and a rule that holds
at first order may still take for a constant what is none.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from ssm_jax.kernels import (
    diagonal_scan,
    discrete_transfer_function,
    discretize_zoh,
    dplr_step,
    s4d_kernel,
    s4d_recurrence,
)
from ssm_jax.kernels.devices import compiling_for
from ssm_jax.kernels.discretize import exponent
from ssm_jax.layers import S4, S4D, S5
from ssm_jax.layers.norm import BatchNorm
from ssm_jax.models.block import linear
from ssm_jax.models.gate import gated_linear, gelu

B, L, H, N = 1, 5, 1, 2
RI = ("A", "B", "C", "P", "x0", "v")  # complex: the last axis is [Re, Im]
SHAPES = {
    "A": (H, N, 2),
    "B": (H, N, 2),
    "C": (H, N, 2),
    "P": (H, N, 2),
    "dt": (H,),
    "u": (B, L, H),
    "x0": (B, H, N, 2),
    "v": (B, L, N, 2),
}


def point(names, seed=0):
    """Random numbers of these names: damped modes of some rad per unit of time, steps of 0.3."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=SHAPES[name]) for name in names}
    if "A" in values:
        values["A"] = values["A"] * [0.1, 4.0] - [0.4, 0.0]
    if "dt" in values:
        values["dt"] = np.exp(0.3 * values["dt"]) / 3
    return values


def scan(method, reverse):
    def states(A, dt, v, x0):
        z, phase = exponent(A[0], dt, "zoh")
        return diagonal_scan(z, phase, v, x0[:, 0], reverse=reverse, method=method)

    return states


KERNELS = {
    "discretize_zoh": lambda A, dt: discretize_zoh(A, dt[:, None]),
    "s4d_kernel": lambda A, C, dt: s4d_kernel(A, C, dt, L),
    "s4d_recurrence": lambda u, A, C, dt, x0: s4d_recurrence(u, A, C, dt, x0, jnp.array([3])),
    "dplr_step": lambda x0, u, A, P, B, C, dt: dplr_step(x0, u[:, 0], A, P, B, C, dt),
    "scan_chunked": scan("chunked", False),
    "scan_associative_reverse": scan("associative", True),
    "discrete_transfer_function": lambda A, C, dt: discrete_transfer_function(
        A, C, dt, np.linspace(0.1, 3, 3)[None], "bilinear", 7
    ),
}


def of_reals(kernel, names):
    """The kernel of complex arrays as one of real ones."""

    def function(values):
        complex_or_real = (
            values[n][..., 0] + 1j * values[n][..., 1] if n in RI else values[n] for n in names
        )
        return kernel(*complex_or_real)

    return function


def loss_of(function, like):
    """A loss of all outputs that is not quadratic, of the inputs as one vector."""
    _, unravel = ravel_pytree(like)

    def loss(flat):
        leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(function(unravel(flat)))]
        y = jnp.concatenate([jnp.concatenate([leaf.real, leaf.imag]) for leaf in leaves])
        return jnp.sum(jnp.cos(jnp.arange(y.size, dtype=y.dtype)) * y + jnp.sin(y))

    return loss


def check(function, like, *, reverse=False, third=False):
    """First derivatives in forward mode, and Hessians times a vector, against differences."""
    loss = loss_of(function, like)
    at = ravel_pytree(like)[0]
    along = np.random.default_rng(9).normal(size=at.size)

    def hessian_product(at):
        return jax.jvp(jax.grad(loss), (at,), (along,))

    def derivatives(at):
        found = {"slope": jax.jvp(loss, (at,), (along,))[1]}
        found["gradient"], found["forward over reverse"] = hessian_product(at)
        if reverse:
            found["reverse over reverse"] = jax.grad(lambda at: jax.grad(loss)(at) @ along)(at)
        if third:
            found["third"] = jax.jvp(lambda at: hessian_product(at)[1], (at,), (along,))[1]
        return found

    step = 1e-5
    compiled = jax.jit(derivatives)
    found, above, below = (compiled(at + offset * along) for offset in (0, step, -step))
    np.testing.assert_allclose(found.pop("slope"), found["gradient"] @ along, rtol=1e-9)
    for name, lower in (
        ("forward over reverse", "gradient"),
        ("reverse over reverse", "gradient"),
        ("third", "forward over reverse"),
    ):
        if name in found:
            exact = (above[lower] - below[lower]) / (2 * step)
            near = {"rtol": 1e-5, "atol": 1e-6 * np.abs(exact).max()}
            np.testing.assert_allclose(found[name], exact, err_msg=name, **near)


@pytest.mark.parametrize("name", KERNELS)
def test_hessians_of_kernels_are_differences_of_gradients(name):
    kernel = KERNELS[name]
    names = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
    with jax.enable_x64(True):
        check(
            of_reals(kernel, names),
            point(names),
            reverse=name in ("s4d_kernel", "scan_chunked"),
            third=name in ("discretize_zoh", "s4d_kernel"),
        )


@pytest.mark.parametrize("name", ["discretize_zoh", "s4d_kernel", "scan_chunked"])
def test_hessians_within_a_scan_are_differences_of_gradients(name):
    """As of the blocks of a network. JAX differentiates anew what a scan keeps of a gradient."""
    kernel = KERNELS[name]
    names = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
    function = of_reals(kernel, names)

    def in_scan(values):
        once = jax.tree.map(lambda x: x[None], values)
        return jax.lax.scan(lambda none, x: (none, function(x)), None, once)[1]

    with jax.enable_x64(True):
        check(in_scan, point(names))


def float64(module):
    state = nnx.state(module)
    nnx.update(module, jax.tree.map(lambda x: x.astype(jnp.float64), state))
    return module


class ResidualBlock(nnx.Module):
    """The block of models/block.py, which computes in float32, in the type of its input."""

    def __init__(self, rngs):
        self.norm, self.ssm = BatchNorm(2), S5(2, d_state=2, beta=0.3, rngs=rngs)
        self.glu = linear(2, 4, rngs)

    def __call__(self, x_BLH):
        return x_BLH + gated_linear(gelu(self.ssm(self.norm(x_BLH, train=True))), self.glu)


LAYERS = {
    "S4D_conv": (lambda rngs: S4D(1, d_state=2, beta=0.3, rngs=rngs), {"mode": "conv"}),
    "S4_scan": (
        lambda rngs: S4(1, d_state=2, beta=None, bidirectional=False, rngs=rngs),
        {"mode": "scan"},
    ),
    # S5 as a convolution, and batch norm with the batch's statistics
    "S5_in_a_block": (ResidualBlock, {}),
}


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "cpu") for name in LAYERS), ("S4D_conv", "gpu"), ("S5_in_a_block", "gpu")],
)
def test_hessians_of_layers_are_differences_of_gradients(name, backend):
    """By all parameters and the input."""
    make, how = LAYERS[name]
    with jax.enable_x64(True), compiling_for(backend):
        graph, params, rest = nnx.split(float64(make(nnx.Rngs(0))), nnx.Param, ...)
        u = np.random.default_rng(1).normal(size=(2, L, 2 if make is ResidualBlock else 1))

        def outputs(values):
            return nnx.merge(graph, values[0], rest, copy=True)(values[1], **how)

        check(outputs, (params, u))


def test_vmap_of_second_derivatives_is_a_loop_over_them():
    """A population whose members share an input."""
    shared = point(("v",))["v"]
    members = [point(("A", "dt", "x0"), seed=i) for i in range(2)]
    states = of_reals(KERNELS["scan_associative_reverse"], ("A", "dt", "v", "x0"))

    def product(member, v):
        loss = loss_of(lambda member: states({**member, "v": v}), members[0])
        at = ravel_pytree(member)[0]
        return jax.grad(lambda at: jnp.sum(jax.grad(loss)(at)))(at)

    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
        population = jax.jit(jax.vmap(product, in_axes=(0, None)))(stacked, shared)
        one = jax.jit(product)
        for found, member in zip(population, members, strict=True):
            np.testing.assert_allclose(found, one(member, shared), rtol=1e-9, atol=1e-9)
