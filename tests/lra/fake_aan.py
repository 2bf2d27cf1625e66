"""The files of Retrieval in small."""

import csv
import io
import random
import tarfile

COUNTS = {"train": 60, "val": 8, "test": 7}
NAMES = {"train": "train", "val": "eval", "test": "test"}
ROOT = "lra_release/lra_release/tsv_data"


def rows_of(seed, text_of=lambda paper: f"paper {paper} says é " * (1 + paper % 4)):
    """{split: [(label, id, id, text, text)]}, each paper in many rows."""
    rng = random.Random(seed)
    rows = {}
    for split, n in COUNTS.items():
        rows[split] = []
        for _ in range(n):
            one, two = rng.sample(range(12), 2)
            row = (rng.choice(["0.0", "1.0"]), f"P{one}", f"P{two}", text_of(one), text_of(two))
            rows[split].append(row)
    return rows


def files_of(rows):
    """{file name: bytes}, without quoting."""
    return {
        f"new_aan_pairs.{NAMES[split]}.tsv": "".join("\t".join(r) + "\n" for r in part).encode()
        for split, part in rows.items()
    }


def quoted(rows):
    """The same by Python's writer of csv, with its quotes."""
    made = {}
    for split, part in rows.items():
        text = io.StringIO(newline="")
        csv.writer(text, delimiter="\t", lineterminator="\n").writerows(part)
        made[f"new_aan_pairs.{NAMES[split]}.tsv"] = text.getvalue().encode()
    return made


def pack(path, files, root=ROOT, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_small(monkeypatch):
    """Let the official files have as few rows."""
    monkeypatch.setattr("ssm_jax.lra.retrieval.OFFICIAL_ROWS", COUNTS)


def unpack(root, files):
    (root / "tsv_data").mkdir(parents=True)
    for name, data in files.items():
        (root / "tsv_data" / name).write_bytes(data)
    return root
