# Every target does its own set-up in .venv: a fresh clone needs Python ≥ 3.11, make and pip.
PYTHON ?= python3
TORCH_INDEX ?=
MINUTES ?= 6
TEXT ?=
OUT ?= runs/demo
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),)
# Two test processes with one thread each beat one process with two on small models.
WORKERS ?= 2

# Whatever .venv/bin/python turns out to be, nothing is installed outside an environment.
export PIP_REQUIRE_VIRTUALENV = 1

.PHONY: demo test lint bench torture build clean

demo: .venv/base
	.venv/bin/trivium demo --minutes $(MINUTES) --out "$(OUT)" $(if $(TEXT),--text "$(TEXT)",)

test: .venv/dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n $(WORKERS) --dist loadgroup

lint: .venv/dev
	.venv/bin/ruff check src tests benchmarks
	.venv/bin/ruff format --check src tests benchmarks
	.venv/bin/mypy

# Without what trains on real corpora for hours: run summarization.py and classification.py by hand, perhaps with --limit.
QUICK = $(filter-out $(addprefix benchmarks/,classification.py summarization.py seeds.py table.py),$(wildcard benchmarks/*.py))

bench: .venv/dev
	for script in $(QUICK); do echo "== $$script"; .venv/bin/python "$$script" || exit 1; done

torture: .venv/dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -m torture -n $(WORKERS) --durations=0

build: .venv/dev
	rm -rf dist && .venv/bin/python -m build --wheel --no-isolation .

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache

# An environment is whole once it has pip, which venv installs last: an interrupted one is made again.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	"error: this is Python %d.%d; expected 3.11 or newer; run make with PYTHON=python3.12 or so" % v[:2])'
	$(PYTHON) -m venv .venv

.venv/base: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e .
	touch $@

.venv/dev: .venv/base
	$(PIP) hatchling -e '.[dev]'
	touch $@
