r"""A diagonal SSM at every pixel of a video, with convolutions over space in and out (ConvS5).

    x_l = A_bar x_{l-1} + B_bar * u_l,    y_l = 2 Re C * x_l

u_l and y_l are frames (Y, X, H), the state is (Y, X, N), and A_bar is one number for each mode, the
same at all pixels. B_bar and C are convolutions over a window of W x W pixels, zeros around the
frame. So the recurrence over time is that of S5 at Y X N modes. Source: arXiv:2310.19694.
"""

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type, one_program
from ssm_jax.kernels.devices import of_rows
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import power_parts
from ssm_jax.kernels.scan import from_parts, in_parts, scan_parts, state_after

_FULL = jax.lax.Precision.HIGHEST  # or accelerators round the operands to TF32


@one_program
@in_one_type
def conv_scan(
    u_BLYXH, z_N, phase_N, B_bar_WWHN, C_WWNH, x0_BYXN=None, lengths_B=None, *, chunk=None
) -> tuple[Array, Array]:
    """The state x_BYXN after the last step, and y_BLYXH = Re C * x of a real input.

    z and its phase are as `discretize.exponent` gives them; x0 is the state before the first step,
    None: zero. With lengths_B the state is that after so many steps.

    The states of all steps, 2 N numbers for each pixel of each frame, are the memory that it takes,
    and a gradient keeps them. With a `chunk` of T steps those of T steps are there at a time: the
    gradient keeps the state at the start of each chunk and computes the others again.
    """
    B, L, Y, X, H = u_BLYXH.shape
    W, (N,) = B_bar_WWHN.shape[0], z_N.shape
    if B_bar_WWHN.shape != (W, W, H, N) or C_WWNH.shape != (W, W, N, H) or W % 2 == 0:
        raise ValueError(
            f"conv_scan: input {u_BLYXH.shape} and {N} modes need B (W, W, {H}, {N}) and "
            f"C (W, W, {N}, {H}) for an odd W; got B {B_bar_WWHN.shape}, C {C_WWNH.shape}."
        )
    if x0_BYXN is None:
        x0_BYXN = jnp.zeros((B, Y, X, N), z_N.dtype)
    if u_BLYXH.size == 0:  # no video, or no pixel
        return x0_BYXN, u_BLYXH
    # All pixels have the same modes: N becomes Y X N.
    z, phase = jnp.tile(z_N, Y * X), Phase(*(jnp.tile(part, Y * X) for part in phase_N))

    def steps(carry, part):
        """Of T steps: what is carried is the state, and that after lengths_B steps."""
        (x_B2P, kept_B2P), (start, u_BTYXH) = carry, part
        T = u_BTYXH.shape[1]
        x_BT2P = scan_parts(z, phase, frames_to_modes(u_BTYXH, B_bar_WWHN), x_B2P)
        inside_B = None if lengths_B is None else jnp.clip(lengths_B - start, 0, T)
        kept_B2P = state_after(x_BT2P, inside_B, kept_B2P)
        y_BTYXH = read_out_frames(x_BT2P.reshape(B, T, 2, Y, X, N), C_WWNH)
        return (x_BT2P[:, -1], kept_B2P), y_BTYXH

    x0_B2P = in_parts(x0_BYXN.reshape(B, Y * X * N))
    carry, whole = (x0_B2P, x0_B2P), 0
    y = []
    if chunk is not None and chunk < L:
        steps, whole = jax.checkpoint(steps), L - L % chunk
        u_QBTYXH = jnp.moveaxis(u_BLYXH[:, :whole].reshape(B, -1, chunk, Y, X, H), 1, 0)
        carry, y_QBTYXH = jax.lax.scan(steps, carry, (jnp.arange(0, whole, chunk), u_QBTYXH))
        y.append(jnp.moveaxis(y_QBTYXH, 0, 1).reshape(B, whole, Y, X, H))
    if whole < L:
        carry, y_BTYXH = steps(carry, (whole, u_BLYXH[:, whole:]))
        y.append(y_BTYXH)
    return from_parts(carry[1]).reshape(B, Y, X, N), jnp.concatenate(y, axis=1)


@one_program
@in_one_type
def conv_step(x_BYXN, u_BYXH, A_bar_N, rest_N, B_bar_WWHN, C_WWNH) -> tuple[Array, Array]:
    """One step: (x, y). A_bar is given as a sum of two numbers, see `powers.lacking`."""
    v_B12P = frames_to_modes(u_BYXH[:, None], B_bar_WWHN)
    v_BYXN = from_parts(v_B12P[:, 0]).reshape(x_BYXN.shape)
    A_bar, rest = A_bar_N[None, None, None], rest_N[None, None, None]
    x_BYXN = A_bar * x_BYXN + (rest * x_BYXN + v_BYXN)
    x_B12YXN = jnp.stack([x_BYXN.real, x_BYXN.imag], axis=1)[:, None]
    return x_BYXN, read_out_frames(x_B12YXN, C_WWNH)[:, 0]


@one_program
@in_one_type
def filtered_conv_scan(u_BLYXH, z_N, phase_N, B_bar_WWHN, C_WWNH, gain_F) -> Array:
    """y_BLYXH of `conv_scan` with each mode's kernel filtered over time, and kept causal.

    The gain, on the F = L + 1 bins of a real FFT of length 2L, is that of a real and even response
    g on the circle of 2L steps, which reaches ahead. Of the filtered kernels only lags from 0 on
    are kept,

        kappa_n[l] = sum_m g[l - m] A_bar_n^m,    0 <= l, m < L,

    and y = Re C * kappa * (B_bar * u), with two convolutions over space and one over time. So y of
    a frame is of that frame and those before. It takes FFTs over time of all modes at all pixels,
    hence the whole video at once: there are no chunks.
    """
    B, L, Y, X, _ = u_BLYXH.shape
    N = z_N.size
    if gain_F.shape != (L + 1,):
        needs = f"needs a gain on {L + 1} bins, got {gain_F.shape}."
        raise ValueError(f"filtered_conv_scan: input {u_BLYXH.shape} {needs}")
    v_BL2P = frames_to_modes(u_BLYXH, B_bar_WWHN)
    if v_BL2P.size == 0:
        return u_BLYXH
    even_M = jnp.concatenate([gain_F, gain_F[1:-1][::-1]])  # bins of a complex FFT
    phase_N1 = Phase(*(part[:, None] for part in phase_N))
    power_NL = jax.lax.complex(*power_parts(z_N[:, None], phase_N1, jnp.arange(L)[None]))
    power_NM = of_rows(jnp.fft.fft, power_NL, 2 * L)
    kappa_NL = of_rows(jnp.fft.ifft, power_NM * even_M[None], 2 * L)[:, :L]
    kernel_NM = of_rows(jnp.fft.fft, kappa_NL, 2 * L)
    v_BPNL = jnp.moveaxis(from_parts(v_BL2P).reshape(B, L, Y * X, N), 1, -1)
    V_BPNM = of_rows(jnp.fft.fft, v_BPNL, 2 * L) * kernel_NM[None, None]
    x_BPNL = of_rows(jnp.fft.ifft, V_BPNM, 2 * L)[..., :L]
    x_BLYXN = jnp.moveaxis(x_BPNL, -1, 1).reshape(B, L, Y, X, N)
    return read_out_frames(jnp.stack([x_BLYXN.real, x_BLYXN.imag], axis=2), C_WWNH)


def _conv(x_BYXH: Array, w_WWHG: Array) -> Array:
    """Windows around every pixel of every frame; frames are rows of one batch."""
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x_BYXH, w_WWHG, (1, 1), "SAME", dimension_numbers=axes, precision=_FULL
    )


def frames_to_modes(u_BLYXH: Array, B_WWHN: Array) -> Array:
    """B * u as v_BL2P with P = Y X N: real parts, then imaginary ones."""
    B, L, Y, X, H = u_BLYXH.shape
    N = B_WWHN.shape[-1]
    both_WWH2N = jnp.concatenate([B_WWHN.real, B_WWHN.imag], axis=-1)
    v = _conv(u_BLYXH.reshape(B * L, Y, X, H), both_WWH2N).reshape(B, L, Y * X, 2, N)
    return jnp.moveaxis(v, 3, 2).reshape(B, L, 2, Y * X * N)


def read_out_frames(x_BL2YXN: Array, C_WWNH: Array) -> Array:
    """Real y_BLYXH = Re C * x."""
    B, L, _, Y, X, N = x_BL2YXN.shape
    both_WW2NH = jnp.concatenate([C_WWNH.real, -C_WWNH.imag], axis=2)
    x = jnp.moveaxis(x_BL2YXN, 2, 4).reshape(B * L, Y, X, 2 * N)
    return _conv(x, both_WW2NH).reshape(B, L, Y, X, C_WWNH.shape[-1])
