# Makes its own Python environment in .venv and installs nothing outside it, with one exception: `make test` as root on
# Debian or Ubuntu (a container, CI) first installs the compilers and emulators of tools/packages.txt.
#
# Settings: PYTHON  the interpreter that .venv is made of        make PYTHON=python3.12 test
#           ARGS    more arguments for pytest                    make test ARGS="-k layers"

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
C_FILES = $(shell find firmware -name '*.[ch]')
BENCHES = $(sort $(wildcard tools/bench_*.py))

# One more than there are processors: a test often waits for a board.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

CHECK_VERSION := -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quantgru needs Python 3.11 or newer, \
	%s is %d.%d. Remove $(VENV) if it exists, then name a newer one: make PYTHON=python3.12 ..." \
	% ((sys.executable,) + sys.version_info[:2]))'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench tools clean

## Show this list
help:
	@awk '/^## / { text = substr($$0, 4); next } \
		text && match($$0, /^[a-z]+:/) { printf "  make %-8s %s\n", substr($$0, 1, RLENGTH - 1), text } \
		{ text = "" }' $(MAKEFILE_LIST)

## A trained model all the way to a board that runs here: needs Python and a C compiler only
demo: $(VENV)/core
	@$(BIN)/quantgru demo

## Lint, then every test that this machine can run; lists what it skipped and what installs it
test: lint
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh tools/install_tools.sh; fi
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal $(ARGS)

## Check style and types: ruff, mypy, clang-format
lint: $(VENV)/test
	@failed=; \
	$(BIN)/ruff check --quiet --output-format concise . || failed="$$failed ruff"; \
	$(BIN)/ruff format --check --output-format concise . || failed="$$failed format"; \
	$(BIN)/mypy || failed="$$failed mypy"; \
	$(BIN)/clang-format --dry-run -Werror $(C_FILES) || failed="$$failed clang-format"; \
	[ -z "$$failed" ] || { echo "lint: failed:$$failed"; exit 1; }

## Rewrite the sources in the project's style
format: $(VENV)/test
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(C_FILES)

## Print the measured figures: accuracy, speed, size, faults, fuzzing (an hour)
bench: $(VENV)/test
	@$(foreach script,$(BENCHES),echo "== $(script)" && $(BIN)/python $(script) && ) true

## Install compilers and emulators (Debian and Ubuntu, as root)
tools:
	@sh tools/install_tools.sh

## Remove the environment and everything else that was made here
clean:
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find quantgru tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# Files that say what .venv holds: made again when the dependencies change.
$(VENV)/made:
	@[ -x $(BIN)/python ] || $(PYTHON) $(CHECK_VERSION)
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(BIN)/python $(CHECK_VERSION)
	@touch $@

$(VENV)/core: pyproject.toml | $(VENV)/made
	@echo "installing quantgru into $(VENV)"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/test: pyproject.toml | $(VENV)/made
	@echo "installing quantgru and what its tests need into $(VENV): PyTorch is among it, this takes minutes"
	@$(PIP_INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/core
