"""S4D with tuned frequency bias, and what it shares with S4: one SSM for each channel."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.modes import INITS, Modes, initial_modes
from ssm_jax.kernels import anticausal, fft_conv, s4d_kernel, s4d_recurrence, sobolev_gain
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import lacking, parts, times
from ssm_jax.kernels.uneven import uneven_scan
from ssm_jax.layers.base import Knob, Scale
from ssm_jax.layers.inputs import from_ri
from ssm_jax.layers.timed import TimedLayer
from ssm_jax.options.arguments import check
from ssm_jax.options.rows import SIZE


class Probe(nnx.Variable):
    """Taps of zeros that are added to a layer's filtered kernel: forward, reverse; (2, H, L)."""


def add_probe(layer: Any, length: int) -> bool:
    """Give a layer a probe in place, if its kernel joins each channel with itself; else False.

    Its outputs in mode="conv" stay the same numbers. The gradient of a loss by `layer.probe` is
    that by the `length` taps (horizon, or steps of the input) of the filtered kernel, k[j] for the
    input j steps ago and k_rev[j] for that in 1 + j steps; zeros if the layer is not called.
    """
    if not isinstance(layer, ChannelwiseLayer):
        return False
    layer.probe = Probe(jnp.zeros((2, layer.D.shape[0], length), jnp.float32))
    return True


class ChannelwiseLayer(TimedLayer):
    """One SSM for each channel, S4D or S4: channel h has the eigenvalues of set h mod n_ssm."""

    # Functions of A..C, dt: the taps (.., L), and the recurrence (u, ..)
    KERNELS: ClassVar[tuple[Callable, Callable]]
    probe: Probe | None = None

    def __init__(self, d_model: int, start: Callable[..., Modes], *, n_ssm: int, **shared: Any):
        """Make A, dt, C and D; `start` gives the modes of n_ssm sets, see `TimedLayer`."""
        if not SIZE.holds(n_ssm) or d_model % n_ssm:
            raise ValueError(f"{self.NAME}: n_ssm={n_ssm} must divide d_model={d_model}.")
        super().__init__(d_model, d_model, lambda **scales: start(**scales).A_SN, **shared)
        # Complex normal numbers with E|C|^2 = 1: variance 1/2 in either part (OC-4). Forward, then
        # reverse if bidirectional.
        rngs = shared["rngs"]
        shape = (2 if self.bidirectional else 1, d_model, shared["d_state"], 2)
        C_ri = jax.random.normal(rngs.params(), shape, jnp.float32) * jnp.sqrt(jnp.float32(0.5))
        self.C_ri: nnx.Variable = nnx.Param(C_ri)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    @abstractmethod
    def system(self, scale: Scale) -> tuple[tuple[Array, ...], Array, Array]:
        """(what the kernels take before C, C_CHN, dt_H)"""

    def rule(self) -> dict[str, Any]:
        """Further arguments of the kernels."""
        return {}

    def of_channels(self, of_sets: Array) -> Array:
        """(S, N) to (H, N)."""
        return jnp.tile(of_sets, (self.D.shape[0] // of_sets.shape[0], 1))

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional."""
        return from_ri(self.C_ri[...])

    def state_shape(self) -> tuple[int, ...]:
        return self.C_ri.shape[1:3]

    def convolve(self, v_BLH: Array, steps: int, scale: Scale) -> Array:
        kernel, _ = self.KERNELS
        system, C_CHN, dt_H = self.system(scale)
        k_CHL = kernel(*system, C_CHN, dt_H, steps, **self.rule())
        y_BLH = fft_conv(
            v_BLH,
            k_CHL[0],
            reverse_kernel_HL=k_CHL[1] if self.bidirectional else None,
            gain_HF=sobolev_gain(self.beta[...], 2 * steps, self.beta_unit, scale),
            skip_H=self.D[...],
        )
        if self.probe is None:
            return y_BLH
        return y_BLH + fft_conv(v_BLH, self.probe[0], reverse_kernel_HL=self.probe[1])

    def taps(self, length: int) -> Array:
        """k_CHL, the first `length` taps without filter and D: forward, then reverse if there."""
        kernel, _ = self.KERNELS
        system, C_CHN, dt_H = self.system(1.0)
        return kernel(*system, C_CHN, dt_H, length, **self.rule())

    def scan(self, v_BLH: Array, scale: Scale) -> Array:
        _, recurrence = self.KERNELS
        system, C_CHN, dt_H = self.system(scale)
        y_BLH, _ = recurrence(v_BLH, *system, C_CHN[0], dt_H, **self.rule())
        if self.bidirectional:
            y_BLH += anticausal(recurrence, v_BLH, *system, C_CHN[1], dt_H, **self.rule())
        return y_BLH

    def look_ahead(self, v_BLH, starts_BL, scale) -> Array:
        """Of later inputs alone, without the present one (OC-12)."""
        y_BLH = super().look_ahead(v_BLH, starts_BL, scale)
        y_BLH = jnp.pad(y_BLH[:, 1:], ((0, 0), (0, 1), (0, 0)))
        if starts_BL is None:
            return y_BLH
        last_BL = jnp.pad(starts_BL[:, 1:], ((0, 0), (0, 1)))
        return jnp.where(last_BL[:, :, None], jnp.zeros_like(y_BLH), y_BLH)

    def run_from(self, state, v_BLH, lengths_B, scale) -> tuple[Array, Array]:
        _, recurrence = self.KERNELS
        system, C_CHN, dt_H = self.system(scale)
        y_BLH, state = recurrence(v_BLH, *system, C_CHN[0], dt_H, state, lengths_B, **self.rule())
        return state, y_BLH


class S4D(ChannelwiseLayer):
    """y = k^(beta) * u + D u, with one kernel per channel, or two that look back and ahead.

    By default the parametrization of the official code of "Tuning Frequency Bias of State Space
    Models" (arXiv:2410.02035), OC-1..OC-12: A = -exp(A_re_raw) + i A_im, shared by the channels h
    with equal h mod n_ssm; B = 1; C complex normal; dt per channel; D outside the filter.

    It runs as a convolution, as a parallel scan (mode="scan"), or from a state on: `prefill` takes
    many steps, `step` one. All give the same outputs.
    """

    NAME = "S4D"
    INITS = INITS
    KERNELS = s4d_kernel, s4d_recurrence

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """Lines about options of `cfg.model` that do not go together."""
        if options["s4d"]["input_norm"] == "lru" and options["discretization"] != "none":
            yield "model.s4d.input_norm=lru needs model.discretization=none."

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_ssm: int = 1,
        init: str | ArrayLike = "s4d_lin",
        init_seed: int = 0,
        input_norm: str = "none",
        dt_transform: str = "softplus",
        skip: bool = True,
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options` and `TimedLayer`. Besides

        Args:
          init: a key of `init.modes.INITS`; its input vector B is absorbed in C, which starts as
            B times a complex normal. Or the eigenvalues themselves, complex, (N,) or (S, N) of S =
            n_ssm sets, with B = 1: in rad per unit of time, or log A_bar if discretization is
            "none". The inits that draw give all layers of a network the same ones.
          input_norm: "lru": the input of a mode is multiplied by sqrt(1 - |A_bar|^2), from the
            present eigenvalues, as at the start of LRU (arXiv:2303.06349).
          skip: D is trained; False: there is none, which a Knob of zeros stands for.
        """
        check("S4D", locals(), "n_ssm")
        rule = shared.get("discretization", "zoh")
        if input_norm == "lru" and rule != "none":
            raise ValueError(
                "S4D: input_norm='lru' normalizes modes given per sample; with "
                f"discretization={rule!r} the step does that. Use input_norm='none'."
            )
        alpha, alpha_real = (shared.get(name, 1.0) for name in ("alpha", "alpha_real"))
        if not isinstance(init, str) and not alpha == alpha_real == 1:
            raise ValueError(
                f"S4D: alpha={alpha} and alpha_real={alpha_real} scale named inits only; "
                "scale the given eigenvalues instead."
            )
        start = partial(initial_modes, init, d_state, n_sets=n_ssm, seed=init_seed)
        shared |= {"d_state": d_state, "dt_transform": dt_transform, "rngs": rngs}
        super().__init__(d_model, start, n_ssm=n_ssm, **shared)
        self.input_norm = input_norm
        B_SN = start().B_SN  # of any alpha
        re, im = (self.of_channels(jnp.asarray(x, jnp.float32))[None] for x in parts(B_SN))
        C_ri = jnp.stack(times((self.C_ri[..., 0], self.C_ri[..., 1]), (re, im)), axis=-1)
        self.C_ri = nnx.Param(C_ri)  # bit for bit as before where B = 1
        if not skip:
            self.D = Knob(jnp.zeros_like(self.D[...]))

    def eigenvalues(self) -> Array:
        """A_HN, complex, in rad per unit of time; per sample if the discretization is "none"."""
        return self.of_channels(self.modes())

    def readout(self) -> Array:
        """C_CHN, complex: forward, then reverse if bidirectional; B and input_norm are in it."""
        C_CHN = super().readout()
        if self.input_norm == "none":
            return C_CHN
        one_minus_square_HN = -jnp.expm1(2 * self.eigenvalues().real)
        # At |A_bar| = 1 the root has no derivative.
        return C_CHN * jnp.sqrt(jnp.maximum(one_minus_square_HN, 1e-12))[None]

    def rule(self) -> dict[str, Any]:
        return {"discretization": self.discretization}

    def system(self, scale: Scale) -> tuple[tuple[Array], Array, Array]:
        return (self.eigenvalues(),), self.readout(), self.step_sizes() * scale

    def transition(self, scale: Scale) -> tuple[Array, ...]:
        """(A_bar, what it lacks, gain, C), all (H, N): what every step is made of."""
        (A_HN,), C_CHN, dt_H = self.system(scale)
        A_bar_HN, gain_HN = DISCRETIZE[self.discretization](A_HN, dt_H[:, None])
        rest_HN = lacking(A_bar_HN, *exponent(A_HN, dt_H[:, None], self.discretization))
        return A_bar_HN, rest_HN, gain_HN, C_CHN[0]

    def run_uneven(
        self, state, v_BLH, lengths_B, starts_BL, scale, *, side: int
    ) -> tuple[Array, Array]:
        (A_HN,), C_CHN, dt_H = self.system(1.0)

        def modes(v_BTH: Array, scale: Array) -> tuple[Array, Phase, Array]:
            A = A_HN[None, None]
            dt = dt_H[None, None, :, None] * (scale[:, :, None, None] if scale.ndim else scale)
            _, gain = DISCRETIZE[self.discretization](A, dt)
            z, phase = exponent(A, dt, self.discretization)
            return z, phase, gain * v_BTH[..., None]

        def outputs(x_BTHN: Array) -> Array:
            return 2 * jnp.sum((C_CHN[side][None, None] * x_BTHN).real, axis=-1)

        return uneven_scan(state, v_BLH, starts_BL, scale, lengths_B, modes, outputs)

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        A_bar_HN, rest_HN, gain_HN, C_HN = self.transition(scale)
        added_BHN = rest_HN[None] * state + gain_HN[None] * v_BH[:, :, None]
        state = A_bar_HN[None] * state + added_BHN
        return state, 2 * jnp.sum((C_HN[None] * state).real, axis=-1)
