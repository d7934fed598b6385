# make setup | run | test | check | loop

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := config annotation rlhf tests benchmarks manage.py
# Checks that touch no data keep their hands off var/.
CHECK := TOUCHSTONE_DATA=$(VENV)/check-data TOUCHSTONE_HTTPS=true $(BIN)/python -W ignore::RuntimeWarning manage.py

.PHONY: setup run test check loop system

setup: $(VENV)/.installed

# Again only when the dependencies change.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the dependencies (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --editable '.[train,dev]'
	@touch $@

run: setup
	@exec $(BIN)/python manage.py up

# The browser tests drive Debian's Chromium; tests/test_compose.py runs on Debian's PostgreSQL and Redis where they are.
# DeepSpeed compiles a module of its own where several processes train.
PACKAGES := $(shell command -v chromium >/dev/null || echo chromium) $(shell command -v g++ >/dev/null || echo g++) \
  $(if $(CI),$(shell test -d /usr/lib/postgresql || echo postgresql) $(shell command -v redis-server >/dev/null || echo redis-server))

system:
	@if [ -n "$(strip $(PACKAGES))" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing $(strip $(PACKAGES))"; apt-get update -qq && apt-get install -y -qq $(PACKAGES) >/dev/null; \
	  else echo "The tests need: $(strip $(PACKAGES)). Install them and try again."; exit 1; fi; fi

check: setup
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/mypy config annotation rlhf benchmarks
	$(BIN)/lint-imports --no-logo
	$(CHECK) makemigrations --check --dry-run
	$(CHECK) check --deploy --fail-level WARNING

test: setup system check
	$(BIN)/pytest -q -n 2
	$(BIN)/pytest -q -m slow -n 2 --dist loadfile --ignore tests/test_loop.py
	$(BIN)/pytest -q -m slow tests/test_loop.py

loop: setup
	$(BIN)/python -m benchmarks.loop
