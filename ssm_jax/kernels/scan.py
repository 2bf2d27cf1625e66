r"""The recurrence of a time-invariant diagonal SSM over whole sequences.

    x_l = A_bar x_{l-1} + v_l,    A_bar = e^z,    v_l = B_bar u_l

S5 (arXiv:2208.04933) finds the states by a parallel scan over pairs of a power of A_bar and x.
Here A_bar comes as z and the exact phase of Im z (`discretize.exponent`), so the power that skips k
steps is known at once, and as exact as A_bar itself. The error does not grow with l, as it does
where A_bar is multiplied again and again. Complex numbers are real arrays (..., 2, N), real parts
first: with complex64 XLA's CPU backend takes three times as long for the loops.
"""

import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.arrays import in_one_type, one_program, sizes
from ssm_jax.kernels.devices import backend, on_any_mesh, on_cpu, vary_alike
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import power_parts, rest_of_power
from ssm_jax.kernels.rules import Ruled, linear_map

METHODS = ("auto", "chunked", "associative")

# "chunked": T steps in a block, and Q blocks side by side in a loop. Two CPU cores, B = 4, N = 64:
# flat for T from 32 to 128 and Q from 4 to 8. With all 256 blocks of L = 16384 side by side a scan
# takes twice as long: the states of one step then fill the L2 cache.
_T, _Q = 64, 8
# "associative": steps in a group. A gradient of `mimo_scan` for an H200, B = 50, L = 2048, N = 8,
# moves 505 MiB with 8 and 496 with 16; each element costs as many products.
_R = 8


@on_any_mesh("BLN")
@one_program
@in_one_type
def diagonal_scan(
    z_N, phase_N, v_BLN, x0_BN=None, *, reverse: bool = False, method: str = "auto"
) -> Array:
    """All states x_l = A_bar x_{l-1} + v_l of N modes, complex x_BLN, for L from 1 to 2^22 - 1.

    z is log A_bar, phase that of Im z, and `exponent` gives both; Re z > 0 is allowed, unless
    something overflows. The state before the first step is x0, or zero. With `reverse`,
    x_l = A_bar x_{l+1} + v_l from x0 = x_L. Differentiable in z, v and x0, in both modes and to any
    order. The backward pass is the reverse recurrence and keeps x alone. Error in float32: some
    1e-6 of the largest value, by either method and at any length and damping (see
    tests/kernels/test_scan.py). Methods:

    chunked      l = (c Q + q) T + r. Chunk after chunk, loops over the T steps of a block, for Q
                 blocks at once: for what each block adds to the state, then for the states.
    associative  the ends of groups of 8 steps are scanned, by the same method, and the other steps
                 follow from them: 2 log8(L) passes without a loop, where `jax.lax.associative_scan`
                 takes 2 log2(L), and products of A_bar to compute, to store and to round.
    auto         chunked on a CPU, else associative, since on an accelerator each step of a loop is
                 a launch. This choice is by argument; only the CPU was measured.
    """
    B, L, N = sizes("diagonal_scan", "v", v_BLN, "BLN")
    if L < 1 or z_N.shape != (N,) or (x0_BN is not None and x0_BN.shape != (B, N)):
        raise ValueError(
            "diagonal_scan: v is (B, L, N) with L >= 1, z is (N,) and x0 is (B, N); got "
            f"v {v_BLN.shape}, z {z_N.shape}, x0 {None if x0_BN is None else x0_BN.shape}."
        )
    x0_B2N = None if x0_BN is None else in_parts(x0_BN)
    x_BL2N = scan_parts(z_N, phase_N, in_parts(v_BLN), x0_B2N, reverse=reverse, method=method)
    return from_parts(x_BL2N)


def scan_parts(z_N, phase_N, v_BL2N, x0_B2N=None, *, reverse=False, method="auto") -> Array:
    """`diagonal_scan` of v and x0 given as real parts, then imaginary ones; so is x."""
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"diagonal_scan: unknown method {method!r}; choose one of {known}.")
    if method == "auto":
        symbolic = jax.export.is_symbolic_dim(v_BL2N.shape[1])  # halving needs a known length
        method = "chunked" if symbolic or on_cpu() else "associative"
    if x0_B2N is None:
        x0_B2N = jnp.zeros_like(v_BL2N[:, 0])
    return _scan(reverse, method, *vary_alike(z_N, phase_N, v_BL2N, x0_B2N))


def state_after(x_BL2N: Array, lengths_B: Array | None, x0_B2N: Array) -> Array:
    """The state x_B2N after the first lengths_B steps (all if None): x0 where that is 0.

    Not the last of x_BL2N: in the padding after a sequence the state decays.
    """
    if lengths_B is None:
        return x_BL2N[:, -1]
    last_B111 = jnp.maximum(lengths_B - 1, 0)[:, None, None, None]
    x_B2N = jnp.take_along_axis(x_BL2N, last_B111, axis=1)[:, 0]
    return jnp.where((lengths_B > 0)[:, None, None], x_B2N, x0_B2N)


def in_parts(x: Array) -> Array:
    """Complex (..., N) as real (..., 2, N)."""
    return jnp.stack([x.real, x.imag], axis=-2)


def from_parts(x: Array) -> Array:
    """Real (..., 2, N) as complex (..., N)."""
    return jax.lax.complex(x[..., 0, :], x[..., 1, :])


def _factor(re: Array, im: Array) -> Array:
    """[re, re] and [-im, im], as (..., 2, 2, N): the numbers along and across of `_times`."""
    return jnp.stack([jnp.stack([re, re], -2), jnp.stack([-im, im], -2)], -3)


def _times(p_22N: Array, x: Array) -> Array:
    along, across = p_22N.reshape(2, *(1,) * (x.ndim - 2), *p_22N.shape[1:])
    return along * x + across * _swapped(x)


def _swapped(x: Array) -> Array:  # imaginary parts, then real ones
    if backend() == "tpu":
        return jnp.concatenate([x[..., 1:, :], x[..., :1, :]], axis=-2)
    return jax.lax.rev(x, (x.ndim - 2,))


def _powers(z_N: Array, phase_N: Phase, steps: Iterable[int]) -> Array:
    """A_bar^k for the steps k, each as a factor: (K, 2, 2, N)."""
    k_K1 = jnp.asarray(list(steps), jnp.int32)[:, None]
    phase_1N = Phase(*(x[None] for x in phase_N))
    return _factor(*power_parts(z_N[None], phase_1N, k_K1))


def _conj_sum(same: Array, crossed: Array, axis: int | tuple[int, ...]) -> Array:
    """The sum of conj(a) b, from a b and a swapped(b) entry by entry."""
    same_2N, crossed_2N = jnp.sum(same, axis=axis), jnp.sum(crossed, axis=axis)
    return jnp.stack([same_2N[0] + same_2N[1], crossed_2N[0] - crossed_2N[1]])


def _delayed(x_BL2N: Array, steps: int, reverse: bool) -> Array:
    """x of `steps` steps before (after if reverse), zero where there is none."""
    k, none = (-steps if reverse else steps), (0, 0, 0)
    return jax.lax.pad(x_BL2N, jnp.zeros((), x_BL2N.dtype), (none, (k, -k, 0), none, none))


def _entering(reverse: bool, x_BL2N: Array, x0_B2N: Array) -> Array:
    """The state that enters each step."""
    return _delayed(x_BL2N, 1, reverse).at[:, -1 if reverse else 0].add(x0_B2N)


# A method returns x, and for a w_BL2N the sum over B and L of conj(w_l) x', x' being the state that
# enters step l; None without w.


def _associative(z_N, phase_N, v_BL2N, x0_B2N, reverse, w_BL2N):
    def tree(v_BL2N: Array, stride: int) -> Array:
        """The scan of a sequence whose neighbours are `stride` steps apart, group by group.

        What the steps of a group add is a sum over them, with exact powers: XLA makes it in the
        pass that reads them, where a chain of steps would be written down step by step.
        """
        B, L, _, N = v_BL2N.shape
        if L == 1:
            return v_BL2N + _times(_powers(z_N, phase_N, [stride])[0], x0_B2N)[:, None]
        R = min(_R, L)
        groups = -(-L // R)
        padding = groups * R - L
        first = padding if reverse else 0
        v_BL2N = jnp.pad(v_BL2N, ((0, 0), (first, padding - first), (0, 0), (0, 0)))
        v_BGR2N = v_BL2N.reshape(B, groups, R, 2, N)
        steps = np.arange(R)[:: -1 if reverse else 1]  # from the start of a group
        table = _powers(z_N, phase_N, [stride * r for r in range(R + 1)])

        def added(upto):
            """What the steps of each group add to the state at some of its steps."""
            ago_KR = upto[:, None] - steps[None, :]
            power = table[np.maximum(ago_KR, 0)].transpose(2, 0, 1, 3, 4)
            along, across = power[:, None, None]
            terms = along * v_BGR2N[:, :, None] + across * _swapped(v_BGR2N)[:, :, None]
            past = (ago_KR >= 0)[None, None, :, :, None, None]
            return jnp.sum(jnp.where(past, terms, jnp.zeros_like(terms)), axis=3)

        last_BL2N = tree(added(np.array([R - 1]))[:, :, 0], R * stride)
        entering = _entering(reverse, last_BL2N, x0_B2N)
        along, across = table[steps + 1].transpose(1, 0, 2, 3)[:, None, None]
        x = added(steps) + (along * entering[:, :, None] + across * _swapped(entering)[:, :, None])
        return x.reshape(B, groups * R, 2, N)[:, first : first + L]

    x_BL2N = tree(v_BL2N, 1)
    if w_BL2N is None:
        return x_BL2N, None
    entering_BL2N = _entering(reverse, x_BL2N, x0_B2N)
    return x_BL2N, _conj_sum(w_BL2N * entering_BL2N, w_BL2N * _swapped(entering_BL2N), (0, 1))


def _chunked(z_N, phase_N, v_BL2N, x0_B2N, reverse, w_BL2N):
    B, L, _, N = v_BL2N.shape
    symbolic = jax.export.is_symbolic_dim(L)
    T = _T if symbolic else min(_T, 1 << math.ceil(math.log2(L)))
    blocks = -(-L // T)
    chunks = -(-blocks // _Q)
    Q = _Q if symbolic else -(-blocks // chunks)
    # Pad to whole chunks, on the side where the scan ends.
    padding = chunks * Q * T - L
    before, after = (padding, 0) if reverse else (0, padding)
    # Powers over a chunk; over 1, 2, 4, .. blocks; from the start of the chunk to each block.
    strides = [1 << k for k in range(math.ceil(math.log2(Q)))]
    order = reversed(range(Q)) if reverse else range(Q)
    table = _powers(z_N, phase_N, [T * step for step in (Q, *strides, *order)])
    over_chunk, over_blocks, to_block = table[0], table[1:-Q], table[None, -Q:]
    # A_bar as a sum of two float32 numbers.
    (re_N, _), (_, im_N) = A_22N = _powers(z_N, phase_N, [1])[0]
    low_22N = _factor(*rest_of_power((re_N, im_N), z_N, phase_N))

    def in_blocks(x_BL2N: Array) -> Array:
        x_BL2N = jnp.pad(x_BL2N, ((0, 0), (before, after), (0, 0), (0, 0)))
        return x_BL2N.reshape(B, chunks, Q, T, 2, N)

    def chunk(i, carry):
        x_B2N, data, sums = carry

        def at(r):  # the index of step r of the chunk's blocks
            return (0, chunks - 1 - i, 0, T - 1 - r, 0, 0) if reverse else (0, i, 0, r, 0, 0)

        def read(data, r):
            size = (B, 1, Q, 1, 2, N)
            part = jax.lax.dynamic_slice(data, at(r), size, allow_negative_indices=False)
            return part.reshape(B, Q, 2, N)

        def step(data, r, x_BQ2N):
            return _times(A_22N, x_BQ2N) + (_times(low_22N, x_BQ2N) + read(data, r))

        def write(r, carry):
            x_BQ2N, data, sums = carry
            if w_blocks is not None:
                w_BQ2N = read(w_blocks, r)
                sums = sums[0] + w_BQ2N * x_BQ2N, sums[1] + w_BQ2N * _swapped(x_BQ2N)
            x_BQ2N = step(data, r, x_BQ2N)
            part = x_BQ2N[:, None, :, None]
            data = jax.lax.dynamic_update_slice(data, part, at(r), allow_negative_indices=False)
            return x_BQ2N, data, sums

        # What each block adds to the state, from zero.
        added_BQ2N = jax.lax.fori_loop(0, T, partial(step, data), zero_BQ2N)
        # The same with all blocks of the chunk before it, by doubling, so that no state meets more
        # than log2(Q) rounded powers.
        for k, stride in enumerate(strides):
            earlier = _delayed(added_BQ2N, stride, reverse)
            added_BQ2N = added_BQ2N + _times(over_blocks[k], earlier)
        # Each block starts with the chunk's first state, moved to it, and what was added since.
        along, across = to_block[:, :, 0], to_block[:, :, 1]
        x_BQ2N = along * x_B2N[:, None] + across * _swapped(x_B2N)[:, None]
        x_BQ2N = x_BQ2N + _delayed(added_BQ2N, 1, reverse)
        _, data, sums = jax.lax.fori_loop(0, T, write, (x_BQ2N, data, sums))
        last = 0 if reverse else -1
        return _times(over_chunk, x_B2N) + added_BQ2N[:, last], data, sums

    zero_BQ2N = jnp.zeros_like(v_BL2N, shape=(B, Q, 2, N))
    w_blocks = None if w_BL2N is None else in_blocks(w_BL2N)
    sums = None if w_BL2N is None else (zero_BQ2N, zero_BQ2N)
    # The states overwrite the inputs step by step: fresh memory costs more than the arithmetic.
    carry = (x0_B2N, in_blocks(v_BL2N), sums)
    _, data, sums = jax.lax.fori_loop(0, chunks, chunk, carry)
    x_BL2N = data.reshape(B, L + padding, 2, N)[:, before : before + L]
    return x_BL2N, None if sums is None else _conj_sum(sums[0], sums[1], (0, 1))


_METHODS = {"chunked": _chunked, "associative": _associative}


@partial(Ruled, static=2)
def _scan(reverse, method, z_N, phase_N, v_BL2N, x0_B2N):
    return _METHODS[method](z_N, phase_N, v_BL2N, x0_B2N, reverse, None)[0]


@_scan.defjvp
def _scan_jvp(reverse, method, primals, tangents):
    z_N, phase_N, _, x0_B2N = primals
    x_BL2N = _scan(reverse, method, *primals)

    def forward(residuals, tangents):
        """dx_l = A_bar dx_{l-1} + A_bar dz x_{l-1} + dv_l."""
        z_N, phase_N, x_BL2N, x0_B2N = residuals
        dz_N, dv_BL2N, dx0_B2N = tangents
        dA_2N = _times(_powers(z_N, phase_N, [1])[0], in_parts(dz_N))
        drive_BL2N = dv_BL2N + _times(_factor(*dA_2N), _entering(reverse, x_BL2N, x0_B2N))
        return _scan(reverse, method, z_N, phase_N, drive_BL2N, dx0_B2N)

    def backward(residuals, g_BL2N):
        return _backward_scan(reverse, method, *residuals, g_BL2N)

    residuals = z_N, phase_N, x_BL2N, x0_B2N
    return x_BL2N, linear_map(forward, backward, residuals, (tangents[0], *tangents[2:]))


def _cotangents(fused, reverse, method, z_N, phase_N, x_BL2N, x0_B2N, g_BL2N):
    """Of z, v and x0. With G = d/dRe + i d/dIm of the loss: G_v,l = g_l + conj(A_bar) G_v,l+1.

    If `fused`, the sum for z is taken in the loop over the steps, as they pass.
    """
    back = z_N.conj(), Phase(-phase_N.ticks, -phase_N.rest)
    zero_B2N, first = jnp.zeros_like(x0_B2N), -1 if reverse else 0
    if fused:
        dv_BL2N, total_2N = _METHODS[method](*back, g_BL2N, zero_B2N, not reverse, x_BL2N)
        dv_B2N = dv_BL2N[:, first]
        total_2N = total_2N + _conj_sum(x0_B2N * dv_B2N, x0_B2N * _swapped(dv_B2N), 0)
    else:
        dv_BL2N = _scan(not reverse, method, *back, g_BL2N, zero_B2N)
        x_BL2N = _entering(reverse, x_BL2N, x0_B2N)
        total_2N = _conj_sum(x_BL2N * dv_BL2N, x_BL2N * _swapped(dv_BL2N), (0, 1))
    A_22N = _powers(*back, [1])[0]
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    dz_re_N, dz_im_N = _times(A_22N, total_2N)
    return jax.lax.complex(dz_re_N, -dz_im_N), dv_BL2N, _times(A_22N, dv_BL2N[:, first])


_backward_scan = Ruled(partial(_cotangents, True), static=2)


@_backward_scan.defjvp
def _backward_jvp(reverse, method, primals, tangents):
    z_N, phase_N, *point = primals

    def unfused(z_N, *point):
        return _cotangents(False, reverse, method, z_N, phase_N, *point)

    direction = tangents[0], *tangents[2:]
    return _backward_scan(reverse, method, *primals), jax.jvp(unfused, (z_N, *point), direction)[1]
