# `make up` runs everything on this machine, `make test` runs every test, `make docs` builds the site.
# Uses uv where it is installed; otherwise puts one into .uv first.
SYSTEM_UV := $(shell command -v uv 2>/dev/null)
UV := $(or $(SYSTEM_UV),.uv/bin/uv)

# Modules are compiled once, not by each process that a test starts: half of its CPU time.
unexport PYTHONDONTWRITEBYTECODE

# Several workers, each with a database of its own: docs/testing.md.
SHARED_OUT := -n auto --dist loadgroup

.PHONY: up test lint docs
up: $(if $(SYSTEM_UV),,.uv/bin/uv)
	@echo "Installing what is missing (the first time, for a minute or two), then starting"
	@exec $(UV) run --no-dev manage.py up $(ARGS)

test: $(if $(SYSTEM_UV),,.uv/bin/uv)
	@echo "Installing what is missing, then looking for the tests (for a minute or two)"
	@$(UV) run python -m $(if $(DB),tests.on_$(DB),pytest) $(SHARED_OUT) $(ARGS)

lint: $(if $(SYSTEM_UV),,.uv/bin/uv)
	$(UV) run --quiet ruff check
	$(UV) run --quiet ruff format --check
	$(UV) run --quiet mypy .
	$(UV) run --quiet lint-imports
	$(UV) run --quiet typos

docs: $(if $(SYSTEM_UV),,.uv/bin/uv)
	@NO_MKDOCS_2_WARNING=1 $(UV) run --quiet --group docs mkdocs build --strict $(ARGS)
	@echo "Built: site/index.html"

.uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, or uv")'
	@echo "Installing uv into .uv"
	@python3 -m venv .uv && .uv/bin/pip install --quiet uv
