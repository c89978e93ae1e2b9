# `make` prints what there is to make. Another Python: make PYTHON=python3.12 ...
# More for pytest: make test ARGS="-k lasso". On more cores: ARGS="-n 8".

VENV  := .venv
RUN   := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PEERS ?= .venv-peers
ARGS  ?=

# Asked by running it: a pyenv shim may exist without running.
SUITABLE := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1

ifdef PYTHON
# Asked for by name, it replaces a .venv that was made with another version.
ifneq ($(shell { $(PYTHON) -V; } 2>/dev/null),$(shell { $(RUN) -V; } 2>/dev/null))
.PHONY: $(STAMP)
endif
else
PYTHON = $(shell for candidate in $(RUN) python3 python3.13 python3.12 python3.11; do \
           $$candidate $(SUITABLE) && { echo $$candidate; break; }; done)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test browser lint docs bench bench-peers clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

install: $(STAMP)  ## make .venv with all that is needed (Python 3.11 to 3.13)

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	    echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or name it: make PYTHON=/path/to/python3 install" >&2; exit 1; fi; \
	if ! "$$python" $(SUITABLE); then \
	    echo "PYTHON=$$python is not a running Python 3.11, 3.12 or 3.13." >&2; exit 1; fi; \
	if [ "$$python" != "$(RUN)" ]; then \
	    if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	        version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	        echo "Python $$version here cannot make virtual environments: its ensurepip is missing." >&2; \
	        echo "On Debian or Ubuntu: sudo apt install python$$version-venv, then run make again." >&2; exit 1; fi; \
	    echo "making $(VENV) with $$("$$python" -V)"; \
	    "$$python" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; fi
	$(RUN) -m pip install --disable-pip-version-check -r requirements-dev.txt -e .
	@touch $@

demo: install  ## open the app on real data at http://127.0.0.1:8501
	$(VENV)/bin/puma-dash demo

test: install browser  ## run all tests, those in a real Chromium too (found, or installed)
	$(RUN) -m pytest -n 2 --timeout=600 $(ARGS)

# Without a browser its tests say why they are skipped, or fail where CI=true: that verdict is pytest's.
browser: install  ## find a Chromium or Chrome for the tests, or install one
	@$(RUN) scripts/browser.py --install || true

lint: install  ## check style, format, types and the Dockerfile
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/hadolint Dockerfile

docs: install  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

bench: install  ## measure speed and fidelity, print tables
	PEERS=$(PEERS) $(RUN) -m benchmarks $(ARGS)

bench-peers: install $(PEERS)/.installed  ## measure values beside public libraries, in .venv-peers
	PEERS=$(PEERS) $(RUN) -m benchmarks peers agreement

# An environment of their own: what they drag in must not decide what the product runs on.
$(PEERS)/.installed: benchmarks/requirements-peers.txt | $(STAMP)
	$(RUN) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -r $<
	@touch $@

clean:  ## remove .venv, caches and build leftovers
	rm -rf $(VENV) .venv-peers build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
