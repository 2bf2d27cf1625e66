"""Whether each figure in results/ is as new as its numbers and as the code that draws it.

results/figures.json has a stamp for each: the SHA-256 of the picture, of the JSON file that has its
numbers, and of the function that draws it, without its docstring and its layout.
"""

from __future__ import annotations

import ast
import hashlib
import json

from readme.common import RESULTS, ROOT

Stamps = dict[str, dict[str, str]]

STAMPS = RESULTS / "figures.json"
# The numbers and the function of each figure
FIGURES = {
    "ablation/image_reduced.png": ("ablation/image_reduced.json", "plots/sweep.heatmap_figure"),
    "autocorrelation/bound.png": (
        "autocorrelation/bound.json", "plots/autocorrelation.bound_figure",
    ),
    "autocorrelation/conditioning.png": (
        "autocorrelation/conditioning.json", "plots/autocorrelation.conditioning_figure",
    ),
    "autocorrelation/memory.png": (
        "autocorrelation/memory.json", "plots/autocorrelation.memory_figure",
    ),
    "denoise/gains.png": ("denoise/story.json", "stories/denoise/run.gains_figure"),
    "denoise/images.png": ("denoise/story.json", "stories/denoise/run.images_figure"),
    "diagnostics/hankel.png": ("diagnostics/listops_small.json", "plots/run.hankel_figure"),
    "diagnostics/poles.png": ("diagnostics/listops_small.json", "plots/layers.poles_figure"),
    "diagnostics/variation.png": ("diagnostics/listops_small.json", "plots/run.variation_figure"),
    "linoss/alpha.png": ("linoss/story.json", "stories/linoss/run.alpha_figure"),
    "runoff/peaks_mean.png": ("runoff/mean.json", "stories/runoff/run.runoff_figure"),
    "runoff/peaks_last.png": ("runoff/last.json", "stories/runoff/run.runoff_figure"),
    "spectrum/image_fashion_mnist.png": (
        "spectrum/image_fashion_mnist.json", "plots/inputs.spectrum_figure",
    ),
    "spectrum/listops_generated.png": (
        "spectrum/listops_generated.json", "plots/inputs.spectrum_figure",
    ),
    "theory/one_pole.png": ("theory/one_pole.json", "stories/one_pole.one_pole_figure"),
    "video/errors.png": ("video/story.json", "stories/video/run.errors_figure"),
    "video/frames.png": ("video/story.json", "stories/video/run.frames_figure"),
    "video/response.png": ("video/story.json", "stories/video/run.response_figure"),
    "waves/errors.png": ("waves/waves.json", "stories/waves/run.waves_figure"),
}  # fmt: skip


def check(stamp: bool) -> list[str]:
    """A line for each figure that has no stamp, or is older than its numbers or its code.

    Figures that were drawn anew get their stamp, if `stamp`, and are in no line then.
    """
    kept: Stamps = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
    found = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.png")}
    faults = [f"results/{name} has no row in FIGURES" for name in sorted(found - set(FIGURES))]
    faults += [f"results/{name} is missing" for name in sorted(set(FIGURES) - found)]
    stamps: Stamps = {}
    for name in sorted(found & set(FIGURES)):
        numbers, function = FIGURES[name]
        now = {
            "picture": _digest((RESULTS / name).read_bytes()),
            "numbers": _digest((RESULTS / numbers).read_bytes()),
            "code": _code(function),
        }
        old = kept.get(name, {})
        new = stamp and now["picture"] != old.get("picture")
        stamps[name] = now if new else old
        faults += [
            f"results/{name} does not fit the {what} that it was stamped with"
            for what in now
            if now[what] != stamps[name].get(what)
        ]
    if stamp:
        STAMPS.write_text(json.dumps(stamps, indent=1) + "\n")
    return faults


def accept(name: str) -> None:
    """Forget the stamp of a figure that would look the same with the new numbers or code."""
    stamps: Stamps = json.loads(STAMPS.read_text())
    if stamps.pop(name, None) is None:
        raise ValueError(f"--accept={name} does not fit: choose one of {', '.join(stamps)}.")
    STAMPS.write_text(json.dumps(stamps, indent=1) + "\n")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _code(function: str) -> str:
    """The digest of a function, without its docstring and white space."""
    module, _, name = function.rpartition(".")
    source = (ROOT / "ssm_jax" / f"{module}.py").read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    node = next(node for node in functions if node.name == name)
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        first, last = node.body[0].lineno, node.body[0].end_lineno or 0
        lines[first - node.lineno : last - node.lineno + 1] = []
    return _digest("".join("".join(lines).split()).encode())
