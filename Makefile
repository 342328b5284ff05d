# A fresh machine needs GNU make and Python 3.11 or later; everything else goes into .venv.
#
#   make demo         train and compare models on the embedded world: demo/report.html (half an hour on two cores)
#   make test         run the tests
#   make check        all checks of a change: format, lint, types, layers, tests
#   make faults       kill, cut and starve training at 30 random moments and more, and resume it
#   make fuzz         give damaged and hostile files to every reader
#   make results      measure what the README reports (needs the real data sets: METAMMF_DATA)
#   make comparisons  run, or go on with, the comparisons of all models that the README reports (hours; METAMMF_DATA)
#   make bench        run all benchmarks, and write benchmarks/results and the tables of benchmarks/README.md
#   make clean        remove what these made: .venv, demo, caches, builds
#
# The first of them sets up .venv: some minutes, and 1.4 GB with the CPU build of torch. `. .venv/bin/activate` then gives you
# the command metammf.
#
# PYTHON       the interpreter that .venv is made with (python3)
# PIP_ARGS     options of the installation of torch, such as one that names a wheel index of yours
# PYTEST_ARGS  options of pytest
# FAULTS_ARGS  options of scripts/faults.py, such as --kills 5
# FUZZ_ARGS    options of scripts/fuzz.py, such as --seconds 10
# COMPARE_ARGS options of scripts/comparisons.py, such as --only tiktok, --jobs 4 or --copy
# QUICK=1      make bench at small sizes, some minutes, to see that all works
# ONLY         make bench of those alone whose name begins so
# ENVS         make bench: folder of the environments of the peers (benchmarks/peers/.env), see benchmarks/README.md

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
FAULTS_ARGS ?=
FUZZ_ARGS ?=
COMPARE_ARGS ?=
QUICK ?=
ONLY ?=
export ENVS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
export METAMMF_DATA ?= $(abspath $(wildcard ../shared/data))
ifeq ($(METAMMF_DATA),)
unexport METAMMF_DATA
endif

.PHONY: help demo test lint check faults fuzz results comparisons bench dev clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: .venv/.report .venv/.compare
	$(BIN)/metammf demo

test: .venv/.test
	$(BIN)/pytest $(PYTEST_ARGS)

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy scripts
	$(BIN)/lint-imports

check: lint
	$(BIN)/pytest $(PYTEST_ARGS)

faults: .venv/.test
	$(BIN)/python scripts/faults.py $(FAULTS_ARGS)

fuzz: .venv/.test
	$(BIN)/python scripts/fuzz.py $(FUZZ_ARGS)

results: .venv/.report
	$(BIN)/python scripts/measure.py
	$(BIN)/python scripts/ablate.py
	$(BIN)/python scripts/fill_readme.py

comparisons: .venv/.report .venv/.compare
	$(BIN)/python scripts/comparisons.py $(COMPARE_ARGS)
	$(BIN)/python scripts/fill_readme.py

bench: .venv/.report
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)')

dev: .venv/.dev

# Each stamp stands for an installation that came to its end; one that was cut short is taken up again.
# torch goes first and alone, so that no later step can exchange it for another build.
.venv/.python:
	@command -v "$(PYTHON)" > /dev/null || { echo "metammf needs Python 3.11 or later, and there is no $(PYTHON): name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "metammf needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'): name another with PYTHON=..." >&2; exit 1; }
	@echo "setting up .venv: some minutes; torch is the largest part"
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.torch: .venv/.python constraints.txt
	$(PIP) $(PIP_ARGS) "$$(sed -n 's/^torch==.*/&/p' constraints.txt)"
	@touch $@

.venv/.report .venv/.compare .venv/.test .venv/.dev: .venv/.%: .venv/.torch pyproject.toml
	$(PIP) -e '.[$*]'
	@touch $@

clean:
	rm -rf .venv demo .demo.old build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +
