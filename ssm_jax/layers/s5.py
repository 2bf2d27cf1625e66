"""S5: one diagonal SSM with many inputs and outputs, with tuned frequency bias."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init.modes import INITS, initial_modes
from ssm_jax.init.parameters import EIGENBASES, input_matrix, output_matrix, real_basis
from ssm_jax.layers.inputs import from_ri
from ssm_jax.layers.mimo import MimoLayer
from ssm_jax.layers.timed import TimedLayer
from ssm_jax.options.arguments import check, check_choice
from ssm_jax.options.rows import SIZE

SLOWEST_DECAY = 1e-4  # of clip_eigs


class SharedModes(TimedLayer):
    """What S5 and ConvS5 have in common: N modes that all channels share."""

    SCANS: ClassVar[bool] = True

    clip_eigs: bool  # Re A is at most -SLOWEST_DECAY

    def eigenvalues(self) -> Array:
        """A_N, complex, in rad per unit of time; per sample if the discretization is "none"."""
        A_N = self.modes()
        if self.clip_eigs:
            A_N = jax.lax.complex(jnp.minimum(A_N.real, -SLOWEST_DECAY), A_N.imag)
        return A_N

    def state_shape(self) -> tuple[int, ...]:
        return self.A_im.shape


class S5(SharedModes, MimoLayer):
    """x' = A x + B u, y = Re C x + D u: H channels in and out, N complex modes (arXiv:2208.04933).

    The filter can act on every output channel: y = gain^(beta) * Re C x + D u.
    """

    NAME = "S5"
    INITS = tuple({**EIGENBASES, **INITS})

    @staticmethod
    def faults(options: Mapping[str, Any]) -> Iterator[str]:
        """See `S4D.faults`."""
        own, d_state = options["s5"], options["d_state"]
        blocks = own["n_blocks"] * (1 if own["conj_sym"] else 2)
        if d_state % blocks:
            twice = "" if own["conj_sym"] else " times 2, as conj_sym is off"
            of = f"{blocks}, that is of model.s5.n_blocks{twice}."
            yield f"model.d_state={d_state} must be a multiple of {of}"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_blocks: int = 1,
        init: str = "legs",
        init_seed: int = 0,
        C_init: str = "lecun_normal",
        conj_sym: bool = True,
        clip_eigs: bool = False,
        real_transform: str = "none",
        beta: ArrayLike | None = None,
        rngs: nnx.Rngs,
        **shared: Any,
    ):
        """Make a layer; see `ssm_jax.options` and `TimedLayer`. Besides

        Args:
          d_state: modes that are stored and shared by the channels. With conj_sym their conjugates
            come on top: the official ssm_size counts both, so its 16 is 8 here.
          init: of a block: "legs", the normal part of HiPPO-LegS, as in the official code, or a key
            of `init.modes.INITS`, of which those that draw give every block its own modes. B and C
            start as draws in a real basis, see `init.parameters`.
          C_init: one of `init.parameters.C_INITS`, "complex_normal" drawn for the modes themselves.
          conj_sym: False: training may take conjugates apart; d_state is a multiple of 2 n_blocks.
          real_transform: "none", the official one, lets training make a mode unstable unless
            clip_eigs is set.
        """
        check_choice("S5", "init", init, self.INITS)
        halves = 1 if conj_sym else 2
        sizes = SIZE.holds(d_state) and SIZE.holds(n_blocks)
        if not sizes or d_state % (halves * n_blocks):
            multiple = f"a positive multiple of {halves} n_blocks with conj_sym={conj_sym}"
            raise ValueError(f"S5: d_state={d_state} must be {multiple}; n_blocks is {n_blocks}.")
        check("S5", locals(), "beta", "n_blocks")
        # The part of a block that is half of its conjugate pairs, in a real basis of its order.
        half = d_state // (halves * n_blocks)

        def modes(**scales: Any) -> np.ndarray:
            name = "s4d_legs" if init == "legs" else init
            A_JN = initial_modes(name, half, n_sets=n_blocks, seed=init_seed, **scales).A_SN
            return (A_JN if conj_sym else np.concatenate([A_JN, A_JN.conj()], axis=1)).ravel()

        shared |= {"d_state": d_state, "real_transform": real_transform, "beta": beta}
        super().__init__(d_model, d_state, modes, rngs=rngs, **shared)
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        V, V_inv = real_basis(init, half)
        if not conj_sym:
            V = np.concatenate([V, V.conj()], axis=1)
            V_inv = np.concatenate([V_inv, V_inv.conj()], axis=0)
        self.B_ri = nnx.Param(input_matrix(rngs.params(), V_inv, n_blocks, d_model))
        shape = 2 if self.bidirectional else 1, d_model
        self.C_ri = nnx.Param(output_matrix(rngs.params(), V, n_blocks, shape, C_init))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    def input_matrix(self) -> Array:  # B_NH, complex, of the continuous system
        return from_ri(self.B_ri[...])

    def readout(self) -> Array:
        """C_CHN of y = Re C x, complex: forward, then reverse if bidirectional.

        With conj_sym it is twice the parameter: the conjugate modes add as much again.
        """
        C_CHN = from_ri(self.C_ri[...])
        return 2 * C_CHN if self.conj_sym else C_CHN
