"""One S4D layer in all the ways to run it: convolution, scan, prefill and step; other sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.layers import S4D
from ssm_jax.layers.base import NoStateForm

H, N = 6, 5


@functools.cache
def layer(bidirectional=False, **options):
    """A layer without a filter whose eigenvalues have left their start values."""
    options = {"beta": None, **options}
    model = S4D(H, d_state=N, bidirectional=bidirectional, rngs=nnx.Rngs(params=0), **options)
    rng = np.random.default_rng(0)
    for variable in (model.A_re_raw, model.A_im):
        noise = 0.3 * rng.normal(size=variable[...].shape)
        variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
    return model


def without_skip(model):
    """The layer with D = 0: what remains is a continuous system."""
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    model.D[...] = jnp.zeros_like(model.D[...])
    return model


def inputs(length, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, H)).astype(np.float32)


def call(model, u, lengths=None, key=None, **static):
    """The layer's output, compiled, the parameters being arguments."""
    graphdef, state = nnx.split(model)
    return run(_call, state, u, lengths, key, graphdef=graphdef, **static)


def _call(state, u, lengths, key, graphdef, **static):
    return nnx.merge(graphdef, state)(u, lengths, key=key, **static)


def prefill(model, u, lengths=None, start=None, **static):
    graphdef, state = nnx.split(model)
    return run(_prefill, state, u, lengths, start, graphdef=graphdef, **static)


def _prefill(state, u, lengths, start, graphdef, **static):
    return nnx.merge(graphdef, state).prefill(u, lengths, state=start, **static)


def steps(model, u, start=None):
    """lax.scan over `step` as it stands: the last state, and the outputs (B, L, H)."""
    graphdef, variables = nnx.split(model)
    start = np.asarray(model.initial_state(len(u))) if start is None else start
    return run(_steps, variables, u, start, graphdef=graphdef)


def _steps(variables, u_BLH, start, graphdef, **static):
    step = functools.partial(nnx.merge(graphdef, variables).step, **static)
    state, y_LBH = jax.lax.scan(step, start, jnp.swapaxes(u_BLH, 0, 1))
    return state, jnp.swapaxes(y_LBH, 0, 1)


def assert_close(found, exact, tolerance=3e-6):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


def forms(model, u, step_scale=1.0):
    """Outputs by convolution, scan, prefill and steps; states by the last two."""
    graphdef, variables = nnx.split(model)
    start = np.asarray(model.initial_state(len(u)))
    return run(_forms, variables, u, start, graphdef=graphdef, step_scale=step_scale)


def _forms(variables, u, start, graphdef, **scale):
    end, prefilled = _prefill(variables, u, None, None, graphdef, **scale)
    last, stepped = _steps(variables, u, start, graphdef, **scale)
    conv, scan = (
        _call(variables, u, None, None, graphdef, mode=mode, **scale) for mode in ("conv", "scan")
    )
    return (conv, scan, prefilled, stepped), (end, last)


@pytest.mark.parametrize("length", [1, 2, 257, 2048])
def test_convolution_scan_prefill_and_steps_are_one_layer(length):
    """Each against the float64 recurrence; they also agree with each other, then."""
    model, u = layer(alpha=3.0), inputs(length)
    exact = np.stack([oracles.s4d_layer(numbers(model), u_LH) for u_LH in u])
    (conv, scan, prefilled, stepped), (end, last) = forms(model, u)
    for found in (conv, scan, prefilled):
        assert_close(found, exact)
    assert_close(stepped, exact, 1e-5)
    assert end.shape == (2, H, N) and end.dtype == np.complex64
    assert_close(last, end, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"n_ssm": 3, "dt_transform": "exp", "discretization": "bilinear"},
        {"init": "dfout", "discretization": "none", "n_ssm": 2, "input_norm": "lru"},
        {"init": "s4d_legs", "real_transform": "softplus"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.parametrize("step_scale", [1.0, 0.25])
def test_the_forms_agree_under_each_option(options, step_scale):
    model, u = layer(**options), inputs(100)
    (conv, scan, prefilled, stepped), (end, last) = forms(model, u, step_scale)
    assert_close(scan, conv)
    assert_close(prefilled, conv)
    assert_close(stepped, conv)
    assert_close(last, end)


@pytest.mark.parametrize("length", [1, 65])
def test_scan_of_a_bidirectional_layer_is_its_convolution(length):
    """With padding, which the part that looks ahead meets first."""
    model, u = layer(bidirectional=True), inputs(length)
    lengths = np.array([length, (length + 1) // 2], np.int32)
    found = call(model, u, lengths, mode="scan")
    assert_close(found, call(model, u, lengths, mode="conv"))


def test_the_modes_share_the_dropout():
    model, u, key = layer(dropout=0.5), inputs(64), jax.random.key(0)
    outputs = [call(model, u, key=key, mode=mode) for mode in ("conv", "scan")]
    assert 0.2 < (outputs[0] == 0).mean() < 0.8
    np.testing.assert_array_equal(outputs[0] == 0, outputs[1] == 0)


def test_a_prefilled_state_goes_on_step_by_step():
    """Of a batch of three lengths: each sequence continues after its own last real step."""
    model, u = layer(), inputs(80, batch=3)
    lengths = np.array([40, 17, 1], np.int32)
    padded = u[:, :40].copy()
    padded[1, 17:] = np.nan
    state, y = prefill(model, padded, lengths)
    _, whole = prefill(model, u)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(y[b, :n], whole[b, :n], atol=3e-6 * np.abs(whole).max())
        _, rest = steps(model, u[b : b + 1, n:], state[b : b + 1])
        assert_close(rest[0], whole[b, n:], 1e-5)


def test_a_sequence_in_two_prefills_is_the_sequence():
    model, u = layer(), inputs(90)
    end, y = prefill(model, u)
    state, first = prefill(model, u[:, :33])
    state, second = prefill(model, u[:, 33:], start=state)
    assert_close(np.concatenate([first, second], axis=1), y)
    assert_close(state, end)


@pytest.mark.parametrize("mode", ["conv", "scan"])
@pytest.mark.parametrize(
    "options", [{}, {"init": "ring", "discretization": "none"}], ids=["zoh", "none"]
)
def test_a_held_signal_sampled_twice_as_densely_gives_the_same_outputs(options, mode):
    """Zero-order hold is exact for it: the ends of the coarse steps are every second fine one."""
    model, u = without_skip(layer(bidirectional=True, **options)), inputs(64)
    coarse = call(model, u, mode=mode)
    fine = call(model, np.repeat(u, 2, axis=1), mode=mode, step_scale=0.5)
    assert_close(fine[:, 1::2], coarse)


@pytest.mark.parametrize("unit", ["lra", "rad"])
def test_filter_of_a_smooth_signal_does_not_depend_on_the_sampling(unit):
    """Tones well below Nyquist, sampled twice as densely: within 0.5 % of the largest output.

    A held signal is late by half a step: the coarse output stands between two fine ones.
    """
    model = S4D(H, d_state=N, beta=1.5, beta_unit=unit, rngs=nnx.Rngs(params=1))
    model = without_skip(model)
    t = np.arange(1024) / 2  # in coarse samples
    tones = np.cos(2 * np.pi * t / 32 + 1) + np.sin(2 * np.pi * t / 50)
    window = np.sin(np.pi * t / 512) ** 2
    u = np.broadcast_to((tones * window).astype(np.float32)[None, :, None], (1, 1024, H))
    coarse = call(model, u[:, ::2])
    fine = call(model, u, step_scale=0.5)
    assert_close((fine[:, ::2] + fine[:, 1::2]) / 2, coarse, 0.005)
    model.beta[...] = jnp.zeros((H,))
    assert np.abs(call(model, u[:, ::2]) - coarse).max() > 0.03 * np.abs(coarse).max()


def test_a_short_input_with_a_horizon_is_the_padded_input():
    """With a filter, which without a horizon would act on another circle."""
    model, longer = (
        S4D(H, d_state=N, beta=0.8, horizon=steps, rngs=nnx.Rngs(params=0)) for steps in (None, 64)
    )
    u = inputs(64)
    lengths = np.array([17, 11], np.int32)
    padded = call(model, u, lengths)
    short = call(longer, u[:, :17], lengths)
    assert_close(short, padded[:, :17])
    assert np.abs(call(model, u[:, :17], lengths) - short).max() > 1e-3


def test_a_horizon_changes_nothing_without_a_filter():
    model, u = layer(), inputs(17)
    exact = call(model, u)
    for mode in ("conv", "scan"):
        assert_close(call(layer(horizon=64), u, mode=mode), exact)


def test_layers_without_a_state_form_say_so():
    learned = S4D(H, d_state=N, bidirectional=False, rngs=nnx.Rngs(params=0))
    state, u = learned.initial_state(2), inputs(4)
    learned.step(state, u[:, 0])  # its beta is known to be 0
    with pytest.raises(NoStateForm, match=r"S4D: prefill needs beta = 0, and this beta is traced"):
        prefill(learned, u)
    filtered = S4D(H, d_state=N, beta=0.5, learn_beta=False, rngs=nnx.Rngs(params=0))
    with pytest.raises(NoStateForm, match=r"mode='scan' needs beta = 0"):
        filtered(u, mode="scan")
    both = layer(bidirectional=True)
    for run_it in (lambda: both.step(state, u[:, 0]), lambda: both.prefill(u)):
        with pytest.raises(NoStateForm, match="needs a causal layer"):
            run_it()


def test_modes_and_horizons_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="unknown mode 'fft'; choose one of conv, scan"):
        layer()(inputs(8), mode="fft")
    with pytest.raises(ValueError, match="horizon=7 must be at least the input's length 8"):
        layer(horizon=7)(inputs(8))
