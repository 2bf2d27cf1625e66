r"""How much state counts: Hankel singular values of a layer, and its truncation, in float64.

What a layer does to a sequence, without filter and D, is a real linear system

    x_l = A x_{l-1} + B u_l,    y_l = C x_l,    kernel k[l] = C A^l B.

Its Hankel matrix k[i + j], from inputs i steps ago to outputs in j steps, has as many singular
values above 0 as states are needed. They are those of Z_o^T Z_c, where Z_c Z_c^T = sum A^l B B^T
A^lT and Z_o Z_o^T = sum A^lT C^T C A^l are the Gramians. A system with the r largest kept, by
balanced truncation, differs in its transfer function by at most twice the sum of the others
(Glover, Int. J. Control 39, 1984).

Which system: S4D and S4 are one for each channel, S5 is one with H inputs. A stored mode and its
conjugate are two real states; of a real pole one of them is never needed. A layer that looks both
ways has one set of modes and two read-outs: one system with twice the outputs. The filter has no
state, so the values are those of the layer without it; it multiplies what truncation changes at a
frequency by its gain there.

A pole of radius 1 or more has no Gramian: such systems have values of nan. Near it Gramians are
ill-conditioned. For S4D they are never formed: functions with these poles that are orthonormal
(Kautz's) give their factor in closed form, from differences that do not cancel, and the values
err by rounding times the largest. For S5 the Gramians are closed (Cauchy matrices), for S4 SciPy
solves for them; square roots of their rounding leave values good to 1e-7 of the largest.
"""

from typing import Any, NamedTuple

import numpy as np

from ssm_jax.analysis.spectra import LayerView

SHARES = (0.99, 0.999)
CHANNELS = 16  # of a layer that are measured, evenly chosen: the cost of a decomposition each
FASTEST = -40.0  # log of a pole that is 0 to float64's rounding of 1
RESOLVED = 1e-7  # of the largest value; smaller ones may be rounding, and are below float32's


class Factored(NamedTuple):
    """R systems of I inputs and O outputs, by factors of their Gramians; arrays are real."""

    hankel_RPQ: np.ndarray  # Z_o^T Z_c
    shifted_RPQ: np.ndarray  # Z_o^T A Z_c
    input_RPI: np.ndarray  # Z_o^T B
    output_ROQ: np.ndarray  # C Z_c


def log_poles(layer: LayerView) -> tuple[np.ndarray, np.ndarray]:
    """(log A_bar, gain), complex128, as `kernels.discretize` defines them, of (R, N)."""
    A_RN, dt_R1 = layer.A_HN.astype(np.complex128), layer.dt_H.astype(np.float64)[:, None]
    if layer.discretization == "bilinear":
        half = dt_R1 * A_RN / 2
        x, y = half.real, half.imag
        below = (1 - x) ** 2 + y**2
        square = np.maximum(((1 + x) ** 2 + y**2) / below, np.exp(2 * FASTEST))
        # log1p of |A_bar|^2 - 1 near the unit circle, and not where that cancels
        twice = np.where(square < 0.5, np.log(square), np.log1p(np.maximum(4 * x / below, -0.5)))
        return twice / 2 + 1j * np.arctan2(2 * y, 1 - x**2 - y**2), dt_R1 / (1 - half)
    z_RN = A_RN * dt_R1
    turns = z_RN.imag / (2 * np.pi)
    z_RN = np.maximum(z_RN.real, FASTEST) + 2j * np.pi * (turns - np.round(turns))
    if layer.discretization == "none":
        return z_RN, np.ones_like(z_RN)
    still = A_RN == 0
    return z_RN, np.where(still, dt_R1, np.expm1(z_RN) / np.where(still, 1, A_RN))


def kautz(z_RN: np.ndarray) -> np.ndarray:
    """Real orthonormal functions with the poles e^z and e^z*, at these poles: (R, N, 2N).

    The columns 2k and 2k + 1 are (1 + x) and (1 - x), over (1 - p x)(1 - p* x), p = e^{z_k}, times
    the all-passes of the pairs before. A system with residues c at the poles has the Gramians'
    factors sqrt(c) times these: each of its entries is right to a few units of rounding.
    """
    R, N = z_RN.shape
    x_RN, one_minus_x = np.exp(z_RN), -np.expm1(z_RN)
    values_RN2N, before = np.empty((R, N, 2 * N), complex), np.ones((R, N), complex)
    for k in range(N):
        z_R1, p_R1 = z_RN[:, k : k + 1], x_RN[:, k : k + 1]
        below = np.expm1(z_RN + z_R1) * np.expm1(z_RN + z_R1.conj())
        size = before * np.sqrt(-np.expm1(2 * z_R1.real) / 2) / below
        values_RN2N[:, :, 2 * k] = size * abs(np.expm1(z_R1)) * (1 + x_RN)
        values_RN2N[:, :, 2 * k + 1] = size * abs(1 + p_R1) * one_minus_x
        apart = np.expm1(z_RN - z_R1) * np.expm1(z_RN - z_R1.conj())
        before = before * (abs(p_R1) ** 2 * apart / below)
    return values_RN2N


def _of_channels(z_RN: np.ndarray, residues_ORN: np.ndarray) -> Factored:
    """Channels k_o[l] = 2 Re sum_n residue e^{z l}, with one input and O outputs."""
    f_RN2N = kautz(z_RN)
    f_R2NN = np.swapaxes(f_RN2N, 1, 2)

    def summed(weights_ORN: np.ndarray) -> np.ndarray:
        """2 Re sum_n weight f f^T of each output, below each other."""
        return np.concatenate(
            [2 * (f_R2NN @ (w[:, :, None] * f_RN2N)).real for w in weights_ORN], 1
        )

    direct_RO2N = np.stack([2 * (w[:, None] @ f_RN2N)[:, 0].real for w in residues_ORN], 1)
    R, outputs, N2 = direct_RO2N.shape  # R may be 0
    inputs_RP1 = direct_RO2N.reshape(R, outputs * N2, 1)
    shifted_RPQ = summed(residues_ORN * np.exp(z_RN)[None])
    return Factored(summed(residues_ORN), shifted_RPQ, inputs_RP1, direct_RO2N)


def _of_real(A, B, C, reached, seen) -> Factored:
    """One real system with its Gramians."""
    Z_c, Z_o = (_root(W) for W in (reached, seen))
    products = Z_o.T @ Z_c, Z_o.T @ A @ Z_c, Z_o.T @ B, C @ Z_c
    return Factored(*(x[None] for x in products))


def _root(W: np.ndarray) -> np.ndarray:
    """Z with Z Z^T = W, which is symmetric up to rounding and has no eigenvalue below 0."""
    values, vectors = np.linalg.eigh((W + W.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


def _mimo(z_N: np.ndarray, B_NI: np.ndarray, C_ON: np.ndarray) -> Factored:
    """y = Re C x of N complex modes: a real system of 2N states, first the real parts."""
    # One unit for the input and the output of a mode: else its rounding is that of the larger.
    rows, columns = np.linalg.norm(B_NI, axis=1), np.linalg.norm(C_ON, axis=0)
    scale_N = np.sqrt(np.where(rows * columns > 0, columns / np.where(rows > 0, rows, 1), 1))
    B_NI, C_ON = B_NI * scale_N[:, None], C_ON / scale_N

    def gramian(z_N: np.ndarray, B_NI: np.ndarray) -> np.ndarray:
        same = B_NI @ B_NI.conj().T / -np.expm1(z_N[:, None] + z_N.conj()[None])
        other = B_NI @ B_NI.T / -np.expm1(z_N[:, None] + z_N[None])
        above = [(same + other).real, (other - same).imag]
        return np.block([above, [(same + other).imag, (same - other).real]]) / 2

    x_N = np.exp(z_N)
    A = np.block([[np.diag(x_N.real), -np.diag(x_N.imag)], [np.diag(x_N.imag), np.diag(x_N.real)]])
    B, C = np.concatenate([B_NI.real, B_NI.imag]), np.concatenate([C_ON.real, -C_ON.imag], axis=1)
    return _of_real(A, B, C, gramian(z_N, B_NI), gramian(z_N.conj(), C_ON.conj().T))


def dplr_system(layer: LayerView, channel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A_bar, B_bar, C), real, of a channel of S4: A = diag(Lambda) - P P^* by the bilinear rule.

    The states are the real parts of the stored modes, then the imaginary ones.
    """
    assert layer.PB_HN is not None
    Lambda, P, B = (x[channel].astype(np.complex128) for x in (layer.A_HN, *layer.PB_HN))
    half = float(layer.dt_H[channel]) / 2
    parts_P, parts_B = (np.concatenate([x.real, x.imag]) for x in (P, B))
    turn = np.diag(Lambda.imag)
    A = np.block([[np.diag(Lambda.real), -turn], [turn, np.diag(Lambda.real)]])
    A = A - 2 * np.outer(parts_P, parts_P)  # P^* x of the mode and its conjugate is 2 Re P^* x
    eye = np.eye(len(A))
    right = np.concatenate([eye + half * A, 2 * half * parts_B[:, None]], axis=1)
    solved = np.linalg.solve(eye - half * A, right)
    C = 2 * layer.C_CHN[:, channel].astype(np.complex128)
    return solved[:, :-1], solved[:, -1:], np.concatenate([C.real, -C.imag], axis=1)


def _dplr(layer: LayerView, channel: int) -> Factored | None:
    from scipy.linalg import solve_discrete_lyapunov

    A, B, C = dplr_system(layer, channel)
    if not np.isfinite(A).all() or abs(np.linalg.eigvals(A)).max() >= 1:
        return None
    seen = solve_discrete_lyapunov(A.T, C.T @ C)
    return _of_real(A, B, C, solve_discrete_lyapunov(A, B @ B.T), seen)


def factored(layer: LayerView, channels: np.ndarray | None = None) -> list[Factored | None] | None:
    """Each system of a layer, None where it has no Gramian; None for a layer of other kind.

    Of S4D and S4 the systems of some channels, of S5 the one that there is. ConvS5 is no system of
    this kind: its states see the inputs of neighbouring pixels.
    """
    numbers = (layer.A_HN, layer.C_CHN, layer.dt_H, layer.B_NH, *(layer.PB_HN or ()))
    sound = all(np.isfinite(x).all() for x in numbers if x is not None)
    rows = np.arange(len(layer.A_HN)) if channels is None else channels
    if layer.PB_HN is not None:
        return [_dplr(layer, h) for h in rows.tolist()]
    if layer.B_NH is not None:
        N, H = layer.B_NH.shape
        if layer.C_CHN.shape[1:] != (H, N):
            return None
        z_N, gain_N = (x[:, 0] for x in log_poles(layer)) if sound else (np.zeros(1),) * 2
        if not (z_N.real < 0).all():
            return [None]
        return [_mimo(z_N, gain_N[:, None] * layer.B_NH, layer.C_CHN.reshape(-1, N))]
    with np.errstate(invalid="ignore", over="ignore"):  # a diverged layer
        z_RN, gain_RN = (x[rows] for x in log_poles(layer))
        residues = layer.C_CHN[:, rows] * gain_RN[None]
    good = (z_RN.real < 0).all(axis=1) & np.isfinite(residues).all(axis=(0, 2))
    every = _of_channels(z_RN[good], residues[:, good])
    found = iter([Factored(*(x[i : i + 1] for x in every)) for i in range(good.sum())])
    return [next(found) if one else None for one in good]


class Reduced(NamedTuple):
    """y = Re C x of modes e^{log_pole}: what is kept of a system."""

    log_pole_N: np.ndarray  # complex, imaginary parts in 0..pi
    B_NI: np.ndarray
    C_ON: np.ndarray
    order: int  # real states
    bound: float  # on the change of the transfer function's norm at any frequency
    lost: float  # share of the sum of the Hankel singular values


def reduced(system: Factored, modes: int) -> Reduced:
    """Balanced truncation to what this many stored modes hold; fewer, where it has no more states.

    Of the states in balanced coordinates the r with the largest Hankel singular values are kept
    (Moore, IEEE Trans. Autom. Control 26, 1981): a stable system, whose transfer function differs
    nowhere by more than twice the sum of the values left out. Its small dense matrix has r poles. A
    stored mode holds a pair of complex ones or one real pole: r is the largest number whose poles
    fit. ValueError: rounding has left no stable system.
    """
    M, shifted, inputs, outputs = (x[0] for x in system)
    U, values, V_T = np.linalg.svd(M, full_matrices=False)
    rank = int((values > RESOLVED * values[0]).sum())
    for order in range(min(2 * modes, rank), 0, -1):
        root = values[:order] ** -0.5
        left, right = U[:, :order].T * root[:, None], V_T[:order].T * root
        pole, W = np.linalg.eig(left @ shifted @ right)
        upper = pole.imag >= 0
        if upper.sum() > modes or not abs(pole).max() < 1:
            continue
        B, C = np.linalg.solve(W, left @ inputs), outputs @ right @ W
        # A real pole of 0 has no logarithm
        pole = np.where(abs(pole) < np.exp(FASTEST), np.exp(FASTEST), pole)[upper]
        both = np.where(pole.imag > 0, 2, 1)  # the mode and its conjugate
        left_out, total = values[order:].sum(), values.sum()
        z_N = np.log(pole.astype(complex))
        kept = B[upper].astype(complex), (C[:, upper] * both).astype(complex)
        return Reduced(z_N, *kept, order, 2 * left_out, left_out / total)
    if rank:
        raise ValueError(
            "its poles are so near to the unit circle that rounding leaves no stable system of "
            f"{modes} modes"
        )
    none = np.zeros(0, complex)
    return Reduced(none, none[:, None][:, :0], none[None], 0, 0.0, 0.0)


def hankel_values(layer: LayerView, most: int = CHANNELS) -> np.ndarray | None:
    """Hankel singular values, falling, (R, 2N), of at most so many channels; of S5 (1, 2N).

    nan for a system that has a pole of radius 1 or more. None: see `factored`.
    """
    rows = np.unique(np.linspace(0, len(layer.A_HN) - 1, most).astype(int))
    if (systems := factored(layer, rows)) is None:
        return None
    n = 2 * (layer.A_HN.size if layer.B_NH is not None else layer.A_HN.shape[1])
    found = np.full((len(systems), n), np.nan)
    for row, system in zip(found, systems, strict=True):
        if system is not None:
            row[:] = np.linalg.svd(system.hankel_RPQ[0], compute_uv=False)[:n]
    return found


def states_holding(values_RN: np.ndarray, share: float) -> np.ndarray:
    """How many of the largest values have this share of their sum, (R,); nan where they are nan.

    The rest bounds what truncation to as many states changes: 2 (1 - share) of the sum.
    """
    sums_RN = np.cumsum(values_RN, axis=1)
    # A sum of rounding errors may stay below a share of 1.
    enough_RN = sums_RN >= share * sums_RN[:, -1:] * (1 - 1e-12)
    return np.where(np.isfinite(sums_RN[:, -1]), enough_RN.argmax(axis=1) + 1.0, np.nan)


def states_key(share: float, layer: str = "") -> str:
    """The name of the median of `states_holding` in the log: of all layers, or of one."""
    name = f"states_{100 * share:g}".replace(".", "_") + "_median"
    return f"{name}/{layer}" if layer else name


def summary(values_RN: np.ndarray) -> dict[str, Any]:
    """`hankel_values` as JSON can hold them.

    "states", "systems", and of these the "unstable"; the "median" of the values over the largest;
    "states_99" and so on: the least, the median and the most, None where all are unstable.
    """
    stable_RN = values_RN[np.isfinite(values_RN[:, 0])]
    found: dict[str, Any] = {
        "states": values_RN.shape[1],
        "systems": len(values_RN),
        "unstable": len(values_RN) - len(stable_RN),
        "median": None,
    }
    if len(stable_RN):
        largest_R1 = stable_RN[:, :1]
        relative_RN = stable_RN / np.where(largest_R1 > 0, largest_R1, 1)
        found["median"] = np.median(relative_RN, axis=0).tolist()
    for share in SHARES:
        counts = states_holding(stable_RN, share)
        ends = [float(f(counts)) for f in (np.min, np.median, np.max)] if counts.size else None
        found[states_key(share).removesuffix("_median")] = ends
    return found
