# `make help` lists every target that a person types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# The machine's uv if there is one, else one of our own in .tools.
UV = $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= wallet-outbox:$(VERSION)
DIST ?= dist
# Of the commit: two builds of one commit carry the same times.
REVISION = $(or $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null),unknown)
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),315532800)
SOURCE_URL ?= $(shell git remote get-url origin 2>/dev/null | sed -nE 's|^https://([^@/]*@)?|https://|p')

.DEFAULT_GOAL := help
.PHONY: help setup demo up down lint unit test check fuzz faults mutants bench bench-full wrk fmt docs lock clean
.PHONY: image test-release compose-test dist audit last-release

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.installed ## create .venv with everything, also .venv/bin/walletctl

.tools/bin/uv:
	@$(PYTHON) -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip install --quiet "uv==$(UV_VERSION)" \
	 || { rm -rf .tools; $(PYTHON) -m pip install --quiet --target .tools "uv==$(UV_VERSION)"; } \
	 || { echo "uv could not be installed: give $(PYTHON) pip (or install uv yourself) and run make again" >&2; exit 1; }

$(VENV)/.installed: requirements/dev.txt pyproject.toml $(if $(shell command -v uv 2>/dev/null),,.tools/bin/uv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 setup")'
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## run the whole pipeline once, with thousands of requests, and verify everything
	@$(BIN)/walletctl stack demo

up: setup ## run the local stack until Ctrl-C
	@$(BIN)/walletctl stack up

down: setup ## stop the local stack
	@$(BIN)/walletctl stack down

lint: setup ## style, format, types, imports and workflows, in seconds
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/zizmor --offline --quiet --persona pedantic --strict-collection .github
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

unit: setup ## the tests that need no server, in less than 20 seconds
	@PYTHONPATH=tests $(BIN)/python -m pytest -q -p support.unit_marker -m unit --hypothesis-profile=unit

test: setup ## run the whole test suite against real servers, in TEST_PROCESSES (2) at once
	@$(BIN)/python -m pytest -n $${TEST_PROCESSES:-2} --dist loadfile

check: lint ## lint, then all tests: what CI runs
	@$(MAKE) --no-print-directory test

fuzz: setup ## FUZZ_EXAMPLES (500) random inputs of each operation of both APIs; FUZZ_SEED repeats a run
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-500} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest -s tests/acceptance/test_openapi.py

faults: setup ## random faults for FAULTS_SECONDS (480), then each fault alone; FAULTS_SEED repeats a schedule
	@FAULTS_SECONDS=$${FAULTS_SECONDS:-480} $(BIN)/python -m pytest -s -m "" tests/faults

compose-test: setup ## attack compose.yaml on a Docker engine: stops, kills, down and up, in about 10 minutes
	@$(BIN)/python tests/deploy/attack_compose.py

mutants: setup ## break each promise on purpose, and require the tests to notice
	@$(BIN)/python tests/mutants/run.py

bench: setup $(if $(shell command -v wrk),,wrk) ## measure beside the peers, in 20 minutes; QUICK=1 takes 4; ONLY=NAME runs one measure
	@$(BIN)/python -m benchmarks --size $(if $(QUICK),quick,normal) $(if $(ONLY),--only $(ONLY))

bench-full: setup $(if $(shell command -v wrk),,wrk) ## growth, memory and verify at full size: 10,000,000 ledger rows, 1,000,000 requests
	@$(BIN)/python -m benchmarks --size full --only growth --only memory --only verify

wrk: # where this may install it; elsewhere the benchmark says how to get it
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends wrk >/dev/null; fi

image: ## build the container image IMAGE (wallet-outbox:VERSION)
	@docker version >/dev/null 2>&1 || { echo "make image needs a Docker engine: install Docker, start it, and let this user reach it (docker version)" >&2; exit 1; }
	@docker build --tag $(IMAGE) --file deploy/Dockerfile $(if $(SOURCE_URL),--label org.opencontainers.image.source=$(SOURCE_URL)) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	  --build-arg CREATED=$$(date -u -d @$(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ) .

test-release: setup ## make a release and the image twice, compare them, and try the image; needs Docker
	@$(BIN)/python -m pytest -m release tests/deploy

dist: export SOURCE_DATE_EPOCH := $(SOURCE_DATE_EPOCH)
dist: setup ## build wheel, source archive, SBOM and checksums into DIST (dist/)
	@mkdir -p $(DIST) && rm -f $(DIST)/wallet_outbox-* $(DIST)/SHA256SUMS
	@$(UV) build --quiet --no-build-isolation --python $(BIN)/python --out-dir $(DIST)
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file $(DIST)/wallet_outbox-$(VERSION).cdx.json requirements/runtime.txt
	@cd $(DIST) && sha256sum -- wallet_outbox-* > SHA256SUMS && cat SHA256SUMS

audit: setup ## ask the index for known vulnerabilities of the locked requirements; needs the network
	@for set in runtime build dev; do \
	  $(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$set.txt || exit 1; done

fmt: setup ## format the code and apply the linter's fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

docs: setup ## generate the event schemas and the reference pages from the code
	@$(BIN)/python -m tools.event_documents docs/events
	@$(BIN)/python -m tools.reference docs

lock: $(VENV)/.installed ## resolve the requirements, with hashes
	@for set in "" "local" "local dev"; do \
	  name=$${set##* }; \
	  $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 pyproject.toml \
	    $$(for extra in $$set; do echo --extra $$extra; done) \
	    --custom-compile-command "make lock" --output-file requirements/$${name:-runtime}.txt; \
	done
	@echo hatchling | $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 - \
	  --constraint requirements/dev.txt --custom-compile-command "make lock" --output-file requirements/build.txt

last-release: setup ## keep this version's wheel for the tests of upgrades: the last step of a release
	@rm -f tests/upgrades/*.whl
	@$(BIN)/python -m hatchling build --target wheel --directory tests/upgrades

clean: ## remove what setup created
	@rm -rf $(VENV) .tools
