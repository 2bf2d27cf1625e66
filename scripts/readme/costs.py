"""Tables of errors, times and memory, and of programs compiled ahead."""

from __future__ import annotations

from readme.common import FROM, Result, load, per_file, table, where
from ssm_jax.tables import Columns


def kernel_accuracy() -> str:
    """Largest errors by alpha and length; the denoising model has a column of its own length."""
    parts = []
    for result in load("accuracy.json"):
        lengths = sorted({row["length"] for row in result["kernel"]})
        errors = {(row["alpha"], row["length"]): row["max"] for row in result["kernel"]}
        columns: Columns = {
            "alpha": lambda alpha: f"{alpha:.4g}",
            **{
                f"L = {n:,}": lambda alpha, n=n, errors=errors: (
                    f"{errors[alpha, n]:.1e}" if (alpha, n) in errors else ""
                )
                for n in lengths
            },
        }
        parts.append(table(columns, sorted({alpha for alpha, _ in errors})) + where(result))
    return "\n".join(parts) or "Not run.\n"


LENGTH: Columns = {"L": "{length:,}"}
OVER_FLOOR: Columns = {"x floor": "{over_floor:.2f}"}
MEMORY: Columns = {"memory": "{peak_mib:,} MiB"}
COMPILE: Columns = {"compile": "{compile_s:.1f} s"}


def layer_accuracy() -> str:
    ways = {way: f"{{{way}:.1e}}" for way in ("conv", "scan", "prefill", "step")}
    return per_file("accuracy.json", {"layer": "{layer}", **LENGTH, **ways}, rows="layers")


def _times(head: str, key: str) -> Columns:
    return {head: f"{{{key}[median]:,.0f}} ({{{key}[min]:,.0f}})"}


def bench_layers() -> str:
    times = _times("forward + backward, ms", "layer_ms")
    floors = {"x FFT floor": "{over_fft:.2f}", **OVER_FLOOR}
    columns = {"layer": "{layer}", **LENGTH, **times, **floors, **MEMORY, **COMPILE}
    return per_file("bench/layers_*.json", columns)


def bench_peers() -> str:
    ours = {"peer": "{peer}", "ours": "{layer}", **LENGTH, **_times("ours, ms", "layer_ms")}
    theirs = {**_times("the peer's, ms", "peer_ms"), "times ours": "{speed_up:.1f}"}
    return per_file(
        "bench/peers_*.json", {**ours, **theirs, "of the least": "{least_speed_up:.1f}"}
    )


def bench_steps() -> str:
    model = {"model": "{name}", "layer": "{layer}", "B": "{batch}", **LENGTH, "H": "{channels}"}
    columns = {**model, **_times("step, ms", "step_ms"), **OVER_FLOOR, **MEMORY, **COMPILE}
    return per_file("bench/steps_*.json", columns)


def bench_streams() -> str:
    model = {"layer": "{layer}", "blocks": "{blocks}", "H": "{channels}", "N": "{modes}"}
    times = _times("a step, us", "stream_us") | _times("in a scan, us", "scan_us")
    return per_file("bench/streams_*.json", {**model, **times, **COMPILE})


def bench_startup() -> str:
    def least(name: str) -> str:
        return f"{{{name}[min]:.1f}} ({{{name}[median]:.1f}})"

    command = {"command": "`{started}`", "programs of XLA": "{programs}"}
    times = {"s": least("wall_s"), "s of the processor": least("processor_s")}
    return per_file("bench/startup_*.json", {**command, **times})


def bench_large_file() -> str:
    columns: Columns = {
        "start": "{start}",
        "file": "{file_gb:.0f} GB",
        "own memory": "{own_mib:,} MiB",
        "mapped pages": "{mapped_mib:,} MiB",
        "steps": "{steps}",
        "s": "{wall_s:.0f}",
    }
    return per_file("bench/large_file_*.json", columns)


def bench_lambda_max() -> str:
    columns: Columns = {
        "file": "{file_gb:.0f} GB",
        "sequences": "{sequences:,}",
        "L": "{length:,}",
        "own memory": "{own_mib:,} MiB",
        "steps": "{steps}",
        "lambda_max": "{lambda_max:.4f}",
        "exact": "{exact:.4f}",
        "s": "{wall_s:,.0f}",
    }
    return per_file("bench/lambda_max_*.json", columns)


def bench_bookkeeping() -> str:
    """What each way to sweep takes for a run, beside the run."""
    columns: Columns = {
        "": "{way}",
        "processor, ms a run": "{processor:.0f}",
        "of it the share of a run of a minute": "{share:.2%}",
    }
    found = load("bench/sweep_*.json")
    if not found:
        return "Not run.\n"
    (result,) = found
    ways = {way: result[way]["beside_a_run_ms"] for way in result if "sea" in way or way == "sweep"}
    rows = [{"way": way, **took, "share": took["processor"] / 6e4} for way, took in ways.items()]
    asked = result["sweep --status"]["processor_s"]
    about = f"\n`sweep --status` of {result['runs']} runs: {asked:.1f} s of the processor.\n"
    return table(columns, rows) + about + where(result)


def bench_kernels() -> str:
    times = _times("forward + backward, ms", "call_ms")
    kernel = {"kernel": "{kernel}", "form": "{form}", **LENGTH}
    columns = {**kernel, **times, **MEMORY, "rms error": "{rms_error:.1e}"}
    return per_file("bench/kernels_*.json", columns)


def memory() -> str:
    columns: Columns = {
        "config": "{name}",
        "parts": "{accumulate}",
        "blocks again": lambda row: "yes" if row["remat"] else "no",
        "temporaries": "{temporaries_mib:,.0f} MiB",
        "arguments": "{arguments_mib:,.0f} MiB",
    }
    return per_file("bench/memory_*.json", columns)


def buckets() -> str:
    """Batches and step times by length, and an epoch with and without."""

    def by_length(row: Result) -> str:
        return "; ".join(
            f"L = {int(length):,}: {row['batches'][length]:,} x {times['median']:,.0f}"
            for length, times in row["step_ms"].items()
        )

    columns: Columns = {
        "config": "{name}",
        "B": "{batch}",
        "batches x ms a step": by_length,
        "epoch": "{epoch_s:,.0f} s",
        "at one length": "{plain_epoch_s:,.0f} s",
        "speed-up": "{speed_up:.2f}",
    }
    return per_file("bench/buckets_*.json", columns)


def processes() -> str:
    """One run by one process and by two, and what a lost process costs."""
    parts = []
    for result in load("processes/*.json"):
        columns: Columns = {
            "processes": "{processes}",
            "devices": "{devices}",
            "ms a step": "{ms_per_step:.0f}",
            "metrics differ by": "{apart:.1e}",
        }
        ends: Columns = {
            "signal": "{signal}",
            "to process": "{to_process}",
            "the other ends after": "{seconds_to_end:.1f} s",
            "with code": "{code_of_the_others}",
            "at step": "{reached}",
            "saved": "{saved}",
            "there again after": "{seconds_to_be_there_again:.0f} s",
            "metrics differ by": "{apart:.1e}",
        }
        tables = table(columns, result["runs"]), table(ends, result["lost"])
        parts.append("\n".join(tables) + where(result))
    return "\n".join(parts) or "Not run.\n"


def population() -> str:
    """Of each experiment a population beside its runs one by one."""
    columns: Columns = {
        "members": "{members}",
        "trained by": lambda row: WAYS_TO_TRAIN[row["way"]],
        "s of the processor": "{processor_s:.0f}",
    }
    found = load("population/cpu_*.json")
    parts = [
        f"`{one['name']}`, {one['steps']} steps:\n\n{table(columns, one['rows'])}{where(one)}"
        for one in found
    ]
    return "\n".join(parts) or "Not run.\n"


WAYS_TO_TRAIN = {
    "population": "`sweep --population`",
    "sweep": "`sweep`, one process",
    "train": "`train`, a process each (one, times the members)",
}


def population_planned() -> str:
    """What XLA plans for members on an accelerator."""
    found = sorted(load("population/planned_*.json"), key=lambda one: one["members"])
    if not found:
        return "Not run.\n"

    def per(row: Result, key: str, unit: float) -> str:
        return f"{row['train'][key] / row['members'] / unit:,.1f}"

    columns: Columns = {
        "config": "`{name}`",
        "target": "{target}",
        "members": "{members}",
        "MiB moved a member": lambda row: per(row, "bytes_moved", 2**20),
        "MiB planned a member": lambda row: per(row, "planned_bytes", 2**20),
        "MiB planned": lambda row: f"{row['train']['planned_bytes'] / 2**20:,.0f}",
        "kernels": lambda row: f"{row['train']['kernels']:,}",
        "floor, ms": lambda row: f"{row['train']['floor_ms']:.3f}",
        **FROM,
    }
    return table(columns, found)


GIB = 2**30


def aot() -> str:
    """A row for each record, beside the one of the same name that was made before."""
    before = {row["file"].replace("/before/", "/"): row for row in load("aot/before/*.json")}

    def at(key: str, shown: str, unit: float = 1.0):
        def cell(row: Result) -> str:
            now, old = shown.format(row["train"][key] / unit), before.get(row["file"])
            return f"{now} ({shown.format(old['train'][key] / unit)})" if old else now

        return cell

    def products(row: Result) -> str:
        return ", ".join(f"{n} {what}" for what, n in sorted(row["train"]["products"].items()))

    def collectives(row: Result) -> str:
        found = row["train"]["collectives"].items()
        return ", ".join(f"{r['times']} {what}, {r['bytes'] / 2**20:.1f} MiB" for what, r in found)

    columns: Columns = {
        "config": "`{name}`",
        "devices": "{accelerators} x {target}",
        "batch": "{batch_size}",
        "GiB moved (before)": at("bytes_moved", "{:.1f}", GIB),
        "floor, ms": at("floor_ms", "{:.2f}"),
        "kernels": at("kernels", "{:,.0f}"),
        "temporaries, GiB": at("temp_bytes", "{:.2f}", GIB),
        "TFLOP": at("flops", "{:.3f}", 1e12),
        "products": products,
        "collectives": lambda row: collectives(row) or "none",
        **FROM,
    }
    made = table(columns, load("aot/*.json"))
    earlier = ", ".join(sorted({row["commit"] for row in before.values()}))
    return made + (f"\nBefore: commit {earlier}.\n" if earlier else "")


def aot_h200() -> str:
    """A row for each task, and in each cell what one of its four experiments takes on one H200."""
    steps: dict[str, Result] = {}
    for row in load("aot/h200/*.json"):
        task, arm = row["name"].removeprefix("lra/").split(":")
        step = row["train"]
        numbers = f"{step['bytes_moved'] / GIB:.1f} GiB, {step['kernels']:,.0f}"
        task_row = steps.setdefault(task, {"task": task})
        task_row[arm] = f"{numbers}, {step['compile_s']:.0f} s"
    columns: Columns = {"task": "{task}"} | {
        arm: f"{{{arm}}}" for arm in ("s4d_ft", "s4d", "s4", "s5")
    }
    return table(columns, steps.values())
