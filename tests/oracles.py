"""The mathematics of the package a second time: float64 NumPy, loops, closed forms.

Nothing here imports ssm_jax. Complex gradients follow JAX: of a real f at x + iy it is
df/dx - i df/dy, that is 2 F' for f = 2 Re F.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

LENGTHS = (1, 2, 17, 64, 257, 2048, 16384)

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_S, _W = (_NODES + 1) / 2, _WEIGHTS / 2  # on [0, 1]


def phi_1(z):
    """(e^z - 1) / z as the integral of e^{sz} over [0, 1], which has no cancellation at 0."""
    z = np.asarray(z, complex)
    near = np.abs(z) < 8
    integral = np.exp(np.where(near, z, 0)[..., None] * _S) @ _W
    away = np.where(near, 1, z)
    return np.where(near, integral, (np.exp(away) - 1) / away)


def phi_1_slope(z):
    """d/dz of phi_1: the integral of s e^{sz} over [0, 1]."""
    z = np.asarray(z, complex)
    near = np.abs(z) < 8
    integral = np.exp(np.where(near, z, 0)[..., None] * _S) @ (_S * _W)
    away = np.where(near, 1, z)
    return np.where(near, integral, (np.exp(away) - phi_1(away)) / away)


def discretize(A, dt, rule):
    """(A_bar, gain) of x_{l+1} = A_bar x_l + gain u_l."""
    A, dt = np.asarray(A, complex), np.asarray(dt, float)
    if rule == "bilinear":
        return (2 + dt * A) / (2 - dt * A), 2 * dt / (2 - dt * A)
    one_sample = phi_1(A) if rule == "none" else 1
    return np.exp(dt * A), dt * phi_1(dt * A) / one_sample


def discretize_slopes(A, dt, rule):
    """((dA_bar/dA, dgain/dA), (dA_bar/ddt, dgain/ddt))."""
    A, dt = np.asarray(A, complex), np.asarray(dt, float)
    if rule == "zoh":
        e = np.exp(dt * A)
        return (dt * e, dt**2 * phi_1_slope(dt * A)), (A * e, e)
    square = (1 - dt * A / 2) ** 2
    return (dt / square, dt**2 / 2 / square), (A / square, 1 / square)


def s4d_kernel(A_HN, C_HN, dt_H, length, rule="zoh"):
    """The impulse response by the recurrence; axes before H in C are allowed."""
    A_bar, gain = discretize(A_HN, np.asarray(dt_H, float)[:, None], rule)
    C = np.asarray(C_HN, complex)
    x_HN = gain  # the state after a unit impulse
    k_LH = []
    for _ in range(length):
        k_LH.append(2 * np.sum(C * x_HN, axis=-1).real)
        x_HN = A_bar * x_HN
    return np.moveaxis(np.stack(k_LH), 0, -1)


def s4d_kernel_gradients(A_HN, C_HN, dt_H, g_HL, rule="zoh"):
    """Gradients of sum g k by A, C and dt, from closed derivatives; that by dt for each mode."""
    dt = np.asarray(dt_H, float)[:, None]
    A, C = np.asarray(A_HN, complex), np.asarray(C_HN, complex)
    A_bar, gain = discretize(A, dt, rule)
    (bar_A, gain_A), (bar_dt, gain_dt) = discretize_slopes(A, dt, rule)
    dA, dC, ddt = np.zeros_like(A), np.zeros_like(A), np.zeros(A.shape)
    power, before = np.ones_like(A), np.zeros_like(A)  # A_bar^l, A_bar^(l-1)
    for step in range(g_HL.shape[1]):
        g = np.asarray(g_HL[:, step], float)[:, None]
        dC += 2 * g * gain * power
        dA += 2 * g * C * (gain_A * power + gain * step * before * bar_A)
        ddt += (2 * g * C * (gain_dt * power + gain * step * before * bar_dt)).real
        before, power = power, power * A_bar
    return dA, dC, ddt


def two_sided(u_LH, k_HL, reverse_HL=None):
    """y_t = sum_j k[j] u_{t-j} + sum_j k_rev[j] u_{t+1+j} at t = -L..2L-1; time is the first axis.

    NumPy's convolve multiplies and adds, without an FFT.
    """
    u_HL, k_HL = np.asarray(u_LH, float).T, np.asarray(k_HL, float)
    H, L = u_HL.shape
    y_HT = np.zeros((H, 3 * L))  # y_t stands at L + t
    for h in range(H):
        y_HT[h, L : 3 * L - 1] += np.convolve(u_HL[h], k_HL[h])
        if reverse_HL is not None:
            y_HT[h, : 2 * L - 1] += np.convolve(u_HL[h], np.asarray(reverse_HL[h, ::-1], float))
    return y_HT.T


def convolve(u_LH, k_HL, reverse_HL=None, gain_HF=None):
    """The first L steps of the convolution, after a gain on the circle of length 2L."""
    L = len(u_LH)
    y = two_sided(u_LH, k_HL, reverse_HL)
    if gain_HF is None:
        return y[L : 2 * L]
    circle = y[L:].copy()
    circle[L:] += y[:L]
    Y = np.fft.rfft(circle, axis=0) * np.asarray(gain_HF, float).T
    return np.fft.irfft(Y, 2 * L, axis=0)[:L]


def frequency(n, unit):
    """|s| at the bins 0..n/2."""
    k = np.arange(n // 2 + 1)
    per_bin = {"lra": 1 / n, "hz_1e4": 1e-4, "denoise": 52.4288 / n, "rad": 2 * np.pi / n}
    return k * per_bin[unit]


def s4d_layer(p, u_LH, *, rule="zoh", dt_of="softplus", unit="lra", length=None):
    """The layer from its parameters; `length`: steps from there on are set to zero first."""
    H, N = p["C_ri"].shape[1:3]
    u_LH = np.array(u_LH, float)
    u_LH[len(u_LH) if length is None else length :] = 0
    A = np.empty((H, N), complex)
    for h in range(H):
        s = h % len(p["A_im"])
        A[h] = -np.exp(p["A_re_raw"][s]) + 1j * p["A_im"][s]
    dt = np.exp(p["dt_raw"])
    if dt_of == "softplus":
        dt = np.log1p(dt)
    C = p["C_ri"][..., 0] + 1j * p["C_ri"][..., 1]
    L = len(u_LH)
    kernels = [s4d_kernel(A, C[c], dt, L, rule) for c in range(len(C))]
    gain = (1 + frequency(2 * L, unit)) ** p["beta"][:, None]
    return convolve(u_LH, kernels[0], *kernels[1:], gain_HF=gain) + p["D"] * u_LH


def normalize(x, axes, scale, bias):
    """Zero mean and unit biased variance over `axes`, with epsilon 1e-5."""
    centered = x - x.mean(axis=axes, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=axes, keepdims=True) + 1e-5) * scale + bias


def norm(p, x, kind, train):
    """Batch norm by the batch's statistics or by the running ones; layer norm."""
    if kind == "layer":
        return normalize(x, -1, p["scale"], p["bias"])
    if train:
        return normalize(x, (0, 1), p["scale"], p["bias"])
    return (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def glu(x):
    value, gate = np.split(x, 2, axis=-1)
    return value / (1 + np.exp(-gate))


def block(p, x, lengths, *, kind, prenorm, train):
    """The block without dropout on (B, L, H)."""
    y = norm(p["norm"], x, kind, train) if prenorm else x
    y = np.stack([s4d_layer(p["ssm"], u, length=n) for u, n in zip(y, lengths, strict=True)])
    y = x + glu(linear(p["glu"], gelu(y)))
    return y if prenorm else norm(p["norm"], y, kind, train)


def pool(x, lengths, mode):
    rows = []
    for x_LH, n in zip(x, lengths, strict=True):
        real = x_LH[:n]
        rows.append(
            {"last": real[-1], "first": real[0], "mean": real.mean(0), "sum": real.sum(0)}[mode]
        )
    return np.stack(rows)


def classifier(p, inputs, lengths, *, kind, prenorm, mode, train=False):
    """The logits, without dropout."""
    encoder = p["encoder"]
    x = encoder["embedding"][inputs] if "embedding" in encoder else linear(encoder, inputs)
    for i in sorted(p["blocks"]):
        x = block(p["blocks"][i], x, lengths, kind=kind, prenorm=prenorm, train=train)
    if prenorm:
        x = norm(p["norm"], x, kind, train)
    return linear(p["decoder"], pool(x, lengths, mode))


# S4: A = diag(Lambda) - P P^*, as a dense real matrix


def dplr_matrices(A, P, B, C, dt):
    """(A_bar, B_bar, c) of order 2N, one channel: x_l = A_bar x_{l-1} + B_bar u_l, y_l = c x_l.

    The real state is [Re z, Im z] of z' = Lambda z - P 2 Re(P^* z) + B u, and y = 2 Re(C z).
    """
    A, P, B, C = (np.asarray(a, complex) for a in (A, P, B, C))
    p = np.concatenate([P.real, P.imag])
    matrix = np.block([[np.diag(A.real), -np.diag(A.imag)], [np.diag(A.imag), np.diag(A.real)]])
    matrix -= 2 * np.outer(p, p)
    one = np.eye(len(p))
    inverse = np.linalg.inv(one - dt / 2 * matrix)
    B_bar = inverse @ (dt * np.concatenate([B.real, B.imag]))
    return inverse @ (one + dt / 2 * matrix), B_bar, 2 * np.concatenate([C.real, -C.imag])


def dplr_recurrence(A_HN, P_HN, B_HN, C_HN, dt_H, u_LH, x0_HN=None):
    """(y_LH, complex states before the first and after each step), by one matrix per channel."""
    H, N = np.shape(A_HN)
    channels = [
        dplr_matrices(*row, float(dt))
        for *row, dt in zip(A_HN, P_HN, B_HN, C_HN, dt_H, strict=True)
    ]
    A_bar, B_bar, c = (np.stack(parts) for parts in zip(*channels, strict=True))
    x = np.zeros((H, 2 * N)) if x0_HN is None else np.concatenate([x0_HN.real, x0_HN.imag], -1)
    states, outputs = [x], []
    for u_H in np.asarray(u_LH, float):
        # not matmul: its threads cost more than the products
        x = np.einsum("hij,hj->hi", A_bar, x) + B_bar * u_H[:, None]
        states.append(x)
        outputs.append(np.sum(c * x, axis=1))
    states = np.stack(states)
    return np.stack(outputs), states[..., :N] + 1j * states[..., N:]


def dplr_kernel(A_HN, P_HN, B_HN, C_HN, dt_H, length):
    """The impulse response of the recurrence, (H, L)."""
    impulse = np.eye(length, 1) * np.ones((1, len(A_HN)))
    return dplr_recurrence(A_HN, P_HN, B_HN, C_HN, dt_H, impulse)[0].T


def s4_layer(p, u_LH, *, dt_of="exp", unit="lra", length=None, step_scale=1.0):
    """The S4 layer from its parameters; `length`: steps from there on are set to zero first."""
    sides, H = p["C_ri"].shape[:2]
    u_LH = np.array(u_LH, float)
    u_LH[len(u_LH) if length is None else length :] = 0
    of_channel = np.arange(H) % len(p["A_im"])
    A = (-np.exp(p["A_re_raw"]) + 1j * p["A_im"])[of_channel]
    P, B = ((p[name] @ [1, 1j])[of_channel] for name in ("P_ri", "B_ri"))
    dt = np.exp(p["dt_raw"])
    if dt_of == "softplus":
        dt = np.log1p(dt)
    L = len(u_LH)
    kernels = [
        dplr_kernel(A, P, B, p["C_ri"][c] @ [1, 1j], step_scale * dt, L) for c in range(sides)
    ]
    gain = (1 + frequency(2 * L, unit) / step_scale) ** p["beta"][:, None]
    return convolve(u_LH, kernels[0], *kernels[1:], gain_HF=gain) + p["D"] * u_LH


def oscillate(a, G, dt, scheme, v_L):
    """Positions x_L of x'' = -a x - G x' + v from rest, by steps of position and velocity.

    v is (L, ..), real or complex; a and dt may differ between steps, too. "im" is implicit in both
    terms and has no G, "imex" in the damping alone, and its position moves by the new velocity.
    """
    G = np.asarray(G, float)
    a_L, dt_L = (np.broadcast_to(np.asarray(x, float), v_L.shape) for x in (a, dt))
    x = speed = np.zeros(v_L.shape[1:], v_L.dtype)
    found = []
    for v, a, dt in zip(v_L, a_L, dt_L, strict=True):
        if scheme == "im":
            matrix = np.array([[np.ones_like(dt), dt * a], [-dt, np.ones_like(dt)]])
            det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
            right = speed + dt * v, x
            speed, x = (
                (matrix[1, 1] * right[0] - matrix[0, 1] * right[1]) / det,
                (matrix[0, 0] * right[1] - matrix[1, 0] * right[0]) / det,
            )
        else:
            speed = (speed + dt * (v - a * x)) / (1 + dt * G)
            x = x + dt * speed
        found.append(x)
    return np.array(found)
