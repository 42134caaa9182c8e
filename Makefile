# The README's commands are `make demo` and `make test`; both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := edgeattn converters tests sample_models benchmarks examples docs/site
MODEL := sample_models/find_max
# tests/conftest.py groups the tests and starts the longest ones first.
# Commands in hundreds of processes would compile the package each time if an environment, such as
# that of a container, keeps Python from storing what it compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-long test-pi memory fuzz fuzz-parsers kills graphs corpus simulations sound specimens sweep quick lint format typecheck environment bench bench-quick bench-front-end instructions clean results screenshots site

environment: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt
	@echo "Installing edgeattn, TensorFlow, Keras, the runtimes and the test tools into $(VENV):"
	@echo "a download of about 1 GB, and 3 GB on disk."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[convert,dev]'
	touch $@

demo: environment
	$(BIN)/edgeattn convert $(MODEL)/model.h5 --samples $(MODEL)/samples.npz \
	    --output .out/find_max.edge --force
	$(BIN)/edgeattn validate .out/find_max.edge
	$(BIN)/edgeattn run .out/find_max.edge --input $(MODEL)/samples.npz \
	    --output .out/find_max.outputs.npz --force

test: environment
	@echo "Running the tests: about 10 minutes on two idle cores, longer beside other work."
	$(PYTEST) -m "not long"

# Longer forms of the tests: more models, specimens, lowerings, systems, and Keras on JAX. CI runs a third
# of their files after `make test`, another one for each commit: make test-long PART=1/3
PART := 1/1
test-long: environment
	$(PYTEST) -m long --part $(PART)
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/layers

# The device half in ARM user space under emulation; `make test` includes a few of them.
test-pi: environment
	$(BIN)/python -m pytest tests/pi

# A million calls of a loaded model must not increase the memory of its process; the tests make 50,000.
memory: environment
	$(BIN)/python tests/inference/flat_memory.py --calls 1000000

# Validates 10,000 damaged artifacts and 10,000 bundles, and loads 10,000 Keras files; the tests do so with
# a hundred of each.
fuzz: environment
	$(BIN)/python tests/fuzz/fuzz.py --count 10000

# Fuzzes every parser of foreign bytes for a minute, guided by coverage; the tests parse 300 inputs each.
fuzz-parsers: environment
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_parsers.py --seconds 60

# Kills commands before every change of the disk, also inside Keras' worker process, and runs them again.
kills: environment
	for command in convert tune validate pack unpack sign convert-keras tune-keras; do \
	    folder=$$(mktemp -d) && PYTHONPATH=tests $(BIN)/python tests/killed_commands.py $$folder $$command \
	        && rm -r $$folder || exit 1; done
	$(BIN)/python -m pytest tests/deployment/test_deploy.py -k interrupted

# Simulates how often a task passes by chance, in about four minutes, and writes the table of
# docs/verdict.md; the tests simulate a part of it.
simulations: environment
	cd tests && ../$(BIN)/python -m simulations.page

# Trains every sample model with five seeds, and counts the verdicts on right artifacts; takes hours.
# DATA is a folder with the public data sets.
# The tests validate the models in the repository.
sound: environment
	$(BIN)/python -m benchmarks.sound_models $(if $(DATA),--data $(DATA))

# Compares 200 random graphs and 2,200 pairs of operators in both formats with Keras; the tests
# compare 16 graphs and 31 pairs.
graphs: environment
	$(BIN)/python tests/converters/lowering/random_graphs.py --count 200
	$(BIN)/python tests/converters/lowering/operator_pairs.py

# Converts every model of the corpus with edgeattn and both stock routes, in hours, and writes the
# tables of docs/corpus.md. It resumes where it was stopped; NAMES="LSTM Conv2D" selects models by
# parts of their names. The tests convert a few of them.
corpus: environment
	cd tests && ../$(BIN)/python -m corpus.run $(NAMES)
	cd tests && ../$(BIN)/python -m corpus.page

# Converts every specimen of every Keras to both formats; the tests convert one in twelve.
specimens: environment
	EDGEATTN_ALL_SPECIMENS=1 $(BIN)/python -m pytest -n 2 tests/converters/loading/test_convert_specimens.py

# Sweeps all sample models, specimens and shared models in 5 schemes on two Dask workers, kills one of
# them, and compares the table with that of an undisturbed sweep, in hours; LIMIT=5 takes five models.
sweep: environment
	cd tests && ../$(BIN)/python converters/sweep/acceptance.py $(if $(LIMIT),--limit $(LIMIT)) \
		$(if $(FOLDER),--folder $(abspath $(FOLDER)))

# Writes the tables of docs/results.md from the recorded results of the examples.
results: environment
	$(BIN)/python examples/results.py

# Builds the documentation site; a link to a missing page or heading is an error.
site: environment
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs/site \
	    --doctree-dir .out/site-doctrees . .out/site
	@echo "Open .out/site/index.html"

# Renews the pictures that the tests compare the report with, in tests/report/references; look at them.
screenshots: environment
	EDGEATTN_RENEW_SCREENSHOTS=1 $(BIN)/python -m pytest tests/report/test_screenshots.py

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

# Compares edgeattn with the stock routes on an idle machine, and the ratios with docs/benchmarks.md;
# RENEW=1 writes the results of the last run into that page instead.
bench: environment
	$(BIN)/python -m benchmarks.bench $(if $(RENEW),--renew)

# One model and few rounds: checks that the benchmarks run.
bench-quick: environment
	$(BIN)/python -m benchmarks.bench --quick

# Measures what raw input costs beside the network; RENEW=1 records the results.
bench-front-end: environment
	$(BIN)/python -m benchmarks.front_end $(if $(RENEW),--renew)

# Counts the ARM instructions of one inference under emulation; RENEW=1 records the counts.
instructions: environment
	$(BIN)/python -m benchmarks.instructions $(if $(RENEW),--renew)
