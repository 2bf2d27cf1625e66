"""What a platform makes of the numbers of a run: of its products, and whether they come again."""

import os
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax

from ssm_jax.models.embedding import LARGEST

# What a product of float32 is made of, by the precision that it asks for; else all of float32
PRODUCTS = {
    "gpu": {"default": "TF32", "high": "TF32"},
    "tpu": {"default": "bfloat16", "high": "three products of bfloat16"},
}
FLAG = "xla_gpu_deterministic_ops"


class Determinism(NamedTuple):
    """Whether a run that resumes in another process ends with the bits of one that ran through."""

    deterministic: bool
    reason: str


def product_of(precision: str, platform: str) -> str:
    """What a product of float32 is made of: TF32, bfloat16 or float32."""
    return PRODUCTS.get(platform, {}).get(precision, "float32")


def describe(cfg: Any, platform: str, paths: Collection[str]) -> Iterator[str]:
    """A line on products of less than float32, if the model with parameters `paths` has any."""
    precision = cfg.model.precision
    made_of = product_of(precision, platform)
    if made_of != "float32" and any(path.endswith("/glu/kernel") for path in paths):
        yield (
            f"precision: gate, encoder and decoder multiply as {made_of} "
            f"(model.precision={precision}; highest: float32)"
        )


def compiler_options(cfg: Any, platform: str) -> dict[str, str | bool]:
    """Options of XLA with which the steps of a run are compiled."""
    return {FLAG: True} if cfg.train.deterministic and platform == "gpu" else {}


def determinism(cfg: Any, platform: str, vocab_size: int | None = None) -> Determinism:
    """What the record of a run says of resuming, on this platform; `vocab_size` of its tokens."""
    if platform == "cpu":
        return Determinism(True, "tested: killed and undisturbed runs on one machine are equal")
    if platform == "tpu":
        return Determinism(False, "not known: no run was resumed on a TPU")
    flag = re.search(rf"--{FLAG}(=(true|1))?(\s|$)", os.environ.get("XLA_FLAGS", ""))
    if cfg.train.deterministic or flag:
        return Determinism(True, f"{FLAG}: as XLA says; not tested on a GPU")
    tuned = "XLA times products and chooses among them, in each process anew"
    if vocab_size is not None and vocab_size > LARGEST:
        tuned += f"; the gradient of {vocab_size:,} embeddings is a sum in any order"
    return Determinism(False, f"{tuned}; train.deterministic=true has one choice")


def platform_of(mesh: jax.sharding.Mesh) -> str:
    """That of the devices of a mesh: cpu, gpu or tpu."""
    return str(mesh.devices.flat[0].platform)
