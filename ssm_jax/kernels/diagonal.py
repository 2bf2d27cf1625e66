"""A diagonal SSM (S4D, arXiv:2206.11893): its convolution kernel and its recurrence.

The kernel, without an (H, N, L) array:

    k_h[l] = 2 Re sum_n w_hn e^{z_hn l},    w = C gain,  z = log A_bar

A step is l = qT + r, T near sqrt(L), and e^{zl} = e^{zqT} e^{zr}: a product of real matrices,

    k_h[qT + r] = sum_n U_hqn E_hrn,    over 2N columns
    U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})],    E = [Re e^{zr}, Im e^{zr}],

with O(H N sqrt(L)) exponentials. Its transposes are products with the same factors.

The recurrence, in parallel over Q blocks of T steps. From its start x_{qT} a block needs only
products with powers of A_bar, which all blocks share; with the kernel's first T taps k,

    x_{l+1}  = A_bar x_l + gain u_l,    y_l = 2 Re sum_n C_n x_{n,l+1},
    x_{qT+T} = e^{zT} x_{qT} + gain sum_t e^{z(T-1-t)} u_{qT+t}
    y_{qT+t} = 2 Re sum_n C_n e^{z(t+1)} x_{qT} + sum_{j <= t} k[t-j] u_{qT+j}.

So the memory is O(B H N L / T), and the outputs take L (4 N + T) multiplications per sequence and
channel. Powers over many steps come from exact angles: no error of repeated multiplication grows.
"""

from functools import partial
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels import blocks
from ssm_jax.kernels.arrays import in_one_type, one_program, sizes
from ssm_jax.kernels.blocks import FAST, block_length, product, rows
from ssm_jax.kernels.devices import materialize, on_any_mesh, on_cpu
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import ReIm, halves, parts, power_parts, powers, slope_of_power, times
from ssm_jax.kernels.rules import Ruled, linear_map

_map = jax.tree.map


@on_any_mesh(lambda named: "." * (named["C_HN"].ndim - 2) + "HL")
@one_program
@in_one_type
def s4d_kernel(A_HN, C_HN, dt_H, length: int, discretization: str = "zoh") -> Array:
    """L = length >= 1 taps of H diagonal SSMs: k_h[l] = 2 Re sum_n C_hn gain_hn A_bar_hn^l.

    A is complex, in rad per unit of time, Re A <= 0; the N conjugates are implied. dt > 0 is in
    units of time. B = 1 is folded into C; axes of C before H are allowed, and lead the result. Dot
    products run at full float32 precision on every backend. Differentiable in A, C and dt to any
    order, also where Re A = 0 and where A = 0. Error in float32: some 1e-6 of the largest value, at
    any length below 2^22 and any alpha (see tests/kernels/test_diagonal.py).
    """
    if C_HN.shape[-2:] != A_HN.shape or dt_H.shape != A_HN.shape[:1]:
        raise ValueError(
            "s4d_kernel: A is (H, N), C ends in (H, N) and dt is (H,); "
            f"got A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )
    if length < 1:
        raise ValueError(f"s4d_kernel: length must be at least 1, got {length}.")
    H, N = sizes("s4d_kernel", "A", A_HN, "HN", filled="HN")
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    _, gain_HN = DISCRETIZE[discretization](A_HN, dt_H[:, None])
    w_CHN = C_HN.reshape(-1, H, N) * gain_HN[None, :, :]
    w_CHN, z_HN, phase_HN = materialize((w_CHN, z_HN, phase_HN), dt_H[0])
    T = block_length(length)
    Q = -(-length // T)
    modes_last = on_cpu()
    if not modes_last:
        Q = -(-Q // 16) * 16
    steps = (jnp.arange(Q, dtype=jnp.int32) * T, jnp.arange(T, dtype=jnp.int32))
    k_HXT = _sums_of_powers(modes_last, w_CHN, z_HN, phase_HN, steps)  # X = C Q
    k_HCL = k_HXT.reshape(H, len(w_CHN), Q * T)[:, :, :length]
    return jnp.moveaxis(k_HCL, 1, 0).reshape(*C_HN.shape[:-2], H, length)


# Of arrays with the axes H, C, Q and N: where the last three stand if the modes are last, or not.
_AXES = {True: (1, 2, 3), False: (2, 3, 1)}


def _four(last: bool, w_CHN: Array, starts: ReIm) -> tuple[ReIm, ReIm]:
    """w and e^{zqT}, which broadcast over the axes H, C, Q and N in their order."""
    C, Q, _ = _AXES[last]
    w = jnp.expand_dims(jnp.moveaxis(w_CHN, 0, C if last else -1), Q)
    return parts(w), _map(lambda x: jnp.expand_dims(x, C), starts)


def _weighted(last: bool, w_CHN: Array, starts: ReIm) -> Array:
    """U as (H, C Q, 2N), or as (H, 2N, C Q)."""
    re, im = times(*_four(last, w_CHN, starts))
    U = jnp.concatenate([2 * re, -2 * im], axis=_AXES[last][2])
    return U.reshape(len(U), -1, U.shape[3]) if last else U.reshape(*U.shape[:2], -1)


def _sums(last: bool, U: Array, E_HT2N: Array) -> Array:
    return product(U, E_HT2N, (2, 2) if last else FAST)


def _factored(last, w_CHN: Array, z_HN: Array, phase_HN: Phase, steps: tuple) -> Any:
    """The sums over n, and (w, e^{zqT} as two (H, Q, N) or (H, N, Q), E, (qT, r))."""
    aside = 1 if last else 2
    phase = Phase(*(jnp.expand_dims(part, aside) for part in phase_HN))
    start = jnp.expand_dims(steps[0], (0, 2 if last else 1))
    starts = power_parts(jnp.expand_dims(z_HN, aside), phase, start)
    E_HT2N = powers(z_HN, phase_HN, steps[1])
    k_HXT = _sums(last, _weighted(last, w_CHN, starts), E_HT2N)
    return k_HXT, (w_CHN, starts, E_HT2N, (start, steps[1][None, :, None]))


@partial(Ruled, static=1)
def _sums_of_powers(*arguments: Any) -> Array:
    return _factored(*arguments)[0]


@_sums_of_powers.defjvp
def _sums_of_powers_jvp(last, primals, tangents):
    k_HXT, factors = _factored(last, *primals)
    maps = partial(_forward, last), partial(_backward, last)
    return k_HXT, linear_map(*maps, factors, tangents[:2])


def _forward(last, factors, tangents):
    """dk by dw and dz."""
    w_CHN, starts, E_HT2N, (start, inner) = factors
    dw_CHN, dz_HN = tangents
    dstarts = slope_of_power(starts, jnp.expand_dims(dz_HN, 1 if last else 2), start)
    dE = slope_of_power(halves(E_HT2N), dz_HN[:, None], inner)
    dU = _weighted(last, dw_CHN, starts) + _weighted(last, w_CHN, dstarts)
    dE_HT2N = jnp.concatenate(dE, axis=-1)
    return _sums(last, dU, E_HT2N) + _sums(last, _weighted(last, w_CHN, starts), dE_HT2N)


def _backward(last, factors, dk_HXT):
    """dw and dz by dk, with products alone: the powers are known, so no exponential is taken."""
    w_CHN, starts, E_HT2N, (start, inner) = factors
    C, Q, N = _AXES[last]
    dE_HT2N = product(dk_HXT, _weighted(last, w_CHN, starts), (1, 1) if last else FAST)
    dU = product(dk_HXT, E_HT2N, (2, 1)) if last else product(E_HT2N, dk_HXT, FAST)
    four = list(dU.shape[:1]) * 4
    four[C], four[Q], four[N] = len(w_CHN), start.size, E_HT2N.shape[-1]

    def times_conj(a: ReIm, b: ReIm) -> ReIm:
        return a[0] * b[0] + a[1] * b[1], a[1] * b[0] - a[0] * b[1]

    # From U = 2 w e^{zqT} to w and e^{zqT}; then from both powers to z: d/dz e^{zl} = l e^{zl}.
    dre, dim = jnp.split(dU.reshape(four), 2, axis=N)
    du = 2 * dre, -2 * dim
    w, each = _four(last, w_CHN, starts)
    dw_re, dw_im = (jnp.sum(x, axis=Q) for x in times_conj(du, each))
    dstarts = _map(lambda x: jnp.sum(x, axis=C), times_conj(du, w))

    def by_z(power: ReIm, dpower: ReIm, steps: Array, axis: int) -> list[Array]:
        steps = steps.astype(power[0].dtype)
        return [jnp.sum(steps * x, axis=axis) for x in times_conj(dpower, power)]

    outer = by_z(starts, dstarts, start, axis=Q - 1)
    inner = by_z(halves(E_HT2N), halves(dE_HT2N), inner, axis=1)
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    dw_CHN = jnp.moveaxis(dw_re - 1j * dw_im, C, 0)
    return dw_CHN, (outer[0] + inner[0]) - 1j * (outer[1] + inner[1])


@on_any_mesh("BLH", "BHN")
@one_program
@in_one_type
def s4d_recurrence(
    u_BLH, A_HN, C_HN, dt_H, x0_BHN=None, lengths_B=None, *, discretization: str = "zoh"
) -> tuple[Array, Array]:
    """(y_BLH, x_BHN) of H diagonal SSMs from a complex state x0 on; B = 1 is folded into C.

    Equal to convolving with `s4d_kernel` where the state is zero (None). Arguments as there, C
    without leading axes. The state returned is that after lengths_B steps
    (`arrays.checked_lengths`; None: L). Differentiable. Error in float32: some 1e-6 of the largest
    value, at any length below 2^22 (see tests/kernels/test_recurrence.py).
    """
    B, L, H = sizes("s4d_recurrence", "u", u_BLH, "BLH", filled="LH")
    N = A_HN.shape[-1]
    if not A_HN.shape == C_HN.shape == (H, N) or dt_H.shape != (H,):
        raise ValueError(
            "s4d_recurrence: u is (B, L, H), A and C are (H, N) and dt is (H,); "
            f"got u {u_BLH.shape}, A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )
    T = block_length(L)
    Q = -(-L // T)
    ends_B, u_HBL, x0_HBN, A_HN, C_HN, dt_H = blocks.begun(
        "s4d_recurrence", Q, u_BLH, x0_BHN, lengths_B, A_HN, C_HN, dt_H
    )
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    _, gain_HN = DISCRETIZE[discretization](A_HN, dt_H[:, None])
    powers_HT2N = powers(z_HN, phase_HN, jnp.arange(T + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :T], powers_HT2N[:, 1:]

    # Each block alone: what it adds to the state. Then the states that the blocks start from.
    u_HBQT = u_HBL.reshape(H, B, Q, T)
    added = times(parts(gain_HN[:, None, None]), halves(rows(u_HBQT, before_HT2N[:, ::-1])))
    starts = _block_starts(parts(x0_HBN), added, z_HN, phase_HN, T)
    # The outputs: by the state at the start, and by the inputs of the block.
    start_HX2N = jnp.concatenate(starts, axis=-1).reshape(H, B * Q, 2 * N)
    readout_HT2N = blocks.readout_rows(C_HN, after_HT2N)
    by_start_HXT = product(start_HX2N, readout_HT2N, contract=(2, 2))
    k_HTT = blocks.toeplitz(blocks.taps(C_HN * gain_HN, before_HT2N))
    y_HXT = by_start_HXT + rows(u_HBQT.reshape(H, B * Q, T), k_HTT)

    # The last state: from the start of the block with the last step, over the r steps of it.
    block_B, r_B = blocks.last_block(ends_B, T)
    tail_HB2N = rows(blocks.last_steps(u_HBL, ends_B, T), before_HT2N[:, ::-1])
    tail = times(parts(gain_HN[:, None]), halves(tail_HB2N))
    first = _map(lambda x_HBQN: blocks.of_block(x_HBQN, block_B), starts)
    state = _map(add, times(halves(powers(z_HN, phase_HN, r_B)), first), tail)
    return blocks.ended(y_HXT.reshape(H, B, Q * T), state, L)


def _block_starts(x0: ReIm, added: ReIm, z_HN: Array, phase_HN: Phase, T: int) -> ReIm:
    """The states x_0 .. x_{Q-1} of x_{q+1} = e^{zT} x_q + added_q, over axis 2 of (H, B, Q, N).

    In groups of S blocks, S near sqrt(Q), so no rounded multiplier is used more than S or Q / S
    times in a row.
    """
    H, B, Q, N = added[0].shape
    S = block_length(Q)
    G = -(-Q // S)
    over_blocks = powers(z_HN, phase_HN, T * jnp.arange(S + 1, dtype=jnp.int32))
    power = _map(lambda p: jnp.moveaxis(p, 1, 0), halves(over_blocks))  # (S + 1, H, N)

    def blocks_first(x_HBQN: Array) -> Array:
        """(S, H, B, G, N), with zeros for the blocks that the last group lacks."""
        x_HBQN = jnp.pad(x_HBQN, ((0, 0), (0, 0), (0, G * S - Q), (0, 0)))
        return jnp.moveaxis(x_HBQN.reshape(H, B, G, S, N), 3, 0)

    def scan(start: ReIm, added: ReIm, power: ReIm) -> tuple[ReIm, ReIm]:
        """The last state, and those before each element of `added`."""
        return jax.lax.scan(lambda x, new: (_map(add, times(power, x), new), x), start, added)

    # From zero within all groups at once, then from group to group. Each element last begins with
    # the state of its group, moved on by exact powers.
    zero = jnp.zeros_like(added[0], shape=(H, B, G, N))
    one_block = _map(lambda p: p[1][:, None, None], power)
    group, within = scan((zero, zero), _map(blocks_first, added), one_block)
    one_group = _map(lambda p: p[S][:, None], power)
    _, begin = scan(x0, _map(lambda x: jnp.moveaxis(x, 2, 0), group), one_group)
    to_block = _map(lambda p: p[:S, :, None, None], power)
    carried = times(to_block, _map(lambda x: jnp.moveaxis(x, 0, 2)[None], begin))
    states = _map(add, within, carried)  # (S, H, B, G, N)
    return _map(lambda x: jnp.moveaxis(x, 0, 3).reshape(H, B, G * S, N)[:, :, :Q], states)
