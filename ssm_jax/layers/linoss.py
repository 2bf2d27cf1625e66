"""LinOSS and D-LinOSS: many forced oscillators, inputs and outputs, with tuned frequency bias."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.parameters import REAL_TRANSFORMS
from ssm_jax.kernels.oscillator import SMALLEST, imex_step, in_modes, in_motion, oscillator
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.powers import power
from ssm_jax.kernels.uneven import one_by_one
from ssm_jax.layers.base import Scale
from ssm_jax.layers.inputs import as_complex, check_rngs
from ssm_jax.layers.mimo import MimoLayer, beside
from ssm_jax.options.arguments import check


class Oscillators(MimoLayer):
    """x'' = -a x - G x' + B u, y = Re C x + D u: P oscillators with complex B and C.

    Each takes steps of its own trained length h. Re C x of a complex x is Re C Re x - Im C Im x,
    and Re x answers to Re B u as Im x does to Im B u. So an oscillator is twice the same mode, with
    real read-outs, N = 2P, and runs as S5 does, in every way and as exactly (`kernels.oscillator`).
    `eigenvalues`, `input_matrix` and `step_sizes` are those of these modes, per sample;
    `oscillators` has a, G and h, which step_scale multiplies. A state is in the modes of steps h,
    whatever step_scale it comes from.

    The parameters have the names of other layers, so that options find them by what they move:
    A_im is a, whose root is the frequency; A_re_raw is G; dt_raw is h by a sigmoid. Of a and G the
    positive part counts. As in the published code, a has no gradient where it is negative or
    clipped.
    """

    scheme: str

    def __init__(
        self,
        d_model: int,
        start: Callable[[Array, int], tuple[Array, Array | None, Array]],
        *,
        d_state: int = 64,
        beta: ArrayLike | None = None,
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options` and `StateSpaceLayer`. Besides

        Args:
          start: a, G (or None) and dt_raw, of a key and P.
          d_state: oscillators P, as the published code counts.
          rngs: with a "params" stream.
        """
        check_rngs(self.NAME, rngs)
        super().__init__(d_model, d_state=d_state, beta=beta, **shared)
        a_P, G_P, dt_raw_P = start(rngs.params(), d_state)
        self.A_im, self.dt_raw = nnx.Param(a_P), nnx.Param(dt_raw_P)
        if G_P is not None:
            self.A_re_raw = nnx.Param(G_P)
        shape = 2 if self.bidirectional else 1, d_model, d_state, 2
        self.B_ri = nnx.Param(_uniform(rngs.params(), (d_state, d_model, 2), d_model))
        self.C_ri = nnx.Param(_uniform(rngs.params(), shape, d_state))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    def oscillators(self, scale: Scale = 1.0) -> tuple[Array, Array, Array]:
        """(a_P, G_P, h_P), in 1 / time^2, 1 / time, and time per sample."""

        def positive(raw_P: Array) -> Array:
            return -REAL_TRANSFORMS["relu"][0](raw_P)

        a_P = positive(self.A_im[...])
        G_P = positive(self.A_re_raw[...]) if hasattr(self, "A_re_raw") else jnp.zeros_like(a_P)
        a_P, G_P, h_P = (beside(x, scale) for x in (a_P, G_P, jax.nn.sigmoid(self.dt_raw[...])))
        return a_P, G_P, h_P * scale

    def of_steps(self, scale: Scale) -> tuple[Array, Array, Phase, Array]:
        a_P, G_P, h_P = jnp.broadcast_arrays(*self.oscillators(scale))
        z_P, phase_P, weight_P = oscillator(a_P, G_P, h_P, self.scheme, SMALLEST * scale)
        z_N, phase_N, weight_N = jax.tree.map(_twice, (z_P, phase_P, weight_P))
        return power(z_N, phase_N, 1), z_N, phase_N, weight_N

    def drive(self) -> Array:
        B_NH = jnp.concatenate([self.B_ri[..., 0], self.B_ri[..., 1]])
        return as_complex(B_NH, jnp.zeros_like(B_NH))

    def eigenvalues(self) -> Array:
        """log A_bar_N, complex: of each pair of poles the upper one, twice."""
        return self.of_steps(1.0)[1]

    def input_matrix(self) -> Array:
        """B_bar_NH, complex: of one step."""
        return self.discrete(1.0)[3]

    def readout(self) -> Array:
        C_CHN = jnp.concatenate([self.C_ri[..., 0], -self.C_ri[..., 1]], axis=-1)
        return as_complex(C_CHN, jnp.zeros_like(C_CHN))

    def state_shape(self) -> tuple[int, ...]:
        return (2 * self.A_im.shape[0],)

    def run_from(self, state, v_BLH, lengths_B, scale) -> tuple[Array, Array]:
        state = self._in_modes_of(scale, 1.0, state)
        state, y_BLH = super().run_from(state, v_BLH, lengths_B, scale)
        return self._in_modes_of(1.0, scale, state), y_BLH

    def advance(self, state: Array, v_BH: Array, scale: Scale) -> tuple[Array, Array]:
        state, y_BH = super().advance(self._in_modes_of(scale, 1.0, state), v_BH, scale)
        return self._in_modes_of(1.0, scale, state), y_BH

    def run_uneven(
        self, state, v_BLH, lengths_B, starts_BL, scale, *, side: int
    ) -> tuple[Array, Array]:
        if self.scheme == "im" or jnp.ndim(scale) == 0:
            state = self._in_modes_of(scale, 1.0, state)
            arguments = state, v_BLH, lengths_B, starts_BL, scale
            state, y_BLH = super().run_uneven(*arguments, side=side)
            return self._in_modes_of(1.0, scale, state), y_BLH
        # The modes of "imex" are others for each length of a step: no power of one passes over two.
        B_NH, C_HN = self.drive().real, self.readout()[side].real
        a_1N, G_1N, h_1N = (_twice(x)[None] for x in self.oscillators())
        z_1N, phase_1N = jax.tree.map(lambda x_N: x_N[None], self.of_steps(1.0)[1:3])
        full = jax.lax.Precision.HIGHEST

        def step(motion: tuple[Array, Array], v_BH: Array, scale_B: Array):
            v_BN = jnp.matmul(v_BH, B_NH.T, precision=full)
            motion = imex_step(*motion, v_BN, a_1N, G_1N, h_1N * scale_B[:, None])
            return motion, jnp.matmul(motion[0], C_HN.T, precision=full)

        motion = in_motion(state, z_1N, phase_1N, h_1N)
        motion, y_BLH = one_by_one(step, motion, v_BLH, starts_BL, scale, lengths_B)
        return in_modes(*motion, z_1N, phase_1N, h_1N), y_BLH

    def _in_modes_of(self, scale: Scale, before: Scale, state: Any) -> Any:
        """A state in the modes of steps of another scale; those of "im" are the same for all."""
        if state is None or self.scheme == "im" or jnp.ndim(scale) or jnp.ndim(before):
            return state
        if isinstance(scale, float) and isinstance(before, float) and scale == before:
            return state
        old, new = (
            jax.tree.map(
                lambda x_N: x_N[None], (*self.of_steps(x)[1:3], _twice(self.oscillators(x)[2]))
            )
            for x in (before, scale)
        )
        return in_modes(*in_motion(state, *old), *new)


class LinOSS(Oscillators):
    """LinOSS, oscillators without damping (arXiv:2410.03943)."""

    NAME = "LinOSS"

    def __init__(self, d_model: int, *, scheme: str = "im", alpha: float = 1.0, **shared: Any):
        """Make a layer; see `Oscillators`. Besides

        Args:
          scheme: "im", implicit steps: a pole at the angle t has the radius cos t, so that fast
            oscillators forget first, and t ends at half of Nyquist. "imex": all poles are on the
            unit circle; where h^2 a > 4 and the published layer diverges, they stay at Nyquist.
          alpha: scales the angles of the poles at the start. At 1, the published start, a is
            uniform in [0, 1] and h the sigmoid of such a number: all angles are below a fifth
            ("im") or a quarter ("imex") of Nyquist. Beyond Nyquist "imex" folds them, as sampling
            folds a tone; for "im" alpha scales tan t = h sqrt a, and t where it is small.
        """
        check("LinOSS", locals())
        self.scheme = scheme

        def start(key: Array, n: int) -> tuple[Array, None, Array]:
            a_P, dt_raw_P = jax.random.uniform(key, (2, n), jnp.float32)
            if alpha != 1:
                h_P, root_P = jax.nn.sigmoid(dt_raw_P), jnp.sqrt(a_P)
                half_P = alpha * jnp.arcsin(h_P * root_P / 2)  # of the angle; the square folds it
                a_P = (alpha * root_P if scheme == "im" else 2 * jnp.sin(half_P) / h_P) ** 2
            return a_P, None, dt_raw_P

        super().__init__(d_model, start, **shared)


class DLinOSS(Oscillators):
    """D-LinOSS, damped oscillators (arXiv:2505.12171, its IMEX1).

    A pole has the radius (1 + h G)^(-1/2). a is clipped to (2 + h G -+ 2 sqrt(1 + h G)) / h^2, as
    published, where poles are pairs: so none leaves the unit circle.
    """

    NAME = "D-LinOSS"

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """See `S4D.faults`."""
        if options["alpha"] > 1:
            yield f"model.alpha={options['alpha']} must be at most 1 with model.layer='dlinoss'."

    def __init__(
        self,
        d_model: int,
        *,
        r_min: float = 0.9,
        alpha: float = 1.0,
        alpha_real: float = 1.0,
        **shared: Any,
    ):
        """Make a layer; see `Oscillators`. Besides

        Args:
          r_min: poles start on a ring with the radii r_min and 1, uniformly by area, with angles
            uniform in [0, pi]; h is the sigmoid of a normal number of deviation 1/2.
          alpha: scales the angles at the start; at most 1, where they reach Nyquist.
          alpha_real: scales the logarithms of the radii at the start; 0: no damping.
        """
        check("D-LinOSS", locals())
        if alpha > 1:
            why = "its poles reach Nyquist, and beyond it they alias to lower angles."
            raise ValueError(f"D-LinOSS: alpha must be at most 1, got {alpha}: {why}")
        self.scheme = "imex"

        def start(key: Array, n: int) -> tuple[Array, Array, Array]:
            of_h, of_ring = jax.random.split(key)
            dt_raw_P = jax.random.normal(of_h, (n,), jnp.float32) / 2
            h_P = jax.nn.sigmoid(dt_raw_P)
            within_P, turn_P = jax.random.uniform(of_ring, (2, n), jnp.float32)
            # 1 + h G is r^-2, and 1 - within is not 0
            log_P = -alpha_real * jnp.log1p(-(1 - r_min**2) * within_P)
            narrow_P, wide_P = jnp.expm1(log_P / 2), jnp.exp(log_P / 2)
            sine_P = jnp.sin(alpha * jnp.pi / 2 * turn_P)
            a_P = (narrow_P**2 + 4 * wide_P * sine_P**2) / h_P**2
            return a_P, jnp.expm1(log_P) / h_P, dt_raw_P

        super().__init__(d_model, start, **shared)


def _twice(x_P: Array) -> Array:
    """For the real parts of inputs and for the imaginary ones."""
    return jnp.concatenate([x_P, x_P], axis=-1)


def _uniform(key: Array, shape: tuple[int, ...], summed: int) -> Array:
    """Draws between -+1 over the root of how many numbers are summed."""
    return jax.random.uniform(key, shape, jnp.float32, -1, 1) / jnp.sqrt(jnp.float32(summed))
