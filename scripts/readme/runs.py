"""Tables of runs and of the data they used."""

from __future__ import annotations

from readme.common import commit_of, device_of, load, table
from ssm_jax.lra.published import ANCHORS, COLUMNS


def listops_small() -> str:
    rows = [
        (
            str(result["seed"]),
            f"{result['test']['accuracy']:.1%}",
            f"{result['majority_rate']:.1%}",
            f"{result['steps']:,}",
            device_of(result),
            commit_of(result),
            f"[file]({path})",
        )
        for path, result in load("listops_small/seed*.json").items()
    ]
    notes = {result["notes"] for result in load("listops_small/seed*.json").values()}
    head = ("seed", "test accuracy", "majority class", "steps", "device", "commit", "")
    return "\n".join(sorted(notes)) + "\n\n" + table(head, rows)


def activations() -> str:
    """The same runs with activations in half precision."""
    full, half = load("listops_small/seed*.json"), load("activations/bfloat16_seed*.json")
    by_seed = {result["seed"]: result for result in full.values()}
    rows = [
        (
            str(result["seed"]),
            f"{by_seed[result['seed']]['test']['accuracy']:.1%}",
            f"{result['test']['accuracy']:.1%}",
            commit_of(result),
            f"[file]({path})",
        )
        for path, result in half.items()
    ]
    return table(("seed", "float32", "bfloat16", "commit", ""), rows)


def lra() -> str:
    """Runs of the Long Range Arena in its order; what each reduces is under the table."""
    results = load("lra/*_reduced.json")
    tuned = next(anchor for anchor in ANCHORS if anchor.model.startswith("S4D-FT"))
    rows, notes = [], []
    for task, column in COLUMNS.items():
        published = tuned.scores[task]
        assert published is not None
        for path, result in results.items():
            if result["task"] != task:
                continue
            notes.append(f"* {column}: {result['notes']}")
            rows.append(
                (
                    column,
                    result["name"].split(":")[1],
                    result["data"]["source"],
                    f"{result['test']['accuracy']:.1%}",
                    f"{result['majority_rate']:.1%}",
                    f"{result['steps']:,}",
                    f"{published.mean} %",
                    device_of(result),
                    commit_of(result),
                    f"[file]({path})",
                )
            )
    head = (
        "task", "arm", "data", "test accuracy, reduced", "majority class", "steps",
        "published, full size (S4D-FT)", "device", "commit", "",
    )  # fmt: skip
    return table(head, rows) + "\n" + "".join(f"{note}\n" for note in dict.fromkeys(notes))


def data() -> str:
    """One row for each prepared data set."""
    rows = []
    for path, result in load("data/*.json").items():
        splits = result["splits"].values()
        train = result["splits"]["train"]
        shares = [100 * n / train["examples"] for n in train["classes"]]
        rows.append(
            (
                result["task"],
                result["source"],
                " / ".join(f"{split['examples']:,}" for split in splits),
                f"{train['steps']['mean']:,.0f} / {max(s['steps']['most'] for s in splits):,}",
                str(result["token_ids"] or "-"),
                f"{min(shares):.1f} to {max(shares):.1f} %",
                f"{result['bytes'] / 1e6:,.0f} MB",
                f"{result['seconds']:,.0f} s",
                commit_of(result),
                f"[file]({path})",
            )
        )
    head = (
        "task", "source", "train / val / test", "steps: mean / most", "token ids",
        "shares of the classes", "size", "prepared in", "commit", "",
    )  # fmt: skip
    return table(head, rows)


def resume() -> str:
    rows = [
        (
            result["config"],
            f"{result['steps']:,}",
            str(result["kills"]),
            ", ".join(f"{count} {name}" for name, count in result["signals"].items()),
            f"{result['metrics_lines']} lines"
            + (f" and {result['leaves']} leaves" if result["leaves"] else ""),
            "equal" if result["equal"] else "NOT equal",
            f"[file]({path})",
        )
        for path, result in load("resume/*.json").items()
        if "kills" in result
    ]
    return table(("config", "steps", "interruptions", "by", "compared", "to the bit", ""), rows)


DAMAGE = {  # how outcomes of benchmarks/damage.py begin, and their column
    "the same result": "the same result",
    "the next best": "the next best, said",
    "refused": "refused, and the way on works",
    "stopped": "stopped, then the same result",
    "survived": "survived, the same result",
}


def damage() -> str:
    rows = []
    for path, result in load("resume/*.json").items():
        if "outcomes" not in result:
            continue
        counts = [
            sum(count for outcome, count in result["outcomes"].items() if outcome.startswith(head))
            for head in DAMAGE
        ]
        total = len(result["cases"])
        wrong = total - sum(counts)
        rows.append(
            (
                result["config"],
                *map(str, (total, *counts, wrong)),
                commit_of(result),
                f"[file]({path})",
            )
        )
    return table(("config", "cases", *DAMAGE.values(), "wrong", "commit", ""), rows)
