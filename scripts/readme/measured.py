"""Tables of runs, of their data, and of errors, times and memory: columns of results."""

from __future__ import annotations

from collections.abc import Mapping

from readme.common import FROM, Result, load, per_file, table, where
from ssm_jax import tables
from ssm_jax.lra.published import ANCHORS, COLUMNS
from ssm_jax.report.results import device_of
from ssm_jax.sweep.tables import caption, to_markdown
from ssm_jax.tables import Columns


def listops_small() -> str:
    columns: Columns = {
        "seed": "{seed}",
        "test accuracy": "{test[accuracy]:.1%}",
        "majority class": "{majority_rate:.1%}",
        "steps": "{steps:,}",
        "device": "{device}",
        **FROM,
    }
    results = load("listops_small/seed*.json")
    notes = sorted({result["notes"] for result in results})
    return "\n".join(notes) + "\n\n" + table(columns, results)


def truncation() -> str:
    """A trained model with fewer modes, scored."""
    columns: Columns = {
        "modes of a channel": "{d_state}",
        "parameters": "{parameters:,}",
        "validation accuracy": "{val[accuracy]:.1%}",
        "loss": "{val[loss]:.3f}",
        "test accuracy": "{test[accuracy]:.1%}",
        "loss ": "{test[loss]:.3f}",
        "left out of the sum of singular values, most of any layer": lambda model: (
            f"{max(layer['lost_of_sum'] for layer in model['layers']):.0%}"
            if model["layers"]
            else "-"
        ),
    }
    text = []
    for result in load("diagnostics/truncation.json"):
        run = result["run"]
        about = {"device": device_of(run["devices"]), "commit": run["git"]["commit"][:9]}
        size = f"{result['examples']['val']:,} and {result['examples']['test']:,} expressions"
        note = f"\n{result['notes']} Seed {run['seed']}, step {result['step']:,}; {size}.\n"
        text.append(table(columns, result["models"]) + note + where({**result, **about}))
    return "\n".join(text) or "Not run.\n"


def activations() -> str:
    """The same runs with activations in half precision."""
    full = {result["seed"]: result["test"] for result in load("listops_small/seed*.json")}
    columns: Columns = {
        "seed": "{seed}",
        "float32": "{full[accuracy]:.1%}",
        "bfloat16": "{test[accuracy]:.1%}",
        **FROM,
    }
    half = load("activations/bfloat16_seed*.json")
    return table(columns, [{**result, "full": full[result["seed"]]} for result in half])


def lra() -> str:
    """Runs of the Long Range Arena in its order; what each reduces is under the table."""
    tuned = next(anchor.scores for anchor in ANCHORS if anchor.model.startswith("S4D-FT"))
    columns: Columns = {
        "task": lambda result: COLUMNS[result["task"]],
        "variant": lambda result: result["name"].split(":")[1],
        "data": "{data[source]}",
        "test accuracy, reduced": "{test[accuracy]:.1%}",
        "majority class": "{majority_rate:.1%}",
        "steps": "{steps:,}",
        "published, full size (S4D-FT)": lambda result: f"{tuned[result['task']].mean} %",
        "device": "{device}",
        **FROM,
    }
    order = list(COLUMNS)
    results = sorted(load("lra/*_reduced.json"), key=lambda result: order.index(result["task"]))
    notes = [f"* {COLUMNS[result['task']]}: {result['notes']}\n" for result in results]
    return table(columns, results) + "\n" + "".join(dict.fromkeys(notes))


def data() -> str:
    """One row for each prepared data set."""

    def shares(result: Result) -> str:
        train = result["splits"]["train"]
        parts = [100 * n / train["examples"] for n in train["classes"]]
        return f"{min(parts):.1f} to {max(parts):.1f} %"

    def steps(result: Result) -> str:
        splits = result["splits"]
        most = max(split["steps"]["most"] for split in splits.values())
        return f"{splits['train']['steps']['mean']:,.0f} / {most:,}"

    columns: Columns = {
        "task": "{task}",
        "source": "{source}",
        "train / val / test": lambda result: " / ".join(
            f"{split['examples']:,}" for split in result["splits"].values()
        ),
        "steps: mean / most": steps,
        "token ids": lambda result: str(result["token_ids"] or "-"),
        "shares of the classes": shares,
        "size": lambda result: f"{result['bytes'] / 1e6:,.0f} MB",
        "prepared in": "{seconds:,.0f} s",
        **FROM,
    }
    return table(columns, load("data/*.json"))


def resume() -> str:
    def compared(result: Result) -> str:
        leaves = f" and {result['leaves']} leaves" if result["leaves"] else ""
        return f"{result['metrics_lines']} lines{leaves}"

    columns: Columns = {
        "config": "{config}",
        "steps": "{steps:,}",
        "interruptions": "{kills}",
        "by": lambda result: ", ".join(f"{n} {name}" for name, n in result["signals"].items()),
        "compared": compared,
        "bit for bit": lambda result: "equal" if result["equal"] else "NOT equal",
        "": "{file}",
    }
    return table(columns, [result for result in load("resume/*.json") if "kills" in result])


DAMAGE = {  # how outcomes of benchmarks/damage.py begin, and their column
    "the same result": "the same result",
    "the next best": "the next best, said",
    "refused": "refused, and the way on works",
    "stopped": "stopped, then the same result",
    "survived": "survived, the same result",
}


def damage() -> str:
    def count(result: Result, start: str) -> int:
        return sum(n for outcome, n in result["outcomes"].items() if outcome.startswith(start))

    def wrong(result: Result) -> str:
        return str(len(result["cases"]) - sum(count(result, start) for start in DAMAGE))

    columns: Columns = {
        "config": "{config}",
        "cases": lambda result: str(len(result["cases"])),
        **{
            head: lambda result, start=start: str(count(result, start))
            for start, head in DAMAGE.items()
        },
        "wrong": wrong,
        **FROM,
    }
    return table(columns, [result for result in load("resume/*.json") if "outcomes" in result])


def ablation() -> str:
    return swept("ablation/*.json")


def series() -> str:
    return swept("series/*.json")


def series_rates() -> str:
    """Validation loss at each learning rate of the packaged sets, which chose their rates."""
    found: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for result in load("series/rates/*.json"):
        name, variant = result["name"].split(":")
        at = {run["options"]["optim.lr"]: run["validation"]["loss"] for run in result["runs"]}
        found.setdefault((name, result["commit"]), {})[variant] = at
    rates = sorted({rate for rows in found.values() for at in rows.values() for rate in at})

    def cell(at: Mapping[float, float], rate: float) -> str:
        text = f"{at[rate]:.3f}"
        return f"**{text}**" if at[rate] == min(at.values()) else text

    head = ["set", "variant", *(f"{rate:g}" for rate in rates), "commit"]
    rows = [
        [name, variant, *(cell(at, rate) for rate in rates), commit]
        for (name, commit), variants in found.items()
        for variant, at in variants.items()
    ]
    return tables.to_markdown(head, rows) if rows else "Not run.\n"


def swept(pattern: str) -> str:
    """A table for each sweep, with what is reduced and where it was measured."""
    parts = []
    for result in load(pattern):
        notes = f"\n{result['notes']}" if result["notes"] else ""
        foot = f"\n{caption(result)}{notes}\n{where(result)}"
        parts.append(f"`{result['name']}`\n\n{to_markdown(result)}{foot}")
    return "\n".join(parts) or "Not run.\n"


def spectrum() -> str:
    """One row for each spectrum: slope, bands of energy, and the starting alpha and beta."""

    def start(result: Result) -> Result:
        window = next(w for w in result["windows"] if w["alpha"] == result["alpha"])
        return {**result, "start": window, "task": result["name"].split(":")[0]}

    columns: Columns = {
        "task": "{task}",
        "inputs": "{inputs}",
        "gamma": "{fit[gamma]:.2f} ± {fit[half_width]:.2f}",
        "50 / 90 / 99 % of the energy below, rad per sample": lambda result: " / ".join(
            f"{result['energy_below'][share]:.2f}" for share in ("0.5", "0.9", "0.99")
        ),
        "beta": "{beta:.2f}",
        "alpha": "{alpha:.2g}",
        "modes beyond Nyquist": "{start[aliased]:.0%} of {layer[d_state]}",
        "energy within reach": "{start[reached]:.0%}",
        **FROM,
    }
    return table(columns, map(start, load("spectrum/*.json")))


def windows() -> str:
    """For each spectrum and alpha, what the modes of a new layer see of it."""
    rows = [
        {
            **window,
            "task": result["name"].split(":")[0],
            "mark": " (start)" if window["alpha"] == result["alpha"] else "",
            **{key: result[key] for key in ("layer", "file")},
        }
        for result in load("spectrum/*.json")
        for window in result["windows"]
    ]
    columns: Columns = {
        "task": "{task}",
        "alpha": "{alpha:.3g}{mark}",
        "highest mode, rad per sample": "{lowest:.3g} to {highest:.3g}",
        "modes beyond Nyquist": "{aliased:.0%}",
        "channels without such": "{clean:.0%}",
        "energy within reach": "{reached:.0%}",
        "modes in the 90 % band": "{within:.1f} of {layer[d_state]}",
        "": "{file}",
    }
    return table(columns, rows)


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
