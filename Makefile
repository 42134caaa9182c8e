# The two commands of the README are `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := edgeattn converters tests sample_models benchmarks examples
MODEL := sample_models/find_max

.PHONY: demo test test-pi fuzz specimens quick lint format typecheck environment bench bench-quick instructions clean results

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
	EDGEATTN_ALL_SPECIMENS=1 $(BIN)/python -m pytest -n 2 tests/converters/loading/test_convert_specimens.py

# The tables of docs/results.md, from what the examples recorded.
results: environment
	$(BIN)/python examples/results.py

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

# edgeattn beside the stock routes and the machine's limit; wants an idle machine. Compares with the
# table in docs/benchmarks.md; RENEW=1 keeps the last run's instead.
bench: environment
	$(BIN)/python -m benchmarks.bench $(if $(RENEW),--renew)

# One model, few rounds: that it works, not how fast it is.
bench-quick: environment
	$(BIN)/python -m benchmarks.bench --quick

# ARM instructions of one inference, under emulation; RENEW=1 keeps the new figures.
instructions: environment
	$(BIN)/python -m benchmarks.instructions $(if $(RENEW),--renew)
