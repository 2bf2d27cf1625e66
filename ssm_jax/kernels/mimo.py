r"""A MIMO diagonal SSM (S5, arXiv:2208.04933): H real channels in and out, N complex modes.

    x_l = A_bar x_{l-1} + B_bar u_l,    y_l = Re C x_l

With two read-outs the states of the same system run from the end are added. Both directions count
the present input (OC-26). Products run at full float32 precision on every backend.
"""

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type, one_program
from ssm_jax.kernels.devices import (
    materialize,
    of_rows,
    on_any_mesh,
    on_cpu,
    per_device,
    some_at_once,
)
from ssm_jax.kernels.powers import power
from ssm_jax.kernels.scan import scan_parts

_FULL = jax.lax.Precision.HIGHEST  # or accelerators round the operands to TF32


@on_any_mesh("BLH")
@one_program
@in_one_type
def mimo_scan(u_BLH, z_N, phase_N, B_bar_NH, C_CHN, gain_HF=None) -> Array:
    """y_BLH = Re C x of a real input, from a zero state; or that with a gain on its spectrum.

    With a gain it is a convolution on a circle of 2L steps, as in `fft_conv`: kernels have L taps
    and inputs are padded with zeros to 2L. The states of kernels that end after L taps obey

        x_l = A_bar x_{l-1} + B_bar (u_l - A_bar^L u_{l-L}),

    so this too is a scan, over 2L steps. Only the gain takes FFTs, of the H outputs: with the modes
    in the frequency domain a gradient takes twice the processor time (350 against 160 ms on two CPU
    cores: B = 4, L = 2048, H = 128, N = 64).

    z and its phase are as `discretize.exponent` gives them. The read-out C is forward, then reverse
    if there are two. The gain is on the F = L + 1 bins of a real FFT of length 2L.
    """
    _, L, H = u_BLH.shape
    (N,) = z_N.shape
    if B_bar_NH.shape != (N, H) or C_CHN.shape not in ((1, H, N), (2, H, N)):
        raise ValueError(
            f"mimo: input {u_BLH.shape} and {N} modes need B {(N, H)} and C (1 or 2, {H}, {N}); "
            f"got B {B_bar_NH.shape}, C {C_CHN.shape}."
        )
    if gain_HF is not None and gain_HF.shape != (H, L + 1):
        needs = f"needs a gain on {L + 1} bins, {(H, L + 1)}, got {gain_HF.shape}."
        raise ValueError(f"mimo_conv: input {u_BLH.shape} {needs}")
    v_BL2N = steps_BM2N = to_modes(u_BLH, B_bar_NH)
    if gain_HF is not None:
        ending_BL2N = to_modes(u_BLH, -power(z_N, phase_N, L)[:, None] * B_bar_NH)
        v_BL2N, ending_BL2N = materialize((v_BL2N, ending_BL2N), z_N.real[0])
        steps_BM2N = jnp.concatenate([v_BL2N, ending_BL2N], axis=1)
    states = [scan_parts(z_N, phase_N, steps_BM2N)]
    if C_CHN.shape[0] == 2:
        if gain_HF is not None:  # from step L - 1 down to step -L, which on the circle is L
            steps_BM2N = jnp.concatenate([ending_BL2N, v_BL2N], axis=1)
        x_BM2N = scan_parts(z_N, phase_N, steps_BM2N, reverse=True)
        if gain_HF is not None:
            # Turned here, and not in the outputs: their sum with the others would be taken while
            # they are transposed for the FFT, and slowly.
            x_BM2N = jnp.concatenate([x_BM2N[:, L:], x_BM2N[:, :L]], axis=1)
        states.append(x_BM2N)
    if on_cpu():
        y_BMH = read_out(states[0], C_CHN[0])
        for x_BM2N, C_HN in zip(states[1:], C_CHN[1:], strict=True):
            y_BMH += read_out(x_BM2N, C_HN)
    else:  # in one product: there are many more outputs than states
        y_BMH = read_out(jnp.concatenate(states, axis=-1), jnp.concatenate([*C_CHN], axis=-1))
    if gain_HF is None:
        return y_BMH

    def filtered(y_BMH: Array, gain_HF: Array) -> Array:
        Y_BHF = of_rows(jnp.fft.rfft, jnp.swapaxes(y_BMH, 1, 2), 2 * L) * gain_HF[None]
        return jnp.swapaxes(of_rows(jnp.fft.irfft, Y_BHF, 2 * L)[..., :L], 1, 2)

    return per_device(some_at_once(filtered), y_BMH, gain_HF)


def to_modes(u_BLH: Array, B_NH: Array) -> Array:
    """B u of a real input as v_BL2N: real parts, then imaginary ones."""
    B_2NH = jnp.stack([B_NH.real, B_NH.imag])
    return jnp.einsum("blh,cnh->blcn", u_BLH, B_2NH, precision=_FULL)


def read_out(x_BL2N: Array, C_HN: Array) -> Array:
    """Real y_BLH = Re C x, of x as real and imaginary parts."""
    C_H2N = jnp.stack([C_HN.real, -C_HN.imag], axis=1)
    return jnp.einsum("blcn,hcn->blh", x_BL2N, C_H2N, precision=_FULL)
