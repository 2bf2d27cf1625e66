"""A process that saves, to be killed or starved of disk by test_checkpoint.py.

python saver.py loop DIRECTORY            save steps without end, going on from the newest
python saver.py full DIRECTORY BYTES N    save step 1; N steps with files limited to BYTES; one more
python saver.py mesh DIRECTORY            save over 4 devices, restore over 2
python saver.py pair DIRECTORY PORT I     one of two processes that save together
"""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint import io as step_folder
from ssm_jax.training.checkpoint.manifest import CheckpointError, Identity


def state_at(step: int) -> dict[str, np.ndarray]:
    """The state that belongs to a step: about 0.5 MB that no other step shares."""
    rng = np.random.default_rng(step)
    leaves = {f"w{i}": rng.normal(size=(100, 128)).astype(np.float32) for i in range(10)}
    return {**leaves, "step": np.asarray(step, np.int32)}


def open_store(directory: Path) -> CheckpointStore:
    return CheckpointStore(directory, keep=2, identity=Identity({"seed": 0}, "data"))


def loop(directory: Path) -> None:
    with open_store(directory) as store:
        restored = store.restore_newest(state_at(0))
        step = 0 if restored is None else restored[1].step
        while True:
            step += 1
            store.save(step, jax.tree.map(jnp.asarray, state_at(step)))
            print(step, flush=True)


def full(directory: Path, size: int, count: int) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with open_store(directory) as store:
            store.save(1, state_at(1), final=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
            for step in range(2, 2 + count):
                store.save(step, state_at(step))
            print("last", store.wait())
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            store.save(2 + count, state_at(2 + count), final=True)
            print("steps", store.steps())
    except CheckpointError as error:
        print("stopped", error)


def mesh(directory: Path) -> None:
    def sharding(devices: int, *axes: str) -> NamedSharding:
        return NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("batch",)), P(*axes))

    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    state = {
        "sharded": jax.device_put(x, sharding(4, "batch")),
        "replicated": jax.device_put(x, sharding(4)),
    }
    target = {
        "sharded": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(2, "batch")),
        "replicated": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(2)),
    }
    with open_store(directory) as store:
        store.save(1, state, final=True)
        restored, _ = store.restore_newest(target)
    placed = [f"{name} {restored[name].sharding == target[name].sharding}" for name in state]
    print(*placed, "equal", *(np.array_equal(x, leaf) for leaf in restored.values()))


def pair(directory: Path, port: int, index: int) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
    replicated = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), P())

    def place(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, replicated, lambda i: array[i])

    with open_store(directory) as store:
        for step in (1, 2):
            store.save(step, jax.tree.map(place, state_at(step)))
        store.wait()
        if index == 1:
            honest = step_folder.read_arrays

            def broken(path: Path, described: dict) -> dict[str, np.ndarray]:
                if path.name == "2":
                    raise CheckpointError("a read error on this host")
                return honest(path, described)

            step_folder.read_arrays = broken
        restored, meta = store.restore_newest(jax.tree.map(place, state_at(0)))
    expected = state_at(meta.step)
    equal = all(np.array_equal(restored[name], expected[name]) for name in expected)
    print(meta.step, [step for step, _ in store.broken], equal)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    {"loop": loop, "full": full, "mesh": mesh, "pair": pair}[sys.argv[1]](
        Path(sys.argv[2]), *map(int, sys.argv[3:])
    )
