# Everything needs only Python 3.11+, make and a network to install from; the virtual environment is made on the first call.
#
#   make demo    serve, act, learn, stop, re-train offline, report
#   make test    every check: lint, types, generated code, docs, tests
#   make results what the agents reach: docs/RESULTS.md; takes hours, keeps what is there; make results ROWS=cartpole for one row
#   make bench   how fast it is; PEERS=1 measures cpprb, TorchRL, Stable-Baselines3 and Reverb too

PYTHON ?= python3
# The build of PyTorch that the tests are run with. For a GPU: make TORCH=torch
TORCH ?= torch==2.13.0
# Processes that run tests. They wait for each other, for disks and timers: no more than there are cores.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types docs proto bench results clean

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/replaystore demo --path demo

test: lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy


docs: $(READY)
	$(BIN)/python -m replaystore.cli.pages docs/CLI.md docs/DOCTOR.md docs/METRICS.md docs/SETTINGS.md

proto:
	proto/generate.sh

bench: $(READY)
	TORCH='$(TORCH)' $(BIN)/replaystore bench --json bench.json --png bench.png $(if $(PEERS),--peers --peers-folder .venv-peers)

results: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[envs]'
	$(BIN)/python -m benchmarks.learning $(ROWS) --jobs $(JOBS)

clean:
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis demo demo-report
