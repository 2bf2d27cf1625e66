"""Forms for CPUs: walls that change no number and hold, and freed memory that is kept."""

import functools
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from running import run

from ssm_jax.kernels import diagonal_scan, fft_conv
from ssm_jax.kernels.devices import backend, compiling_for, materialize
from ssm_jax.kernels.discretize import exponent

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5)).astype(np.float32)
Z = (X + 1j * X[::-1]).astype(np.complex64)


@pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
def test_values_and_gradients_pass_unchanged(x):
    def objective(x, guard):
        return jnp.sum(jnp.abs(materialize(x, guard) + 1) ** 2)

    def plain(x):
        return jnp.sum(jnp.abs(x + 1) ** 2)

    np.testing.assert_array_equal(run(materialize, x, np.float32(0)), x)
    found = run(jax.grad(objective), x, np.float32(-3))
    np.testing.assert_array_equal(found, run(jax.grad(plain), x))


def test_a_tree_with_integers_passes():
    tree = {"x": X, "ticks": np.arange(4, dtype=np.int32)}
    found = run(materialize, tree, np.float32(1))
    for name, value in tree.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_a_guard_that_is_nan_shows():
    """A parameter that has diverged cannot be hidden by its wall."""
    assert np.isnan(run(materialize, X, np.float32(np.nan))).all()


@pytest.mark.unoptimized
def test_a_wall_works_under_vmap_with_one_guard_per_member():
    guards = np.float32([0, np.nan, 2])
    found = run(jax.vmap(materialize), X, guards)
    np.testing.assert_array_equal(found[[0, 2]], X[[0, 2]])
    assert np.isnan(found[1]).all()


def fused_with_sine(wall, columns):
    """What the compiled program computes together with one of the two readers of a value."""

    def f(a, b):
        p = a * b + a - b
        p = materialize(p, a[0]) if wall else p
        p = p[:, None] * jnp.arange(columns, dtype=jnp.float32)[None, :] if columns else p
        return jnp.sin(p), jnp.cos(p)

    shape = jax.ShapeDtypeStruct((64,), jnp.float32)
    program = jax.jit(f).lower(shape, shape).compile().as_text()
    bodies = [text for text in program.split("\n\n") if " sine(" in text]
    assert len(bodies) == 1
    return {word for word in ("subtract(", "add(") if f" {word}" in bodies[0]}


@pytest.mark.parametrize("columns", [0, 1000])
def test_what_stands_before_a_wall_is_not_fused_behind_it(columns):
    """Neither for each reader nor for each element of a broadcast."""
    assert fused_with_sine(False, columns), "XLA no longer recomputes: the wall could go"
    assert not fused_with_sine(True, columns)


@functools.partial(jax.jit, static_argnames=("convolution", "scan"))
def both(u_BLH, z_N, phase_N, v_BLN, convolution="auto", scan="auto"):
    """What has one form for CPUs and one for accelerators."""
    y_BLH = fft_conv(u_BLH, jnp.ones((3, 8)), method=convolution)
    return y_BLH, diagonal_scan(z_N, phase_N, v_BLN, method=scan)


def test_a_program_for_an_accelerator_has_its_forms_on_any_machine():
    """Those of the same name; and what was traced for one platform is not taken for another."""
    exponents = exponent(jnp.full(2, -0.1 + 1j), jnp.ones(2), "zoh")
    args = jnp.ones((2, 8, 3)), *exponents, jnp.ones((2, 8, 2), jnp.complex64)
    whole = {"convolution": "whole", "scan": "associative"}
    expected = {"cpu": {"convolution": "halves", "scan": "chunked"}, "gpu": whole, "tpu": whole}
    programs = {}
    for name, forms in expected.items():
        with compiling_for(name):
            programs[name] = str(both.trace(*args).jaxpr)
            assert programs[name] == str(both.trace(*args, **forms).jaxpr)
            walls = str(jax.make_jaxpr(lambda x: materialize(x, x[0]))(jnp.ones(3)))
        assert backend() == jax.default_backend()
        assert ("cond[" in walls) == (name == "cpu")
    assert len(set(programs.values())) == 3


def test_the_mesh_in_force_says_for_what_a_program_is_made():
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((4,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert backend() == "gpu"
        with compiling_for("tpu"):
            assert backend() == "tpu"
    with pytest.raises(ValueError, match="unknown platform 'cuda'; choose one of cpu, gpu, tpu"):
        compiling_for("cuda")


PROGRAM = """
import resource, sys
import numpy as np
from ssm_jax.kernels.devices import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch():
    np.ones(8 << 20)  # 64 MiB, freed at once
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_memory_is_not_faulted_in_again():
    """A page is 4 KiB, or 2 MiB where the system has large ones for all."""
    assert faults("keep") < 20
    assert faults("leave") > 4 * 16
