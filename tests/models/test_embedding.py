"""Look-ups of embeddings: on accelerators the gradient is a product, which adds in one order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm_jax.kernels.devices import compiling_for
from ssm_jax.models import embedding
from ssm_jax.models.embedding import look_up

V, H = 5, 3
IDS = np.random.default_rng(0).integers(0, V, (4, 40)).astype(np.int32)


def table():
    return np.random.default_rng(1).normal(size=(V, H)).astype(np.float32)


def loss(table_VH, ids, weight):
    return jnp.sum(jnp.sin(look_up(table_VH, ids)) * weight)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_values_gradients_and_tangents_are_those_of_a_loop_in_float64(platform):
    weight = np.random.default_rng(2).normal(size=(*IDS.shape, H)).astype(np.float32)
    exact = np.zeros((V, H))
    for place in np.ndindex(IDS.shape):
        exact[IDS[place]] += np.cos(table()[IDS[place]].astype(float)) * weight[place]
    with compiling_for(platform):
        values = look_up(table(), IDS)
        slope = jax.jit(jax.grad(loss))(table(), IDS, weight)
        _, along = jax.jvp(lambda t: loss(t, IDS, weight), (table(),), (np.ones((V, H), "f4"),))
        rows = jax.vmap(jax.grad(loss), (None, 0, 0))(table(), IDS, weight)
    np.testing.assert_array_equal(values, table()[IDS])
    np.testing.assert_allclose(slope, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    np.testing.assert_allclose(along, exact.sum(), rtol=1e-5)
    np.testing.assert_allclose(np.sum(rows, axis=0), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_an_id_beyond_the_table_is_nan_and_moves_no_row(platform):
    ids = jnp.array([0, V])
    with compiling_for(platform):
        values, pull = jax.vjp(lambda t: look_up(t, ids), jnp.asarray(table()))
        (slope,) = pull(jnp.ones((2, H)))
    assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()
    np.testing.assert_array_equal(slope, np.eye(V)[:, :1] * np.ones(H))


def test_only_small_tables_on_accelerators_add_by_a_product(monkeypatch):
    def gradient(platform):
        made_for = {"gpu": "cuda"}.get(platform, platform)
        with compiling_for(platform):
            slope = jax.jit(lambda *args: jax.grad(loss)(*args))  # traced anew each time
            export = jax.export.export(slope, platforms=[made_for])
            return export(table(), IDS, np.ones((*IDS.shape, H), "f4")).mlir_module()

    assert "scatter" in gradient("cpu")
    for platform in ("gpu", "tpu"):
        text = gradient(platform)
        assert "scatter" not in text and "precision = [HIGHEST, HIGHEST]" in text
    monkeypatch.setattr(embedding, "LARGEST", V - 1)
    assert "scatter" in gradient("gpu")
