# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Relative, as the checkout's path may have a blank in it.
CACHE := .cache
READY := $(CACHE)/venv/.ready
DOCS := $(CACHE)/docs
# More workers than processors, as many tests wait.
PYTEST := python -m pytest --dist worksteal
INSTALL := uv pip install --quiet --python $(CACHE)/venv/bin/python --requirement

# Everything that is written stays in the checkout, and nothing of the user's own settings counts.
export PATH := $(CURDIR)/.cache/venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections
export ANSIBLE_CONFIG := $(CURDIR)/.cache/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export ANSIBLE_REMOTE_TEMP := $(CURDIR)/.cache/ansible/tmp
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export XDG_CACHE_HOME := $(CURDIR)/.cache/xdg
# The system's where the checkout's path is long or has a blank in it: Ansible makes a socket in there, whose path may have 107 characters
# at most, and starts Pythons from there, whose paths it does not quote.
export TMPDIR := $(shell test $$(printf %s '$(CURDIR)' | wc -c) -le 57 -a '$(CURDIR)' = '$(subst $() $(),,$(CURDIR))' && echo '$(CURDIR)/.cache')/tmp
# Ansible stops without a locale in UTF-8.
ifeq (,$(findstring UTF-8,$(or $(LC_ALL),$(LC_CTYPE),$(LANG))))
export LC_ALL := C.UTF-8
endif
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests:$(CURDIR)/.cache/collections
# Set, it would have every process compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY)  ## Install in .cache what tests and demo need, from the package index

.PHONY: tools
tools: $(READY)  ## Install what the targets for gates, fuzz, docs, awx and browser need, which each does by itself, too
	@$(INSTALL) dev/gates/requirements.txt --requirement dev/fuzz_requirements.txt --requirement docs/docsite/requirements.txt

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
test: unit $(READY)  ## Test what the collection promises, in a few minutes: unit tests, the quicker functional ones, lint
	$(PYTEST) -n 3 -m "not slow" tests/functional
	@$(MAKE) --no-print-directory lint

.PHONY: unit
unit: $(READY)  ## Test the core and the simulator, without Ansible
	$(PYTEST) -n 6 -m "not slow" tests/unit

.PHONY: functional
functional: $(READY)  ## Test the collection through real ansible-playbook runs, the slow ones too
	$(PYTEST) -n 3 tests/functional

.PHONY: slow
slow: $(READY)  ## Run the tests that make test leaves out
	$(PYTEST) -n 3 -m slow tests/unit tests/functional

.PHONY: browser
browser: docs  ## Test the report's web page and the documentation site in headless Chromium (Debian: chromium and chromium-driver)
	@$(INSTALL) tests/browser/requirements.txt
	python -m pytest -rs tests/browser

.PHONY: awx
awx: $(READY)  ## Test the life in AWX: jobs of ansible-runner, and hosts by SSH (Debian, as root: openssh-server and sudo)
	@$(INSTALL) tests/awx/requirements.txt
	$(PYTEST) -rs -n 3 tests/awx

.PHONY: crash
crash: $(READY)  ## Test the promises under faults, attacks and kills (some minutes)
	$(PYTEST) -n 3 tests/crash

.PHONY: fuzz
fuzz: $(READY)  ## Fuzz the parsers, guided by coverage, for a minute (Linux on x86-64; SEED=n repeats a run, FOR=n seconds)
	@$(INSTALL) dev/fuzz_requirements.txt
	python -m dev.fuzz_parsers --seconds $(or $(FOR),60) --seed $(or $(SEED),0)

.PHONY: docs
docs: $(READY)  ## Build the documentation site: .cache/docs/html/index.html
	@$(INSTALL) docs/docsite/requirements.txt
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
lint: $(READY)  ## Run ruff, and ansible-lint with its production profile
	ruff check --quiet
	ansible-lint

.PHONY: gates
gates: $(READY)  ## Run every tool that looks at the collection without running it (ONLY="ruff mypy": those)
	@$(INSTALL) dev/gates/requirements.txt
	@python -m dev.gates $(ONLY)

.PHONY: minimal
minimal:  ## Run demo and test, twice, in a minimal Debian 12: as root, and as a user with an empty home (as root, with debootstrap)
	python3 -m dev.minimal_debian

.PHONY: changelog
changelog: $(READY)  ## Release the version of galaxy.yml: gather changelogs/fragments into CHANGELOG.md
	@$(INSTALL) dev/gates/requirements.txt
	antsibull-changelog release

.PHONY: bench
bench: $(READY)  ## Measure the costs, against set_fact, uri, ping and a bare pool of requests (ROUNDS=n: 5)
	python -m dev.benchmark --rounds $(or $(ROUNDS),5)

.PHONY: bench-growth
bench-growth: $(READY)  ## Measure what a number costs in lists of 100 to 100,000 (some minutes)
	python -m dev.benchmark --only growth --rounds 3

.PHONY: clean
clean:  ## Remove everything that was made
	rm -rf $(CACHE) .ansible .pytest_cache

$(READY): tests/requirements.txt tests/unit/requirements.txt tests/integration/requirements.txt dev/set_up.sh
	@sh dev/set_up.sh
