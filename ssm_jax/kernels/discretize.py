r"""From continuous to discrete time, for a diagonal state matrix.

x' = A x + B u becomes x_{l+1} = A_bar x_l + gain B u_l, elementwise in the modes:

    zero-order hold   A_bar = e^{dt A}                           gain = (e^{dt A} - 1) / A
    bilinear          A_bar = (1 + dt A / 2) / (1 - dt A / 2)    gain = dt / (1 - dt A / 2)
    none              A_bar = e^{dt A}                           gain = 1 at dt = 1

Source: S4D, arXiv:2206.11893; for the bilinear form S4, arXiv:2111.00396. "none" is for modes that
are given per sample, A = log A_bar, as in LRU, arXiv:2303.06349. Its dt is not a length of time but
a number of samples: 1, unless the same modes shall run at another sampling rate.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.phase import Phase, phase_of_bilinear, phase_of_product, wrapped
from ssm_jax.kernels.ruled import Ruled
from ssm_jax.kernels.types import in_one_type

DISCRETIZATIONS = ("zoh", "bilinear", "none")

# Below this |z| phi_1 is summed as a series: there the derivative of the quotient cancels (float32:
# 1e-4 off at 1e-3).
_SERIES_BELOW = 0.1
_SERIES_TERMS = 8  # the remainder is below 0.1^8 / 9! = 3e-14


@Ruled
def value_of(value: Array, carrier: Array) -> Array:
    """`value`, differentiated as if it were `carrier`: an angle with and without whole turns."""
    return value


@value_of.defjvp
def _value_of_jvp(primals, tangents):
    # Not primals[0]: a second derivative would take that for a constant.
    return value_of(*primals), tangents[1]


def _zoh_exponent(A: Array, dt: Array) -> tuple[Array, Phase]:
    """z = dt A, and the phase of its imaginary part."""
    return dt * A, phase_of_product(dt, A.imag)


def _bilinear_exponent(A: Array, dt: Array) -> tuple[Array, Phase]:
    """z = log A_bar, with h = dt A / 2:

    Re z = log(|1 + h|^2 / |1 - h|^2) / 2,    Im z = atan2(2 Im h, 1 - |h|^2).
    """
    half = dt * A / 2
    x, y = half.real, half.imag
    # A mode with dt A = -2 is forgotten in one step: log 0. 1e-17 is 0 beside 1 and has a gradient.
    plus = 1 + x
    gone = (plus == 0) & (jnp.abs(y) < 1e-17)
    plus = jnp.where(gone, value_of(jnp.full_like(plus, 1e-17), plus), plus)
    dividend = plus**2 + y**2
    divisor = (1 - x) ** 2 + y**2
    ratio = 4 * x / divisor  # |A_bar|^2 - 1
    fast = ratio < -0.5  # there 1 + ratio cancels
    square = jnp.where(fast, dividend / divisor, 1.0)
    z_re = 0.5 * jnp.where(fast, jnp.log(square), jnp.log1p(jnp.where(fast, 0.0, ratio)))
    z_im = jnp.arctan2(2 * y, (1 - x) * plus - y**2)
    return z_re + 1j * z_im, phase_of_bilinear(dt, A.real, A.imag)


_EXPONENT = {"zoh": _zoh_exponent, "bilinear": _bilinear_exponent, "none": _zoh_exponent}


@in_one_type
def exponent(A: Array, dt: Array, discretization: str) -> tuple[Array, Phase]:
    """z with A_bar^l = e^{z l}, and the phase of Im z, which is exact where z itself is rounded.

    Args:
      A: complex eigenvalues, in rad per unit of time; for "none" in rad per sample.
      dt: real step in units of time, or samples, positive; broadcasts against A.
      discretization: "zoh", "bilinear" or "none".

    Raises:
      ValueError: for another discretization.
    """
    if discretization not in DISCRETIZATIONS:
        raise ValueError(
            f"unknown discretization {discretization!r}; "
            f"choose one of {', '.join(DISCRETIZATIONS)}."
        )
    return _EXPONENT[discretization](A, dt)


def complex_expm1(x: Array, y: Array) -> Array:
    """e^{x + iy} - 1 without cancellation: Re = expm1(x) cos y - 2 sin(y/2)^2, Im = e^x sin y."""
    real = jnp.expm1(x) * jnp.cos(y) - 2 * jnp.sin(y / 2) ** 2
    return real + 1j * (jnp.exp(x) * jnp.sin(y))


@in_one_type
def discretize_zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    """Zero-order hold of diagonal modes; right also at A = 0, where A_bar = 1 and gain = dt.

    Args:
      A: complex eigenvalues, in rad per unit of time.
      dt: real step in units of time, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape. Accurate to a few units of float32 for any
      |dt A|.
    """
    z, phase = _zoh_exponent(A, dt)
    z_minus_1 = complex_expm1(z.real, value_of(wrapped(phase), z.imag))
    # gain = dt phi_1(z), phi_1(z) = (e^z - 1) / z = 1 + z/2 (1 + z/3 (1 + ...))
    small = z.real**2 + z.imag**2 < _SERIES_BELOW**2
    near = jnp.where(small, z, 0.0)
    away = jnp.where(small, 1.0, z)  # keeps 0/0 out of the gradient of the branch not taken
    series = jnp.ones_like(z)
    for k in range(_SERIES_TERMS, 0, -1):
        series = 1 + series * near / (k + 1)
    return z_minus_1 + 1, dt * jnp.where(small, series, z_minus_1 / away)


@in_one_type
def discretize_bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    """Bilinear (Tustin) rule for diagonal modes; Re A <= 0 stays in the closed unit disc.

    Args:
      A: complex eigenvalues, in rad per unit of time.
      dt: real step in units of time, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape.
    """
    half = dt * A / 2
    return (1 + half) / (1 - half), dt / (1 - half)


@in_one_type
def discretize_none(A: Array, dt: Array) -> tuple[Array, Array]:
    """Modes that are discrete already: A_bar = e^A and gain = 1 at dt = 1.

    Another dt resamples them: as long as the input is held, 1 / dt steps do what one step of dt = 1
    does. So A_bar = e^{dt A} and gain = (e^{dt A} - 1) / (e^A - 1), the zero-order hold of the
    system whose step of dt = 1 has the gain 1.

    Args:
      A: log of the complex eigenvalues of one sample. Resampling depends on its branch: keep
        |Im A| <= pi.
      dt: real number of samples per step, positive; broadcasts against A.

    Returns:
      A_bar and gain, complex, of the broadcast shape. Where dt = 1 the gain is 1 without rounding,
      and constant.
    """
    A_bar, held = discretize_zoh(A, dt)
    _, held_for_one = discretize_zoh(A, jnp.ones_like(dt))
    return A_bar, jnp.where(dt == 1, jnp.ones_like(held), held / held_for_one)


DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear, "none": discretize_none}
