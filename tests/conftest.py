"""Settings of all tests."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import jax
import pytest

# An (H,) added to a (B, L, H) by accident is an error, not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Most of the time of the suite is compiling, and tests in several processes compile the same
# training step: they share a folder of compiled programs, which lives as long as the suite.
# Programs that note no lines of their sources take a tenth less time to lower and compile.
SETTINGS = {
    "JAX_COMPILATION_CACHE_DIR": ("jax_compilation_cache_dir", str),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": (
        "jax_persistent_cache_min_compile_time_secs",
        float,
    ),
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": ("jax_traceback_in_locations_limit", int),
}


def pytest_configure(config):
    gc.disable()  # until the tests are collected
    # Between the runs of a sweep it spares memory; here all later tests would compile again.
    jax.clear_caches = lambda: None
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="compiled-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
    for variable, (option, kind) in SETTINGS.items():  # jax was imported before
        if variable in os.environ:
            jax.config.update(option, kind(os.environ[variable]))
    # Numba's programs are kept there too, and compiled quickly: Pathfinder's takes 15 s else.
    os.environ.setdefault("NUMBA_CACHE_DIR", f"{os.environ['JAX_COMPILATION_CACHE_DIR']}/numba")
    os.environ.setdefault("NUMBA_OPT", "0")
    # NumPy's threads wait busily for a core that another process has: processes started from here
    # have one each, and a convolution of 16,384 taps takes 0.5 s and not 3.5 s to 50 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# Where programs are compiled as users run them, because rounding is what is tested
OPTIMIZED = (
    "init",
    *(f"kernels/test_{name}.py" for name in ("diagonal", "discretize", "phase")),
)


def place(path):
    """kernels/test_scan.py for a file of the tests."""
    return path.relative_to(Path(__file__).parent).as_posix()


def pytest_ignore_collect(collection_path, config):
    """Leave out files without optimized tests where those alone are asked for: it saves seconds."""
    if config.option.markexpr.startswith("optimized") and collection_path.suffix == ".py":
        if place(collection_path).startswith(OPTIMIZED):
            return None
        return "mark.optimized" not in collection_path.read_text() or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark them as `optimized`: `make test` runs those and the others one after the other."""
    for item in items:
        path = place(item.path)
        if path.startswith(OPTIMIZED) and not item.get_closest_marker("unoptimized"):
            item.add_marker("optimized")


def pytest_collection_finish():
    """Keep Python from walking all that is loaded and compiled again and again for cycles.

    That took a tenth of the time of the tests, and half of that of collecting them.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Elsewhere LLVM skips its optimizations, which take a third of the time to compile."""
    optimized = item.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", not optimized)
    return (yield)


@pytest.fixture
def compile_once(monkeypatch):
    """The cells of a sweep differ in what they start from alone: they share their programs here."""
    from ssm_jax.training.experiment import Experiment

    compile_step, kept = Experiment.compile_step, {}

    def compiled(self, length=None, *, training=True):
        if training not in kept:
            kept[training] = compile_step(self, length, training=training)
        return kept[training]

    monkeypatch.setattr(Experiment, "compile_step", compiled)
