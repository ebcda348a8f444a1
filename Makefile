# make run: train on sine waves and draw Figure 1 (about a minute)      make test: all tests
# make lint: style                                                      Both create what they need in .venv.
# make figures: draw every figure and table again from its results      make figure-3 table-2 BUDGET=0.1: compute one,
#   at a fraction of its paper's meta-steps, in out/; what was computed before is kept and gone on with, in runs/
# make conformance: grade JAX, PyTorch, TorchOpt and higher by the conformance vectors; they go to .venv-peers
# make growth: time and memory of a meta-step against tasks, steps, images, filters and threads (three minutes, on Linux)
# make bench: show that the peers compute what minimeta does, and time all in turn (half an hour, on an idle machine)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

.PHONY: run test lint figures conformance growth bench clean
.DELETE_ON_ERROR:

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minimeta needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[test]'
	touch $@

run: $(VENV)/installed
	$(BIN)/python figures/fig1.py

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Those whose results are there; figures/results/fig1.json was drawn by figures/fig1.py.
DRAWN := $(filter $(basename $(notdir $(wildcard figures/results/*.json))),$(basename $(notdir $(wildcard figures/*.py))))

figures: $(VENV)/installed
	for each in $(DRAWN); do $(BIN)/python figures/$$each.py --draw-only --out figures/results || exit; done
	$(BIN)/python figures/paper.py

figure-2: $(VENV)/installed
	$(BIN)/python figures/fig2.py

figure-%: $(VENV)/installed
	$(BIN)/python figures/fig$*.py $(if $(BUDGET),--budget $(BUDGET))

table-%: $(VENV)/installed
	$(BIN)/python figures/table$*.py $(if $(BUDGET),--budget $(BUDGET))

# torch first: what is built on it must find this one.
$(PEERS)/installed: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
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

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info out
