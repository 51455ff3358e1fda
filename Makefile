# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Relative, because the path of the checkout may contain a space.
CACHE := .cache
READY := $(CACHE)/venv/.ready
DOCS := $(CACHE)/docs
# More workers than processors, because many tests wait.
PYTEST := python -m pytest --dist worksteal
INSTALL := uv pip install --quiet --python $(CACHE)/venv/bin/python --requirement

# Write everything into the checkout, and ignore the user's own settings.
export PATH := $(CURDIR)/.cache/venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections
export ANSIBLE_CONFIG := $(CURDIR)/.cache/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export ANSIBLE_REMOTE_TEMP := $(CURDIR)/.cache/ansible/tmp
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export XDG_CACHE_HOME := $(CURDIR)/.cache/xdg
# The system's if the path of the checkout is long or contains a space: Ansible creates a socket there, whose path is limited to 107 characters,
# and starts Python from there without quoting the path.
export TMPDIR := $(shell test $$(printf %s '$(CURDIR)' | wc -c) -le 57 -a '$(CURDIR)' = '$(subst $() $(),,$(CURDIR))' && echo '$(CURDIR)/.cache')/tmp
# Ansible requires a UTF-8 locale.
ifeq (,$(findstring UTF-8,$(or $(LC_ALL),$(LC_CTYPE),$(LANG))))
export LC_ALL := C.UTF-8
endif
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests:$(CURDIR)/.cache/collections
# If it were set, every process would compile everything it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY)  ## Install what the tests and the demo need in .cache, from the package index

.PHONY: tools
tools: $(READY)  ## Install what gates, fuzz, docs, awx and browser need, which they also install themselves
	@$(INSTALL) dev/gates/requirements.txt --requirement dev/fuzz_requirements.txt --requirement docs/docsite/requirements.txt

.PHONY: demo
demo: $(READY)  ## Register the numbers of an example inventory with the simulator, and show what happened
	@python -m dev.demo

.PHONY: demo-reset
demo-reset:  ## Remove the demo's key pair, records and registrations
	rm -rf $(CACHE)/demo

.PHONY: simulator
simulator: $(READY)  ## Run the simulator of the API for your own inventory, and print its account
	@python -m dev.demo.simulator

.PHONY: simulator-reset
simulator-reset:  ## Remove the simulator's registrations
	rm -rf $(CACHE)/simulator

.PHONY: test
test: unit $(READY)  ## Run the unit tests, the faster functional tests and lint, in a few minutes
	$(PYTEST) -n 3 -m "not slow" tests/functional
	@$(MAKE) --no-print-directory lint

.PHONY: unit
unit: $(READY)  ## Test the core and the simulator, without Ansible
	$(PYTEST) -n 3 -m "not slow" tests/unit

.PHONY: functional
functional: $(READY)  ## Test the collection in real ansible-playbook runs, including the slow ones
	$(PYTEST) -n 3 tests/functional

.PHONY: slow
slow: $(READY)  ## Run the tests that make test leaves out
	$(PYTEST) -n 3 -m slow tests/unit tests/functional

.PHONY: browser
browser: docs  ## Test the report's web page and the documentation site in headless Chromium (Debian: chromium and chromium-driver)
	@$(INSTALL) tests/browser/requirements.txt
	python -m pytest -rs tests/browser

.PHONY: awx
awx: $(READY)  ## Test the use in AWX: jobs of ansible-runner, and hosts by SSH (Debian, as root: openssh-server and sudo)
	@$(INSTALL) tests/awx/requirements.txt
	$(PYTEST) -rs -n 3 tests/awx

.PHONY: crash
crash: $(READY)  ## Test with faults, misbehaving servers and killed processes (some minutes)
	$(PYTEST) -n 3 tests/crash

.PHONY: fuzz
fuzz: $(READY)  ## Fuzz the parsers with coverage guidance for a minute (Linux on x86-64; SEED=n repeats a run, FOR=n seconds)
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

# With the versions in CORE ("2.16 2.21"), by default with all.
ANSIBLE_TEST = python dev/matrix/ansible_test.py $(if $(CORE),--cores $(CORE))

.PHONY: matrix
matrix: $(READY)  ## Run ansible-test's sanity, units and integration with each ansible-core (CORE="2.16 2.21" for some)
	$(ANSIBLE_TEST)

.PHONY: sanity
sanity: $(READY)  ## Run only ansible-test sanity (CORE as above)
	$(ANSIBLE_TEST) --steps sanity

.PHONY: ansible-units
ansible-units: $(READY)  ## Run only ansible-test units (CORE as above)
	$(ANSIBLE_TEST) --steps units units-target

.PHONY: integration
integration: $(READY)  ## Run only ansible-test integration (CORE as above)
	$(ANSIBLE_TEST) --steps integration

.PHONY: lint
lint: $(READY)  ## Run ruff and ansible-lint (production profile)
	ruff check --quiet
	ansible-lint

.PHONY: gates
gates: $(READY)  ## Run all static checks of the collection (ONLY="ruff mypy" for some)
	@$(INSTALL) dev/gates/requirements.txt
	@python -m dev.gates $(ONLY)

.PHONY: minimal
minimal:  ## Run demo and test, twice, in a minimal Debian 12: as root, and as a user with an empty home (as root, with debootstrap)
	python3 -m dev.minimal_debian

.PHONY: changelog
changelog: $(READY)  ## Release the version in galaxy.yml: collect changelogs/fragments in CHANGELOG.md
	@$(INSTALL) dev/gates/requirements.txt
	antsibull-changelog release

.PHONY: bench
bench: $(READY)  ## Measure the time of runs compared with set_fact, uri, ping and a bare pool of requests (ROUNDS=n, default 5; ARGS="--only role --hosts 1000")
	python -m dev.benchmark --rounds $(or $(ROUNDS),5) $(ARGS)

.PHONY: bench-growth
bench-growth: $(READY)  ## Measure the time for each number in lists of 100 to 100,000 (some minutes)
	python -m dev.benchmark --only growth --rounds 3

.PHONY: clean
clean:  ## Remove everything that make has created

	rm -rf $(CACHE) .ansible .pytest_cache

$(READY): tests/requirements.txt tests/unit/requirements.txt tests/integration/requirements.txt dev/set_up.sh
	@sh dev/set_up.sh
