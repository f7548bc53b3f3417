# Two commands do all the set-up: `make train-celeba` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
READY  := $(VENV)/.ready
STORES := .venv-swift

export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help install browser hosts stores train-celeba test test-slow test-gpu lint format bench clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  make train-celeba CELEBA=/path/or/s3://bucket/prefix ARGS='key=value ...'"

install: $(READY) ## make the virtual environment with pinned versions

$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d: set PYTHON=" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt setuptools wheel
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

train-celeba: $(READY) ## the main job: on CelebA (CELEBA=...), else on the built-in faces
ifdef CELEBA
	@$(BIN)/vmcmc train configs/celeba.yaml data.root='$(CELEBA)' $(ARGS)
else
	@echo "+------------------------------------------------------------------------------+"
	@echo "|  CelebA is not here: training on the BUILT-IN FACES, drawn by a program.     |"
	@echo "|  Nothing of this run is a result on CelebA; it is named 'faces'.             |"
	@echo "|                                                                              |"
	@echo "|  For CelebA, get img_align_celeba.zip, list_attr_celeba.txt and              |"
	@echo "|  list_eval_partition.txt from                                                |"
	@echo "|    https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html                         |"
	@echo "|  into one folder, then                                                       |"
	@echo "|    make train-celeba CELEBA=/path/to/folder      (or s3://bucket/prefix)     |"
	@echo "+------------------------------------------------------------------------------+"
	@$(BIN)/vmcmc train configs/faces.yaml $(ARGS)
endif

browser: ## a headless browser for the tests of `vmcmc report`, where root and apt are there
	@for name in chromium-headless-shell chromium chromium-browser google-chrome; do \
	  command -v $$name > /dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  get='apt-get install --yes --quiet --no-install-recommends chromium-headless-shell'; \
	  $$get > /dev/null || { apt-get update --quiet > /dev/null && $$get > /dev/null; } \
	    || echo "apt has no chromium-headless-shell: the browser's tests will be skipped"; \
	else echo "no root or no apt: install Chromium yourself, or its tests will be skipped"; fi

hosts: ## ip for the tests on several hosts, where root and apt are there
	@command -v ip > /dev/null && command -v nsenter > /dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  get='apt-get install --yes --quiet --no-install-recommends iproute2 util-linux'; \
	  $$get > /dev/null || { apt-get update --quiet > /dev/null && $$get > /dev/null; } \
	    || echo "apt has no iproute2: the tests on several hosts will be skipped"; \
	else echo "no root or no apt: the tests on several hosts will be skipped"; fi

stores: $(STORES)/.ready ## OpenStack Swift, a second real S3 store for the tests, in .venv-swift

$(STORES)/.ready: .ci/constraints-swift.txt
	$(PYTHON) -m venv $(STORES)
	$(STORES)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

test: $(READY) ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow" --timeout 3600

test-gpu: $(READY) ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m "gpu"

lint: $(READY) ## ruff, mypy, shellcheck and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources cluster/*.sh
	$(BIN)/hadolint cluster/Dockerfile

format: $(READY) ## let ruff put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure speed on this machine
	$(BIN)/vmcmc bench chain
	$(BIN)/vmcmc bench step
	$(BIN)/vmcmc data bench decode

clean: ## remove the virtual environment and caches (runs stay)
	rm -rf $(VENV) $(STORES) .pytest_cache .mypy_cache .ruff_cache *.egg-info
