"""Our layers beside published ones of the same size, in turn, forward and backward.

Nothing of the peers is in this repository. They are found where Python finds modules, so put on
PYTHONPATH what is to be measured:

    official      src/models/sequence/modules/s4block.py of AnnanYu/FreqBiasSSM, and PyTorch; the
                  two-sided S4D with its Sobolev factor, without activation
    discretax     the package discretax, and equinox; causal S4D
    lindermanlab  s5/ssm.py and s5/ssm_init.py of lindermanlab/S5; two-sided, conjugates implied

N counts complex modes for all of them. A causal S4D without filter is timed in its other form too,
products in blocks of time with states between them (`kernels.s4d_recurrence`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.measure import ratio, rounds, summary
from ssm_jax.layers import LAYERS

Call = Callable[[], Any]  # a forward and backward pass: the output, and gradients of all it takes

DTS = {"dt_min": 1e-3, "dt_max": 1e-1}


def measure_beside(
    peer: str, batch: int, length: int, channels: int, modes: int, n: int
) -> dict[str, Any]:
    """One layer of ours and one of a peer in turn: milliseconds, and theirs as multiples of ours.

    `speed_up` is the median over the rounds, `least_speed_up` is of the least times.

    Args:
      peer: a key of PEERS.
      batch, length, channels, modes: B, L, H and N, the number of complex modes.
      n: rounds to time.
    """
    made, kind, options = PEERS[peer]
    size = batch, length, channels, modes
    calls = {"ours": of_ours(kind, options, *size), "peer": made(*size)}
    if peer == "discretax":
        calls["blocks"] = of_ours(kind, options, *size, mode="scan")
    times = rounds(calls, n)
    blocks = {"blocks_ms": summary(times["blocks"])} if "blocks" in times else {}
    return {
        "layer": kind,
        "options": options,
        "peer": peer,
        "batch": batch,
        "length": length,
        "channels": channels,
        "modes": modes,
        "layer_ms": summary(times["ours"]),
        "peer_ms": summary(times["peer"]),
        **blocks,
        "speed_up": ratio(times, "peer", "ours"),
        "least_speed_up": round(min(times["peer"]) / min(times["ours"]), 2),
        "versions": _versions("jax", "torch", "equinox", "discretax"),
        "rounds": n,
    }


def of_ours(
    kind: str,
    options: dict[str, Any],
    batch: int,
    length: int,
    channels: int,
    modes: int,
    mode: str | None = None,
) -> Call:
    """A layer of this package, its output and the gradients of input and parameters."""
    module = LAYERS[kind](channels, d_state=modes, **options, rngs=nnx.Rngs(params=0))
    graphdef, *states = nnx.split(module, nnx.Param, ...)
    params, rest = (nnx.to_pure_dict(state) for state in states)
    return _of_jax(
        lambda params, u_BLH: nnx.merge(graphdef, params, rest)(u_BLH, mode=mode),
        params,
        (batch, length, channels),
    )


def _of_jax(function: Callable, params: Any, shape: tuple[int, ...]) -> Call:
    u_BLH, dy_BLH = jax.random.normal(jax.random.key(0), (2, *shape), jnp.float32)

    @jax.jit
    def both(params, u_BLH, dy_BLH):
        y_BLH, transpose = jax.vjp(function, params, u_BLH)
        return y_BLH, transpose(dy_BLH)

    compiled = both.lower(params, u_BLH, dy_BLH).compile()
    return lambda: compiled(params, u_BLH, dy_BLH)


def official(batch: int, length: int, channels: int, modes: int) -> Call:
    """The two-sided layer of the paper's code, with its Sobolev factor and without activation."""
    torch = importlib.import_module("torch")
    module = importlib.import_module("src.models.sequence.modules.s4block")
    layer = module.FFTConv(
        channels,
        bidirectional=True,
        activation=None,
        transposed=False,
        mode="diag",
        d_state=modes,
        n_ssm=1,
        dt_transform="softplus",
        backend="naive",
        **DTS,
    )
    u, dy = (torch.from_numpy(x) for x in _numbers((2, batch, length, channels)))
    u.requires_grad_()
    of = [u, *layer.parameters()]

    def call():
        y, _ = layer(u)
        return y.detach(), torch.autograd.grad(y, of, dy)

    return call


def discretax(batch: int, length: int, channels: int, modes: int) -> Call:
    """Its causal S4D, whose state_dim counts conjugates too."""
    equinox = importlib.import_module("equinox")
    module = importlib.import_module("discretax.sequence_mixers.s4d")
    key = jax.random.key(0)
    layer = module.S4DSequenceMixer(channels, key, state_dim=2 * modes, **DTS)
    params, rest = equinox.partition(layer, equinox.is_inexact_array)

    def function(params, u_BLH):
        layer = equinox.combine(params, rest)
        return jax.vmap(lambda u_LH: layer(u_LH, key))(u_BLH)

    return _of_jax(function, params, (batch, length, channels))


def lindermanlab(batch: int, length: int, channels: int, modes: int) -> Call:
    """S5's published layer, two-sided, as for the Long Range Arena; conjugates are implied."""
    ssm, init = (importlib.import_module(f"s5.{name}") for name in ("ssm", "ssm_init"))
    A_N, _, _, V, _ = init.make_DPLR_HiPPO(2 * modes)
    A_N, V = A_N[:modes], V[:, :modes]
    layer = ssm.init_S5SSM(
        H=channels,
        P=modes,
        Lambda_re_init=A_N.real,
        Lambda_im_init=A_N.imag,
        V=V,
        Vinv=V.conj().T,
        C_init="lecun_normal",
        discretization="zoh",
        conj_sym=True,
        clip_eigs=False,
        bidirectional=True,
        **DTS,
    )()
    params = layer.init(jax.random.key(0), jnp.zeros((length, channels)))

    def function(params, u_BLH):
        return jax.vmap(lambda u_LH: layer.apply(params, u_LH))(u_BLH)

    return _of_jax(function, params, (batch, length, channels))


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# The layer of a peer, ours that stands beside it, and the options of ours.
PEERS: dict[str, tuple[Callable[..., Call], str, dict[str, Any]]] = {
    "official": (official, "s4d", {"bidirectional": True, "beta": 0.0, "learn_beta": True}),
    "discretax": (discretax, "s4d", {"bidirectional": False, "beta": None, "learn_beta": False}),
    "lindermanlab": (lindermanlab, "s5", {"bidirectional": True}),
}
# What Python has to find for each of them.
NEEDED = {
    "official": ("torch", "src"),
    "discretax": ("equinox", "discretax"),
    "lindermanlab": ("s5",),
}
