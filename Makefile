# Everything happens in .venv; PYTHON (3.11 or newer) only creates it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lowest fuzz lint docs gpu quality

demo: .venv/demo.stamp
	$(BIN)/python -m frfsr.demo

# Three runs: an interpreted Triton kernel cannot also be compiled in the same process.
test: .venv/test.stamp lint
	$(BIN)/pytest -m "not interpret and not compile_only and not gpu"
	TRITON_INTERPRET=1 $(BIN)/pytest -m interpret
	$(BIN)/pytest -m compile_only

# The oldest versions that pyproject.toml allows, in an environment of their own; now and then. Not the compile-only tests:
# Triton 3.7.1 spills 16 bytes in one of their cases, which costs time and nothing else.
lowest:
	test -d .venv-lowest || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --disable-pip-version-check --quiet uv
	VIRTUAL_ENV=.venv-lowest .venv-lowest/bin/uv pip install --quiet --resolution lowest-direct --editable ".[test]"
	.venv-lowest/bin/pytest -m "not interpret and not compile_only and not gpu"

# 5,000 damaged image files through the reader: no traceback, hang, or picture that another decoder sees otherwise.
# Then as many over the page's handlers, which takes an hour.
fuzz: .venv/test.stamp
	$(BIN)/python tests/fuzz.py 5000
	$(BIN)/python tests/fuzz_page.py 5000

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project . --pythonpath $(BIN)/python

# The documentation as pages in site/; nothing of it is fetched from elsewhere when it is read.
docs: .venv/docs.stamp
	$(BIN)/python docs/zoo.py
	NO_MKDOCS_2_WARNING=1 COLUMNS=100 $(BIN)/python -m mkdocs build --strict

# The same kernels on a real device, then the speed tables of the operations and of training.
gpu: .venv/test.stamp
	$(BIN)/pytest -m gpu
	$(BIN)/frfsr eval speed
	$(BIN)/python recipes/speed_train.py

# What the packaged network must reach, measured on the photos in DATA; evals/quality.py says what lies there.
DATA ?= ../shared/data
quality: .venv/test.stamp
	$(BIN)/python -m frfsr.evals.quality --data $(DATA)

# .venv/demo.stamp and .venv/test.stamp: the package is installed with the extra of that name.
.venv/%.stamp: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --editable ".[$*]"
	touch $@
