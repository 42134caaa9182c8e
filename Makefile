# The two commands of the README are `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := edgeattn converters tests sample_models benchmarks
MODEL := sample_models/find_max

.PHONY: demo test test-pi fuzz specimens quick lint format typecheck environment bench clean

environment: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[convert,dev]'
	touch $@

demo: environment
	$(BIN)/edgeattn convert $(MODEL)/model.h5 --samples $(MODEL)/samples.npz \
	    --output .out/find_max.edge --force
	$(BIN)/edgeattn validate .out/find_max.edge
	$(BIN)/edgeattn run .out/find_max.edge --input $(MODEL)/samples.npz \
	    --output .out/find_max.outputs.npz --force

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/layers

# The light half in ARM user space under emulation; `make test` runs these too.
test-pi: environment
	$(BIN)/python -m pytest tests/pi

# 10,000 broken variants of real files; the tests run a few hundred.
fuzz: environment
	$(BIN)/python tests/fuzz/fuzz.py --count 10000

# Every specimen of every Keras, to both formats; the tests take one in twelve.
specimens: environment
	EDGEATTN_ALL_SPECIMENS=1 $(BIN)/python -m pytest -n 2 tests/converters/test_specimens_convert.py

lint: environment
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

typecheck: environment
	$(BIN)/mypy

format: environment
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) .out build dist

# edgeattn beside the stock routes and the machine's limit; wants an idle machine. See benchmarks/.
bench: environment
	$(BIN)/python benchmarks/bench.py
