# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

CACHE := $(CURDIR)/.cache
VENV := $(CACHE)/venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := $(CACHE)/docs
NAMESPACE := $(CACHE)/collections/ansible_collections/kaleyra

# Everything that is written stays in the checkout, and nothing of the user's own settings counts.
export PATH := $(BIN):$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CACHE)/collections
export ANSIBLE_CONFIG := $(CACHE)/ansible.cfg
export ANSIBLE_HOME := $(CACHE)/ansible
export ANSIBLE_REMOTE_TEMP := $(CACHE)/ansible/tmp
export PIP_CACHE_DIR := $(CACHE)/pip
export UV_CACHE_DIR := $(CACHE)/uv
export XDG_CACHE_HOME := $(CACHE)/xdg
# In a checkout with a long path the system's: Ansible makes a socket in there, whose path may have 107 characters at most.
export TMPDIR := $(shell test $$(printf %s '$(CACHE)' | wc -c) -le 64 && echo '$(CACHE)' || echo '')/tmp
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests:$(CACHE)/collections
# Set, it would have every process compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(READY)  ## Register the numbers of an example inventory with the simulator, and show what happened
	@python -m dev.demo

.PHONY: demo-reset
demo-reset:  ## Forget the demo's key pair, records and registrations
	rm -rf $(CACHE)/demo

.PHONY: simulator
simulator: $(READY)  ## Run the demo's API for an inventory of your own, and print its account
	@python -m dev.demo.simulator

.PHONY: simulator-reset
simulator-reset:  ## Forget the simulator's registrations
	rm -rf $(CACHE)/simulator

.PHONY: test
test: unit functional lint  ## Run all tests, and ansible-lint

.PHONY: unit
unit: $(READY)  ## Test the core and the simulator, without Ansible
	python -m pytest -n 2 tests/unit

.PHONY: functional
functional: $(READY)  ## Test the collection through real ansible-playbook runs
	python -m pytest -n 4 tests/functional

.PHONY: browser
browser: docs  ## Test the report's web page and the documentation site in headless Chromium (Debian: chromium and chromium-driver)
	@uv pip install --quiet --python $(BIN)/python --requirement tests/browser/requirements.txt
	python -m pytest -rs tests/browser

.PHONY: awx
awx: $(READY)  ## Test the life in AWX: jobs of ansible-runner, and hosts by SSH (Debian, as root: openssh-server and sudo)
	@uv pip install --quiet --python $(BIN)/python --requirement tests/awx/requirements.txt
	python -m pytest -rs -n 2 --dist worksteal tests/awx

.PHONY: faults
faults: $(READY)  ## Test the promises under faults, attacks and kills (some minutes)
	python -m pytest -n 2 tests/crash

.PHONY: fuzz
fuzz: $(READY)  ## Fuzz the parsers, guided by coverage, for a minute (Linux on x86-64; SEED=n repeats a run, FOR=n seconds)
	@uv pip install --quiet --python $(BIN)/python --requirement dev/fuzz_requirements.txt
	python -m dev.fuzz_parsers --seconds $(or $(FOR),60) --seed $(or $(SEED),0)

.PHONY: docs
docs: $(READY)  ## Build the documentation site: .cache/docs/html/index.html
	@uv pip install --quiet --python $(BIN)/python --requirement docs/docsite/requirements.txt
	@rm -rf $(DOCS) && mkdir -p -m 755 $(DOCS)/source/reference
	@cp -R docs/*.md docs/docsite/index.md docs/images docs/examples $(DOCS)/source
	@sed 's#](docs/#](#g' README.md > $(DOCS)/source/README.md
	@GIT_CEILING_DIRECTORIES=$(CURDIR) antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --dest-dir $(DOCS)/source/reference kaleyra.whatsapp
	@sphinx-build --fail-on-warning --keep-going --quiet -c docs/docsite -d $(DOCS)/doctrees $(DOCS)/source $(DOCS)/html
	@echo "The documentation site is in $(DOCS)/html."

# Of the versions in CORE ("2.16 2.21"), all without it.
ANSIBLE_TEST = python dev/matrix/ansible_test.py $(if $(CORE),--cores $(CORE))

.PHONY: matrix
matrix: $(READY)  ## Run ansible-test's sanity, units and integration on each ansible-core (CORE="2.16 2.21" on some)
	$(ANSIBLE_TEST)

.PHONY: sanity
sanity: $(READY)  ## Run ansible-test sanity alone (CORE as above)
	$(ANSIBLE_TEST) --steps sanity

.PHONY: ansible-units
ansible-units: $(READY)  ## Run ansible-test units alone (CORE as above)
	$(ANSIBLE_TEST) --steps units units-target

.PHONY: integration
integration: $(READY)  ## Run ansible-test integration alone (CORE as above)
	$(ANSIBLE_TEST) --steps integration

.PHONY: lint
lint: $(READY)  ## Run ansible-lint with its production profile
	ansible-lint

.PHONY: gates
gates: $(READY)  ## Run every tool that looks at the collection without running it (ONLY="ruff mypy": those)
	@uv pip install --quiet --python $(BIN)/python --requirement dev/gates/requirements.txt
	@python -m dev.gates $(ONLY)

.PHONY: changelog
changelog: $(READY)  ## Release the version of galaxy.yml: gather changelogs/fragments into CHANGELOG.md
	@uv pip install --quiet --python $(BIN)/python --requirement dev/gates/requirements.txt
	antsibull-changelog release

.PHONY: bench
bench: $(READY)  ## Measure the costs, against set_fact, uri, ping and a bare pool of requests (ROUNDS=n: 5)
	python -m dev.benchmark --rounds $(or $(ROUNDS),5)

.PHONY: bench-growth
bench-growth: $(READY)  ## Measure what a number costs in lists of 100 to 100,000 (some minutes)
	python -m dev.benchmark --only growth --rounds 3

.PHONY: clean
clean:  ## Remove everything that was made
	rm -rf $(CACHE) .ansible

$(READY): tests/requirements.txt tests/unit/requirements.txt tests/integration/requirements.txt Makefile
	@echo "Setting up .cache (once) ..."
	@rm -rf $(VENV)
	@mkdir -p $(TMPDIR) $(NAMESPACE)
	@python=$$(sh dev/matrix/find_python.sh) && "$$python" -m venv $(VENV)
	@pip install --quiet --disable-pip-version-check uv
	@uv pip install --quiet --python $(BIN)/python --requirement tests/requirements.txt
	@echo "[defaults]" > $(ANSIBLE_CONFIG)
	@ln -sfn ../../../.. $(NAMESPACE)/whatsapp
	@touch $@
