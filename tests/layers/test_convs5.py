"""ConvS5 against loops over frames and windows in float64, in every way that it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads

from ssm_jax.layers.base import NoStateForm
from ssm_jax.layers.convs5 import ConvS5
from ssm_jax.layers.s5 import S5

B, L, Y, X, H, N = 2, 10, 4, 5, 3, 4


def layer(**options):
    return ConvS5(H, d_state=N, rngs=nnx.Rngs(0), **options)


def video(frames=L, seed=0):
    return np.random.default_rng(seed).normal(size=(B, frames, Y, X, H)).astype(np.float32)


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
    np.testing.assert_allclose(model(u), wanted, **near)
    state, outputs = model.prefill(u)
    np.testing.assert_allclose(outputs, wanted, **near)
    np.testing.assert_allclose(state, states[:, -1], **near)
    state = model.initial_state(B, frame=(Y, X))
    for step in range(L):
        state, y = model.step(state, u[:, step])
        np.testing.assert_allclose(y, wanted[:, step], **near)
    np.testing.assert_allclose(state, states[:, -1], **near)


def test_a_prefill_goes_on_from_a_state_and_ends_at_each_length():
    u, lengths = video(), [4, 7]
    for chunk in (None, 3):
        model = layer(chunk=chunk)
        state, _ = model.prefill(u[:, :6])
        _, later = model.prefill(u[:, 6:], state=state)
        np.testing.assert_allclose(later, model(u)[:, 6:], rtol=1e-5, atol=2e-6)
        state, _ = model.prefill(u, lengths)
        states, _ = recurrence(model, u)
        for b, length in enumerate(lengths):
            np.testing.assert_allclose(state[b], states[b, length - 1], rtol=1e-5, atol=2e-6)
        none, _ = model.prefill(u, [0, 1], state=state)
        np.testing.assert_array_equal(none[0], state[0])


def test_a_window_of_one_pixel_is_an_s5_at_each():
    model, u = layer(window=1), video()
    s5 = S5(H, d_state=N, bidirectional=False, clip_eigs=True, dt_transform="exp", rngs=nnx.Rngs(1))
    for name in ("A_re_raw", "A_im", "dt_raw"):
        setattr(s5, name, getattr(model, name))
    s5.B_ri[...], s5.C_ri[...] = model.B_ri[...], model.C_ri[...]
    s5.D[...] = jnp.zeros(H)
    pixels = np.moveaxis(u, 1, 3).reshape(B * Y * X, L, H)
    wanted = np.moveaxis(np.asarray(s5(pixels)).reshape(B, Y, X, L, H), 3, 1)
    np.testing.assert_allclose(model(u), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("horizon", [None, 13])
def test_the_filter_acts_over_time_on_a_circle_of_twice_the_length(horizon):
    model, u = layer(beta=0.7, chunk=4, horizon=horizon), video()
    steps = horizon or L
    model.beta[...] = jnp.asarray([0.7, -1.0, 0.3])
    # The kernels' first taps by the answers to impulses, in the frequency domain in float64.
    A_bar, B_bar, C = system(model)
    frames = np.pad(u.astype(float), ((0, 0), (0, steps - L), (0, 0), (0, 0), (0, 0)))
    v = np.einsum("blyxijh,ijhn->blyxn", windows(frames, 3), B_bar)
    taps = A_bar[None] ** np.arange(steps)[:, None]
    x = np.zeros((B, 2 * steps, Y, X, N), complex)
    for j in range(steps):
        x[:, j : j + steps] += taps[j] * v
    y = np.einsum("blyxijn,ijnh->blyxh", windows(x, 3), C).real
    s = np.arange(steps + 1) / (2 * steps)
    gain = (1 + s)[:, None] ** np.asarray(model.beta[...], float)
    filtered = np.fft.irfft(np.fft.rfft(y, axis=1) * gain[None, :, None, None], axis=1)
    np.testing.assert_allclose(model(u), filtered[:, :L], rtol=1e-4, atol=3e-6)
    with pytest.raises(NoStateForm, match="beta = 0"):
        model.prefill(u)


def test_gradients_and_their_memory():
    model = layer(window=3, chunk=3)
    graphdef, variables = nnx.split(model, nnx.Param, ...)[0], nnx.state(model, nnx.Param)
    others = nnx.split(model, nnx.Param, ...)[2]
    u = jnp.asarray(video(7))

    def loss(variables, u):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, variables, others)(u)))

    check_grads(loss, (variables, u), order=1, modes=("rev",), rtol=2e-2, eps=1e-2)


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
    ("call", "error", "words"),
    [
        (lambda: layer(window=2), ValueError, "window must be odd"),
        (lambda: layer(chunk=0), ValueError, "chunk must be at least 1 frame"),
        (lambda: layer(init="none"), ValueError, "unknown init"),
        (lambda: layer()(np.zeros((2, 3, 4, 3))), ValueError, r"\(B, L, Y, X, H\)"),
        (lambda: layer()(np.zeros((2, 3, 4, 5, 2))), ValueError, "H = 3"),
        (
            lambda: layer().step(layer().initial_state(1), np.zeros((1, 4, 5, 3))),
            ValueError,
            "the state must be",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_alpha_scales_the_imaginary_parts():
    one, ten = layer(), layer(alpha=10.0)
    np.testing.assert_allclose(ten.A_im[...], 10 * one.A_im[...], rtol=1e-6)
    np.testing.assert_array_equal(ten.A_re_raw[...], one.A_re_raw[...])
