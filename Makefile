# Every target makes .venv itself if it is missing and brings it up to date when dependencies change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
DOCS_STAMP := .venv/installed-docs

.PHONY: demo test browser lint bench docs docs-test site slow clean

demo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/twophase run quick

# Two processes, whatever the machine: what starts Ray stays in one of them.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# In the system's Chromium, or the one that CHROMIUM names.
browser: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python docs/generate.py

site: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What README and docs/ show is run: commands shrunk where they are long, Python blocks, worked examples, the notebook.
docs-test: $(DOCS_STAMP)
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/python -m pytest -m docs -n 2 --dist loadgroup

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engines
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.linearised
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sweep
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.refine
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale

# torch first and alone: its exact pin keeps other packages from taking a build of another kind.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $(DOCS_STAMP)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
