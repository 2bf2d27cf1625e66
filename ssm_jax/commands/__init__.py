"""The command `ssm-jax`: one command line for all that the package does.

Each command is a function of its arguments and of the words that called it, for the records; its
docstring is its `--help`. The scripts in scripts/ are doors to the same functions.
"""

import contextlib
import importlib
import sys
import time
from pathlib import Path
from typing import NoReturn

import ssm_jax
from ssm_jax import stop

# By name, the module of its function and what it does.
COMMANDS = {
    "train": ("train", "train one experiment, or continue it"),
    "evaluate": ("runs", "evaluate a checkpoint of a run on a split"),
    "analyze": ("runs", "show what the layers of a run do to frequencies"),
    "truncate": ("runs", "keep the state that counts of a trained model, and score it"),
    "predict": ("runs", "predict series of a file with the model of a run"),
    "sweep": ("sweep", "train an experiment at every value of some options"),
    "launch": ("launch", "train or sweep as jobs of SLURM, Kubernetes or SkyPilot"),
    "report": ("runs", "compare the results of runs with the published ones"),
    "prepare": ("data", "generate, download or read the data of the Long Range Arena"),
    "spectrum": ("spectrum", "choose alpha and beta from the spectrum of the input"),
    "recommend": ("recommend", "advise on the initialization for given inputs, or say why not"),
    "aot": ("train", "compile an experiment for an accelerator that is not there"),
    "denoise": ("studies", "see a frequency bias strengthened, weakened and reversed"),
    "waves": ("studies", "see which waves a model learns under four settings"),
    "linoss": ("studies", "see whether alpha moves what LinOSS learns, on four sets"),
    "video": ("studies", "see which of two moving digits a predictor follows"),
    "runoff": ("studies", "see what the knobs do to the peaks of a flow"),
    "one-pole": ("studies", "see how far a pole feels a distant target"),
    "autocorrelation": ("studies", "see what the inputs' autocorrelation asks of a new layer"),
}
TRAINING = ("train", "sweep", "denoise", "waves", "linoss", "video", "runoff")


def main(name: str | None = None) -> NoReturn:
    """Run a command and end the process with its exit code.

    `name` is that of a script of its own; None: the first word of the command line.
    """
    called, words = [f"scripts/{Path(sys.argv[0]).name}"], 0
    if name is None:
        name, words = (sys.argv[1:] or [""])[0], 1
        called = ["ssm-jax", name]
    if name in TRAINING:
        stop.catch_signals()  # the imports take a moment
    from ssm_jax.config.ending import run_main

    def run(argv: list[str]) -> int:
        if name not in COMMANDS:
            return _answer(name)
        module = importlib.import_module(f"ssm_jax.commands.{COMMANDS[name][0]}")
        code: int = getattr(module, name.replace("-", "_"))(argv[words:], called)
        return code

    run_main(run)


def _answer(word: str) -> int:
    """Answer a first word that is not the name of a command."""
    from ssm_jax.config.argv import guess
    from ssm_jax.config.ending import fail

    if word == "--version":
        print(f"ssm-jax {ssm_jax.__version__}")
    elif word in ("--help", "-h"):
        print("Train state space models and choose their frequency bias.\n\nCommands:")
        for name, (_, about) in COMMANDS.items():
            print(f"  ssm-jax {name:17}{about}")
        print("\nssm-jax COMMAND --help shows what a command takes; --version is that of ssm_jax.")
    else:
        none = f"no command given; choose one of {', '.join(COMMANDS)}."
        fail(f"unknown command {word!r}{guess(word, COMMANDS)}" if word else none)
    return 0


KEPT_S = 30 * 86_400  # seconds that a compiled program is kept


def start_jax(asked: str | None = None, *, usual: Path | None = None) -> None:
    """Let this process keep its freed memory and, in a folder, the programs that it compiles.

    These save a tiny run 8 of 12 s of computing at its second start and change no number. `asked`
    is the value of --compiled: a folder, which must be one that can be written, or "off". Without
    it the folder is that of $JAX_COMPILATION_CACHE_DIR, or `compiled` in `usual`, by default the
    user's cache; nothing is kept if that cannot be written.
    """
    from ssm_jax.files import check_writable, user_cache
    from ssm_jax.kernels.devices import keep_freed_memory

    keep_freed_memory()  # before JAX starts its threads
    import jax

    if asked == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    cache = usual or user_cache()
    if asked is None and (cache is None or jax.config.values["jax_compilation_cache_dir"]):
        return
    folder = Path(asked).absolute() if asked else Path(cache or "").absolute() / "compiled"
    with contextlib.nullcontext() if asked else contextlib.suppress(OSError):
        check_writable(folder, "folder")
        for file in folder.glob("*-cache"):
            if file.stat().st_mtime < time.time() - KEPT_S:
                file.unlink(missing_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
