"""Random numbers and random splits that no upgrade of NumPy changes.

They are made of raw words of Philox and MT19937: NumPy may change what its Generator methods make
of these words, but not the words (NEP 19).
"""

import operator

import numpy as np

# From here on torch draws 64 bits per position: (2**32 - 1) // 20 in its C++ source.
_TOO_MANY = (2**32 - 1) // 20


def philox(seed: int, stream: int, family: int = 0) -> np.random.Philox:
    """The words of one stream of a seed; another seed, stream or family has others."""
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if not 0 <= whole < 2**64:
        raise ValueError(f"a seed must be a whole number from 0 to 2**64 - 1; got {seed!r}.")
    key, counter = np.array([whole, stream], np.uint64), np.array([0, 0, 0, family], np.uint64)
    return np.random.Philox(key=key, counter=counter)


def uniform(seed: int, stream: int, n: int) -> np.ndarray:
    """n numbers in [0, 1) that are a function of the arguments, float64."""
    return (philox(seed, stream).random_raw(n) >> np.uint64(11)) * 2.0**-53


def torch_randperm(n: int, seed: int) -> np.ndarray:
    """The permutation `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`, int64.

    Torch draws from the Mersenne Twister MT19937, seeded by its authors' `init_genrand`, and
    exchanges position i with position i + draw % (n - i) for i = 0 .. n - 2 (Fisher and Yates).
    0.1 s for 200,000.
    """
    if not 0 <= n < _TOO_MANY:
        raise ValueError(
            f"torch_randperm: n={n:,} must be in 0 .. {_TOO_MANY - 1:,}; beyond, torch draws by "
            "another rule."
        )
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"torch_randperm: seed={seed} must be in 0 .. 2**32 - 1.")
    # RandomState seeds MT19937 as torch does, newer NumPy generators otherwise; integers over the
    # whole range of uint32 are the generator's raw output.
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32)
    steps = (draws % np.arange(n, 1, -1, dtype=np.uint32)).tolist()
    order = list(range(n))
    for i, step in enumerate(steps):
        order[i], order[i + step] = order[i + step], order[i]
    return np.array(order, np.int64)


def held_out(n: int, n_val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n - n_val positions of `torch_randperm(n, seed)`, and the others: so S4 and S5 hold
    out a part of a training set, of CIFAR-10 5,000 of 50,000, with seed 42."""
    if not 0 < n_val < n:
        raise ValueError(f"held_out: n_val={n_val:,} must be in 1 .. {n - 1:,}, one less than n.")
    order = torch_randperm(n, seed)
    return order[: n - n_val], order[n - n_val :]
