# One command runs the main job: make demo. One runs the tests: make test.
# Both work in .venv, which is made when it is missing or requirements.lock has changed.
# Another Python: make PYTHON=python3.12 demo. Another folder than .venv: make VENV=folder demo.

PYTHON ?= python3
VENV ?= .venv
UV ?= uv
PYTEST_FLAGS ?= -q -n auto --maxprocesses 8 --dist loadfile

# The stamp carries the lock's hash in its name and is written last: neither an interrupted install nor an older
# lock can pass for a finished one.
STAMP := $(VENV)/.installed-$(shell sha256sum requirements.lock 2>/dev/null | cut -c1-16)
PIP := "$(VENV)/bin/python" -m pip --disable-pip-version-check --no-input install

.PHONY: demo test lint lint-rules lint-format lint-types setup lock
.DELETE_ON_ERROR:

demo: setup
	"$(VENV)/bin/python" tools/demo.py

test: setup
	"$(VENV)/bin/python" -m pytest $(PYTEST_FLAGS)

# Three targets, so that `make -k lint` shows what each has to say.
lint: lint-rules lint-format lint-types

lint-rules: setup
	"$(VENV)/bin/python" -m ruff check .

lint-format: setup
	"$(VENV)/bin/python" -m ruff format --check .

lint-types: setup
	"$(VENV)/bin/python" -m pyright --pythonpath "$(VENV)/bin/python" fastface tools

setup: $(STAMP)

$(STAMP):
	@test "$$(uname -sm)" = "Linux x86_64" || { \
	    echo "make: requirements.lock is for x86-64 Linux and this is $$(uname -sm). Elsewhere install with" >&2; \
	    echo "    $(PYTHON) -m pip install -e '.[cpu,dev]'    and then run tools/demo.py or pytest." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	    echo "make: requirements.lock is for Python 3.11 to 3.14, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@test ! -e "$(VENV)" || test -e "$(VENV)/.made-by-make" || { \
	    echo "make: '$(VENV)' is there, but make did not make it. Move it away, or choose another folder with" >&2; \
	    echo "make VENV=folder demo" >&2; exit 1; }
	@echo "Installing the pinned packages into $(VENV): about 9 GB (torch brings NVIDIA's libraries, with or without"
	@echo "a GPU), two to ten minutes, once. Nothing is shown until it is done."
	@rm -rf "$(VENV)" && mkdir -p "$(VENV)" && touch "$(VENV)/.made-by-make"
	@$(PYTHON) -m venv "$(VENV)"
	@$(PIP) -qq --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) -qq --no-deps --no-build-isolation --editable .
	@touch "$(STAMP)"

# Keeps what is pinned unless told otherwise: make lock UPGRADE=--upgrade, or UPGRADE='--upgrade-package timm'.
lock:
	@$(UV) --version >/dev/null || { echo "make: 'make lock' needs uv: pip install uv, or make UV=path lock" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --extra cuda13 --extra dev --universal --python-version 3.11 --generate-hashes \
	    --only-binary :all: --no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet $(UPGRADE) \
	    --output-file requirements.lock
