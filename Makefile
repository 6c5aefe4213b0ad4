# `make test` and `make demo` are all that a fresh machine needs, beside Python 3.11 or newer with
# pip and a C++ compiler. Each makes the environment that it needs once and uses it again.
PYTHON ?= python3
JOBS ?= 2
VENV ?= .venv
TORCHFREE ?= .venv-torchfree
# The emulated ARM environment of `make test-arm`.
ARM ?= build/arm
# A built wheel to test in place of this folder (.ci/run does that, with other environments).
WHEEL ?=

BIN := $(VENV)/bin
FOLDERS := ir passes backends compiler examples
PIP := -m pip install -q --disable-pip-version-check -c constraints.txt
# Strict, so that type checkers see planish.*; a new file then appears with the next install.
EDITABLE := --no-build-isolation --config-settings editable_mode=strict
LINKED := ls -d build/__editable__.*/planish
# One thread for each of the test processes, but two in TVM's pool, so that threads are tested.
TEST_ENV := OMP_NUM_THREADS=1 TVM_NUM_THREADS=2 \
	PLANISH_TORCHFREE_PYTHON=$(abspath $(TORCHFREE))/bin/python

# Stamps: the environment that pyproject.toml and constraints.txt ask for; the installed files.
READY := $(VENV)/.planish-ready
FILES := $(VENV)/.planish-files
TORCHFREE_READY := $(TORCHFREE)/.planish-ready

.PHONY: help demo test test-arm sweep lint format bench families teacher wheel clean FORCE
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(FILES) ## compress, compile and measure the example network (report in build/demo)
	$(BIN)/planish demo

test: $(FILES) $(TORCHFREE_READY) ## run the tests (JOBS=2 processes; ARGS="-k name" to choose)
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

test-arm: $(FILES) ## run the tests that execute ARM code, in an emulator that is set up once
	$(BIN)/python -m tests.arm $(ARM)
	$(TEST_ENV) PLANISH_ARM=$(abspath $(ARM)) $(BIN)/python -m pytest -q -n $(JOBS) \
		-m 'arm and not sweep' $(ARGS)

sweep: $(FILES) ## run the tests that take minutes, which `make test` leaves out
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(JOBS) -m 'sweep and not arm' $(ARGS)

lint: $(FILES) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(FILES) ## measure against other runtimes (report in build/bench), five minutes
	$(BIN)/python -m benchmarks $(ARGS)

families: $(FILES) ## take every torchvision family to int8 (docs/model-families.md), five minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.families $(ARGS)

teacher: $(FILES) ## train the example's network anew, about seven minutes
	$(BIN)/python -m planish.examples.fashion_mnist.train_teacher \
		--out examples/fashion_mnist/teacher.safetensors

wheel: $(READY) ## build the source archive and the wheel into dist/
	$(BIN)/python -m build --config-setting=--global-option=--quiet

clean: ## delete what was built; the environments stay (rm -r .venv .venv-torchfree)
	rm -rf dist build/lib build/bdist.* build/demo build/bench *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "planish needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@command -v g++ >/dev/null || echo "warning: no g++; models can't be compiled without it"
	@test -x $(BIN)/python || { echo "making $(VENV), once; this takes a few minutes"; \
		$(PYTHON) -m venv $(VENV); }
	$(BIN)/python $(PIP) 'setuptools>=77'
	$(BIN)/python $(PIP) $(if $(WHEEL),'$(WHEEL)[dev]',$(EDITABLE) -e '.[dev]')
	# For tests alone, without what its wheel asks for: a torch with CUDA.
	$(BIN)/python $(PIP) --no-deps torchvision || echo "warning: no torchvision; its tests skip"
	@touch $@

$(FILES): $(READY) FORCE
	@find $(FOLDERS) -name __pycache__ -prune -o -type f -print | LC_ALL=C sort > $@.now
	@if test -n '$(WHEEL)' || { cmp -s $@.now $@ && $(LINKED) >/dev/null 2>&1; }; then rm $@.now; else \
		echo "files came or went: installing planish anew"; \
		$(BIN)/python $(PIP) --no-deps $(EDITABLE) -e . && mv $@.now $@; fi

# What a machine needs that only runs compiled models; it shares the links of the other install.
$(TORCHFREE_READY): pyproject.toml constraints.txt | $(FILES)
	@test -x $(TORCHFREE)/bin/python || $(PYTHON) -m venv $(TORCHFREE)
	$(TORCHFREE)/bin/python $(PIP) 'setuptools>=77' numpy safetensors apache-tvm apache-tvm-ffi
	$(TORCHFREE)/bin/python $(PIP) --no-deps $(if $(WHEEL),'$(WHEEL)',$(EDITABLE) -e .)
	@touch $@
