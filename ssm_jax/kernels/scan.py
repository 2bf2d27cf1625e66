r"""The recurrence of a time-invariant diagonal SSM over whole sequences.

    x_l = A_bar x_{l-1} + v_l,    A_bar = e^z,    v_l = B_bar u_l

S5 (arXiv:2208.04933) finds the states by a parallel scan over pairs of a power of A_bar and x.
Here A_bar comes as z and the exact phase of Im z (`discretize.exponent`), so the power that skips k
steps is known at once, and as exact as A_bar itself. The error does not grow with l, as it does
where A_bar is multiplied again and again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.discretize import Multiplier, factor, from_parts, in_parts, swapped, times
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.rules import Ruled, linear_map
from ssm_jax.kernels.sharding import on_any_mesh, vary_alike

METHODS = ("auto", "chunked", "associative")

# "chunked": T steps in a block, and Q blocks side by side in a loop. Two CPU cores, B = 4, N = 64:
# flat for T from 32 to 128 and Q from 4 to 8. With all 256 blocks of L = 16384 side by side a scan
# takes twice as long: the states of one step then fill the L2 cache.
_BLOCK = 64
_BLOCKS = 8


@on_any_mesh("BLN")
@in_one_type
def diagonal_scan(
    z_N: Array,
    phase_N: Phase,
    v_BLN: Array,
    x0_BN: Array | None = None,
    *,
    reverse: bool = False,
    method: str = "auto",
) -> Array:
    """All states x_l = A_bar x_{l-1} + v_l of N modes.

    Differentiable in z, v and x0, in both modes and to any order. The backward pass is the reverse
    recurrence and keeps x alone. Methods:

    chunked: l = (c Q + q) T + r. Loops over the T steps of a block, for Q blocks side by side: once
      for what each block adds to the state, once for the states. The chunks c follow one another.
    associative: pairs of steps are joined, the half as long sequence is scanned, and the other
      steps follow: 2 log2(L) passes without a loop. As `jax.lax.associative_scan`, but there are no
      products of A_bar to compute, to store and to round.
    auto: chunked on a CPU, else associative, since on an accelerator each step of a loop is a
      launch. That is reasoned; measured is the CPU.

    Args:
      z_N: complex log A_bar. Re z > 0 is allowed, as long as nothing overflows.
      phase_N: the phase of Im z.
      v_BLN: complex input, L at least 1 and below 2^22.
      x0_BN: complex state before the first step; None: zero.
      reverse: x_l = A_bar x_{l+1} + v_l instead, from x0 = x_L.
      method: one of METHODS.

    Returns:
      Complex x_BLN. Error in float32: some 1e-6 of the largest value, by either method and at any
      length and damping (see tests/kernels/test_scan.py).

    Raises:
      ValueError: if a shape does not fit, or the method is unknown.
    """
    B, L, N = v_BLN.shape
    if L < 1 or z_N.shape != (N,) or (x0_BN is not None and x0_BN.shape != (B, N)):
        raise ValueError(
            "diagonal_scan: v is (B, L, N) with L >= 1, z is (N,) and x0 is (B, N); got "
            f"v {v_BLN.shape}, z {z_N.shape}, x0 {None if x0_BN is None else x0_BN.shape}."
        )
    x0_B2N = None if x0_BN is None else in_parts(x0_BN)
    x_BL2N = scan_parts(z_N, phase_N, in_parts(v_BLN), x0_B2N, reverse=reverse, method=method)
    return from_parts(x_BL2N)


def scan_parts(
    z_N: Array,
    phase_N: Phase,
    v_BL2N: Array,
    x0_B2N: Array | None = None,
    *,
    reverse: bool = False,
    method: str = "auto",
) -> Array:
    """`diagonal_scan` of v and x0 given as real parts, then imaginary ones; so is x."""
    if method not in METHODS:
        raise ValueError(
            f"diagonal_scan: unknown method {method!r}; choose one of {', '.join(METHODS)}."
        )
    if method == "auto":
        symbolic = jax.export.is_symbolic_dim(v_BL2N.shape[1])  # halving needs a known length
        method = "chunked" if symbolic or jax.default_backend() == "cpu" else "associative"
    if x0_B2N is None:
        x0_B2N = jnp.zeros_like(v_BL2N[:, 0])
    return _scan(reverse, method, *vary_alike(z_N, phase_N, v_BL2N, x0_B2N))


def state_after(x_BL2N: Array, lengths_B: Array | None, x0_B2N: Array) -> Array:
    """The state x_B2N after the first lengths_B steps (all if None): x0 where that is 0.

    Not the last of x_BL2N: in the padding behind a sequence the state decays.
    """
    if lengths_B is None:
        return x_BL2N[:, -1]
    last_B111 = jnp.maximum(lengths_B - 1, 0)[:, None, None, None]
    x_B2N = jnp.take_along_axis(x_BL2N, last_B111, axis=1)[:, 0]
    return jnp.where((lengths_B > 0)[:, None, None], x_B2N, x0_B2N)


# A method takes A_bar, v, x0, reverse, and maybe w_BL2N. It returns x, and with w the sum over B
# and L of conj(w_l) x', x' being the state that enters step l.
Result = tuple[Array, Array | None]
Method = Callable[[Multiplier, Array, Array, bool, Array | None], Result]


def _folded(same_2N: Array, crossed_2N: Array) -> Array:
    """conj(a) b from a b and a swapped(b)."""
    return jnp.stack([same_2N[0] + same_2N[1], crossed_2N[0] - crossed_2N[1]])


def _delayed(x_BL2N: Array, steps: int, reverse: bool) -> Array:
    """x of `steps` steps before (behind if reverse), zero where there is none."""
    k, none = (-steps if reverse else steps), (0, 0, 0)
    return jax.lax.pad(x_BL2N, jnp.zeros((), x_BL2N.dtype), (none, (k, -k, 0), none, none))


def _associative(
    A: Multiplier, v_BL2N: Array, x0_B2N: Array, reverse: bool, w_BL2N: Array | None
) -> Result:
    first = -1 if reverse else 0
    v_BL2N = v_BL2N.at[:, first].add(times(A.powers([1])[0], x0_B2N))
    v_BLN = from_parts(v_BL2N)  # compiles twice as fast here, and is no slower
    x_BLN = _tree(A, 1, v_BLN[:, ::-1])[:, ::-1] if reverse else _tree(A, 1, v_BLN)
    x_BL2N = in_parts(x_BLN)
    if w_BL2N is None:
        return x_BL2N, None
    entering = _entering(reverse, x_BL2N, x0_B2N)
    same_2N = jnp.sum(w_BL2N * entering, axis=(0, 1))
    crossed_2N = jnp.sum(w_BL2N * swapped(entering), axis=(0, 1))
    return x_BL2N, _folded(same_2N, crossed_2N)


def _tree(A: Multiplier, stride: int, v_BLN: Array) -> Array:
    """The scan of a sequence whose neighbours are `stride` steps apart."""
    L = v_BLN.shape[1]
    if L == 1:
        return v_BLN
    (re_N, _), (_, im_N) = A.powers([stride])[0]
    power = jax.lax.complex(re_N, im_N)[None, None, :]
    odd = _tree(A, 2 * stride, v_BLN[:, 1::2] + power * v_BLN[:, :-1:2])
    even = v_BLN[:, 2::2] + power * odd[:, : (L - 1) // 2]
    even = jnp.concatenate([v_BLN[:, :1], even], axis=1)
    zero, none = jnp.zeros((), v_BLN.dtype), (0, 0, 0)
    between = jax.lax.pad(even, zero, (none, (0, 1 - L % 2, 1), none))
    return between + jax.lax.pad(odd, zero, (none, (1, L % 2, 1), none))


def _chunked(
    A: Multiplier, v_BL2N: Array, x0_B2N: Array, reverse: bool, w_BL2N: Array | None
) -> Result:
    B, L, _, N = v_BL2N.shape
    symbolic = jax.export.is_symbolic_dim(L)
    T = _BLOCK if symbolic else min(_BLOCK, 1 << math.ceil(math.log2(L)))
    blocks = -(-L // T)
    n_chunks = -(-blocks // _BLOCKS)
    Q = _BLOCKS if symbolic else -(-blocks // n_chunks)
    padding = n_chunks * Q * T - L  # on the side where the scan ends
    before, after = (padding, 0) if reverse else (0, padding)
    last = 0 if reverse else -1
    strides = [1 << k for k in range(math.ceil(math.log2(Q)))]
    order = reversed(range(Q)) if reverse else range(Q)
    table = A.powers([T * Q, *(T * s for s in strides), *(T * q for q in order)])
    over_chunk, over_blocks, to_block = table[0], table[1:-Q], table[None, -Q:]
    A_22N, low_22N = A.pair()

    def in_blocks(x_BL2N: Array) -> Array:
        x_BL2N = jnp.pad(x_BL2N, ((0, 0), (before, after), (0, 0), (0, 0)))
        return x_BL2N.reshape(B, n_chunks, Q, T, 2, N)

    def chunk(i, carry):
        x_B2N, data, sums = carry

        def at(r):
            """Where step r of the chunk's blocks lies."""
            return (0, n_chunks - 1 - i, 0, T - 1 - r, 0, 0) if reverse else (0, i, 0, r, 0, 0)

        def read(data, r):
            size = (B, 1, Q, 1, 2, N)
            part = jax.lax.dynamic_slice(data, at(r), size, allow_negative_indices=False)
            return part.reshape(B, Q, 2, N)

        def step(data, r, x_BQ2N):
            return times(A_22N, x_BQ2N) + (times(low_22N, x_BQ2N) + read(data, r))

        def write(r, carry):
            x_BQ2N, data, sums = carry
            if w_blocks is not None:
                w_BQ2N = read(w_blocks, r)
                sums = sums[0] + w_BQ2N * x_BQ2N, sums[1] + w_BQ2N * swapped(x_BQ2N)
            x_BQ2N = step(data, r, x_BQ2N)
            part = x_BQ2N[:, None, :, None]
            data = jax.lax.dynamic_update_slice(data, part, at(r), allow_negative_indices=False)
            return x_BQ2N, data, sums

        # What the blocks add to the state, alone; then with all blocks of the chunk before them, by
        # doubling, so that no state meets more than log2(Q) rounded powers.
        added_BQ2N = jax.lax.fori_loop(0, T, partial(step, data), zero_BQ2N)
        for k, stride in enumerate(strides):
            earlier = _delayed(added_BQ2N, stride, reverse)
            added_BQ2N = added_BQ2N + times(over_blocks[k], earlier)
        along, across = to_block[:, :, 0], to_block[:, :, 1]
        x_BQ2N = along * x_B2N[:, None] + across * swapped(x_B2N)[:, None]
        x_BQ2N = x_BQ2N + _delayed(added_BQ2N, 1, reverse)
        _, data, sums = jax.lax.fori_loop(0, T, write, (x_BQ2N, data, sums))
        return times(over_chunk, x_B2N) + added_BQ2N[:, last], data, sums

    zero_BQ2N = jnp.zeros_like(v_BL2N, shape=(B, Q, 2, N))
    w_blocks = None if w_BL2N is None else in_blocks(w_BL2N)
    sums = None if w_BL2N is None else (zero_BQ2N, zero_BQ2N)
    # The states overwrite the inputs step by step: fresh memory costs more than the arithmetic.
    carry = (x0_B2N, in_blocks(v_BL2N), sums)
    _, data, sums = jax.lax.fori_loop(0, n_chunks, chunk, carry)
    x_BL2N = data.reshape(B, L + padding, 2, N)[:, before : before + L]
    if sums is None:
        return x_BL2N, None
    return x_BL2N, _folded(sums[0].sum((0, 1)), sums[1].sum((0, 1)))


_METHODS: dict[str, Method] = {"chunked": _chunked, "associative": _associative}


@partial(Ruled, static=2)
def _scan(
    reverse: bool, method: str, z_N: Array, phase_N: Phase, v_BL2N: Array, x0_B2N: Array
) -> Array:
    return _METHODS[method](Multiplier(z_N, phase_N), v_BL2N, x0_B2N, reverse, None)[0]


@_scan.defjvp
def _scan_jvp(reverse, method, primals, tangents):
    z_N, phase_N, _, x0_B2N = primals
    dz_N, _, dv_BL2N, dx0_B2N = tangents
    x_BL2N = _scan(reverse, method, *primals)
    forward, backward = (partial(function, reverse, method) for function in (_forward, _backward))
    residuals = z_N, phase_N, x_BL2N, x0_B2N
    return x_BL2N, linear_map(forward, backward, residuals, (dz_N, dv_BL2N, dx0_B2N))


def _entering(reverse: bool, x_BL2N: Array, x0_B2N: Array) -> Array:
    """The state that enters each step."""
    first = -1 if reverse else 0
    return _delayed(x_BL2N, 1, reverse).at[:, first].add(x0_B2N)


def _forward(reverse, method, residuals, tangents):
    """dx_l = A_bar dx_{l-1} + A_bar dz x_{l-1} + dv_l."""
    z_N, phase_N, x_BL2N, x0_B2N = residuals
    dz_N, dv_BL2N, dx0_B2N = tangents
    dA_2N = times(Multiplier(z_N, phase_N).powers([1])[0], in_parts(dz_N))
    drive_BL2N = dv_BL2N + times(factor(*dA_2N), _entering(reverse, x_BL2N, x0_B2N))
    return _scan(reverse, method, z_N, phase_N, drive_BL2N, dx0_B2N)


def _backward(reverse, method, residuals, g_BL2N):
    return _backward_scan(reverse, method, *residuals, g_BL2N)


@partial(Ruled, static=2)
def _backward_scan(reverse, method, z_N, phase_N, x_BL2N, x0_B2N, g_BL2N):
    """With G = d/dRe + i d/dIm of the loss: G_v,l = g_l + conj(A_bar) G_v,l+1.

    The sum for z is taken in the loop over the steps, as they pass.
    """
    back = Multiplier(z_N, phase_N).conjugate()
    zero_B2N = jnp.zeros_like(x0_B2N)
    dv_BL2N, total_2N = _METHODS[method](back, g_BL2N, zero_B2N, not reverse, x_BL2N)
    assert total_2N is not None  # there was a w
    dv0_B2N = dv_BL2N[:, -1 if reverse else 0]
    of_x0_2N = _folded(jnp.sum(x0_B2N * dv0_B2N, 0), jnp.sum(x0_B2N * swapped(dv0_B2N), 0))
    return _cotangents(back, total_2N + of_x0_2N, dv_BL2N, dv0_B2N)


def _cotangents(back: Multiplier, total_2N: Array, dv_BL2N: Array, dv0_B2N: Array):
    A_22N = back.powers([1])[0]
    dz_re_N, dz_im_N = times(A_22N, total_2N)
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    return jax.lax.complex(dz_re_N, -dz_im_N), dv_BL2N, times(A_22N, dv0_B2N)


@_backward_scan.defjvp
def _backward_jvp(reverse, method, primals, tangents):
    """Of the same without the loop's sum."""
    z_N, phase_N, *point = primals

    def apart(z_N, x_BL2N, x0_B2N, g_BL2N):
        back = Multiplier(z_N, phase_N).conjugate()
        dv_BL2N = _scan(not reverse, method, *back, g_BL2N, jnp.zeros_like(x0_B2N))
        entering = _entering(reverse, x_BL2N, x0_B2N)
        same, crossed = dv_BL2N * entering, swapped(dv_BL2N) * entering
        total_2N = _folded(jnp.sum(same, axis=(0, 1)), jnp.sum(crossed, axis=(0, 1)))
        return _cotangents(back, total_2N, dv_BL2N, dv_BL2N[:, -1 if reverse else 0])

    direction = tangents[0], *tangents[2:]
    return _backward_scan(reverse, method, *primals), jax.jvp(apart, (z_N, *point), direction)[1]
