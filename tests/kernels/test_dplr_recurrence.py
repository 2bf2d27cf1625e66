"""S4 as a recurrence, in blocks and step by step, against dense float64 recurrences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.init.hippo import legs_nplr
from ssm_jax.kernels import anticausal, dplr_recurrence
from ssm_jax.kernels.dplr import dplr_step

DTS = (1e-3, 1e-2, 1e-1, 1.0)


def systems(n_modes):
    """(A, P, B, C, dt): LegS, LegS undamped, and a random system, each with each dt."""
    rng = np.random.default_rng(n_modes)
    legs = legs_nplr(2 * n_modes)[:3]
    undamped = 1j * legs[0].imag, *legs[1:]
    free = -rng.uniform(0, 2, n_modes) + 1j * rng.uniform(0, 500, n_modes)
    free = free, *(3 * rng.normal(size=(2, n_modes, 2)) @ [1, 1j])
    rows = [kind for kind in (legs, undamped, free) for _ in DTS]
    A, P, B = (np.stack(part).astype(np.complex64) for part in zip(*rows, strict=True))
    C = (rng.normal(size=(*A.shape, 2)) @ [0.7, 0.7j]).astype(np.complex64)
    return A, P, B, C, np.tile(np.float32(DTS), 3)


def givens(system, batch, length, seed=0):
    """An input u_BLH and a state x0_BHN."""
    rng = np.random.default_rng(seed)
    x0 = 0.1 * rng.normal(size=(batch, *system[0].shape, 2)) @ [1, 1j]
    u = rng.normal(size=(batch, length, len(system[0])))
    return u.astype(np.float32), x0.astype(np.complex64)


def recurrence(u, x0, lengths, *system):
    return dplr_recurrence(u, *system, x0, lengths)


def steps(u, x0, *system):
    """lax.scan over `dplr_step`: outputs (B, L, H) and the last state."""
    step = lambda x, u_BH: dplr_step(x, u_BH, *system)  # noqa: E731
    x, y_LBH = jax.lax.scan(step, x0, jnp.swapaxes(u, 0, 1))
    return jnp.swapaxes(y_LBH, 0, 1), x


def exact_run(u, x0, system):
    """Outputs (B, L, H), and states (B, L + 1, H, N)."""
    runs = [oracles.dplr_recurrence(*system, u_LH, x_HN) for u_LH, x_HN in zip(u, x0, strict=True)]
    return tuple(np.stack(part) for part in zip(*runs, strict=True))


def assert_channels_close(found, exact, axis, tolerance):
    """Each channel relative to its own largest value over `axis`."""
    error = np.abs(found - exact).max(axis) / np.abs(exact).max(axis)
    assert error.max() < tolerance


@pytest.mark.parametrize(("n_modes", "length"), [(1, 1), (4, 2), (8, 17), (64, 257), (16, 2048)])
def test_outputs_and_states_are_those_of_the_dense_recurrence(n_modes, length):
    """From a state that is not zero, at three lengths: none of the steps, some, and all."""
    system = systems(n_modes)
    u, x0 = givens(system, 3, length)
    lengths = np.array([length, (2 * length) // 3, 0], np.int32)
    y, states = exact_run(u, x0, system)
    found_y, found_x = run(recurrence, u, x0, lengths, *system)
    assert_channels_close(found_y, y, 1, 5e-6)
    exact_x = states[np.arange(3), lengths]
    assert_channels_close(found_x[:2], exact_x[:2], 2, 1e-5)
    np.testing.assert_array_equal(found_x[2], x0[2])


@pytest.mark.optimized
def test_it_is_as_right_over_16384_steps():
    """The undamped systems: their first state still rings at the end."""
    system = [a[4:8] for a in systems(64)]
    u, x0 = givens(system, 1, 16384)
    y, states = exact_run(u, x0, system)
    found_y, found_x = run(recurrence, u, x0, None, *system)
    assert_channels_close(found_y, y, 1, 1e-5)
    assert_channels_close(found_x, states[:, -1], 2, 1e-5)


@pytest.mark.parametrize("length", [1, 17, 64])
def test_states_at_every_length_are_right(length):
    """The ends of blocks, the steps beside them, and those between."""
    system = systems(4)
    u, x0 = givens(system, 1, length)
    _, states = exact_run(u, x0, system)
    lengths = np.arange(length + 1, dtype=np.int32)
    rows = len(lengths)
    _, x = run(recurrence, np.repeat(u, rows, 0), np.repeat(x0, rows, 0), lengths, *system)
    assert_channels_close(x, states[0], 2, 1e-5)


def test_a_run_can_be_cut_in_two():
    system = systems(4)
    u, x0 = givens(system, 2, 100)
    whole_y, whole_x = run(recurrence, u, x0, None, *system)
    first_y, x = run(recurrence, u[:, :37], x0, None, *system)
    second_y, x = run(recurrence, u[:, 37:], x, None, *system)
    assert_channels_close(np.concatenate([first_y, second_y], 1), whole_y, 1, 1e-5)
    assert_channels_close(x, whole_x, 2, 1e-5)


@pytest.mark.optimized
def test_without_a_state_and_lengths_it_starts_at_zero_and_ends_at_the_end():
    system = systems(4)
    u, x0 = givens(system, 2, 33)
    found = run(dplr_recurrence, u, *system)
    full = np.full(2, 33, np.int32)
    for f, e in zip(found, run(recurrence, u, 0 * x0, full, *system), strict=True):
        np.testing.assert_array_equal(f, e)


@pytest.mark.parametrize(("length", "tolerance"), [(257, 5e-5), (4096, 1e-3)])
def test_steps_are_the_dense_recurrence_up_to_adding_rounding_errors(length, tolerance):
    """At 4096 steps, 5e-4 where undamped, 5e-5 for LegS."""
    system = systems(16)
    u, x0 = givens(system, 1, length)
    y, states = exact_run(u, x0, system)
    found_y, found_x = run(steps, u, x0, *system)
    assert_channels_close(found_y, y, 1, tolerance)
    assert_channels_close(found_x, states[:, -1], 2, tolerance)
    assert_channels_close(found_y[..., :4], y[..., :4], 1, 5e-5)


def test_anticausal_part_sees_the_strict_future_alone():
    """y_t = sum_j k[j] u_{t+1+j} (OC-12)."""
    system = systems(4)
    u, _ = givens(system, 1, 33)
    kernel_HL = oracles.dplr_kernel(*system, 33)
    exact = oracles.convolve(u[0], 0 * kernel_HL, kernel_HL)
    found = run(functools.partial(anticausal, dplr_recurrence), u, *system)[0]
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-6 * np.abs(exact).max())
    assert not found[-1].any()
    assert not run(functools.partial(anticausal, dplr_recurrence), u[:, :1], *system).any()


@functools.cache
def real_form(function):
    """The function of real arrays: complex ones come as two."""

    def of_reals(u, x0, parts, dt):
        A, P, B, C = parts[0] + 1j * parts[1]
        y, x = function(u, x0[0] + 1j * x0[1], -jnp.abs(A.real) + 1j * A.imag, P, B, C, dt)
        return y, x.real, x.imag

    return of_reals


def _some_steps(u, x0, *system):
    return recurrence(u, x0, jnp.array([10, 4]), *system)


@pytest.mark.unoptimized
@pytest.mark.parametrize("function", [_some_steps, steps])
def test_gradients_pass_finite_differences_in_float64(function):
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        u, x0 = rng.normal(size=(2, 10, 2)), rng.normal(size=(2, 2, 2, 3))
        point = (u, x0, rng.normal(size=(2, 4, 2, 3)), np.array([0.1, 1.5]))
        check_grads(
            jax.jit(real_form(function)), point, order=1, modes=["rev"], atol=1e-6, rtol=1e-5
        )


@pytest.mark.unoptimized
def test_vmap_over_a_population_equals_a_loop():
    members = [(*givens(systems(4), 2, 33, seed=m), *systems(4)) for m in range(3)]
    members = [(u, x0, np.int32([33, 7]), *system) for u, x0, *system in members]
    for m, member in enumerate(members):
        member[3].imag[:] *= 1 + m
    population = run(jax.vmap(recurrence), *map(np.stack, zip(*members, strict=True)))
    for m in range(3):
        for f, e in zip(population, run(recurrence, *members[m]), strict=True):
            np.testing.assert_allclose(f[m], e, rtol=0, atol=5e-6 * np.abs(e).max())


@pytest.mark.unoptimized
def test_memory_of_the_gradient_is_a_fraction_of_that_of_all_states():
    """(B, H, L, N) complex states are never together in memory."""
    B, H, L, N = 4, 8, 4096, 64
    HN = jax.ShapeDtypeStruct((H, N), jnp.complex64)
    u = jax.ShapeDtypeStruct((B, L, H), jnp.float32)

    def objective(u, A, P, B, C, dt):
        return jnp.sum(dplr_recurrence(u, A, P, B, C, dt)[0] ** 2)

    gradient = jax.jit(jax.grad(objective, argnums=(0, 1, 2, 3, 4)))
    compiled = gradient.lower(u, HN, HN, HN, HN, jax.ShapeDtypeStruct((H,), jnp.float32)).compile()
    assert 0 < compiled.memory_analysis().temp_size_in_bytes < B * H * L * N * 8 / 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": np.ones((2, 0, 3), np.float32)}, r"L >= 1.*got \(2, 0, 3\)"),
        ({"u": np.ones((2, 5, 4), np.float32)}, r"got u \(2, 5, 4\)"),
        ({"C": np.ones((1, 3, 4), np.complex64)}, r"C \(1, 3, 4\)"),
        ({"P": np.ones((3, 5), np.complex64)}, r"P \(3, 5\)"),
        ({"x0": np.ones((1, 3, 4), np.complex64)}, r"x0 must be \(2, 3, 4\), got \(1, 3, 4\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    HN = np.ones((3, 4), np.complex64)
    arguments = {"u": np.ones((2, 5, 3), np.float32), "A": HN, "P": HN, "B": HN, "C": HN}
    arguments |= {"dt": np.ones((3,), np.float32), "x0": np.ones((2, 3, 4), np.complex64)}
    with pytest.raises(ValueError, match=message):
        dplr_recurrence(*(arguments | changes).values())
