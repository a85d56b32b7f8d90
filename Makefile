# Every target sets up what it needs by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help browser install demo test test-pythons test-slow lint bench bench-peers docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.core
	$(PIP) --editable '.[dev]'
	touch $@

# A Chromium for the report's tests: from the distribution, where it can be installed; failing to is a failure.
$(VENV)/.browser: | $(VENV)/.core
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif ! command -v apt-get > /dev/null; then echo "no chromium and no apt-get: the report is not tested in a browser"; \
	elif [ "$$(id -u)" = 0 ]; then apt-get -qq -o Acquire::Retries=3 update && apt-get -qq -o Acquire::Retries=3 install -y --no-install-recommends chromium fonts-liberation; \
	elif sudo -n true 2> /dev/null; then sudo apt-get -qq -o Acquire::Retries=3 update && sudo apt-get -qq -o Acquire::Retries=3 install -y --no-install-recommends chromium fonts-liberation; \
	else echo "no chromium and no root: the report is not tested in a browser"; fi
	touch $@

browser: $(VENV)/.browser ## a Chromium for the report's tests, where apt-get can be used

install: $(VENV)/.dev ## .venv with everything development needs

demo: $(VENV)/.core ## FedBuff, CA2FL and FedEcho on digits, where the slow clients own two of them
	$(BIN)/fedecho compare configs/digits_coupled.toml --algorithms fedbuff,ca2fl,fedecho,fedecho_balanced,fedecho_calibrated --seeds 0,1,2,3,4 --jobs 2

test: $(VENV)/.dev $(VENV)/.browser ## the tests, without the slow ones
	$(BIN)/python -m pytest

# Each other version has an environment of its own below .venv-X.Y; extras that it lacks are skipped with the reason.
PYTHONS ?= 3.10 3.12 3.13
test-pythons: $(VENV)/.browser ## the tests on other Python versions that are installed (PYTHONS="3.10 3.12 3.13")
	@for version in $(PYTHONS); do \
		python=$$(command -v python$$version || ls $$HOME/.pyenv/versions/$$version.*/bin/python 2> /dev/null | tail -n 1); \
		if [ -z "$$python" ]; then echo "Python $$version is not installed: skipped"; continue; fi; \
		echo "Python $$version ($$python)"; \
		test -x .venv-$$version/bin/python || "$$python" -m venv .venv-$$version || exit 1; \
		.venv-$$version/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' || exit 1; \
		.venv-$$version/bin/python -m pytest || exit 1; \
	done

test-slow: $(VENV)/.dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## what a run costs, one table (15 minutes; BENCH=--quick: 8; BENCH=--all: Flower and peers, too)
	$(BIN)/python benchmarks/table.py $(BENCH)

bench-peers: $(VENV)/.dev ## the same work in other simulators, each in an environment of its own (docs/peers.md)
	$(BIN)/python benchmarks/peers.py install
	$(BIN)/python benchmarks/peers.py run

docs: $(VENV)/.dev ## the API's pages, into build/docs
	$(BIN)/pdoc --output-directory build/docs fedecho

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-3.* build .pytest_cache .mypy_cache .ruff_cache .hypothesis
