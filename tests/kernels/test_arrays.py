"""Kernels take numbers of any type, compute in float32 at least, and return the input's type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm_jax.kernels import (
    diagonal_scan,
    dplr_recurrence,
    dplr_step,
    fft_conv,
    s4d_recurrence,
    sobolev_gain,
)
from ssm_jax.kernels.arrays import _compiled
from ssm_jax.kernels.discretize import exponent
from ssm_jax.kernels.mimo import mimo_scan

H, N = 1, 2
A = np.array([[-0.3 + 2j, -0.5 - 1j]])
C = np.array([[1.0 - 0.5j, 0.3 + 1j]])
DT = np.array([0.25])


def mimo(u, A, C, dt):
    z, phase = exponent(A[0], dt, "zoh")
    return mimo_scan(u, z, phase, jnp.swapaxes(C, 0, 1), C[None])


def scan(u, A, C, dt):
    z, phase = exponent(A[0], dt, "bilinear")
    return diagonal_scan(z, phase, u * jnp.ones((N,), u.dtype)[None, None])


KERNELS = {
    "s4d_recurrence": lambda u, A, C, dt: s4d_recurrence(u, A, C, dt),
    "dplr_recurrence": lambda u, A, C, dt: dplr_recurrence(u, A, C, C, C, dt),
    "dplr_step": lambda u, A, C, dt: dplr_step(jnp.zeros_like(A)[None], u[:, 0], A, C, C, C, dt),
    "fft_conv": lambda u, A, C, dt: fft_conv(u, jnp.ones(u.shape[:0:-1], u.dtype)),
    "mimo_scan": mimo,
    "diagonal_scan": scan,
    "sobolev_gain": lambda u, A, C, dt: sobolev_gain(u[0, 0], 4),
}


def inputs(real):
    kind = np.complex128 if real == np.float64 else np.complex64
    return [jnp.asarray(x, kind if np.iscomplexobj(x) else real) for x in (A, C, DT)]


@pytest.mark.unoptimized
@pytest.mark.parametrize("name", KERNELS)
def test_any_input_type_is_computed_in_float32_and_returned_in_its_own(name):
    """At L = 3, in JAX's strictest setting; the gradient has the input's type too."""
    kernel, parameters = jax.jit(KERNELS[name]), inputs(np.float32)
    u = np.array([1.0, -2.0, 3.0]).reshape(1, 3, 1)
    exact = jax.tree.leaves(kernel(jnp.asarray(u, np.float32), *parameters))
    with jax.numpy_dtype_promotion("strict"):
        for kind in (jnp.float16, jnp.bfloat16, jnp.int32):
            found = jax.tree.leaves(kernel(jnp.asarray(u, kind), *parameters))
            for f, e in zip(found, exact, strict=True):
                real = kind if jnp.issubdtype(kind, jnp.floating) else jnp.float32
                assert f.dtype == (jnp.complex64 if jnp.iscomplexobj(e) else real)
                np.testing.assert_allclose(f.astype(e.dtype), e, rtol=1e-2, atol=1e-6)

        def total(u):
            leaves = jax.tree.leaves(kernel(u, *parameters))
            return sum(jnp.sum(jnp.abs(y).astype(jnp.float32)) for y in leaves)

        assert jax.jit(jax.grad(total))(jnp.asarray(u, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", KERNELS)
def test_an_input_of_64_bits_makes_all_of_64_bits(name):
    """Parameters of float32 count as exact numbers then."""
    kernel = jax.jit(KERNELS[name])
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        u = jnp.asarray([1.0, -2.0, 3.0], jnp.float64).reshape(1, 3, 1)
        narrow = inputs(np.float32)
        wide = [x.astype(jnp.complex128 if jnp.iscomplexobj(x) else u.dtype) for x in narrow]
        pairs = zip(*(jax.tree.leaves(kernel(u, *p)) for p in (narrow, wide)), strict=True)
        for found, exact in pairs:
            assert found.dtype in (jnp.float64, jnp.complex128)
            # z itself comes in float32 where `exponent` was called with float32
            rtol = 1e-6 if name in ("mimo_scan", "diagonal_scan") else 1e-14
            np.testing.assert_allclose(found, exact, rtol=rtol, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "length"), [("s4d_recurrence", 3), ("dplr_recurrence", 1), ("mimo_scan", 2)]
)
def test_recurrences_run_without_jit_and_without_a_batch(name, length):
    """A recurrence of one step has loops without a turn, which are written out here."""
    kernel, parameters = KERNELS[name], inputs(np.float32)
    u = np.arange(length, dtype=np.float32).reshape(1, length, 1)
    compiled = jax.tree.leaves(jax.jit(kernel)(u, *parameters))
    with jax.disable_jit():
        plain = jax.tree.leaves(kernel(jnp.asarray(u), *parameters))
    for p, c in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(p, c, rtol=1e-5, atol=1e-6)
    nothing = jax.tree.leaves(jax.jit(kernel)(jnp.asarray(u[:0]), *parameters))
    assert [y.shape for y in nothing] == [(0, *y.shape[1:]) for y in compiled]


@pytest.mark.parametrize("name", ["s4d_recurrence", "dplr_recurrence", "fft_conv", "mimo_scan"])
def test_a_kernel_called_by_itself_is_one_program_for_all_numbers(name):
    """At a length of no other test."""
    kernel, u = KERNELS[name], np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    programs = [_compiled._cache_size()]
    for scale in (1, 2):
        arguments = [jnp.asarray(scale * u), *(x * scale for x in inputs(np.float32))]
        expected = jax.tree.leaves(jax.jit(kernel)(*arguments))
        for by_itself, e in zip(jax.tree.leaves(kernel(*arguments)), expected, strict=True):
            np.testing.assert_allclose(by_itself, e, rtol=1e-5, atol=1e-5)
        programs.append(_compiled._cache_size())
    assert programs[0] < programs[1] == programs[2]


def test_so_is_its_gradient_also_mapped_over_an_axis(compiled_programs):
    """At a length of no other test. As single operations it was 41 programs, and 4 at each call."""
    k_HL = jnp.asarray(np.linspace(-1, 1, 6, dtype=np.float32)[None])

    def total(u, k):
        return jnp.sum(fft_conv(u, k) ** 2)

    u_3BLH = np.linspace(1, 2, 18, dtype=np.float32).reshape(3, 1, 6, 1)
    gradient = jax.grad(total, (0, 1))
    for transformed, u in [(gradient, u_3BLH[0]), (jax.vmap(gradient, (0, None)), u_3BLH)]:
        expected = jax.jit(transformed)(u, k_HL)
        compiled_programs.clear()
        for by_itself, e in zip(transformed(u, k_HL), expected, strict=True):
            np.testing.assert_allclose(by_itself, e, rtol=1e-5, atol=1e-5)
        assert 1 <= len(compiled_programs) <= 12
        compiled_programs.clear()
        transformed(2 * u, k_HL)
        assert compiled_programs == []


@pytest.fixture
def compiled_programs():
    """The names of the programs that XLA compiles, as it does so."""
    names = []

    def listen(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_lengths_of_a_kernel_called_by_itself_are_checked():
    u, parameters = jnp.ones((1, 3, 1)), inputs(np.float32)
    with pytest.raises(ValueError, match=r"lengths must be in 0..3, the steps of the input; got 4"):
        s4d_recurrence(u, *parameters, lengths_B=np.array([4]))
    assert s4d_recurrence(u, *parameters, lengths_B=[2])[0].shape == (1, 3, 1)
