# Two commands do everything: `make run` shows the main job, `make test` passes the tests. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WHOLE_PROGRAMS := tests/programs tests/linux/test_signals_end_to_end.py tests/linux/test_file_calls.py

.PHONY: setup run test sweep lint format bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

run: setup
	$(BIN)/loadstone run --stats /bin/ls -l /usr/bin

# Everything on the Unicorn core; then, where the host has KVM, what runs whole programs once more on that.
test: setup
	LOADSTONE_TEST_ENGINE=unicorn $(BIN)/python -m pytest -n 2 -m 'not slow'
	if [ -w /dev/kvm ]; then \
	    LOADSTONE_TEST_ENGINE=kvm $(BIN)/python -m pytest -n 2 -m 'not slow' $(WHOLE_PROGRAMS); \
	else echo "no /dev/kvm: nothing was tested on the KVM core"; fi

sweep: setup
	$(BIN)/python -m pytest -n 2 -m slow

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
