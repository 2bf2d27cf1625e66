"""Look-ups in a table of embeddings, whose gradient on accelerators has one order of summation.

The gradient of a gather is a scatter that adds the rows of all steps with one id. On GPUs these are
atomic additions, in the order in which the threads arrive: the last bits differ from call to call.
A product with the ids as rows of a single 1 adds in a fixed order. It takes V multiplications for
each number of the gradient, where V is the size of the vocabulary, so only small tables have it.
"""

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.devices import on_cpu
from ssm_jax.kernels.rules import Ruled, linear_map

LARGEST = 1_024  # rows of a table whose gradient is a product


def look_up(table_VH: Array, ids: Array) -> Array:
    """Rows of a table, (*ids, H); NaN where an id is V."""
    small = table_VH.shape[0] <= LARGEST
    return _rows(table_VH, ids) if on_cpu() or not small else _ruled_rows(table_VH, ids)


def _rows(table_VH: Array, ids: Array) -> Array:
    return jnp.take(table_VH, ids, axis=0)


_ruled_rows = Ruled(_rows)


@_ruled_rows.defjvp
def _rows_jvp(primals, tangents):
    table_VH, ids = primals
    V, H = table_VH.shape

    def forward(ids: Array, d_table_VH: Array) -> Array:
        return _rows(d_table_VH, ids)

    def backward(ids: Array, g: Array) -> Array:
        one_hot_RV = jax.nn.one_hot(ids.ravel(), V, dtype=g.dtype)  # zeros where an id is V
        by_id = (((0,), (0,)), ((), ()))
        full = jax.lax.Precision.HIGHEST
        return jax.lax.dot_general(one_hot_RV, g.reshape(-1, H), by_id, precision=full)

    return _ruled_rows(table_VH, ids), linear_map(forward, backward, ids, tangents[0])
