# The commands of a checkout; `make help` lists them.
#
# .venv is made once, and installed into again only when pyproject.toml has
# changed.  It is made anew when it belongs to another folder (a copied
# checkout), when its Python is gone, or when PYTHON=... names another one.

PYTHON ?=
ARGS ?=
ONLY_SLOW ?=
SECONDS ?= 1800
SEED ?= 1

VENV := .venv
PY := $(VENV)/bin/python
CHECKED := $(wildcard flamezmq perf tests examples)

# Each stamp holds the folder it was made for: an editable install is a path.
RUN := $(VENV)/.stamp-run
DEV := $(VENV)/.stamp-dev
WITH_PEERS := $(VENV)/.stamp-peers
DOCS := $(VENV)/.stamp-docs

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-all soak test-versions perf peers docs docs-tools lint clean anew

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12   which Python makes .venv (3.11 or newer)"
	@echo "  ARGS='-k credit'    passed on to pytest, perf or flmping"

run: $(RUN) ## install, then 10,000 tasks through a cluster of this machine
	@bin/flmping -t 10000 $(ARGS)

lint: $(DEV) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(CHECKED)

test: lint ## lint, and all tests that are not slow
	$(PY) -m pytest -m 'not slow' $(ARGS)

ifeq ($(ONLY_SLOW),)
test-all: lint docs-tools ## lint, and all tests (ONLY_SLOW=1: just those that `make test` left out)
	$(PY) -m pytest $(ARGS)
else
test-all: $(DEV) docs-tools
	$(PY) -m pytest -m slow $(ARGS) || { code=$$?; [ $$code -eq 5 ] && echo "no slow tests"; }
endif

soak: $(DEV) ## objects and kills for half an hour; SECONDS=600 for less, SEED=2 for others
	FLAMEZMQ_TEST_SOAK_SECONDS=$(SECONDS) FLAMEZMQ_TEST_SOAK_SEED=$(SEED) \
	    $(PY) -m pytest -s tests/test_soak_objects.py $(ARGS)

test-versions: $(DEV) ## tests under the other Pythons that are supported and found here
	$(PY) -m tests.versions $(ARGS)

perf: $(DEV) ## measure, beside the floors and the peers of this machine
	$(PY) -m perf $(ARGS)

peers: $(WITH_PEERS) ## compare with other engines, each installed by itself; writes perf/README.md
	$(PY) -m perf.compare $(ARGS)

docs: $(DOCS) ## the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --clean
	@echo "site/index.html; with its search: $(PY) -m http.server -d site"

# For the test of the site, which is skipped without them.
docs-tools: $(DEV)
	@$(MAKE) --no-print-directory $(DOCS) || echo "skipped: what builds the site can't be installed here"

clean: ## remove what make and the tools have made, environments too (perf/results stay)
	rm -rf $(VENV) .venvs site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- .venv

# Runs whenever make starts (some 30 ms); prints "anew" if .venv can't be used as it is.
define VENV_STATE
same='import sys; print(sys.version_info >= (3, 11), sys.version, sys.base_prefix)'; \
state() { \
    [ -e $(VENV) ] || return 0; \
    mine=$$($(PY) -c "$$same" 2>/dev/null) || mine=broken; \
    [ "$${mine#True}" != "$$mine" ] || return 1; \
    for stamp in $(RUN) $(DEV) $(WITH_PEERS) $(DOCS); do \
        [ ! -e $$stamp ] || [ "$$(cat $$stamp)" = '$(CURDIR)' ] || return 1; \
    done; \
    [ -z '$(PYTHON)' ] || [ "$$('$(PYTHON)' -c "$$same" 2>/dev/null)" = "$$mine" ]; \
}; \
state || echo anew
endef

define VENV_INSTALL
set -eu
say() { echo "make: $$*" >&2; }

find_python() {
    for python in $${WANTED:-python3.11 python3.12 python3.13 python3}; do
        "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    say "$${WANTED:-none of python3.11, python3.12, python3.13, python3} is not Python 3.11 or newer, or does not start;"
    say "install one, or name it: make PYTHON=/path/to/python3"
    exit 1
}

find_python
[ -z "$$ANEW" ] || rm -rf $(VENV)
if [ ! -x $(PY) ]; then
    say "making $(VENV) with $$($$python --version) ($$(command -v $$python))"
    if ! why=$$($$python -m venv $(VENV) 2>&1); then
        rm -rf $(VENV)
        if ! $$python -m venv --without-pip $(VENV) || ! $$python -m pip --version >/dev/null 2>&1; then
            rm -rf $(VENV)
            say "$$python can't make a virtual environment: it lacks ensurepip, and has no pip to lend."
            say "Debian and Ubuntu: apt install python3-venv.  Or name another: make PYTHON=/path/to/python3"
            say "Its own words:"
            echo "$$why" >&2
            exit 1
        fi
        say "$$python lacks ensurepip: using its own pip"
    fi
fi
if $(PY) -m pip --version >/dev/null 2>&1; then
    pip="$(PY) -m pip"
else
    pip="$$python -m pip --python $(PY)"
fi
say "installing $$WHAT into $(VENV) (the first time takes a minute)"
$$pip -qq --disable-pip-version-check --no-input install --editable "$$WHAT"
# Or each process of a cluster would compile the sources again where PYTHONDONTWRITEBYTECODE is set.
$(PY) -m compileall -q flamezmq
for stamp in $$STAMPS; do printf %s "$$HERE" > $$stamp; done
say "installed: $$($(PY) -c 'import sys, importlib.metadata as m; print("flamezmq", m.version("flamezmq"), "on Python", sys.version.split()[0], "with pyzmq", m.version("pyzmq"))')"
endef

ANEW := $(shell $(VENV_STATE))
export VENV_INSTALL ANEW
export HERE := $(CURDIR)
export WANTED := $(PYTHON)

$(RUN): pyproject.toml $(ANEW)
	@WHAT=. STAMPS=$(RUN) sh -c "$$VENV_INSTALL"

$(DEV): pyproject.toml $(ANEW)
	@WHAT='.[dev]' STAMPS='$(RUN) $(DEV)' sh -c "$$VENV_INSTALL"

$(WITH_PEERS): pyproject.toml $(ANEW)
	@WHAT='.[dev,peers]' STAMPS='$(RUN) $(DEV) $(WITH_PEERS)' sh -c "$$VENV_INSTALL"

$(DOCS): pyproject.toml $(ANEW)
	@WHAT='.[dev,docs]' STAMPS='$(RUN) $(DEV) $(DOCS)' sh -c "$$VENV_INSTALL"
