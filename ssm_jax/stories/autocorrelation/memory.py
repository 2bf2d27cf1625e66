"""How far back a layer remembers, with and without damping: the curse of memory, measured.

Claim 2 of Autocorrelation Matters (arXiv:2411.19455): with a proper timescale, Re A = 0 at the
start mitigates the curse of memory and is stable. The experiment is ours. A linear model, one
causal S4D between an encoder and a decoder, learns to delay its input,

    y_l = x_{l - DELAY},    x: white noise of unit variance below the angle BAND (rad per sample),

for l from DELAY on. What a channel h adds to the last output y_L depends on the input so many
steps ago as |d c_h / d x_{L - lag}|: here its mean over channels and seeds, by autodiff, before
and after a short training. At the start the expected square of it is that of a sum of modes, which
falls as e^{2 Re(A) dt lag}: the half of it is gone after log 2 / |Re A| dt steps.

The steps: 1/L, the rule dt = 1 / sqrt(L lambda_max), and S4's log-uniform draws in [1e-3, 1e-1].
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.layers import S4D
from ssm_jax.training.optim import Group, make_optimizer
from ssm_jax.training.step import split

L, DELAY, BAND = 2048, 1024, math.pi / 8
H, N = 8, 32
STEPS, BATCH, SEEDS = 400, 4, (0, 1, 2)
GROUPS = (
    Group("modes", r"/(A_re_raw|A_im|dt_raw)$", 1e-3, 0.0, "constant"),
    Group("rest", "", 1e-2, 0.0, "constant"),
)
# Re A at the start, and whether it is trained
REAL_PARTS = ((-0.5, True), (-0.05, True), (0.0, True), (0.0, False))
FROZEN = "/A_re_raw$"  # what keeps the real parts as they are, in `optim.freeze` too
AVERAGE = 32  # lags of one point of a curve


class Delay(nnx.Module):
    """x_BL to what each channel adds to the output, (B, L, H); linear."""

    def __init__(self, real_part: float, dt: tuple[float, float], seed: int):
        rngs = nnx.Rngs(params=seed)
        self.ssm = S4D(
            H,
            d_state=N,
            alpha_real=-2 * real_part,  # S4D-Lin starts at -1/2
            real_transform="clip",
            dt_min=dt[0],
            dt_max=dt[1],
            bidirectional=False,
            beta=None,
            skip=False,
            rngs=rngs,
        )
        self.encoder = nnx.Param(jax.random.normal(rngs.params(), (H,)))
        self.decoder = nnx.Param(jax.random.normal(rngs.params(), (H,)) / H)

    def __call__(self, x_BL: Array) -> Array:
        y_BLH = self.ssm(x_BL[:, :, None] * self.encoder[...][None, None], mode="conv")
        return y_BLH * self.decoder[...][None, None]


def lambda_max() -> float:
    """Of E[x x^T], whose entries are sin(BAND j) / (BAND j), j steps apart."""
    apart = np.arange(L)[:, None] - np.arange(L)[None, :]
    return float(np.linalg.eigvalsh(np.sinc(BAND / math.pi * apart))[-1])


def timescales() -> dict[str, tuple[float, float]]:
    """(dt_min, dt_max) by name."""
    rule = 1 / math.sqrt(L * lambda_max())
    return {"1/L": (1 / L, 1 / L), "rule": (rule, rule), "S4": (1e-3, 1e-1)}


def signals(rng: np.random.Generator, n: int) -> np.ndarray:
    """x_nL: Gaussian, its spectrum flat below BAND and 0 above."""
    margin = 4 * L  # a cut from a long circle is no circle
    spectrum = np.fft.rfft(rng.normal(size=(n, margin)))
    spectrum[:, np.linspace(0, math.pi, margin // 2 + 1) > BAND] = 0
    x_nL = np.fft.irfft(spectrum, margin)[:, :L]
    return (x_nL * math.sqrt(math.pi / BAND)).astype(np.float32)


def error(model: Delay, x_BL: Array) -> Array:
    """Mean square of the error over that of the target."""
    y_BL = jnp.sum(model(x_BL), axis=-1)
    return jnp.mean((y_BL[:, DELAY:] - x_BL[:, :-DELAY]) ** 2) / jnp.mean(x_BL**2)


@functools.partial(jax.jit, static_argnums=0)
def _error(graphdef: nnx.GraphDef, params: Any, stats: Any, x_BL: Array) -> Array:
    return error(nnx.merge(graphdef, params, stats), x_BL)


@functools.partial(jax.jit, static_argnums=0)
def _reach(graphdef: nnx.GraphDef, params: Any, stats: Any) -> Array:
    def last(x_L: Array) -> Array:
        return nnx.merge(graphdef, params, stats)(x_L[None])[0, -1]

    return jnp.abs(jax.jacrev(last)(jnp.zeros(L, jnp.float32)))[:, ::-1]


def reach(model: Delay) -> np.ndarray:
    """|d c_h,L / d x_{L - lag}|, (H, L), by lag from 0 on."""
    graphdef, params, stats = split(model)
    return np.asarray(_reach(graphdef, params, stats))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trained(graphdef: nnx.GraphDef, freeze: str, params: Any, stats: Any, x_TBL: Array) -> Any:
    """The parameters of members, an axis before all others, after an update by each batch."""
    adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
    one = jax.tree.map(lambda leaf: leaf[0], params)
    tx, _ = make_optimizer(one, GROUPS, jnp.ones_like, clip_norm=1.0, freeze=freeze, **adam)

    def member(params: Any, stats: Any) -> Any:
        def update(carry: Any, x_BL: Array) -> tuple[Any, None]:
            params, state = carry
            slope = jax.grad(lambda p: error(nnx.merge(graphdef, p, stats), x_BL))(params)
            change, state = tx.update(slope, state, params)
            return (jax.tree.map(jnp.add, params, change), state), None

        return jax.lax.scan(update, (params, tx.init(params)), x_TBL)[0][0]

    return jax.vmap(member)(params, stats)


def train(models: Sequence[Delay], seed: int, *, freeze: str = "", steps: int = STEPS) -> list:
    """Models after `steps` updates by Adam, all by the same batches; `freeze` as `optim.freeze`."""
    parts = [split(model) for model in models]
    params, stats = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in zip(*(part[1:] for part in parts), strict=True)
    )
    x = signals(np.random.default_rng(seed), steps * BATCH).reshape(steps, BATCH, L)
    found = _trained(parts[0][0], freeze, params, stats, x)
    return [
        nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], found), own)
        for i, (graphdef, _, own) in enumerate(parts)
    ]


def share_of_older_half(reach_HL: np.ndarray) -> float:
    """The share of lags beyond L / 2 in the sum of the mean over channels; 1/2: no decay."""
    mean_L = reach_HL.mean(axis=0)
    return float(mean_L[L // 2 :].sum() / mean_L.sum())


def runs(steps: int = STEPS, seeds: tuple[int, ...] = SEEDS) -> Iterator[dict[str, Any]]:
    """A row for each timescale and real part, over all seeds."""
    for name, dt in timescales().items():
        for real_part, trained in REAL_PARTS:
            models = [Delay(real_part, dt, seed) for seed in seeds]
            before = [reach(model) for model in models]
            models = train(models, 0, freeze="" if trained else FROZEN, steps=steps)
            after = [reach(model) for model in models]
            test = signals(np.random.default_rng(1), 64)
            yield {
                "timescale": name,
                "dt": list(dt),
                "real_part": real_part,
                "trained": trained,
                "share_before": [share_of_older_half(x) for x in before],
                "share_after": [share_of_older_half(x) for x in after],
                "error": [float(_error(*split(model), test)) for model in models],
                "real_part_after": [
                    float(np.asarray(model.ssm.eigenvalues()).real.mean()) for model in models
                ],
                **{
                    f"curve_{when}": _curve(x) for when, x in (("before", before), ("after", after))
                },
            }


def _curve(reach_HL: list[np.ndarray]) -> list[float]:
    """Mean over seeds, channels and AVERAGE lags."""
    mean_L = np.mean(reach_HL, axis=(0, 1))
    return [float(f"{x:.4g}") for x in mean_L.reshape(-1, AVERAGE).mean(axis=1)]


def measure() -> dict[str, Any]:
    """All of the study."""
    setting: dict[str, Any] = {"length": L, "delay": DELAY, "band": BAND, "channels": H, "modes": N}
    setting |= {"steps": STEPS, "batch": BATCH, "seeds": list(SEEDS), "lambda_max": lambda_max()}
    return {**setting, "average": AVERAGE, "runs": list(runs())}


def describe(results: Mapping[str, Any]) -> str:
    """Lines for a person about what `measure` found."""
    return "\n".join(
        f"dt {row['timescale']:4} Re A {row['real_part']:5}{'' if row['trained'] else ' frozen'}: "
        f"older half {np.mean(row['share_before']):.1%} before, {np.mean(row['share_after']):.1%} "
        f"after; error {np.mean(row['error']):.3f}"
        for row in results["runs"]
    )
