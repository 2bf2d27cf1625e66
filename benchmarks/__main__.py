"""Time layers and training steps, next to what the machine could do at best.

    python -m benchmarks                                      # one layer, every kind and length
    python -m benchmarks --kinds=s4d,my_layer.py:MyLayer      # or by an entry point
    python -m benchmarks --what=steps                         # a step of each LRA config
    python -m benchmarks --what=kernels                       # other ways to the same kernel
    python -m benchmarks --what=peers --lengths=2048,16384    # beside published layers (peers.py)
    python -m benchmarks --what=streams --channels=64 --modes=32           # one step in real time
    python -m benchmarks --what=startup --rounds=3            # a command until it has begun
    python -m benchmarks --what=large_file --gigabytes=20     # training on more than memory
    python -m benchmarks --what=lambda_max --gigabytes=20     # the eigenvalue of such a file
    python -m benchmarks --config=configs/lra/listops.py      # a step of your config
    python -m benchmarks --what=memory --config=configs/lra/pathx.py       # by options
    python -m benchmarks --what=buckets --config=configs/lra/text.py --config.data.buckets=4

The batches are random inputs of full length, so no data are needed, except for buckets. Each
measurement has a process of its own, in which the floor (the FFTs, memory passes and matrix
products that cannot be left out) takes turns with what is measured. Peak memory is what one call
adds to the process, or to the accelerator. All run as in training, in a process that keeps its
freed memory. Run it from the root of the repository.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main
from ssm_jax.config.load import load_config
from ssm_jax.tables import to_screen

WHAT = (
    *("layers", "steps", "kernels", "peers", "streams", "startup", "large_file", "lambda_max"),
    *("memory", "buckets"),
)
LRA = Path(__file__).parents[1] / "configs/lra"
FLAGS = (
    Flag("what", f"what to measure: {' | '.join(WHAT)}", "layers", choices=WHAT),
    Flag("kinds", "layers for --what=layers and streams; of your own as FILE.py:NAME", "s4d,s4,s5"),
    Flag("lengths", "lengths L, for layers, kernels and peers", "1024,2048,4096,16384"),
    Flag("peers", "for --what=peers", "official,discretax,lindermanlab"),
    Flag(
        "tasks",
        "files of configs/lra, for --what=steps",
        "listops,text,retrieval,image,pathfinder,pathx",
    ),
    Flag("variants", "variants of these files, for --what=steps", "s4d_ft,s4,s5"),
    Flag("official_batch", "the batch sizes of the files, not those for a CPU", False, bool),
    Flag("channels", "channels H, for layers, streams, kernels and peers", 128, int),
    Flag("modes", "modes N, for layers, streams, kernels and peers", 64, int),
    Flag("batch", "batch B, for layers, scans and peers", 4, int),
    Flag("alpha", "factor on the frequencies, for --what=kernels", 3.0, float),
    Flag("parts", "train.accumulate to compare with 1, for --what=memory", 5, int),
    Flag("gigabytes", "of the file, for --what=large_file and lambda_max", 20.0, float),
    cli.DATA_DIR,
    Flag("rounds", "timed rounds of each measurement", 10, int),
    Flag("out", "file for the results, as JSON", kind=Path, writes="file"),
)
COLUMNS = {
    "started": "command",
    "start": "start",
    "file_gb": "GB",
    "lambda_max": "lambda_max",
    "exact": "exact",
    "own_mib": "own MiB",
    "mapped_mib": "mapped MiB",
    "programs": "programs",
    "wall_s": "s",
    "processor_s": "s of the processor",
    "name": "model",
    "layer": "layer",
    "kernel": "kernel",
    "form": "form",
    "batch": "B",
    "length": "L",
    "channels": "H",
    "peer": "peer",
    "layer_ms": "ms",
    "blocks_ms": "ms in blocks",
    "peer_ms": "ms of the peer",
    "least_speed_up": "x of the least",
    "step_ms": "ms",
    "call_ms": "ms",
    "stream_us": "us",
    "scan_us": "us in a scan",
    "fft_floor_ms": "FFT floor",
    "floor_ms": "floor",
    "over_fft": "x FFT floor",
    "over_floor": "x floor",
    "peak_mib": "MiB",
    "accumulate": "parts",
    "remat": "remat",
    "arguments_mib": "arguments MiB",
    "temporaries_mib": "temporaries MiB",
    "epoch_s": "epoch s",
    "plain_epoch_s": "at one length",
    "speed_up": "speed-up",
    "compile_s": "compile s",
    "rms_error": "rms error",
}


def measurements(values: dict[str, Any], cfg: ConfigDict | None) -> Iterator[dict[str, Any]]:
    """The results one after the other; of `cfg` alone, if there is one."""
    from benchmarks import large_file, layers, peers, startup, steps, streams
    from benchmarks.measure import in_fresh_process
    from ssm_jax.kernels.devices import keep_freed_memory
    from ssm_jax.outside import located

    what, n = values["what"], values["rounds"]
    if cfg is None and what in ("memory", "buckets"):
        raise ValueError(f"--what={what} needs a --config.")
    if cfg is not None and what == "memory":
        for parts in (1, values["parts"]):
            for remat in (False, True):
                with cfg.unlocked():
                    cfg.train.accumulate, cfg.model.remat = parts, remat
                yield in_fresh_process(steps.planned_memory, cfg)
        return
    if what in ("large_file", "lambda_max"):
        yield from getattr(large_file, f"measure_{what}")(values["gigabytes"])
        return
    calls: Iterator[tuple[Any, ...]]  # a function and its arguments
    if cfg is not None and what == "buckets":
        calls = iter([(steps.measure_buckets, cfg, values["data_dir"], n)])
    elif cfg is not None:
        calls = iter([(steps.measure_step, cfg, n)])
    elif what == "streams":
        kinds, size = _words(values["kinds"]), (values["channels"], values["modes"])
        calls = ((streams.measure_stream, kind, *size, n) for kind in map(located, kinds))
    elif what == "startup":
        calls = ((startup.measure_start, *start, n) for start in startup.STARTS)
    elif what == "kernels":
        calls = _of_kernels(values)
    elif what == "peers":
        size = values["channels"], values["modes"], n
        calls = (
            (peers.measure_beside, peer, values["batch"], L, *size)
            for peer in _words(values["peers"])
            for L in _lengths(values)
        )
    elif what == "layers":
        B, H, N = (values[name] for name in ("batch", "channels", "modes"))
        calls = (
            (layers.measure_layer, kind, B, L, H, N, n)
            for kind in map(located, _words(values["kinds"]))
            for L in _lengths(values)
        )
    else:
        calls = ((steps.measure_step, cfg, n) for cfg in _lra_configs(values))
    for function, *arguments in calls:
        yield in_fresh_process(function, *arguments, first=keep_freed_memory)


def _of_kernels(values: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    from benchmarks import kernels

    modes, alpha, n = values["modes"], values["alpha"], values["rounds"]
    for length in _lengths(values):
        shape = (length, values["channels"], modes, alpha, n)
        for measure, known, arguments in (
            (kernels.measure_spectrum, kernels.SPECTRA, shape),
            (kernels.measure_dplr, kernels.DPLR, shape),
            (
                kernels.measure_convolution,
                {} if length % 2 else kernels.CONVOLUTIONS,  # halves need an even length
                (length, values["batch"], values["channels"], n),
            ),
            (kernels.measure_scan, kernels.SCANS, (length, values["batch"], modes, alpha, n)),
        ):
            yield from ((measure, form, *arguments) for form in known)


def _lra_configs(values: dict[str, Any]) -> Iterator[ConfigDict]:
    from benchmarks.steps import CPU_BATCHES

    for task in _words(values["tasks"]):
        for variant in _words(values["variants"]):
            cfg = load_config(f"{LRA / task}.py:{variant}")
            if not values["official_batch"]:
                cfg.batch_size = CPU_BATCHES[task]
            yield cfg


def _lengths(values: dict[str, Any]) -> list[int]:
    return [int(word) for word in _words(values["lengths"])]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def check(values: dict[str, Any]) -> None:
    """Refuse what cannot be measured, before anything is.

    Raises:
      ValueError: what was asked, and what there is.
    """
    from benchmarks.peers import NEEDED, PEERS
    from benchmarks.steps import CPU_BATCHES
    from ssm_jax.layers import LAYERS, find_layer
    from ssm_jax.lra.variants import VARIANTS
    from ssm_jax.outside import Unknown

    names = {"kinds": LAYERS, "tasks": CPU_BATCHES, "variants": VARIANTS, "peers": PEERS}
    for name, known in names.items():
        unknown = [word for word in _words(values[name]) if word not in known]
        if name == "kinds":
            with contextlib.suppress(Unknown):
                while unknown and find_layer(unknown[0]):
                    del unknown[0]
        if unknown or not _words(values[name]):
            raise ValueError(f"--{name}={values[name]}: choose from {', '.join(known)}.")
    for peer in _words(values["peers"]) if values["what"] == "peers" else ():
        if missing := [name for name in NEEDED[peer] if not find_spec(name)]:
            raise ValueError(
                f"--peers={values['peers']}: {peer} needs the module {missing[0]} on PYTHONPATH; "
                "benchmarks/peers.py says what it is."
            )
    lengths = _words(values["lengths"])
    if not lengths or not all(word.isdecimal() and int(word) > 0 for word in lengths):
        raise ValueError(f"--lengths={values['lengths']}: give whole numbers, such as 1024,2048.")
    if not 0 < values["gigabytes"] < 1e6:
        raise ValueError(f"--gigabytes={values['gigabytes']} is no size; use 20, or less to try.")
    for name in ("channels", "modes", "batch", "rounds", "parts"):
        if values[name] < 1:
            raise ValueError(f"--{name}={values[name]} measures nothing; use at least 1.")


def cell(value: Any) -> str:
    if isinstance(value, dict) and "median" not in value:  # by length
        return "  ".join(f"{key}: {cell(part)}" for key, part in value.items())
    if isinstance(value, dict):
        return f"{value['median']:,.1f} ({value['min']:,.1f})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(rows: list[dict[str, Any]]) -> None:
    """A table on the screen; times are medians and, in brackets, the least."""
    columns = {key: head for key, head in COLUMNS.items() if any(key in row for row in rows)}
    texts = [[cell(row.get(key, "")) for key in columns] for row in rows]
    table = to_screen(columns.values(), texts, no_wrap=True)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main(argv: list[str]) -> int:
    cfg = None
    if any(word.startswith("--config") for word in argv):
        cfg, values, _ = cli.load(argv, flags=FLAGS, about=__doc__ or "")
    else:
        values = cli.load_flags(argv, flags=FLAGS, about=__doc__ or "")
    check(values)
    rows = []
    for row in measurements(values, cfg):
        print(json.dumps(row), flush=True)
        rows.append(row)
    show(rows)
    if values["out"] is not None:
        from ssm_jax.training.record import write_result

        write_result(values["out"], {"rows": rows}, ["python", "-m", "benchmarks", *argv])
    return 0


if __name__ == "__main__":
    run_main(main)
