"""Delay: at each step the value of the input some steps ago, of band-limited white noise.

    x_t = sqrt(1 / 4K) sum_{k = 1..K} r_k cos(2 pi k t / L - phi_k), less its value at t = 0
    y_t = x_{t - lag},    0 where t < lag

with r_k of Rayleigh's distribution and phi_k uniform: the K lowest harmonics of L steps, Gaussian
and independent. The standard deviation is 1/2 before the value at t = 0 is subtracted. That value
is a constant of the sequence with as much power, so it rules the autocorrelation: lambda_max is
near L / 4, and near 1 / (4 band) with data.delay.from_zero=False, which leaves it in.

Theirs: the signal and the target of the code of S4 for arXiv:2206.12037, whose experiment has L =
4,000 samples of 1/4000 s, a lag of 1,000, all frequencies up to 1,000 Hz, half of Nyquist, 16,384
training and 1,024 evaluation examples, and a linear layer. Ours: S4's code draws new training
examples in each epoch, here they are the same ones; validation and test have 1,024 each; the
numbers come from Philox; and the network is that of all tasks here, with norm and gate.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.options.rows import COUNT, Range, since_0_2
from ssm_jax.tasks import Lazy, Task

COUNTS = {"train": 16_384, "val": 1_024, "test": 1_024}
RMS = 0.5
_FAMILY = 7  # of the random streams, and the next two; other users of a seed have others


class DelayDataset(Dataset):
    """Signals and their past; an example is a function of the seed, the split and its number.

    `gather` returns "inputs" and "targets", float32 (B, L, 1).
    """

    paired, vocab_size, d_input, n_classes = False, None, 1, 1

    def __init__(
        self,
        length: int,
        lag: int,
        band: float,
        counts: Mapping[str, int],
        seed: int,
        *,
        from_zero: bool = True,
    ) -> None:
        """Of L = `length` steps with frequencies up to `band`, a share of Nyquist; `counts` of 0
        are COUNTS. ValueError: no harmonic is within the band."""
        self.lag, self._seed, self._facts = lag, seed, dict[str, float]()
        self.from_zero = from_zero
        self.harmonics = min(int(band * length / 2 + 1e-9), (length - 1) // 2)
        if self.harmonics < 1:
            raise ValueError(
                f"data.delay.band={band} has no harmonic of {length} steps; use at least "
                f"{2 / length:.2g}."
            )
        self.rows = {split: np.arange(counts[split] or COUNTS[split]) for split in SPLITS}
        self.preprocessing = Preprocessing.plain(
            "per_step", ("signal",), ("delayed",), padded_length=length
        )
        about = {"form": 1, "length": length, "lag": lag, "harmonics": self.harmonics, "seed": seed}
        about |= {} if from_zero else {"from_zero": from_zero}
        start = "from 0, " if from_zero else ""
        detail = f"noise of {self.harmonics:,} harmonics of {length:,} steps, {start}lag {lag:,}, "
        provenance = Provenance.generated(f"{detail}seed {seed}", about)
        super().__init__("delay", length, provenance)

    def signal(self, split: str, number: int) -> np.ndarray:
        """The signal of an example, float64 (L,)."""
        K, L = self.harmonics, self.padded_length
        words = philox(self._seed, number, _FAMILY + SPLITS.index(split)).random_raw(2 * K)
        u_2K = ((words >> np.uint64(11)) + np.uint64(1)).reshape(2, K) * 2.0**-53  # in (0, 1]
        c_K = np.sqrt(-2 * np.log(u_2K[0])) * np.exp(-2j * np.pi * u_2K[1])  # Box and Muller
        spectrum = np.zeros(L // 2 + 1, complex)
        spectrum[1 : K + 1] = c_K * (RMS / np.sqrt(K) * L / 2)
        x_L = np.fft.irfft(spectrum, L)
        return x_L - x_L[0] if self.from_zero else x_L

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        numbers = self.check(split, indices)
        inputs = np.zeros((numbers.size, self.padded_length, 1), np.float32)
        for row, number in zip(inputs, numbers.tolist(), strict=True):
            row[:, 0] = self.signal(split, number)
        targets = np.zeros_like(inputs)
        targets[:, self.lag :] = inputs[:, : self.padded_length - self.lag]
        return {"inputs": inputs, "targets": targets}

    def facts(self, split: str) -> dict[str, float]:
        """ "mean_mse": the error of their mean, 0, over all targets: the mean square."""
        if split not in self._facts:
            L, lag = self.padded_length, self.lag
            signals = (self.signal(split, n)[: L - lag] for n in range(self.size(split)))
            self._facts[split] = sum(float((x**2).sum()) / L for x in signals) / self.size(split)
        return {"mean_mse": self._facts[split]}


def open_delay(data: Mapping[str, Any], paths: DataPaths) -> DelayDataset:
    """The examples that a config asks for; no files are read."""
    if paths.files is not None:
        raise ValueError("delay is generated: give no files.")
    counts = {split: data[f"n_{split}"] for split in SPLITS}
    about = data["delay"]
    return DelayDataset(
        data["padded_length"], _lag(data), about["band"], counts, data["seed"],
        from_zero=about["from_zero"],
    )  # fmt: skip


def _lag(data: Mapping[str, Any]) -> int:
    return data["delay"]["lag"] or data["padded_length"] // 4


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    L = data["padded_length"]
    if L < 4 and not data["delay"]["lag"]:
        yield f"data.padded_length={L} has no quarter for data.delay.lag=0; use at least 4."
    elif _lag(data) >= L:
        yield f"data.delay.lag={_lag(data)} must be below data.padded_length={L}."


_HEADS = "ssm_jax.tasks.heads"
DELAY = Task(
    open_data=open_delay,
    build_model=Lazy(f"{_HEADS}:build_network"),
    train_sums=Lazy(f"{_HEADS}:number_train_sums"),
    eval_sums=Lazy(f"{_HEADS}:number_eval_sums"),
    outputs=Lazy(f"{_HEADS}:outputs"),
    metrics={"mse": "min", "rmse": "min", "r2": "max", "loss": "min"},
    summary=Lazy(f"{_HEADS}:number_summary"),
    options={
        "data.delay.lag": since_0_2(0, "0: a quarter of data.padded_length", COUNT, unit="steps"),
        "data.delay.band": since_0_2(
            0.5,
            "highest frequency of the noise, a share of Nyquist",
            Range(0, 1, above=True),
            source="S4: 1,000 of 2,000 Hz",
        ),
        "data.delay.from_zero": since_0_2(True, "signals less their first value", source="S4"),
    },
    sources=("generated",),
    faults=_faults,
    network=Lazy("ssm_jax.models:SequenceClassifier"),
)
