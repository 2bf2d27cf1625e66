"""ConvS5 against loops over frames and windows in float64, in every way that it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads

from ssm_jax.analysis.spectra import filter_gain, response_magnitude, view
from ssm_jax.layers.base import NoStateForm
from ssm_jax.layers.convs5 import ConvS5
from ssm_jax.layers.s5 import S5

B, L, Y, X, H, N = 2, 10, 4, 5, 3, 4


def layer(**options):
    return ConvS5(H, d_state=N, rngs=nnx.Rngs(0), **options)


def video(frames=L, seed=0):
    return np.random.default_rng(seed).normal(size=(B, frames, Y, X, H)).astype(np.float32)


# Compiled whole: each operation by itself would be a program of its own.
call = nnx.jit(lambda model, *inputs: model(*inputs))
prefill = nnx.jit(lambda model, *inputs, state=None: model.prefill(*inputs, state=state))


@nnx.jit
def stepped(model, u):
    """The state after all steps, one by one, and the outputs."""
    state = model.initial_state(B, frame=(Y, X))
    state, y = jax.lax.scan(model.step, state, jnp.moveaxis(u, 1, 0))
    return state, jnp.moveaxis(y, 0, 1)


def windows(frames, width):
    """(.., Y, X, W, W, H), with zeros around the frames."""
    edge = width // 2
    padded = np.pad(frames, [(0, 0)] * (frames.ndim - 3) + [(edge, edge), (edge, edge), (0, 0)])
    rows, columns = frames.shape[-3:-1]
    parts = [
        np.stack([padded[..., i : i + rows, j : j + columns, :] for j in range(width)], axis=-2)
        for i in range(width)
    ]
    return np.stack(parts, axis=-3)


def system(model):
    """A_bar (N,), B_bar (W, W, H, N) and C (W, W, N, H) from the parameters, complex128."""
    p = {name: np.asarray(getattr(model, name)[...], float) for name in ("A_re_raw", "A_im")}
    B_ri, C_ri, dt_raw = (np.asarray(x[...], float) for x in (model.B_ri, model.C_ri, model.dt_raw))
    A = np.minimum(p["A_re_raw"], -1e-4) + 1j * p["A_im"]
    A_bar, gain = oracles.discretize(A, np.exp(dt_raw), "zoh")
    width = model.window
    B_bar = (gain[:, None] * (B_ri @ [1, 1j])).reshape(N, width, width, H)
    C = 2 * (C_ri @ [1, 1j]).reshape(width, width, H, N)
    return A_bar, np.moveaxis(B_bar, 0, -1), np.swapaxes(C, 2, 3)


def recurrence(model, u, state=None):
    """All states (B, L, Y, X, N) and outputs."""
    A_bar, B_bar, C = system(model)
    x = np.zeros((*u[:, 0].shape[:-1], N), complex) if state is None else np.asarray(state)
    states, outputs = [], []
    for frame in np.moveaxis(u.astype(float), 1, 0):
        v = np.einsum("byxijh,ijhn->byxn", windows(frame, model.window), B_bar)
        x = A_bar * x + v
        states.append(x)
        outputs.append(np.einsum("byxijn,ijnh->byxh", windows(x, model.window), C).real)
    return np.stack(states, axis=1), np.stack(outputs, axis=1)


@pytest.mark.parametrize("window, chunk", [(3, None), (3, 4), (1, 3), (5, 5)])
def test_all_ways_to_run_are_the_recurrence(window, chunk):
    model, u = layer(window=window, chunk=chunk), video()
    states, wanted = recurrence(model, u)
    near = {"rtol": 1e-5, "atol": 2e-6}
    np.testing.assert_allclose(call(model, u), wanted, **near)
    for state, outputs in (prefill(model, u), stepped(model, u)):
        np.testing.assert_allclose(outputs, wanted, **near)
        np.testing.assert_allclose(state, states[:, -1], **near)


def test_a_prefill_goes_on_from_a_state_and_ends_at_each_length():
    u, lengths = video(), [4, 7]
    for chunk in (None, 3):
        model = layer(chunk=chunk)
        state, _ = prefill(model, u[:, :6])
        _, later = prefill(model, u[:, 6:], state=state)
        np.testing.assert_allclose(later, call(model, u)[:, 6:], rtol=1e-5, atol=2e-6)
        state, _ = prefill(model, u, np.array(lengths))
        states, _ = recurrence(model, u)
        for b, length in enumerate(lengths):
            np.testing.assert_allclose(state[b], states[b, length - 1], rtol=1e-5, atol=2e-6)
        none, _ = prefill(model, u, np.array([0, 1]), state=state)
        np.testing.assert_array_equal(none[0], state[0])


def test_a_window_of_one_pixel_is_an_s5_at_each():
    model, u = layer(window=1), video()
    s5 = S5(H, d_state=N, bidirectional=False, clip_eigs=True, dt_transform="exp", rngs=nnx.Rngs(1))
    for name in ("A_re_raw", "A_im", "dt_raw"):
        setattr(s5, name, getattr(model, name))
    s5.B_ri[...], s5.C_ri[...] = model.B_ri[...], model.C_ri[...]
    s5.D[...] = jnp.zeros(H)
    pixels = np.moveaxis(u, 1, 3).reshape(B * Y * X, L, H)
    wanted = np.moveaxis(np.asarray(call(s5, pixels)).reshape(B, Y, X, L, H), 3, 1)
    np.testing.assert_allclose(call(model, u), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("horizon", [None, 13])
def test_filtered_kernels_are_kept_causal(horizon):
    model, u = layer(beta=0.7, horizon=horizon), video()
    steps = horizon or L
    A_bar, B_bar, C = system(model)
    # The even response of the gain by a sum of cosines, and kernels by direct sums.
    s = np.arange(steps + 1) / (2 * steps)
    weight = np.where((s == 0) | (s == 0.5), 1, 2) / (2 * steps)
    lags = np.arange(-steps + 1, steps)
    g = (weight * (1 + s) ** 0.7 * np.cos(2 * np.pi * lags[:, None] * s)).sum(axis=1)
    kappa = np.zeros((steps, N), complex)
    for lag, m in np.ndindex(steps, steps):
        kappa[lag] += g[lag - m + steps - 1] * A_bar**m
    v = np.einsum("blyxijh,ijhn->blyxn", windows(u.astype(float), 3), B_bar)
    x = np.zeros_like(v)
    for frame in range(L):
        for j in range(frame + 1):
            x[:, frame] += kappa[frame - j] * v[:, j]
    wanted = np.einsum("blyxijn,ijnh->blyxh", windows(x, 3), C).real
    found = call(model, u)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=3e-6)
    changed = u.copy()
    changed[:, 6:] *= -1
    # FFTs round by what all frames are.
    np.testing.assert_allclose(call(model, changed)[:, :6], found[:, :6], atol=3e-6)
    with pytest.raises(NoStateForm, match="beta = 0"):
        model.prefill(u)


def test_a_beta_of_zero_is_no_filter_and_one_number_learns():
    model, u = layer(beta=0.0), video()
    np.testing.assert_allclose(call(model, u), call(layer(), u), rtol=1e-5, atol=2e-6)
    assert isinstance(model.beta, nnx.Param) and model.beta.shape == (1,)
    graphdef, beta, others = nnx.split(model, nnx.PathContains("beta"), ...)

    def loss(beta):
        return jnp.sum(nnx.merge(graphdef, beta, others)(u) ** 2)

    check_grads(jax.jit(loss), (beta,), order=1, modes=("rev",), rtol=2e-2, eps=1e-2)


@pytest.mark.parametrize("shape", [(0, L, Y, X, H), (B, L, 0, X, H)])
def test_nothing_comes_of_nothing(shape):
    for options in ({}, {"chunk": 4}, {"beta": 0.5}):
        assert call(layer(**options), np.zeros(shape)).shape == shape
    model = layer()
    state, y = prefill(model, np.zeros(shape))
    assert y.shape == shape
    state, y = model.step(state, np.zeros(shape)[:, 0])
    assert state.shape == (shape[0], *shape[2:4], N) and y.shape == shape[:1] + shape[2:]
    assert model(np.zeros(shape), step_scale=np.ones(shape[:2])).shape == shape
    assert model(np.zeros(shape), starts_BL=np.zeros(shape[:2], bool)).shape == shape


def test_gradients_and_their_memory():
    model = layer(window=3, chunk=3)
    graphdef, variables = nnx.split(model, nnx.Param, ...)[0], nnx.state(model, nnx.Param)
    others = nnx.split(model, nnx.Param, ...)[2]
    u = jnp.asarray(video(7))

    def loss(variables, u):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, variables, others)(u)))

    check_grads(jax.jit(loss), (variables, u), order=1, modes=("rev",), rtol=2e-2, eps=1e-2)


def test_chunks_bound_the_memory_of_a_gradient():
    def temporaries(chunk):
        model = ConvS5(2, d_state=16, chunk=chunk, rngs=nnx.Rngs(0))
        graphdef, variables = nnx.split(model)
        loss = jax.grad(lambda v, u: jnp.sum(nnx.merge(graphdef, v)(u) ** 2))
        u = jax.ShapeDtypeStruct((1, 128, 8, 8, 2), jnp.float32)
        return jax.jit(loss).lower(variables, u).compile().memory_analysis().temp_size_in_bytes

    states = 128 * 8 * 8 * 2 * 16 * 4  # of all frames, in bytes
    assert temporaries(None) > 2 * states
    assert temporaries(8) < states


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: layer(window=2), ValueError, "window must be odd"),
        (lambda: layer(chunk=0), ValueError, "chunk must be at least 1 frame"),
        (lambda: layer(init="none"), ValueError, "unknown init"),
        (lambda: layer(bidirectional=True), ValueError, "bidirectional=True is not"),
        (lambda: layer(beta=np.zeros(H)), ValueError, "one number for all channels"),
        (lambda: layer()(np.zeros((2, 3, 4, 3))), ValueError, r"\(B, L, Y, X, H\)"),
        (lambda: layer()(np.zeros((2, 3, 4, 5, 2))), ValueError, "H = 3"),
        (
            lambda: layer().step(layer().initial_state(1), np.zeros((1, 4, 5, 3))),
            ValueError,
            "the state must be",
        ),
    ],
)
def test_what_does_not_fit_is_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong()


def test_alpha_scales_the_imaginary_parts():
    one, ten = layer(), layer(alpha=10.0)
    np.testing.assert_allclose(ten.A_im[...], 10 * one.A_im[...], rtol=1e-6)
    np.testing.assert_array_equal(ten.A_re_raw[...], one.A_re_raw[...])


@pytest.mark.parametrize("beta", [-1.0, 1.0])
def test_the_gain_that_is_shown_is_that_of_the_causal_filter(beta):
    model = layer(beta=beta, learn_beta=False, window=1, alpha=0.3, dt_min=0.02, dt_max=0.05)
    steps, n_fft = 200, 400
    omega_F = np.array([0.01, 0.03, 0.1, 0.3])
    found_CHF = response_magnitude(view("ssm", model), omega_F, n_fft)[0]
    # By the layer's own answers to an impulse in each channel.
    impulses = np.zeros((H, steps, 1, 1, H), np.float32)
    impulses[np.arange(H), 0, 0, 0, np.arange(H)] = 1
    answer_ITO = np.asarray(call(model, impulses))[:, :, 0, 0]
    spectrum_IFO = np.einsum(
        "ito,tf->ifo", answer_ITO, np.exp(-1j * np.outer(range(steps), omega_F))
    )
    wanted_OF = np.linalg.norm(spectrum_IFO, axis=0).T
    # The hold and half a step, for which the one is continuous, take less than 3 % here.
    np.testing.assert_allclose(found_CHF, wanted_OF, rtol=0.03)
    ahead = filter_gain(view("ssm", model), omega_F, n_fft)
    free = ConvS5(H, d_state=N, window=1, alpha=0.3, dt_min=0.02, dt_max=0.05, rngs=nnx.Rngs(0))
    both = response_magnitude(view("ssm", free), omega_F, n_fft)[0] * ahead
    assert np.abs(both / wanted_OF - 1).max() > 0.06  # the filter that reaches ahead is another
