"""Every public kernel refuses what is no array, is empty or does not fit, by its own name."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm_jax import kernels
from ssm_jax.kernels.phase import Phase, phase_of_product

B, L, H, N, F = 2, 5, 3, 4, 6
REAL = {"dt_H": (H,), "u_BLH": (B, L, H), "kernel_HL": (H, L), "omega_HF": (H, F), "beta_H": (H,)}
COMPLEX = {name: (H, N) for name in ("A_HN", "P_HN", "B_HN", "C_HN")}
COMPLEX |= {"x_BHN": (B, H, N), "v_BLN": (B, L, N), "x0_BN": (B, N), "z_N": (N,)}

MODES = ("A_HN", "C_HN", "omega_HF", "beta_H")
TAKES = {  # array arguments in order, and others
    "s4d_kernel": (("A_HN", "C_HN", "dt_H"), {"length": L}),
    "s4d_recurrence": (("u_BLH", "A_HN", "C_HN", "dt_H"), {}),
    "dplr_kernel": (("A_HN", "P_HN", "B_HN", "C_HN", "dt_H"), {"length": L}),
    "dplr_recurrence": (("u_BLH", "A_HN", "P_HN", "B_HN", "C_HN", "dt_H"), {}),
    "dplr_step": (("x_BHN", "u_BH", "A_HN", "P_HN", "B_HN", "C_HN", "dt_H"), {}),
    "fft_conv": (("u_BLH", "kernel_HL"), {}),
    "diagonal_scan": (("z_N", "phase_N", "v_BLN", "x0_BN"), {}),
    "transfer_function": (MODES[:3], {}),
    "discrete_transfer_function": (("A_HN", "C_HN", "dt_H", "omega_HF"), {}),
    "pole_sensitivity": (MODES, {}),
    "pair_sensitivity": (MODES, {}),
    "sobolev_gain": (("beta_H",), {"n_fft": 8}),
    "circular_gain": (("beta_H", "bins_F"), {"n": F}),
    "discretize_zoh": (("A_HN", "dt_H1"), {}),
    "discretize_bilinear": (("A_HN", "dt_H1"), {}),
    "exponent": (("A_HN", "dt_H1"), {}),
}
BROADCAST = ("discretize_zoh", "discretize_bilinear", "exponent")
KEYWORDS = {"reverse_kernel_HL": (H, L), "gain_HF": (H, L + 1), "skip_H": (H,)}  # of fft_conv
OTHERS = {"u_BH": (B, H), "dt_H1": (H, 1), "bins_F": (F,)}
# A batch, taps, bins, heads of C and channels of beta may be any; dt is broadcast against A.
ANY = {
    *((name, "u_BLH", "longer") for name in TAKES),
    *((name, "C_HN", "one more axis") for name in ("s4d_kernel", "dplr_kernel")),
    *((name, "omega_HF", "longer last") for name in TAKES),
    ("fft_conv", "kernel_HL", "longer last"), ("circular_gain", "bins_F", "longer"),
    ("sobolev_gain", "beta_H", "longer"), ("circular_gain", "beta_H", "longer"),
    *((name, array, change) for name in BROADCAST
      for array in ("A_HN", "dt_H1") for change in ("one axis less", "one more axis")),
    *((name, "A_HN", "longer last") for name in BROADCAST),
}  # fmt: skip


def array(name):
    if name == "phase_N":
        return phase_of_product(jnp.ones(N), jnp.ones(N))
    kind = np.complex64 if name in COMPLEX else np.float32
    return jnp.ones((COMPLEX | REAL | OTHERS)[name], kind) * (-1 if name in ("A_HN", "z_N") else 1)


def test_public_kernels_are_all_here():
    said = {"anticausal", "sobolev_frequency"}  # of a recurrence; of numbers alone
    assert {*TAKES} | said == {*kernels.__all__}


CHANGES = {
    "one axis less": lambda a: a[0],
    "one more axis": lambda a: a[None],
    "longer": lambda a: jnp.concatenate([a, a[:1]]),
    "longer last": lambda a: jnp.concatenate([a, a[..., :1]], -1),
    "no axis": lambda a: a.ravel()[0],
}


@pytest.mark.parametrize("kernel", TAKES)
def test_arrays_that_do_not_fit_are_refused_by_the_name_of_the_kernel(kernel):
    names, others = TAKES[kernel]
    whole = {name: array(name) for name in names}
    jax.eval_shape(lambda: getattr(kernels, kernel)(*whole.values(), **others))  # these fit
    let_through = []
    for wrong, (change, make) in itertools.product(names, CHANGES.items()):
        same = change == "longer last" and np.ndim(whole[wrong]) == 1
        either = change == "no axis" and kernel in BROADCAST
        if (kernel, wrong, change) in ANY or same or either:
            continue
        arrays = whole | {wrong: jax.tree.map(make, whole[wrong])}
        if said := complaint(kernel, arrays.values(), others):
            let_through.append(f"{wrong}, {change}: {said}")
    arrays = [jax.tree.map(CHANGES["no axis"], x) for x in whole.values()]
    if kernel not in BROADCAST and (said := complaint(kernel, arrays, others)):
        let_through.append(f"all, no axis: {said}")
    assert not let_through, "\n".join(let_through)


def complaint(kernel, arrays, others):
    """What is wrong with how arrays were refused; nothing if by the kernel's name, in one line."""
    try:
        getattr(kernels, kernel)(*arrays, **others)
    except ValueError as error:
        by_name = str(error).startswith(f"{kernel}: ") and "\n" not in str(error)
        return "" if by_name else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "let through"


NOT_EMPTY = {
    "s4d_kernel": "HN", "s4d_recurrence": "LH", "dplr_kernel": "HN", "dplr_recurrence": "LHN",
    "fft_conv": "LH", "diagonal_scan": "L",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "axis"), [(k, a) for k, axes in NOT_EMPTY.items() for a in axes]
)
def test_axes_that_may_not_be_empty_are_refused_by_the_name_of_the_kernel(kernel, axis):
    names, others = TAKES[kernel]

    def emptied(name):
        axes = name.rpartition("_")[2]
        return array(name)[tuple(slice(0 if a == axis else None) for a in axes)]

    arrays = [array(name) if name == "phase_N" else emptied(name) for name in names]
    assert not complaint(kernel, arrays, others)


def test_the_reverse_of_a_recurrence_refuses_in_its_own_name():
    arrays = [array(name) for name in ("A_HN", "C_HN", "dt_H")]
    for u, error in ((1.0, TypeError), ([1.0], TypeError), (jnp.ones(3), ValueError)):
        with pytest.raises(error, match=r"^anticausal: u [^\n]*$"):
            kernels.anticausal(kernels.s4d_recurrence, u, *arrays)


def test_a_phase_must_have_the_shape_of_z():
    """Of one mode it would be broadcast."""
    z_N, phase_N = kernels.exponent(array("A_HN")[0], jnp.ones(1))
    v_BLN = array("v_BLN")
    for wrong in (
        Phase(phase_N.ticks[:1], phase_N.rest[:1]),
        Phase(phase_N.ticks, phase_N.rest[0]),
        Phase(phase_N.ticks[None], phase_N.rest),
    ):
        with pytest.raises(
            ValueError, match=r"^diagonal_scan: phase must have the shape of z, \(4"
        ):
            kernels.diagonal_scan(z_N, wrong, v_BLN)


@pytest.mark.parametrize("name", KEYWORDS)
def test_arrays_by_keyword_are_real_and_fit(name):
    arrays, x = (array("u_BLH"), array("kernel_HL")), jnp.ones(KEYWORDS[name])
    said = name.rpartition("_")[0]
    with pytest.raises(TypeError, match=f"^fft_conv: {said} must be real, got complex64"):
        kernels.fft_conv(*arrays, **{name: x + 1j})
    for make in CHANGES.values():
        assert not complaint("fft_conv", arrays, {name: make(x)})


@pytest.mark.parametrize("kernel", TAKES)
def test_what_is_no_array_no_real_one_or_no_integer_is_refused_too(kernel):
    """Words of more than one line, as of a large list, are cut."""
    names, others = TAKES[kernel]
    whole, call = {name: array(name) for name in names} | others, getattr(kernels, kernel)
    for name, x in whole.items():
        said = name if name in others else name.rpartition("_")[0]
        if name in others:
            wrong = {"an integer": (float(x), str(x), None, jnp.float32(x))}
        elif name == "phase_N":
            wrong = {"the phase of z": (None, x.rest)}
        else:
            lists = () if name == "bins_F" else (np.asarray(x).tolist(),)
            wrong = {"an array of JAX or NumPy": (1.0, "x", *lists)}
            if kernel != "transfer_function" and name in REAL:
                wrong |= {"real": (x + 1j,)}
        for must_be, values in wrong.items():
            for value in values:
                if value is None and (kernel, name) == ("discrete_transfer_function", "length"):
                    continue
                arguments = whole | {name: value}
                given = [arguments.pop(n) for n in names]
                said = "k" if name == "kernel_HL" else said
                with pytest.raises(TypeError) as error:
                    call(*given, **arguments)
                start = f"{kernel}: {said} must be {must_be}, got "
                assert str(error.value).startswith(start) and "\n" not in str(error.value)


def test_a_size_may_be_any_integer():
    A_HN, C_HN, dt_H = (array(name) for name in ("A_HN", "C_HN", "dt_H"))
    for length in (L, np.int64(L), jnp.int32(L), np.array(L)):
        assert kernels.s4d_kernel(A_HN, C_HN, dt_H, length).shape == (H, L)
