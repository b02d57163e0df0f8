# One command each. Everything is installed into .venv; nothing else is needed but Python 3.11+ and a C compiler.
PYTHON ?= python3
VENV   ?= .venv
FUZZ_SECONDS ?= 600
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup check test fuzz demo bench bench-peers sim fmt clean
setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary --only-binary=xllamacpp -e '.[dev]'
	touch $(STAMP)

check: setup  ## format, lint, types, import contracts, fast tests: under 60 s
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m 'not slow' -n auto

test: setup  ## everything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

fuzz: setup  ## HTTP against h11, guided by coverage (Linux on x86-64, Python 3.11 to 3.13); the corpus stays in .fuzz/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=atheris,xllamacpp -e '.[dev,fuzz]'
	PYTHONPATH=. $(BIN)/python -m tests.fuzz.target -max_total_time=$(FUZZ_SECONDS)

demo: setup  ## the firewall against the mock provider, then the openai SDK against a real model
	$(BIN)/outlay demo

bench: setup  ## figures, with machine and commit
	$(BIN)/python -m bench

PEERS ?=
bench-peers: setup  ## existing gateways beside Outlay, from wheels and npm in a throw-away environment; PEERS='--env FOLDER ...'
	$(BIN)/python -m bench.peers $(PEERS)

SEED  ?= 0
STEPS ?= 40
COUNT ?= 1
sim: setup  ## gateways, database, provider and faults on a simulated clock; a seed is its own reproduction
	$(BIN)/python -m tests.sim $(SEED) $(STEPS) $(COUNT)

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis
