# From a fresh clone:
#   make demo   set up, then train a sweep of NLAs from nothing and audit it (minutes, two cores)
#   make real   set up, then an NLA of a real language model on real text: train, audit (hours, two
#               cores); MODEL=FOLDER and TEXT=FOLDER name your own, ARGS=--dry-run tells what it takes
#   make test   set up, then lint, types and all tests but the slow ones (minutes, two cores)
#   make test-slow   the tests that are marked slow, which continuous integration runs after the others
#   make docs   the documentation as a site, build/site, with its reference made from the code
PYTHON ?= python3
# The release that the tests were last run with; any from 2.6 on works.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

# A base model on the Hub or a folder, and a folder or file of texts (gathered if not there).
MODEL ?= google/gemma-3-270m
TEXT ?= runs/texts.jsonl
ARGS ?=
# Paths in a recipe start from its folder, those given to make from here.
from_here = $(if $(wildcard $(1)),$(abspath $(1)),$(1))

.PHONY: demo real planted test setup lint types pytest test-slow bench docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/nla-audit train recipes/tiny.yaml --out runs/tiny

# Threads that wait for each other do so asleep: where other processes want the cores too, waiting
# awake took three times as long.
real: setup $(TEXT)
	OMP_WAIT_POLICY=passive $(BIN)/nla-audit train recipes/gemma-3-270m.yaml --out runs/real \
	    --set target.model=$(call from_here,$(MODEL)) --set data.texts=$(abspath $(TEXT)) $(ARGS)

runs/texts.jsonl: | setup
	$(BIN)/python recipes/gather_texts.py --out $@

planted: setup
	$(BIN)/nla-audit demo --out demo-report

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

pytest: setup
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test: lint types pytest

test-slow: setup
	$(BIN)/pytest -n 2 --dist loadfile -m slow

bench: setup
	$(BIN)/python benchmarks/audit_scaling.py

docs: setup
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python docs/make_reference.py
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) demo-report runs/tiny docs/reference build dist *.egg-info
