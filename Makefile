# Everything starts here. `make help` lists the targets; each sets up the virtual environment when it has to.

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 2>/dev/null || command -v python3.12 2>/dev/null || command -v python3)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all browser prometheus redis monitor check format bench bench-peers faults fuzz tables dashboards \
	k8s k8s-rendered clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED)  ## create the virtual environment and install the tested versions

# The stamp is written last, so that an installation that was cut off is done again.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,serve,submit,dev]'
	touch $@

demo: $(INSTALLED)  ## caption the example images on a CPU and write a page to look at
	$(BIN)/python examples/demo.py

test: $(INSTALLED) browser prometheus  ## run the tests that take seconds
	$(BIN)/python -m pytest

test-all: $(INSTALLED) browser prometheus redis  ## run all tests, the slow ones and those that kill processes too
	$(BIN)/python -m pytest -m ''

# The page is tested in a real browser. Where this may install Debian's, it does; elsewhere the tests name the packages.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; } || \
	echo "install chromium and chromium-driver for the tests of the page"

# Rules and alerts are tested by Prometheus' own tools. Debian's packages bring daemons, which nobody asked for: under
# run level 1 they are not started, and where the init system does not heed that they are stopped again.
prometheus:
	@command -v promtool >/dev/null && command -v amtool >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    prometheus prometheus-alertmanager >/dev/null && \
	  for daemon in prometheus prometheus-alertmanager; do service $$daemon stop >/dev/null 2>&1 || true; done; } || \
	echo "install prometheus and prometheus-alertmanager for the tests of rules and alerts"

# A head is killed, and comes back by its books in a real Redis. Of the daemon that comes along the same holds.
redis:
	@command -v redis-server >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    redis-server >/dev/null && \
	  { service redis-server stop >/dev/null 2>&1 || true; }; } || \
	echo "install redis-server for the tests of a head that is killed"

check: $(INSTALLED)  ## format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## measure skipping, the engine beside its peers, its limits, its memory, and training; print the tables
	$(BIN)/python -m benchmarks.skipping
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.print_tables

bench-peers: $(PEERS_INSTALLED)  ## build the environment in which `make bench` runs vLLM

# torch first and without its company, so that whatever index pip is told of for its CPU builds serves only it.
$(PEERS_INSTALLED): benchmarks/peers/torch.txt benchmarks/peers/vllm.txt benchmarks/peers/mend_torchvision.py
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers/torch.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/vllm.txt
	$(PEERS)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(PEERS)/bin/python benchmarks/peers/mend_torchvision.py
	touch $@

faults: $(INSTALLED)  ## break jobs at every place in every way and count what is lost; may be stopped and started again
	$(BIN)/python -m benchmarks.faults

FUZZ_SECONDS ?= 60

fuzz: $(INSTALLED)  ## throw made-up input at every reader, FUZZ_SECONDS each, and count what comes of it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

monitor: $(INSTALLED) prometheus  ## run a service, jobs, Prometheus and Alertmanager here, wired, and print where they are
	$(BIN)/python -m monitoring.local

tables: $(INSTALLED)  ## print the tables of README and docs from benchmarks/results
	$(BIN)/python -m benchmarks.print_tables

dashboards: $(INSTALLED)  ## write the dashboards that Grafana reads from their code
	$(BIN)/python -m monitoring.dashboards

k8s: $(INSTALLED)  ## check the manifests for Kubernetes, and print how many by what
	$(BIN)/python -m k8s.check

k8s-rendered: $(INSTALLED)  ## write what kubectl makes of the manifests, which needs kubectl 1.30 or newer
	$(BIN)/python -m k8s.rendering

clean:  ## remove what tests and tools leave behind, not the virtual environment
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(PEERS)/*' -type d -prune -exec rm -rf {} +
