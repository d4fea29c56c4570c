# Everything bootstraps itself: Python 3.11 or newer, make and a network are enough. `make help` lists the targets.
PYTHON ?= python3
ARGS ?=
# most integration tests wait for processes: more workers than cores
WORKERS ?= 4
BIN := .venv/bin
STAMP := .venv/.set-up
SOURCES := schemas/src shared/kernel/src shared/features/src services/*/src client/src
PROJECTS := pyproject.toml $(wildcard */pyproject.toml shared/*/pyproject.toml services/*/pyproject.toml)
# where set-up links an OpenMP runtime for LightGBM if the system has none
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib$(addprefix :,$(LD_LIBRARY_PATH))
FAST := not (e2e or chaos or jaeger)
SLOW := (e2e or chaos) and not jaeger

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint format types contracts test-fast test-slow test-jaeger bench-ingest \
        bench-feature bench-replay bench-evaluator bench-serving bench-online bench-quality bench-hostile \
        bench-pipelines bench-mutants bench-swaps coverage lock clean

help:  ## list the targets
	@echo "make TARGET [ARGS=...] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP)  ## install everything into .venv, pinned by hash (done by each target that needs it)

# The stamp is as new as the newest pin it was made from; a second run finds it and skips set-up.
$(STAMP): requirements/dev.txt requirements/bootstrap.txt requirements/build.txt requirements/bootstrap.py $(PROJECTS)
	@$(PYTHON) requirements/bootstrap.py
	@touch $@

demo: $(STAMP)  ## replay New York's flights of 2013 through the whole loop (ARGS="--days 30", ARGS=--full)
	@$(BIN)/everloop demo $(ARGS)

up: $(STAMP)  ## start Kafka, PostgreSQL and the six services; Ctrl-C stops them
	@$(BIN)/everloop up $(ARGS)

test: lint types contracts test-fast test-slow  ## everything that must hold before a change lands

lint: $(STAMP)  ## ruff, and the layers that import-linter keeps
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

format: $(STAMP)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP)  ## mypy, strict
	@$(BIN)/mypy $(SOURCES)

contracts: $(STAMP)  ## the committed schemas are the code's, and no change breaks a consumer
	@$(BIN)/everloop-schemas generate --check
	@$(BIN)/everloop-schemas check

test-fast: $(STAMP)  ## unit, property, contract and integration tests, in parallel
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "$(FAST)" $(ARGS)

# Two at a time: each starts a stack of its own.
test-slow: $(STAMP)  ## end-to-end and chaos tests
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "$(SLOW)" $(ARGS)

# Not a part of `make test`: tracing takes a tenth more time and no test depends on it.
coverage: $(STAMP)  ## the fast tests again, with a report of the lines and branches they reach
	@$(MAKE) test-fast ARGS="--cov --cov-report=term $(ARGS)"

test-jaeger: $(STAMP)  ## build a real Jaeger (needs Go) and read the loop's trace back from it
	@$(BIN)/pytest -q -m jaeger $(ARGS)

BENCHES := bench-feature bench-replay bench-evaluator bench-serving bench-online bench-quality bench-hostile bench-pipelines bench-mutants bench-swaps
$(BENCHES): bench-%: $(STAMP)
	@$(BIN)/python bench/$*.py $(ARGS)
bench-ingest: $(STAMP)  ## records a second through ingest on one core: the worker, then the HTTP edge
	@$(BIN)/python bench/ingest.py $(ARGS)
	@$(BIN)/python bench/ingest_edge.py
bench-feature:  ## records a second through feature on one core
bench-replay:  ## the latency of live records while a changed pipeline replays its log beside them
bench-evaluator:  ## nanoseconds of one vector, and bytes of state per key
bench-serving:  ## requests a second of serving, at concurrency 1, 16 and 64
bench-quality:  ## false alarms and found faults of the data gates, on a year of flights
bench-hostile:  ## a million hostile records at ingest and feature, each accounted for (ARGS="--records 20000")
bench-mutants:  ## 10,000 mutated model artifacts at serving, by the layer that refuses them
bench-swaps:  ## a thousand swaps of models under load: errors, mixed answers, latency, memory
bench-pipelines:  ## what each of a hundred pipelines costs an idle install, and how long `apply` takes
bench-online:  ## a key's features over HTTP, beside Feast's feature server with Redis

lock: $(STAMP)  ## renew requirements/*.txt (ARGS=--upgrade takes newer versions)
	@$(BIN)/python requirements/lock.py $(ARGS)

clean:  ## remove the environment, caches and reports; data in .everloop stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
