"""Weights of PyTorch: S4D as in state-spaces/s4 and FreqBiasSSM; docs/models.md has the names.

Of their A = -f(A_real) - i A_imag we keep the conjugate, so C is conjugated too: the kernels are
the same real numbers. Their B is absorbed in C.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax import config as config_lib
from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.data.series import numbered_channels
from ssm_jax.files import local_path
from ssm_jax.options.arguments import check_choice
from ssm_jax.tasks import kept
from ssm_jax.trained.model import Trained
from ssm_jax.trained.opening import SUFFIX, Weights, read_tensors
from ssm_jax.training.record import made_by, setup_digest

Arrays = dict[str, np.ndarray]

# Names within a block by what they are. The first family is S4's own backbone, also of FreqBiasSSM;
# the second the standalone models/s4/s4d.py in the S4Model of example.py.
FAMILIES: dict[str, dict[str, str]] = {
    "layers": {
        "C": "layer.layer.kernel.C",
        "B": "layer.layer.kernel.B",
        "A_real": "layer.layer.kernel.A_real",
        "A_imag": "layer.layer.kernel.A_imag",
        "dt": "layer.layer.kernel.inv_dt",
        "D": "layer.layer.D",
        "beta": "layer.layer.s",
        "weight": "layer.output_linear.0.weight",
        "bias": "layer.output_linear.0.bias",
        "norm": "norm.norm",
    },
    "s4_layers": {
        "C": "kernel.C",
        "A_real": "kernel.log_A_real",
        "A_imag": "kernel.A_imag",
        "dt": "kernel.log_dt",
        "D": "D",
        "weight": "output_linear.0.weight",
        "bias": "output_linear.0.bias",
    },
}
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
ENCODER = r"(.*\.)?encoder(\.0)?(\.encoder)?\.(weight|bias)"
DECODER = r"(.*\.)?decoder(\.0)?(\.output_transform)?\.(weight|bias)"
IDLE = ("num_batches_tracked",)  # ends of names that no output depends on


def from_torch(
    source: Mapping[str, Any] | str | Path,
    *,
    pool: str = "mean",
    padded_length: int | None = None,
    dt_transform: str | None = None,
    real_transform: str = "exp",
    discretization: str = "zoh",
    prenorm: bool | None = None,
    preprocessing: Preprocessing | None = None,
) -> Trained:
    """The model that a PyTorch program trained, from its weights alone.

    What the weights do not say, arguments do.

    Args:
      source: name to array or tensor, as `model.state_dict()`; or a .safetensors, .npz, .pt, .pth
        or .ckpt, of which the last three need torch. Lightning's "state_dict" in it is found.
      pool: how the decoder reduces the steps: "last", "mean", "sum", "first", or "none".
      padded_length: of their batches; needed with FreqBiasSSM's filters, which act on a circle of
        twice that (OC-9).
      dt_transform: None: "softplus" of an inv_dt, "exp" of a log_dt.
      real_transform, discretization: of A and of the kernel.
      prenorm: None: whether there is a norm after the last block. The standalone model has none
        either way, and its default is False.
      preprocessing: maps a user's arrays to inputs, and names classes or targets. None: inputs are
        as the network sees them, and outputs are classes 0, 1, ..., or numbers if pool is "none".

    Raises:
      ValueError: a name is missing, unknown, or of another kind of model; the message has it.
    """
    check_choice("from_torch", "pool", pool, ("last", "mean", "first", "sum", "none"))
    names = _Names(_arrays_of(source))
    found, options = _network(names, real_transform)
    final = any(path.startswith("params/norm/") for path in found)
    vocabulary = found.get("params/encoder/embedding")
    n_outputs = len(found["params/decoder/bias"])
    filtered = any((a != 0).any() for path, a in found.items() if path.endswith("/beta"))
    if filtered and padded_length is None:
        raise ValueError(
            "these weights have filters (s), which act on a circle of twice the length of a "
            "batch; give padded_length=, the length to which batches were padded."
        )
    vocab_size = None if vocabulary is None else len(vocabulary)
    d_input = None if vocabulary is not None else len(found["params/encoder/kernel"])
    p = preprocessing or Preprocessing.plain(
        "per_step" if pool == "none" else "classification",
        ("token",) if d_input is None else numbered_channels(d_input),
        tuple(map(str, range(n_outputs))),
        vocab_size=vocab_size,
        padded_length=padded_length or 2_048,
    )
    cfg = config_lib.default(p.head)
    cfg.name = "from_torch"
    options |= {
        "pool": pool,
        "dt_transform": dt_transform or ("softplus" if names.family == "layers" else "exp"),
        "real_transform": real_transform,
        "discretization": discretization,
        "prenorm": final if prenorm is None else prenorm,
        "final_norm": final,
        "beta.filter": filtered,
        "beta.learn": filtered,
    }
    config_lib.override(cfg, {f"model.{key}": value for key, value in options.items()})
    cfg.train.select_metric = "loss"
    built_from = {
        "n_classes": n_outputs,
        "vocab_size": vocab_size,
        "d_input": d_input,
        "paired": False,
        "padded_length": p.padded_length,
        "preprocessing": kept(p),
    }
    weights = Weights(cfg, built_from)
    if not filtered:  # there is no parameter then, but zeros
        found = {
            path.replace("params/", "stats/") if path.endswith("/beta") else path: array
            for path, array in found.items()
        }
    if lines := weights.misfits(found):
        raise ValueError(f"these weights do not fit together: {lines[0]}.")
    data = {"fingerprint": "", "detail": "weights of PyTorch"}
    origin = {**made_by(["ssm_jax.from_torch"]), "seed": 0, "data": data, "metrics": {}}
    origin |= {"config_digest": config_lib.digest(cfg), "setup_digest": setup_digest(cfg)}
    return Trained(cfg, built_from, weights.filled(found), {**origin, "step": None})


class _Names:
    """The arrays of a state dict, taken one by one; what is left in the end is unknown."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = {k: a for k, a in arrays.items() if not k.endswith(IDLE)}
        self.family, self.root, self.depth = "", "", 0
        for family, suffixes in FAMILIES.items():
            pattern = rf"(.*\.)?{family}\.(\d+)\.{re.escape(suffixes['C'])}"
            found = [m for name in arrays if (m := re.fullmatch(pattern, name))]
            if found:
                self.family, self.root, self.depth = family, found[0][1] or "", len(found)
                return
        shown = ", ".join(list(arrays)[:4])
        raise ValueError(
            "these are no weights of S4D in a backbone of state-spaces/s4 or FreqBiasSSM, nor of "
            f"its standalone s4d.py: no layers.0.{FAMILIES['layers']['C']} and no "
            f"s4_layers.0.kernel.C among {shown}, ..."
        )

    def take(self, name: str) -> np.ndarray | None:
        return self.arrays.pop(name, None)

    def need(self, name: str) -> np.ndarray:
        found = self.take(name)
        if found is None:
            raise ValueError(f"the weights lack {name}.")
        return found

    def norm(self, name: str, path: str) -> Arrays:
        """A norm by the beginning of its names."""
        if f"{name}.m" in self.arrays:
            raise ValueError(
                f"{name}.m: this norm has one scale and one shift for all channels "
                "(TransposedLN), which a LayerNorm of ours has for each; it cannot be read."
            )
        found = {}
        for theirs, ours in NORM.items():
            if (array := self.take(f"{name}.{theirs}")) is not None:
                part = "params" if ours in ("scale", "bias") else "stats"
                found[f"{part}/{path}/{ours}"] = array
        return found

    def ends(self, pattern: str, path: str, *, embedding: bool = False) -> Arrays:
        """The encoder or the decoder, wherever its names are."""
        matches = {m[m.re.groups]: m[0] for n in self.arrays if (m := re.fullmatch(pattern, n))}
        if "weight" not in matches:
            raise ValueError(f"the weights have no {path}: no name is like {pattern}.")
        weight = self.need(matches["weight"])
        if embedding and "bias" not in matches:
            return {f"params/{path}/embedding": weight}
        bias = self.need(matches["bias"]) if "bias" in matches else np.zeros(len(weight))
        return {f"params/{path}/kernel": weight.T, f"params/{path}/bias": bias}


def _network(names: _Names, real_transform: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of our network by path, and what they say about the options of cfg.model."""
    found: Arrays = {}
    shapes: list[tuple[int, ...]] = []
    for i in range(names.depth):
        arrays, shape = _block(names, i)
        found |= {path.replace("*", f"blocks/{i}"): array for path, array in arrays.items()}
        shapes.append(shape)
    if len(set(shapes)) > 1:
        raise ValueError(f"the blocks differ in (directions, channels, modes, sets): {shapes}.")
    if names.family == "layers":
        found |= names.norm(f"{names.root}norm.norm", "norm")
    found |= names.ends(ENCODER, "encoder", embedding=True)
    found |= names.ends(DECODER, "decoder")
    if names.arrays:
        shown = ", ".join(list(names.arrays)[:4])
        raise ValueError(
            f"{len(names.arrays)} names are unknown, such as {shown}: a model with these is not "
            "read."
        )
    directions, H, N, S = shapes[0]
    found = {path: np.ascontiguousarray(array, np.float32) for path, array in found.items()}
    norm = "batch" if "stats/blocks/0/norm/mean" in found else "layer"
    options = {"depth": names.depth, "d_model": H, "d_state": N, "n_ssm": S, "norm": norm}
    return found, {**options, "bidirectional": directions == 2}


def _block(names: _Names, i: int) -> tuple[Arrays, tuple[int, ...]]:
    """The arrays of a block, and its directions, channels, modes and sets of eigenvalues."""
    prefix, family = f"{names.root}{names.family}.{i}.", FAMILIES[names.family]
    if f"{prefix}layer.layer.kernel.P" in names.arrays:
        raise ValueError(
            f"{prefix}layer.layer.kernel.P: this is S4 with a low-rank part, whose C is tied to a "
            "length; only diagonal kernels (S4D) are read."
        )
    got = {what: names.take(prefix + family[what]) for what in ("B", "beta") if what in family}
    need = {what: names.need(prefix + name) for what, name in family.items() if what not in got
            and what != "norm"}  # fmt: skip
    C = need["C"][..., 0] + 1j * need["C"][..., 1]
    C = C[None] if C.ndim == 2 else C
    directions, H, N = C.shape
    S = len(need["A_real"])
    weight, dt = need["weight"].reshape(len(need["weight"]), -1), need["dt"]
    if directions > 2 or dt.size != H or weight.shape != (2 * H, H) or need["D"].size != H:
        raise ValueError(
            f"{prefix[:-1]}: C {need['C'].shape}, dt {dt.shape}, D {need['D'].shape} and the "
            f"output {weight.shape} are not those of one head with one dt per channel and a GLU."
        )
    if (B_ri := got.get("B")) is not None:
        B = B_ri[..., 0] + 1j * B_ri[..., 1]
        C = C * np.tile(B.reshape(S, N), (H // S, 1))[None]
    if names.family == "layers":
        C = C.conj()
    beta = got.get("beta")
    found = {
        "params/*/ssm/C_ri": np.stack([C.real, C.imag], axis=-1),
        "params/*/ssm/A_re_raw": need["A_real"],
        "params/*/ssm/A_im": need["A_imag"],
        "params/*/ssm/dt_raw": dt.reshape(H),
        "params/*/ssm/D": need["D"].reshape(H),
        "params/*/ssm/beta": np.zeros(H) if beta is None else beta.reshape(H),
        "params/*/glu/kernel": weight.T,
        "params/*/glu/bias": need["bias"].reshape(2 * H),
    }
    norm = f"{names.root}norms.{i}" if names.family == "s4_layers" else f"{prefix}{family['norm']}"
    return {**found, **names.norm(norm, "*/norm")}, (directions, H, N, S)


def _arrays_of(source: Mapping[str, Any] | str | Path) -> Arrays:
    """Name to array of what `from_torch` takes."""
    if not isinstance(source, Mapping):
        path = local_path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; give a file of weights.")
        if path.suffix == SUFFIX:
            return read_tensors(path)[0]
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        source = _unpickled(path)
    for inner in ("state_dict", "model"):  # of Lightning, and of example.py
        source = source[inner] if isinstance(source.get(inner), Mapping) else source

    def array(value: Any) -> np.ndarray:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)

    return {str(name): array(value) for name, value in source.items()}


def _unpickled(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote; torch reads it without executing what is in it."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} is a pickle, which torch alone reads, and torch is not installed; install it, "
            "or save model.state_dict() by safetensors.torch.save_file where it is."
        ) from None
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}; give a state dict.")
    return found
