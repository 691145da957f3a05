# Short names for the commands in README.md; nothing here that is not there.
#
#   make demo     environment, embedded corpus, training, evaluation, report
#   make test     environment with test tools, all tests
#   make lint     what the gate checks besides the tests
#
# PYTHON=python3.11 picks the interpreter, EXTRAS=dev leaves PyTorch out of
# `make test` (its tests are then skipped by name), WORKDIR moves the demo run.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
EXTRAS ?= convert,dev
WORKDIR ?= runs/ce_shapes
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet -c requirements/tested.txt

.PHONY: demo test lint clean

demo: $(VENV)/core.installed
	$(PY) -m vidret_jax.tools.prepare --config configs/ce_shapes.py
	$(PY) -m vidret_jax.main --config configs/ce_shapes.py --workdir $(WORKDIR)

test: $(VENV)/$(EXTRAS).installed
	$(PY) -m pytest -n 2

lint: $(VENV)/$(EXTRAS).installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.installed: setup.cfg requirements/tested.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/$(EXTRAS).installed: setup.cfg requirements/tested.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[$(EXTRAS)]'
	touch $@
