"""Rules that hold for every layer: types, lengths, scales, shapes and ranges."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import run

from ssm_jax.kernels import dplr_recurrence, s4d_recurrence
from ssm_jax.kernels.arrays import checked_lengths, real_steps
from ssm_jax.layers import LAYERS
from ssm_jax.layers.base import StateSpaceLayer
from ssm_jax.layers.inputs import _one_program
from ssm_jax.options.arguments import parameters_of

B, L, H = 3, 3, 2
each_layer = pytest.mark.parametrize("name", LAYERS)


def made(name):
    options = {"d_state": 2, "beta": None, "bidirectional": False}
    return LAYERS[name](H, rngs=nnx.Rngs(0), **options)


causal = functools.cache(made)  # no test changes it


def inputs(length=L):
    return np.random.default_rng(0).normal(size=(B, length, H))


def ways(layer, u_BLH, lengths=None):
    """The outputs by convolution, scan, prefill and steps."""
    _, stepped = jax.lax.scan(
        layer.step, layer.initial_state(u_BLH.shape[0]), jnp.swapaxes(u_BLH, 0, 1)
    )
    return {
        "conv": layer(u_BLH, lengths, mode="conv"),
        "scan": layer(u_BLH, lengths, mode="scan"),
        "prefill": layer.prefill(u_BLH, lengths)[1],
        "step": jnp.swapaxes(stepped, 0, 1),
    }


def ways_by_arguments(layer, u_BLH):
    graphdef, state = nnx.split(layer)
    return run(_ways, state, u_BLH, graphdef=graphdef)


def _ways(state, u_BLH, graphdef):
    return ways(nnx.merge(graphdef, state), u_BLH)


@each_layer
def test_float64_runs_in_every_way_to_the_accuracy_of_float64(name):
    """With float32 parameters too, which are then exact constants; the gradient is float64."""
    with jax.enable_x64(True):
        layer = made(name)

        @jax.jit
        def gradient(u):
            def sums(u):
                found = ways(layer, u)
                return sum(jnp.sum(jnp.sin(y)) for y in found.values()), found

            return jax.grad(sums, has_aux=True)(u)

        slope, found = gradient(jnp.asarray(inputs()))
        assert slope.dtype == jnp.float64
        for way, y in found.items():
            assert y.dtype == jnp.float64, way
            np.testing.assert_allclose(y, found["conv"], rtol=0, atol=1e-13, err_msg=way)
        single = jax.eval_shape(lambda u: ways(layer, u), jnp.zeros((B, L, H), jnp.float32))
        assert {y.dtype for y in single.values()} == {jnp.dtype(jnp.float32)}


@each_layer
def test_a_causal_layer_without_a_filter_steps_with_its_parameters_as_arguments(name):
    """beta = 0 is then not known, but that there is no filter is."""
    found = ways_by_arguments(causal(name), inputs())
    for way, y in found.items():
        np.testing.assert_allclose(y, found["scan"], rtol=0, atol=2e-6, err_msg=way)


@each_layer
def test_other_types_are_computed_in_float32_and_keep_their_float_type(name):
    layer = causal(name)
    whole = np.rint(4 * inputs())  # exact in every type
    exact = ways_by_arguments(layer, whole)  # NumPy's float64 where that is not enabled
    for way, y in ways_by_arguments(layer, jnp.asarray(whole, jnp.bfloat16)).items():
        assert exact[way].dtype == jnp.float32 and y.dtype == jnp.bfloat16, way
        np.testing.assert_allclose(
            y.astype(jnp.float32), exact[way], rtol=2**-8, atol=1e-6, err_msg=way
        )
    for dtype, out in ((jnp.float16, jnp.float16), (jnp.int8, jnp.float32), (bool, jnp.float32)):
        found = jax.eval_shape(lambda u: ways(layer, u), jax.ShapeDtypeStruct((B, L, H), dtype))
        assert {y.dtype for y in found.values()} == {jnp.dtype(out)}
    slope = jax.eval_shape(
        jax.grad(lambda u: layer(u, mode="conv").astype(jnp.float32).sum()),
        jax.ShapeDtypeStruct((B, L, H), jnp.bfloat16),
    )
    assert slope.dtype == jnp.bfloat16


@each_layer
def test_the_system_of_a_layer_can_be_read_in_any_setting_of_promotion(name):
    layer = causal(name)
    read = ("eigenvalues", "state_matrix", "input_vector", "input_matrix", "readout", "step_sizes")
    methods = [getattr(layer, method) for method in read if hasattr(layer, method)]
    with jax.numpy_dtype_promotion("strict"):
        found = jax.tree.leaves(jax.jit(lambda: [method() for method in methods])())
    assert {x.dtype for x in found} == {jnp.dtype(jnp.complex64), jnp.dtype(jnp.float32)}


@each_layer
@pytest.mark.filterwarnings("error")
def test_lengths_mean_the_same_in_every_use_of_a_layer(name):
    """Beyond L is L, below 0 is 0, where they are not known: as uint8 and negative numbers too."""
    layer, u = causal(name), jnp.asarray(inputs(), jnp.float32)

    @jax.jit
    def used(lengths):
        start = layer.initial_state(B)
        _, states = jax.lax.scan(
            lambda x, u: (layer.step(x, u)[0], x), start, jnp.swapaxes(u, 0, 1)
        )
        state, _ = layer.prefill(u, lengths)
        outputs = layer(u, lengths, mode="conv"), layer(u, lengths, mode="scan")
        return state, *outputs, states

    state, conv, scan, states = used(np.array([0, 2, 3], np.int32))
    assert (state[0] == 0).all() and (conv[0] == 0).all() and (scan[0] == 0).all()
    np.testing.assert_allclose(state[1], states[2, 1], atol=1e-6)  # before the third step
    for lengths in (np.array([0, 2, 200], np.uint8), np.array([-7, 2, 4], np.int32)):
        for found, exact in zip(used(lengths), (state, conv, scan, states), strict=True):
            np.testing.assert_array_equal(found, exact)
    for lengths in ([0, 2, 3], np.array([0, 2, 3]), np.array([0, 2, 3], np.uint8)):
        jax.eval_shape(lambda u, lengths=lengths: layer.prefill(u, lengths), u)


@pytest.mark.filterwarnings("error")
def test_known_lengths_are_the_same_in_any_integer_type_and_container():
    for lengths in (
        [0, 2, 3],
        (0, 2, np.int64(3)),
        np.array([0, 2, 3]),
        np.array([0, 2, 3], np.uint8),
        jnp.array([0, 2, 3], jnp.int16),
    ):
        found = checked_lengths("x", lengths, (3,), 3)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, [0, 2, 3])
    assert checked_lengths("x", None, (3,), 3) is None
    assert checked_lengths("x", [], (0,), 3).shape == (0,)


def test_lengths_do_not_overflow_their_type():
    """300 steps in uint8, and 2^40 in int64."""
    found = jax.jit(lambda n: checked_lengths("x", n, (2,), 300))(np.array([7, 255], np.uint8))
    np.testing.assert_array_equal(found, [7, 255])
    assert real_steps(found, 300).sum() == 262
    with jax.enable_x64(True):
        found = jax.jit(lambda n: checked_lengths("x", n, (2,), 300))(np.array([-(2**40), 2**40]))
        np.testing.assert_array_equal(found, [0, 300])


WRONG_LENGTHS = [
    ([1, 2], ValueError, r"lengths must have the shape \(3,\), got \(2,\)"),
    (2, ValueError, r"lengths must have the shape \(3,\), got \(\)"),
    ([1.0, 2.0, 3.0], TypeError, "lengths must be integers, got float64"),
    ([True, False, True], TypeError, "lengths must be integers, got bool"),
    ([1, 2, 4], ValueError, r"lengths must be in 0\.\.3, .* got 4 for example 2"),
    (jnp.array([1, -2, 3]), ValueError, ".* got -2 for example 1"),
]


@each_layer
@pytest.mark.parametrize(("lengths", "error", "message"), WRONG_LENGTHS)
def test_lengths_that_do_not_fit_are_refused(name, lengths, error, message):
    layer, u = causal(name), jnp.ones((B, L, H))
    for use in (layer, layer.prefill):
        with pytest.raises(error, match=f"^{layer.NAME}: {message}"):
            use(u, lengths)


def test_recurrences_of_the_kernels_refuse_the_same_lengths():
    A, dt, u = -jnp.ones((H, 1), jnp.complex64), jnp.ones(H), jnp.ones((B, L, H))
    for kernel, arguments in ((s4d_recurrence, (A, A, dt)), (dplr_recurrence, (A, A, A, A, dt))):
        with pytest.raises(ValueError, match=r"lengths must be in 0\.\.3"):
            kernel(u, *arguments, None, [1, 2, 4])


@each_layer
def test_inputs_that_do_not_fit_are_refused_by_the_name_of_the_layer(name):
    layer = causal(name)
    state = layer.initial_state(B)
    for shape in ((L, H), (B, 0, H), (B, L, H + 1), (1, B, L, H), (B, L)):
        wrong = jnp.zeros(shape)
        text = rf"^{layer.NAME}: the input must be \(B, L, H\) with L >= 1 and H = 2, got \("
        for use in (layer, lambda u: layer(u, mode="conv"), layer.prefill):
            with pytest.raises(ValueError, match=text):
                use(wrong)
    for wrong in (jnp.zeros((B, L, H)), jnp.zeros((B, H + 1)), jnp.zeros(H)):
        with pytest.raises(ValueError, match=rf"^{layer.NAME}: the input must be \(B, H\)"):
            layer.step(state, wrong)
    for use in (lambda u: layer(u), layer.prefill, lambda u: layer.step(state, u[:, 0])):
        with pytest.raises(TypeError, match=f"^{layer.NAME}: the input must be real, got complex"):
            use(jnp.zeros((B, L, H), jnp.complex64))
    text = f"^{layer.NAME}: the state must be "
    for wrong in (state[:1], state[0], jnp.swapaxes(state, 0, 1), state[..., :1]):
        with pytest.raises(ValueError, match=text):
            layer.step(wrong, jnp.zeros((B, H)))
        with pytest.raises(ValueError, match=text):
            layer.prefill(jnp.zeros((B, L, H)), state=wrong)
    keys = jax.random.split(jax.random.key(0), B)
    for key in (keys, 0, jnp.arange(3), jnp.arange(2), np.zeros(3, np.uint32)):
        with pytest.raises(ValueError, match=f"^{layer.NAME}: key must be a single key"):
            layer(jnp.zeros((B, L, H)), key=key)
    with pytest.raises(TypeError, match=r"horizon must be an integer, got 4\.0"):
        LAYERS[name](H, horizon=4.0, rngs=nnx.Rngs(0))


@each_layer
@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e39, 1e-50, jnp.float32(0), 0])
def test_scales_that_are_no_positive_number_are_refused(name, scale):
    layer, u = causal(name), jnp.ones((B, L, H))
    for use in (
        lambda: layer(u, mode="conv", step_scale=scale),
        lambda: layer(u, mode="scan", step_scale=scale),
        lambda: layer.prefill(u, step_scale=scale),
        lambda: layer.step(layer.initial_state(B), u[:, 0], step_scale=scale),
    ):
        with pytest.raises(ValueError, match=f"^{layer.NAME}: step_scale must be positive"):
            use()


@each_layer
@pytest.mark.parametrize("shape", [(1,), (H,), (B, 1), (B, L, 1)])
def test_a_scale_of_other_axes_is_refused_also_where_it_is_traced(name, shape):
    """Such as one per sequence, which would be taken for one per mode where B = N."""
    layer, u = causal(name), jnp.ones((B, L, H))
    with pytest.raises(ValueError, match=f"^{layer.NAME}: step_scale must be one real number"):
        jax.eval_shape(lambda scale: layer(u, step_scale=scale), jnp.ones(shape))


RANGES = [
    *[(key, 0) for key in ("d_model", "alpha", "dt_min", "dt_max")],
    *[(key, value) for key in ("d_model", "d_state") for value in (-1, 2.5, None, True, np.nan)],
    *[(key, np.nan) for key in ("alpha", "alpha_real", "beta", "dt_min", "dt_max", "dropout")],
    *[(key, np.inf) for key in ("alpha", "alpha_real", "beta", "dt_min", "dt_max", "dropout")],
    *[(key, -0.5) for key in ("alpha", "alpha_real", "dt_min", "dropout")],
    ("dropout", 1.0),
    ("dropout", 1.5),
    ("dropout", "0.1"),
    ("dt_min", 1e-50),
    ("dt_max", 1e39),
    ("beta", 4.5),
    ("beta", [0.5]),
    *[(key, "no") for key in ("bidirectional", "tie_dropout", "learn_beta")],
]


@each_layer
@pytest.mark.parametrize(("key", "value"), RANGES)
def test_options_out_of_range_are_refused_by_name(name, key, value):
    if key not in parameters_of(LAYERS[name]):
        assert name in ("lru", "linoss", "dlinoss") and key in ("alpha_real", "dt_min", "dt_max")
        return
    options = {"d_model": H, "d_state": 2, key: value}
    with pytest.raises(ValueError, match=f"^{LAYERS[name].NAME}: {key}.*must be .*"):
        LAYERS[name](**options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("s4d", "n_ssm", 1.5),
        ("s4", "n_ssm", np.nan),
        ("s5", "n_blocks", 0),
        ("s4", "b_clip", np.nan),
        ("s4", "b_clip", -1.0),
        ("s4d", "init_seed", -1),
        ("s5", "init_seed", 0.5),
        ("lru", "r_min", 1.0),
        ("lru", "r_max", 0.0),
        ("linoss", "scheme", "IM"),
        ("dlinoss", "r_min", -0.1),
        ("s4d", "skip", 1),
        ("s5", "conj_sym", 0),
        ("s5", "clip_eigs", "yes"),
        ("s4d", "init", np.array([1j * np.nan, 0])),
        ("s4d", "init", None),
        ("s5", "init", None),
        ("s4d", "discretization", None),
    ],
)
def test_options_of_one_layer_out_of_range_are_refused(name, key, value):
    with pytest.raises(ValueError):
        LAYERS[name](**{"d_model": H, "d_state": 2, key: value}, rngs=nnx.Rngs(0))


@each_layer
def test_a_dropout_just_below_one_and_numpy_numbers_are_taken(name):
    options = {"d_state": np.int64(2), "dropout": 0.999, "alpha": np.float32(1), "beta": None}
    assert LAYERS[name](np.int32(H), **options, rngs=nnx.Rngs(0)).dropout == 0.999


@each_layer
def test_what_makes_no_random_parameters_is_refused_by_the_name_of_the_layer(name):
    streams = nnx.Rngs(dropout=0), nnx.Rngs()
    for rngs in (0, None, jax.random.key(0), jax.random.PRNGKey(0), *streams):
        text = (
            rf'^{LAYERS[name].NAME}: rngs must be flax\.nnx\.Rngs with a stream "params", [^\n]*$'
        )
        with pytest.raises(TypeError, match=text):
            LAYERS[name](H, d_state=2, rngs=rngs)
    LAYERS[name](H, d_state=2, rngs=nnx.Rngs(params=jax.random.key(0)))


@each_layer
def test_a_list_of_beta_is_an_array(name):
    for beta in ([0.5, 0.25], (0.5, 0.25), [jnp.float32(0.5), 0.25]):
        layer = LAYERS[name](H, d_state=2, beta=beta, rngs=nnx.Rngs(0))
        np.testing.assert_array_equal(layer.beta[...], [0.5, 0.25])
    for beta in ([0.5, 4.5], ["a", "b"], [0.5, 0.5, 0.5], [[1], [2, 3]]):
        with pytest.raises(ValueError, match=f"^{LAYERS[name].NAME}: beta must be [^\\n]*$"):
            LAYERS[name](H, d_state=2, beta=beta, rngs=nnx.Rngs(0))


@each_layer
def test_step_sizes_that_are_no_positive_numbers_are_refused(name):
    layer = causal(name)
    if not hasattr(layer, "set_step_sizes"):
        assert name in ("lru", "linoss", "dlinoss")
        return
    before = np.asarray(layer.dt_raw[...])
    for dt in (-1.0, 0, np.nan, np.inf, 1e39, np.float32([0.1] * (before.size - 1) + [-0.1])):
        with pytest.raises(ValueError, match=f"^{layer.NAME}: dt must be positive and finite, got"):
            layer.set_step_sizes(dt)
    with pytest.raises(ValueError, match=f"^{layer.NAME}: dt must be one number or "):
        layer.set_step_sizes(np.ones((1, before.size)))
    np.testing.assert_array_equal(layer.dt_raw[...], before)


@each_layer
def test_what_is_no_mode_integer_or_state_is_one_line_with_the_name(name):
    layer, u = causal(name), jnp.zeros((B, L, H))
    for call in (
        lambda: layer(u, mode=np.array([1, 2])),
        lambda: LAYERS[name](H, horizon=np.array([5]), rngs=nnx.Rngs(0)),
        lambda: layer(np.full(u.shape, "x", object)),
        lambda: layer(u, [[1], [2, 3], [1]]),
        lambda: layer.initial_state(1.5),
        lambda: layer.initial_state(np.array([2])),
        lambda: layer.step(None, u[:, 0]),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{layer.NAME}: [^\\n]*$"):
            call()


def test_a_layer_that_lacks_a_form_cannot_be_made_and_the_error_names_it():
    class Half(StateSpaceLayer):
        NAME = "Half"

    missing = "advance, convolve, run_from, run_uneven, scan, state_shape"
    with pytest.raises(TypeError, match=missing):
        Half()


@each_layer
def test_a_keyword_of_the_base_alone_reaches_every_layer_and_a_wrong_one_is_refused(name):
    class Wider(StateSpaceLayer):
        def __init__(self, *args, extra: float = 0.5, **shared):
            super().__init__(*args, **shared)
            self.extra = extra

    plain = LAYERS[name]
    layer = type(plain.__name__, (plain, Wider), {})
    assert layer(H, d_state=2, rngs=nnx.Rngs(0)).extra == 0.5
    assert layer(H, d_state=2, extra=2.0, dropout=0.1, rngs=nnx.Rngs(0)).extra == 2.0
    for wrong in (plain, layer):
        with pytest.raises(TypeError, match="unexpected keyword argument 'extre'"):
            wrong(H, extre=2.0, rngs=nnx.Rngs(0))
    shown = inspect.signature(layer).parameters
    assert dict(shown) == dict(parameters_of(layer)) and "shared" not in shown
    assert [shown[key].default for key in ("extra", "dropout", "alpha")] == [0.5, 0.0, 1.0]
    assert set(shown) == {*inspect.signature(plain).parameters, "extra"}


@each_layer
def test_a_layer_called_by_itself_is_one_program_which_others_like_it_share(name):
    u_BLH = jnp.asarray(inputs(), jnp.float32)
    options = {"d_state": 2, "beta": None, "bidirectional": False, "dropout": 0.25}  # of no other
    programs = _one_program._cache_size()
    for seed, scale in enumerate((0.5, 0.25)):
        layer = LAYERS[name](H, rngs=nnx.Rngs(seed), **options)

        def used(layer, scale=scale):
            state, y_BLH = layer.prefill(u_BLH, step_scale=scale)
            return layer(u_BLH, step_scale=scale), y_BLH, layer.step(state, u_BLH[:, 0])[1]

        compiled = nnx.jit(used)(layer)
        for found, expected in zip(used(layer), compiled, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert _one_program._cache_size() == programs + 3


def test_the_gradient_of_a_layer_called_by_itself_is_that_of_a_program():
    layer, u_BLH = made("s4d"), jnp.asarray(inputs(), jnp.float32)

    def loss(layer):
        return jnp.sum(layer(u_BLH) ** 2)

    found, expected = (f(layer) for f in (nnx.grad(loss), nnx.jit(nnx.grad(loss))))
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_layer_that_no_program_can_be_kept_for_runs_by_itself():
    layer, u_BLH = made("s4d"), jnp.asarray(inputs(), jnp.float32)
    expected = layer(u_BLH)
    layer.notes = {"a set has no hash"}
    programs = _one_program._cache_size()
    np.testing.assert_allclose(layer(u_BLH), expected, rtol=1e-5, atol=1e-6)
    assert _one_program._cache_size() == programs


def test_a_layer_from_outside_runs_operation_by_operation():
    """What it has besides arrays may change between two calls, and counts each time."""

    class Louder(LAYERS["s4d"]):
        gain, calls = 1.0, 0

        def convolve(self, *args):
            self.calls += 1
            assert np.asarray(self.table).sum() == 6
            return self.gain * super().convolve(*args)

    layer = Louder(H, d_state=2, skip=False, rngs=nnx.Rngs(0))
    layer.table, u_BLH = np.arange(4.0, dtype=np.float32), jnp.asarray(inputs(), jnp.float32)
    y_BLH = layer(u_BLH)
    Louder.gain = 2.0
    np.testing.assert_allclose(layer(u_BLH), 2 * y_BLH, rtol=1e-6)
    assert layer.calls == 2


@each_layer
def test_steps_of_64_bit_integers_keep_their_lengths(name):
    u_BLH, layer = jnp.asarray(inputs(), jnp.float32), causal(name)
    long = np.full((B, L), 2**33)
    np.testing.assert_array_equal(
        layer(u_BLH, step_scale=long), layer(u_BLH, step_scale=long.astype(float))
    )
