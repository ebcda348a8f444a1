# make run: train on sine waves and draw Figure 1 in out/ (about a minute)
# make test: run all tests, then those of the derivatives without Numba
# make lint: check the style
#   These three create what they need in .venv.
# make test-newest: run all tests on the newest versions that setup.cfg allows,
#   in a fresh .venv-newest
# make lock: update requirements.lock to the newest exact versions of all
#   packages in .venv, for every Python and platform
# make figures: redraw every figure and table from its results
# make figure-3 table-2 BUDGET=0.1: compute figures and tables in out/, at a
#   fraction of their papers' meta-steps and of the tasks that score a run
#   (TASKS=1000 sets their number); runs are kept in runs/ and continued
# make conformance: grade JAX, PyTorch, TorchOpt and higher by the conformance
#   vectors; the libraries are installed in .venv-peers
# make growth: measure time and memory of a meta-step against tasks, steps,
#   images, filters and threads (three minutes, on Linux)
# make bench: show that the peers compute the same as minimeta, and time all in
#   turn (an hour, on an idle machine; minimeta needs its extra fast)
# make bench-runs: measure whole training runs of all presets (an hour, on an
#   idle machine, with the images in MINIMETA_DATA)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
NEWEST := .venv-newest
LOCKING := .venv-lock
LOCK := requirements.lock
INSTALL := -m pip install --quiet --disable-pip-version-check
EDITABLE := --config-settings editable_mode=compat --editable
SUPPORTED := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minimeta needs Python 3.11 or later: make PYTHON=python3.11")'
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

.PHONY: run test test-newest lint lock figures conformance growth bench bench-runs clean
.DELETE_ON_ERROR:

# The lock includes setuptools, so only packages in the lock are downloaded.
$(VENV)/installed: $(LOCK) setup.cfg pyproject.toml
	$(SUPPORTED)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python $(INSTALL) --require-hashes --requirement $(LOCK)
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation $(EDITABLE) .
	$(BIN)/python -m pip check --disable-pip-version-check
	touch $@

run: $(VENV)/installed
	$(BIN)/python figures/fig1.py

# The second run is without compiled twins, whose tests are in the first.
PLAIN := tests/arrays tests/layers tests/losses tests/objectives tests/inner tests/algorithms tests/testing

test: $(VENV)/installed
	$(BIN)/python -m pytest
	MINIMETA_FAST=0 $(BIN)/python -m pytest --ignore tests/arrays/test_compiled.py $(PLAIN)

test-newest:
	$(SUPPORTED)
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(INSTALL) $(EDITABLE) '.[test]'
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check
	$(NEWEST)/bin/python -m pytest

lock:
	$(SUPPORTED)
	$(PYTHON) -m venv --clear $(LOCKING)
	$(LOCKING)/bin/python $(INSTALL) uv
	$(LOCKING)/bin/python -c '$(BUILD_REQUIRES)' > $(LOCKING)/build.in
	$(LOCKING)/bin/uv pip compile --quiet --no-config --upgrade --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command 'make lock' --extra test --output-file $(LOCK) setup.cfg $(LOCKING)/build.in

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Figures with results: figures/fig1.py drew figures/results/fig1.json.
DRAWN := $(filter $(basename $(notdir $(wildcard figures/results/*.json))),$(basename $(notdir $(wildcard figures/*.py))))

figures: $(VENV)/installed
	for each in $(DRAWN); do $(BIN)/python figures/$$each.py --draw-only --out figures/results || exit; done
	$(BIN)/python figures/paper.py

figure-2: $(VENV)/installed
	$(BIN)/python figures/fig2.py

figure-1: $(VENV)/installed
	$(BIN)/python figures/fig1.py $(if $(BUDGET),--budget $(BUDGET))

figure-%: $(VENV)/installed
	$(BIN)/python figures/fig$*.py $(if $(BUDGET),--budget $(BUDGET)) $(if $(TASKS),--tasks $(TASKS))

table-%: $(VENV)/installed
	$(BIN)/python figures/table$*.py $(if $(BUDGET),--budget $(BUDGET)) $(if $(TASKS),--tasks $(TASKS))

# Install torch first, so that packages built on torch use this version.
$(PEERS)/installed: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

conformance: $(VENV)/installed $(PEERS)/installed
	$(BIN)/python benchmarks/conformance.py --python $(PEERS)/bin/python

growth: $(VENV)/installed
	$(BIN)/python benchmarks/growth.py

bench: $(VENV)/installed $(PEERS)/installed
	$(BIN)/python benchmarks/speed.py --python $(PEERS)/bin/python
	$(BIN)/python benchmarks/breakdown.py
	$(BIN)/python benchmarks/report.py

bench-runs: $(VENV)/installed
	$(BIN)/python benchmarks/whole_runs.py
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf $(VENV) $(PEERS) $(NEWEST) $(LOCKING) build dist *.egg-info out
