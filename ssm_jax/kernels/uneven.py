r"""Recurrences whose steps differ: in length, and where a new sequence begins.

    x_l = A_bar_l x_{l-1} + v_l,    A_bar_l = e^{z_l},    or v_l alone at the start of a sequence

A diagonal system takes T steps at a time by a parallel scan over pairs (z, v): z and the exact
phases of Im z add up over steps (`phase.py`), so that the power over any stretch is as exact as one
A_bar, and only states are ever multiplied. A start is a z whose power is 0. Of T steps all states
are in memory, (B, T, P, N), T near sqrt(L); a gradient keeps the state before each T steps and
computes the others again. Other systems go one step after the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.blocks import block_length
from ssm_jax.kernels.devices import vary_alike
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import ReIm, parts, power_parts, rest_of_power, times

State = TypeVar("State", bound=Any)

_FORGOTTEN = -1e4  # e to this is 0 in every float type


def uneven_scan(
    x0_BPN: Array,
    u: Array,
    starts_BL: Array | None,
    scale: float | Array,
    lengths_B: Array | None,
    modes: Callable[..., tuple[Array, Phase, Array]],
    read_out: Callable[[Array], Array],
) -> tuple[Array, Array]:
    """(the state after lengths_B steps, y) of a diagonal system from the state x0, complex.

    Args:
      u: inputs, (B, L, ..).
      starts_BL: true where the state before a step is zero; None: nowhere.
      scale: one number, or (B, L), the length of each step.
      lengths_B: int32 in 0..L; None: L.
      modes: (z, its phase, v), that broadcast to (B, T, P, N), of T steps of u and of their scale,
        one number or (B, T).
      read_out: the outputs (B, T, ..) of the states x_BTPN.
    """
    one_or_each = jnp.asarray(scale, x0_BPN.real.dtype)
    arrays = x0_BPN, u, starts_BL, one_or_each, lengths_B
    x0_BPN, u, starts_BL, one_or_each, lengths_B = vary_alike(*arrays)
    B, L = u.shape[:2]
    T = block_length(L)
    blocks = -(-L // T)
    ends_B = jnp.full((B,), L, jnp.int32) if lengths_B is None else lengths_B

    def in_blocks(a: Array | None, padding: float = 0) -> Array | None:
        if a is None:
            return None
        edges = (0, 0), (0, blocks * T - L), *((0, 0),) * (a.ndim - 2)
        a = jnp.pad(a, edges, constant_values=padding)
        return jnp.moveaxis(a.reshape(B, blocks, T, *a.shape[2:]), 1, 0)

    @jax.checkpoint
    def block(carry, part):
        x_BPN, kept_BPN = carry
        first, u_BT, starts_BT, scale_BT = part
        z, phase, v = modes(u_BT, one_or_each if scale_BT is None else scale_BT)
        decay = z.real
        if starts_BT is not None:
            decay = jnp.where(starts_BT[:, :, None, None], _FORGOTTEN, decay)
        shape = B, T, *x_BPN.shape[1:]
        steps = decay, z.imag, *phase, v.real, v.imag
        *sums, re, im = jax.lax.associative_scan(
            _joined, tuple(jnp.broadcast_to(a, shape) for a in steps), axis=1
        )
        z, phase = jax.lax.complex(*sums[:2]), Phase(*sums[2:])
        power = power_parts(z, phase, jnp.int32(1))
        moved = times(power, parts(x_BPN[:, None]))
        x_BTPN = jax.lax.complex(moved[0] + re, moved[1] + im)
        # Block after block the same power may follow: what its rounding took is added.
        z, phase, power = jax.tree.map(lambda a: a[:, -1], (z, phase, power))
        rest = rest_of_power(*jax.lax.stop_gradient((power, z)), phase)
        rest = times(rest, parts(x_BPN))
        last_BPN = x_BTPN[:, -1] + jax.lax.complex(*rest)
        at_B = jnp.clip(ends_B - 1 - first, 0, T - 1)[:, None, None, None]
        here_B = (ends_B > first) & (ends_B <= first + T)
        end_BPN = jnp.take_along_axis(x_BTPN, at_B, axis=1)[:, 0]
        kept_BPN = jnp.where(here_B[:, None, None], end_BPN, kept_BPN)
        return (last_BPN, kept_BPN), read_out(x_BTPN)

    scale_BL = one_or_each if one_or_each.ndim else None
    whole = (
        jnp.arange(blocks, dtype=jnp.int32) * T,
        in_blocks(u), in_blocks(starts_BL), in_blocks(scale_BL, 1),
    )  # fmt: skip
    (_, state_BPN), y = jax.lax.scan(block, (x0_BPN, x0_BPN), whole)
    return state_BPN, jnp.moveaxis(y, 0, 1).reshape(B, blocks * T, *y.shape[3:])[:, :L]


def _joined(earlier: tuple[Array, ...], later: tuple[Array, ...]) -> tuple[Array, ...]:
    """Two stretches of steps as one: the sums of z and of its phase, and what was added since."""
    *before, re, im = earlier
    *after, added_re, added_im = later
    decay, angle, ticks, rest = after
    power: ReIm = power_parts(jax.lax.complex(decay, angle), Phase(ticks, rest), jnp.int32(1))
    re, im = times(power, (re, im))
    return *map(jnp.add, before, after), re + added_re, im + added_im


def one_by_one(
    step: Callable[[State, Array, Array], tuple[State, Array]],
    x0: State,
    u: Array,
    starts_BL: Array | None,
    scale: float | Array,
    lengths_B: Array | None,
) -> tuple[State, Array]:
    """The same of any system: `step` gives the state, a tree of (B, ..), and y of one step.

    It is given the state before, u (B, ..) and the scale of the step, (B,).
    """
    B, L = u.shape[:2]
    none_BL = jnp.zeros((B, L), bool) if starts_BL is None else starts_BL
    scale_BL = jnp.broadcast_to(jnp.asarray(scale, u.dtype), (B, L))
    ends_B = jnp.full((B,), L, jnp.int32) if lengths_B is None else lengths_B
    x0, u, none_BL, scale_BL, ends_B = vary_alike(x0, u, none_BL, scale_BL, ends_B)

    def chosen(chosen_B: Array, a: Array, b: Array) -> Array:
        return jnp.where(chosen_B.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    def body(carry, part):
        x, kept = carry
        step_number, u_B, start_B, scale_B = part
        x = jax.tree.map(lambda a: chosen(start_B, jnp.zeros_like(a), a), x)
        x, y = step(x, u_B, scale_B)
        return (x, jax.tree.map(partial(chosen, step_number < ends_B), x, kept)), y

    steps = tuple(jnp.moveaxis(a, 1, 0) for a in (u, none_BL, scale_BL))
    (_, state), y = jax.lax.scan(body, (x0, x0), (jnp.arange(L, dtype=jnp.int32), *steps))
    return state, jnp.moveaxis(y, 0, 1)


def from_the_end(
    u: Array, starts_BL: Array | None, scale: float | Array
) -> tuple[Array, Array | None, float | Array]:
    """Inputs, starts and scale of the same steps from the last to the first."""
    if starts_BL is not None:  # the last step of a sequence is the first one then
        first = jnp.ones_like(starts_BL[:, :1])
        starts_BL = jnp.concatenate([first, starts_BL[:, :0:-1]], axis=1)
    if not isinstance(scale, float) and scale.ndim:
        scale = scale[:, ::-1]
    return u[:, ::-1], starts_BL, scale
