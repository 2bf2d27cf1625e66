"""Layers on arrays that are split over four devices are those on one device.

Run as a program, this file computes rows of the matrix and prints one line of JSON for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FORMS = ("filtered", "scan", "prefill", "step")
MESHES = {  # by form: kind of the axes, how u is split, where the layer is called
    "filtered": (
        ("Auto", "both", "jit"),
        ("Auto", "sequence", "jit"),
        ("Explicit", "both", "jit"),
        ("Explicit", "batch", "shard_map"),
    ),
    "scan": (("Explicit", "both", "jit"), ("Explicit", "batch", "shard_map")),
    "prefill": (("Explicit", "both", "set_mesh"), ("Auto", "batch", "shard_map")),
    "step": (("Explicit", "both", "jit"),),
}
REFUSED = ("Explicit", "sequence", "jit"), ("Auto", "sequence", "eager")
LAYERS = ("S4D", "S4", "S5", "LRU", "LinOSS", "DLinOSS")
EVERYDAY = [
    (layer, form, *mesh)
    for layer in LAYERS
    for form in FORMS
    # The last three run as S5 does, from poles and inputs of their own: one mesh tries these.
    for mesh in (MESHES[form][:1] if layer in LAYERS[3:] else MESHES[form])
    + (REFUSED if form != "step" and layer in LAYERS[:3] else ())
]
ALL = [
    (layer, form, kind, split, where)
    for layer in LAYERS
    for form in FORMS
    for kind in ("Auto", "Explicit")
    for split in ("batch", "channels", "both", "sequence")
    for where in ("jit", "set_mesh", "shard_map", "eager")
    if (where != "shard_map" or split == "batch") and (form != "step" or split != "sequence")
]


def run(rows) -> dict:
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {found[-1:]}:\n{done.stderr[-3000:]}"
    return {tuple(line.pop("row")): line for line in found}


def check(row, found):
    _, _, kind, split, where = row
    if (kind, split, where) in REFUSED or (kind, split) == ("Explicit", "sequence"):
        name = {"DLinOSS": "D-LinOSS"}.get(row[0], row[0])
        assert f"{name}: the sequence axis of u_BLH (4, 16, 8) is split" in found["error"]
        return
    assert found["error"] is None
    assert found["all"] < 1e-5
    if kind == "Explicit":
        assert found["kept"], "the outputs are split in another way than the inputs"


@pytest.fixture(scope="module")
def everyday():
    return run(EVERYDAY)


@pytest.mark.parametrize("row", EVERYDAY, ids="-".join)
def test_values_and_gradients_are_those_of_one_device(everyday, row):
    """Explicit axes show how an array is split. With Auto axes only XLA knows it, under jit."""
    check(row, everyday[row])


def test_the_values_are_those_of_a_loop_in_float64(everyday):
    assert everyday["S4D", "filtered", "Explicit", "both", "jit"]["oracle"] < 1e-5


def test_no_convolution_gathers_an_input_whose_axes_are_explicit(everyday):
    """What S4D and S4 gather is kernels of a channel; S5 mixes the channels."""
    for layer in ("S4D", "S4"):
        assert everyday[layer, "filtered", "Explicit", "both", "jit"]["gathers"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)  # each in a process of its own, with its own time limit
def test_every_form_on_every_mesh(layer):
    rows = [row for row in ALL if row[0] == layer]
    found = run(rows)
    assert len(found) == len(rows)
    for row in rows:
        check(row, found[row])


def main() -> None:
    import contextlib
    import gc
    import math
    import os
    import re

    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    )
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import jax
    import jax.numpy as jnp
    import numpy as np
    import oracles
    from flax import nnx
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import ssm_jax.layers

    gc.freeze()  # as tests/conftest.py
    gc.set_threshold(20_000, 10, 10)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    u = np.random.default_rng(0).normal(size=(4, 16, 8)).astype(np.float32)
    specs = {
        "batch": (("rows",), (4,), PartitionSpec("rows")),
        "channels": (("columns",), (4,), PartitionSpec(None, None, "columns")),
        "both": (("rows", "columns"), (2, 2), PartitionSpec("rows", None, "columns")),
        "sequence": (("steps",), (4,), PartitionSpec(None, "steps")),
    }
    single = {}

    def error(found, right):
        pairs = zip(jax.tree.leaves(jax.device_get(found)), jax.tree.leaves(right), strict=True)
        return max(float(np.abs(a - b).max() / (np.abs(b).max() + 1e-30)) for a, b in pairs)

    def one(layer, form, kind, split, where):
        options = {"beta": 0.5 if form == "filtered" else None}
        options["bidirectional"] = form in ("filtered", "scan")
        module = getattr(ssm_jax.layers, layer)(8, d_state=4, rngs=nnx.Rngs(0), **options)
        graphdef, params = nnx.split(module)
        lengths = np.array([16, 3, 7, 1], np.int32)

        def outputs(params, u, lengths):
            module = nnx.merge(graphdef, params)
            if form == "prefill":
                return module.prefill(u, lengths)
            if form == "step":
                return module.step(module.initial_state(u.shape[0]), u[:, 0])
            return module(u, lengths, mode="scan" if form == "scan" else "conv")

        def objective(params, u, lengths):
            found = outputs(params, u, lengths)
            return sum(jnp.sum(jnp.sin(jnp.abs(y))) for y in jax.tree.leaves(found)), found

        differentiated = form in ("filtered", "scan") and where != "eager"

        def whole(objective):
            if not differentiated:
                return objective
            return jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)

        names, sizes, spec = specs[split]
        mesh = jax.make_mesh(sizes, names, (getattr(AxisType, kind),) * len(names))
        place = (PartitionSpec(), spec, PartitionSpec(spec[0]))
        args = [
            jax.device_put(x, NamedSharding(mesh, p))
            for x, p in zip((params, u, lengths), place, strict=True)
        ]
        program = objective
        if where == "shard_map":

            def total(params, u, lengths):
                value, found = objective(params, u, lengths)
                return jax.lax.psum(value, names), found

            out_specs = PartitionSpec(), PartitionSpec(names)
            program = jax.shard_map(total, mesh=mesh, in_specs=place, out_specs=out_specs)
        program = whole(program)
        try:
            if where != "eager":
                with jax.set_mesh(mesh) if where == "set_mesh" else contextlib.nullcontext():
                    program = jax.jit(program).lower(*args).compile()
            result = program(*args)
        except ValueError as fault:
            return {"error": str(fault)}
        key = layer, form, differentiated
        if key not in single:
            single[key] = jax.device_get(jax.jit(whole(objective))(params, u, lengths))
        found = {"error": None, "all": error(result, single[key])}
        y = jax.tree.leaves((result[0] if differentiated else result)[1])[-1]
        over_b, over_l, over_h = (*spec, *(None,) * (3 - len(spec)))
        wanted = (over_b, over_h) if y.ndim == 2 else (over_b, over_l, over_h)
        found["kept"] = y.sharding.is_equivalent_to(
            NamedSharding(mesh, PartitionSpec(*wanted)), y.ndim
        )
        if (form, kind, split, where) == ("filtered", "Explicit", "both", "jit"):
            gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", program.as_text())
            sizes = [math.prod(map(int, shape.split(","))) for shape in gathered]
            found["gathers"] = sum(size >= u.size for size in sizes)
            if layer == "S4D":
                raw = {k: np.asarray(v, float) for k, v in nnx.to_pure_dict(params).items()}
                exact = [
                    oracles.s4d_layer(raw, x, length=n) for x, n in zip(u, lengths, strict=True)
                ]
                found["oracle"] = error(y, np.stack(exact))
        return found

    for row in json.load(sys.stdin):
        print(json.dumps({"row": row, **one(*row)}), flush=True)


if __name__ == "__main__":
    main()
