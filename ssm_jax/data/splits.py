"""The random splits that S4 and S5 cut with torch, without torch."""

from __future__ import annotations

import numpy as np

# From here on torch draws 64 bits per position: (2**32 - 1) // 20 in its C++ source.
_TOO_MANY = (2**32 - 1) // 20


def torch_randperm(n: int, seed: int) -> np.ndarray:
    """The permutation `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`, int64.

    Torch draws from the Mersenne Twister MT19937, seeded by its authors' `init_genrand`, and
    exchanges position i with position i + draw % (n - i) for i = 0 .. n - 2 (Fisher and Yates).
    0.1 s for 200,000.

    Args:
      n: how many numbers, 0 .. n - 1.
      seed: 0 .. 2**32 - 1.

    Raises:
      ValueError: for an n or a seed outside of what torch's rule above covers.
    """
    if not 0 <= n < _TOO_MANY:
        raise ValueError(
            f"torch_randperm: n={n:,} must be in 0 .. {_TOO_MANY - 1:,}; beyond, torch draws by "
            "another rule."
        )
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"torch_randperm: seed={seed} must be in 0 .. 2**32 - 1.")
    # RandomState seeds MT19937 as torch does, newer NumPy generators otherwise; integers over the
    # whole range of uint32 are the generator's raw output. Its stream is frozen (NEP 19).
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32)
    steps = (draws % np.arange(n, 1, -1, dtype=np.uint32)).tolist()
    order = list(range(n))
    for i, step in enumerate(steps):
        order[i], order[i + step] = order[i + step], order[i]
    return np.array(order, np.int64)


def held_out(n: int, n_val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and for validation, as S4 and S5 hold out a part of a training set.

    Args:
      n: size of the whole, 50,000 for CIFAR-10.
      n_val: size of the validation part, 5,000 for CIFAR-10.
      seed: 42 in S4 and S5.

    Returns:
      The first n - n_val positions of `torch_randperm` and the others, in its order.

    Raises:
      ValueError: if either part would be empty; see also `torch_randperm`.
    """
    if not 0 < n_val < n:
        raise ValueError(f"held_out: n_val={n_val:,} must be in 1 .. {n - 1:,}, one less than n.")
    order = torch_randperm(n, seed)
    return order[: n - n_val], order[n - n_val :]
