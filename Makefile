# Two commands: `make up` runs everything on this machine, `make test` runs every test.
# Uses uv where it is installed; otherwise puts one into .uv first.
SYSTEM_UV := $(shell command -v uv 2>/dev/null)
UV := $(or $(SYSTEM_UV),.uv/bin/uv)

.PHONY: up test lint
up: $(if $(SYSTEM_UV),,.uv/bin/uv)
	@exec $(UV) run --quiet --no-dev manage.py up $(ARGS)

test: $(if $(SYSTEM_UV),,.uv/bin/uv)
	@$(UV) run --quiet pytest $(ARGS)

lint: $(if $(SYSTEM_UV),,.uv/bin/uv)
	$(UV) run --quiet ruff check
	$(UV) run --quiet ruff format --check
	$(UV) run --quiet mypy .
	$(UV) run --quiet lint-imports

.uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, or uv")'
	@python3 -m venv .uv && .uv/bin/pip install --quiet uv
