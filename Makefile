# make run   the agent on ./.boreas with the example apps        make stop   remove those apps
# make check format, lint, types, layers                         make test   all tests
# make wheel, make deb, make image: what is deployed, in ./dist and as boreas/operator-pm-agent
VENV ?= .venv
PORT ?= 8081
ARGS ?=
IMAGE_PYTHON ?= 3.12
BIN := $(abspath $(VENV))/bin
LOCK := uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

.PHONY: run stop clean-run check format test test-deploy bench wheel deb wheels image lock clean

run: $(VENV)/.run
	@BIN="$(BIN)" PORT="$(PORT)" exec deploy/demo run

stop clean-run: $(VENV)/.run
	@BIN="$(BIN)" PORT="$(PORT)" exec deploy/demo stop

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(VENV)/.dev
	tests/install-engine.sh
	$(if $(strip $(ARGS)),$(BIN)/python -m pytest $(ARGS),tests/run-all.sh $(BIN)/python)

# The image, the package and the unit, on a Debian made here and booted with systemd; part of make test.
test-deploy: $(VENV)/.dev
	tests/install-engine.sh
	BOREAS_REQUIRE_DEPLOY=1 $(BIN)/python -m pytest tests/deploy $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

wheel: $(VENV)/.run
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir dist .
	@ls dist

deb: $(VENV)/.run
	@PYTHON=$(BIN)/python deploy/debian/build dist

# The locked dependencies for the Python of the image, so that building it fetches nothing.
wheels: $(VENV)/.run
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		--python-version $(IMAGE_PYTHON) --dest wheels -r requirements/run.txt -r requirements/build.txt

image:
	docker build -f deploy/docker/operator-pm-agent.Dockerfile -t boreas/operator-pm-agent $(ARGS) .

# Needs uv. The pinned versions move only where pyproject.toml asks for it; add ARGS=--upgrade to move them all.
lock:
	$(LOCK) $(ARGS) pyproject.toml --output-file requirements/run.txt
	$(LOCK) $(ARGS) --extra dev --constraint requirements/run.txt pyproject.toml --output-file requirements/dev.txt
	echo setuptools | $(LOCK) $(ARGS) --constraint requirements/dev.txt - --output-file requirements/build.txt

$(VENV)/.run: requirements/build.txt requirements/run.txt pyproject.toml
	deploy/make-venv $(VENV) requirements/run.txt
	@touch $@

$(VENV)/.dev: requirements/build.txt requirements/dev.txt pyproject.toml
	deploy/make-venv $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist wheels *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
