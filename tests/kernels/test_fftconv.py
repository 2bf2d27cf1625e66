"""The FFT convolution against the sum over taps, and what the gain and several devices do to it."""

import functools
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels import devices, fft_conv
from ssm_jax.kernels.devices import compiling_for

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def signals(length, batch=2, channels=3):
    """u (B, L, H), k and k_rev (H, L), gain (H, F)."""
    rng = np.random.default_rng(length)
    u = rng.normal(size=(batch, length, channels))
    k, reverse = rng.normal(size=(2, channels, length)) * np.exp(-np.arange(length) / 50)
    gain = np.exp(rng.normal(size=(channels, length + 1)) / 2)
    return tuple(a.astype(np.float32) for a in (u, k, reverse, gain))


def causal(u, k):
    return fft_conv(u, k)


def filtered(u, k, gain):
    return fft_conv(u, k, gain_HF=gain)


def two_sided(u, k, reverse):
    return fft_conv(u, k, reverse_kernel_HL=reverse)


def two_sided_filtered(u, k, reverse, gain):
    return fft_conv(u, k, reverse_kernel_HL=reverse, gain_HF=gain)


def skipped(u, k, skip):
    return fft_conv(u, k, skip_H=skip)


@pytest.mark.parametrize("length", oracles.LENGTHS)
def test_convolution_is_the_sum_over_taps(length):
    """Causal, and two-sided with u_{t+1} at the first reverse tap."""
    u, k, reverse, _ = signals(length)
    one, two = run(causal, u, k), run(two_sided, u, k, reverse)
    for found, kernels in ((one, (k,)), (two, (k, reverse))):
        exact = np.stack([oracles.convolve(u_LH, *kernels) for u_LH in u])
        assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max() + 1e-6


def by_method(u, k, reverse, gain, skip, method):
    options = {"reverse_kernel_HL": reverse, "gain_HF": gain, "skip_H": skip}
    return fft_conv(u, k, **options, method=method)


def gradients(u, k, reverse, gain, skip, method):
    def weighted(*arguments):
        y = by_method(*arguments, method)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return jax.grad(weighted, argnums=(0, 1, 2, 3, 4))(u, k, reverse, gain, skip)


@pytest.mark.parametrize("length", [2, 4, 6, 64, 258, 2048])
@pytest.mark.parametrize("function", [by_method, gradients])
def test_halves_of_the_spectrum_are_the_whole(length, function):
    """Even and odd bins apart, against one FFT of twice the length: values, and all gradients."""
    arguments = (*signals(length), np.float32([1.5, -0.3, 0.0]))
    halves, whole = (run(function, *arguments, method=method) for method in ("halves", "whole"))
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("length", [1, 17, 64])
@pytest.mark.parametrize("function", [by_method, gradients])
def test_the_form_for_accelerators_is_that_of_cpus(length, function):
    """Channels first and with a rule, against the derivative that JAX finds; alone and mapped."""
    arguments = (*signals(length), np.float32([1.5, -0.3, 0.0]))
    twice = tuple(np.stack([a, a[::-1]]) for a in arguments)
    many = jax.vmap(function, in_axes=(0, 0, 0, 0, 0, None))
    for compute, numbers in ((function, arguments), (many, twice)):
        expected = jax.jit(compute, static_argnums=5)(*numbers, "whole")
        with compiling_for("gpu"):
            found = jax.jit(compute, static_argnums=5)(*numbers, "auto")
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max() + 1e-6, rtol=0)


def test_on_a_cpu_an_even_length_takes_halves_and_an_odd_one_cannot():
    for length, longest in ((6, 6), (17, 34)):
        u, k, reverse, gain = signals(length)
        program = str(jax.make_jaxpr(two_sided_filtered)(u, k, reverse, gain))
        taken = {int(n) for n in re.findall(r"fft_lengths=\((\d+),\)", program)}
        assert max(taken) == longest
    with pytest.raises(ValueError, match=r"even length, got 17; use 'whole'"):
        fft_conv(u, k, method="halves")
    with pytest.raises(ValueError, match="unknown method 'fast'; choose one of auto"):
        fft_conv(u, k, method="fast")


def test_first_reverse_tap_meets_the_next_input():
    u, k, reverse, _ = signals(5)
    first = np.zeros_like(reverse)
    first[:, 0] = 1
    found = run(two_sided, u, np.zeros_like(k), first)
    np.testing.assert_allclose(found[:, :-1], u[:, 1:], atol=1e-6)
    np.testing.assert_allclose(found[:, -1], 0, atol=1e-6)


@pytest.mark.parametrize("length", [2, 17, 257])
def test_one_sided_convolution_without_gain_is_causal(length):
    u, k, _, _ = signals(length)
    t = length // 2
    other = u.copy()
    other[:, t:] += 10
    before, after = run(causal, u, k), run(causal, other, k)
    np.testing.assert_allclose(after[:, :t], before[:, :t], atol=1e-4)
    assert np.abs(after[:, t:] - before[:, t:]).max() > 1


@pytest.mark.parametrize("length", [2, 17, 257])
def test_reverse_part_is_strictly_anticausal(length):
    u, k, reverse, _ = signals(length)
    t = length // 2
    other = u.copy()
    other[:, : t + 1] += 10
    zero = np.zeros_like(k)
    before, after = run(two_sided, u, zero, reverse), run(two_sided, other, zero, reverse)
    np.testing.assert_allclose(after[:, t:], before[:, t:], atol=1e-4)
    if t:
        assert np.abs(after[:, :t] - before[:, :t]).max() > 1


@pytest.mark.parametrize("length", [1, 2, 6, 17, 64, 257, 258, 2048])
def test_gain_acts_on_the_spectrum_of_the_circle_of_length_2l(length):
    u, k, reverse, gain = signals(length)
    one, two = run(filtered, u, k, gain), run(two_sided_filtered, u, k, reverse, gain)
    for found, kernels in ((one, (k, None)), (two, (k, reverse))):
        exact = np.stack([oracles.convolve(u_LH, *kernels, gain) for u_LH in u])
        assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max() + 1e-6


@pytest.mark.parametrize("tone", [0, 1, 5, 16, 17])
def test_a_tone_is_scaled_by_the_gain_at_its_bin(tone):
    """The two kernels cover the circle; filled with one tone, they answer an impulse with it."""
    length = 17
    _, _, _, gain = signals(length)
    circle = np.cos(2 * np.pi * tone * np.arange(2 * length) / (2 * length) + 0.3)
    channels = np.ones((3, 1))
    k = (channels * circle[None, :length]).astype(np.float32)
    reverse = (channels * circle[None, : length - 1 : -1]).astype(np.float32)
    impulse = np.zeros((1, length, 3), np.float32)
    impulse[:, 0] = 1
    found = run(two_sided_filtered, impulse, k, reverse, gain)
    np.testing.assert_allclose(found[0], gain[:, tone] * circle[:length, None], atol=3e-6)


@pytest.mark.parametrize("length", [1, 2, 17, 2048])
def test_skip_adds_d_times_the_input_outside_the_gain(length):
    u, k, reverse, gain = signals(length)
    skip = np.float32([1.5, -0.3, 0.0])

    def everything(u, k, reverse, gain, skip):
        return fft_conv(u, k, reverse_kernel_HL=reverse, gain_HF=gain, skip_H=skip)

    found = run(everything, u, k, reverse, gain, skip)
    exact = np.stack([oracles.convolve(u_LH, k, reverse, gain) + skip * u_LH for u_LH in u])
    assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max() + 1e-6


def test_gradients_of_the_skip_and_of_what_it_passes_by_equal_the_closed_forms():
    """d/dD of sum w y is sum w u; that by u gains D w."""
    u, k, _, gain = signals(17)
    skip, w = np.float32([1.5, -0.3, 0.7]), signals(17)[0][::-1].copy()

    def objective(u, k, gain, skip):
        return jnp.sum(w * fft_conv(u, k, gain_HF=gain, skip_H=skip))

    with_skip = run(jax.grad(objective, (0, 1, 2, 3)), u, k, gain, skip)
    without = run(jax.grad(objective, (0, 1, 2, 3)), u, k, gain, np.zeros_like(skip))
    np.testing.assert_allclose(with_skip[3], np.sum(w * u, axis=(0, 1)), atol=3e-5)
    np.testing.assert_allclose(with_skip[0] - without[0], w * skip, atol=1e-5)
    for one, other in zip(with_skip[1:3], without[1:3], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.unoptimized
@pytest.mark.parametrize(("batch", "at_once", "loops"), [(6, 4, 2), (5, 4, 5), (4, 9, None)])
def test_on_tpus_slices_of_the_batch_are_convolved_as_the_whole(monkeypatch, batch, at_once, loops):
    """As many sequences as divide the batch; to the second order, and under `vmap`."""
    u, k, reverse, gain = signals(6)
    u_BLH = np.concatenate([u, -2 * u[:, ::-1], u**2, u[::-1]])[:batch]
    monkeypatch.setattr(devices, "ON_CHIP", at_once * 2 * 6 * 3 * 4)

    def objective(u_BLH, k, gain):
        y_BLH = fft_conv(u_BLH, k, reverse_kernel_HL=reverse, gain_HF=gain)
        return jnp.sum(y_BLH**3), y_BLH

    gradient = jax.value_and_grad(objective, (0, 1, 2), has_aux=True)

    def all_of_it(u_BLH, k, gain):
        slope = jax.jvp(lambda k: gradient(u_BLH, k, gain)[1], (k,), (k[::-1],))[1]
        twice = jax.vmap(gradient, (0, None, None))(jnp.stack([u_BLH, u_BLH[::-1]]), k, gain)
        return gradient(u_BLH, k, gain), slope, twice

    with compiling_for("tpu"):
        program = jax.make_jaxpr(gradient)(u_BLH, k, gain)
        found = jax.jit(all_of_it)(u_BLH, k, gain)
    turns = {eqn.params["length"] for eqn in program.eqns if eqn.primitive.name == "scan"}
    assert turns == ({loops} if loops else set())
    exact = jax.jit(all_of_it)(u_BLH, k, gain)  # on a CPU, by halves
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(f, e, atol=1e-5 * np.abs(e).max())


def test_gain_of_one_is_no_gain():
    u, k, reverse, gain = signals(64)
    plain = run(two_sided, u, k, reverse)
    np.testing.assert_array_equal(run(two_sided_filtered, u, k, reverse, np.ones_like(gain)), plain)


def test_convolution_is_linear_in_the_input_and_in_the_kernels():
    u, k, reverse, gain = signals(64)
    v, m, m_reverse, _ = (np.flip(a, axis=1).copy() for a in signals(64))
    whole = run(two_sided_filtered, 2 * u - v, k, reverse, gain)
    parts = 2 * run(two_sided_filtered, u, k, reverse, gain) - run(
        two_sided_filtered, v, k, reverse, gain
    )
    np.testing.assert_allclose(whole, parts, atol=3e-6 * np.abs(parts).max())
    whole = run(two_sided_filtered, u, k - m, reverse - m_reverse, gain)
    parts = run(two_sided_filtered, u, k, reverse, gain) - run(
        two_sided_filtered, u, m, m_reverse, gain
    )
    np.testing.assert_allclose(whole, parts, atol=3e-6 * np.abs(parts).max())


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    ("length", "backend", "order"), [(1, "cpu", 1), (5, "cpu", 1), (5, "gpu", 2)]
)
def test_gradients_pass_finite_differences_in_float64(length, backend, order):
    arguments = tuple(a.astype(float) for a in signals(length))
    with jax.enable_x64(True), compiling_for(backend):
        check_grads(
            jax.jit(two_sided_filtered), arguments, order=order, modes=["fwd", "rev"], rtol=1e-6
        )


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (causal, ((2, 8, 3), (3, 7)), r"input \(2, 8, 3\) needs a kernel \(3, 8\), got \(3, 7\)"),
        (causal, ((2, 8, 3), (8, 3)), r"needs a kernel \(3, 8\), got \(8, 3\)"),
        (two_sided, ((2, 8, 3), (3, 8), (1, 8)), r"needs a reverse kernel \(3, 8\), got \(1, 8\)"),
        (filtered, ((2, 8, 3), (3, 8), (3, 8)), r"gain on 9 bins, \(3, 9\), got \(3, 8\)"),
        (skipped, ((2, 8, 3), (3, 8), (8,)), r"needs a skip \(3,\), got \(8,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*(jnp.zeros(shape, jnp.float32) for shape in arguments))


FOUR_DEVICES = """
    import sys
    import jax
    jax.config.update("jax_num_cpu_devices", 4)
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec as P
    from ssm_jax.kernels import devices, fft_conv
    from ssm_jax.kernels.devices import compiling_for

    devices.ON_CHIP = 2 * 33 * 3 * 4  # one of the two sequences that a device has, on a TPU
    rng = np.random.default_rng(0)
    u = rng.normal(size=(8, 33, 3)).astype(np.float32)
    k, reverse = rng.normal(size=(2, 3, 33)).astype(np.float32)
    gain = np.exp(rng.normal(size=(3, 34))).astype(np.float32)

    def value(u, k, reverse, gain):
        y = fft_conv(u, k, reverse_kernel_HL=reverse, gain_HF=gain)
        return jnp.mean(jnp.sin(y)), y

    function = jax.value_and_grad(value, argnums=(0, 1, 2, 3), has_aux=True)
    alone = jax.jit(function)(u, k, reverse, gain)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh), compiling_for(sys.argv[1]):
        split = jax.device_put(u, NamedSharding(mesh, P("data")))
        whole = [jax.device_put(a, NamedSharding(mesh, P())) for a in (k, reverse, gain)]
        compiled = jax.jit(function).lower(split, *whole).compile()
        together = compiled(split, *whole)
        text = compiled.as_text()
    assert "all-reduce" in text, "the gradient of the kernel is a sum over devices"
    assert "all-gather" not in text, "the batch is gathered"
    assert (" while(" in text) == (sys.argv[1] == "tpu"), "slices on TPUs alone"
    y = together[0][1]
    assert y.sharding.spec == P("data"), y.sharding
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(a).max() + 1e-7)

    # 6 sequences do not split over 4 devices, and need not.
    with jax.set_mesh(mesh), compiling_for(sys.argv[1]):
        odd = jax.jit(function)(u[:6], k, reverse, gain)
    np.testing.assert_allclose(odd[0][1], alone[0][1][:6], rtol=0, atol=1e-5)
"""


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_four_devices_give_the_same_and_gather_no_batch(backend):
    """Values and gradients, forward and backward; the devices are virtual."""
    program = textwrap.dedent(FOUR_DEVICES)
    subprocess.run([sys.executable, "-c", program, backend], check=True, cwd=ROOT, timeout=120)
