"""From continuous to discrete time, for a diagonal state matrix.

x' = A x + B u becomes x_{l+1} = A_bar x_l + gain B u_l, elementwise in the modes:

    zero-order hold   A_bar = e^{dt A}                           gain = (e^{dt A} - 1) / A
    bilinear          A_bar = (1 + dt A / 2) / (1 - dt A / 2)    gain = dt / (1 - dt A / 2)
    none              A_bar = e^{dt A}                           gain = 1 at dt = 1

Source: S4D, arXiv:2206.11893; for the bilinear form S4, arXiv:2111.00396. "none" is for modes that
are given per sample, A = log A_bar, as in LRU, arXiv:2303.06349: dt is then a number of samples, 1
unless the same modes run at another sampling rate.
"""

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.phase import Phase, phase_of_bilinear, phase_of_product, wrapped
from ssm_jax.kernels.powers import complex_expm1, value_of


@in_one_type
def discretize_zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    """Zero-order hold of diagonal modes: (A_bar, gain), complex, of the broadcast shape.

    A is complex, in rad per unit of time; dt > 0 is in units of time. Accurate to a few units of
    float32 at any |dt A|; at A = 0, A_bar = 1 and gain = dt. ValueError for shapes that do not
    broadcast: modes A_HN take dt_H[:, None].
    """
    _check("discretize_zoh", A, dt)
    z, phase = exponent(A, dt, "zoh")
    z_minus_1 = complex_expm1(z.real, value_of(wrapped(phase), z.imag))
    # gain = dt phi_1(z), phi_1(z) = (e^z - 1) / z = 1 + z/2 (1 + z/3 (1 + ...)). The derivative of
    # the quotient cancels at small |z| (float32: 1e-4 off at 1e-3), so there the series is summed.
    small = z.real**2 + z.imag**2 < 0.1**2
    near = jnp.where(small, z, 0.0)
    away = jnp.where(small, 1.0, z)  # keeps 0/0 out of the gradient of the branch not taken
    series = jnp.ones_like(z)
    for k in range(8, 0, -1):  # the remainder is below 0.1^8 / 9! = 3e-14
        series = 1 + series * near / (k + 1)
    return z_minus_1 + 1, dt * jnp.where(small, series, z_minus_1 / away)


@in_one_type
def discretize_bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    """Bilinear (Tustin) rule: (A_bar, gain) as above. Re A <= 0 stays in the closed unit disc."""
    _check("discretize_bilinear", A, dt)
    half = dt * A / 2
    return (1 + half) / (1 - half), dt / (1 - half)


@in_one_type
def discretize_none(A: Array, dt: Array) -> tuple[Array, Array]:
    """Modes that are discrete already: A_bar = e^A and gain = 1 at dt = 1, without rounding.

    Another dt resamples them: as long as the input is held, 1 / dt steps do what one step of dt = 1
    does. So A_bar = e^{dt A} and gain = (e^{dt A} - 1) / (e^A - 1), the zero-order hold of the
    system whose step of dt = 1 has the gain 1. Resampling depends on the branch of the log A: keep
    |Im A| <= pi.
    """
    A_bar, held = discretize_zoh(A, dt)
    A_bar_of_one, held_for_one = discretize_zoh(A, jnp.ones_like(dt))
    # At dt = 1 as 1 + e^A (e^{(dt - 1) A} - 1) / (e^A - 1): exactly 1, with the derivatives by dt.
    _, held_beyond = discretize_zoh(A, jnp.where(dt == 1, dt - 1, jnp.zeros_like(dt)))
    at_one = 1 + A_bar_of_one * held_beyond / held_for_one
    return A_bar, jnp.where(dt == 1, at_one, held / held_for_one)


DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear, "none": discretize_none}


def _check(name: str, A: Array, dt: Array) -> None:
    try:
        jnp.broadcast_shapes(A.shape, dt.shape)
    except ValueError:
        raise ValueError(
            f"{name}: A and dt must broadcast, as (H, N) and (H, 1) do; "
            f"got A {A.shape}, dt {dt.shape}."
        ) from None


@in_one_type
def exponent(A: Array, dt: Array, discretization: str = "zoh") -> tuple[Array, Phase]:
    """z with A_bar^l = e^{z l}, and the phase of Im z, which is exact where z itself is rounded.

    `diagonal_scan` takes both. Arguments as in `discretize_zoh`, or for "none" in samples;
    ValueError for another rule.
    """
    _check("exponent", A, dt)
    if discretization not in DISCRETIZE:
        known = ", ".join(DISCRETIZE)
        raise ValueError(f"unknown discretization {discretization!r}; choose one of {known}.")
    if discretization == "bilinear":
        return _log_of_bilinear(A, dt), phase_of_bilinear(dt, A.real, A.imag)
    return dt * A, phase_of_product(dt, A.imag)


def _log_of_bilinear(A: Array, dt: Array) -> Array:
    """log A_bar, with h = dt A / 2:

    Re = log(|1 + h|^2 / |1 - h|^2) / 2,    Im = atan2(2 Im h, 1 - |h|^2).
    """
    half = dt * A / 2
    x, y = half.real, half.imag
    # A mode with dt A = -2 is forgotten in one step: log 0. 1e-17 adds nothing to 1 and has a
    # gradient.
    plus = 1 + x
    gone = (plus == 0) & (jnp.abs(y) < 1e-17)
    plus = jnp.where(gone, value_of(jnp.full_like(plus, 1e-17), plus), plus)
    dividend = plus**2 + y**2
    divisor = (1 - x) ** 2 + y**2
    ratio = 4 * x / divisor  # |A_bar|^2 - 1
    fast = ratio < -0.5  # there 1 + ratio cancels
    square = jnp.where(fast, dividend / divisor, 1.0)
    z_re = 0.5 * jnp.where(fast, jnp.log(square), jnp.log1p(jnp.where(fast, 0.0, ratio)))
    return z_re + 1j * jnp.arctan2(2 * y, (1 - x) * plus - y**2)
