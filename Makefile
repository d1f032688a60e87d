# What can be done, and by what. Everything here is a short way to a command that also works by itself.

INVENTORY ?= inventory.py
ARGS ?=
STOKER = .venv/bin/stoker

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-real test test-unit test-faults test-real lint deploy check smoke status doctor lab-up lab-down env lock bench clean machine

help: ## list the targets
	@echo "make TARGET [INVENTORY=fleets/mine/inventory.py] [ARGS='--limit 192.168.31.10']"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

demo: ## two bare hosts in the lab, deployed, served and smoke-tested (root, Debian 12 or newer, no GPU)
	@scripts/demo

demo-real: ## the same with real vLLM on the CPU: five servers of some 2.7 GiB each (16 GB of memory, 27 GB of disk)
	@scripts/demo --real

test: machine env ## unit and render tests, then the lab tests (root; starts the lab)
	@scripts/test unit lab

test-unit: machine env ## tests that need no hosts (root)
	@scripts/test unit

test-faults: machine env ## tests that break something in the lab on purpose (root; starts the lab)
	@scripts/test faults

test-real: env ## tests on real engines: vLLM and others on the CPU, and the pinned release's own parser (root; 16 GB of memory)
	@scripts/check-machine --real
	@scripts/test real

lint: env ## ruff, and mypy on stoker/
	@.venv/bin/ruff check .
	@.venv/bin/mypy

deploy: env ## bring the inventory's hosts to what is described; asks first
	@$(STOKER) deploy --inventory $(INVENTORY) $(ARGS)

check: env ## tell what a deploy would change; exit status 2 if anything
	@$(STOKER) deploy --check --inventory $(INVENTORY) $(ARGS)

smoke: env ## prove by real requests that everything described works
	@$(STOKER) smoke --inventory $(INVENTORY) $(ARGS)

status: env ## one table: containers, health, GPU memory, gateways
	@$(STOKER) status --inventory $(INVENTORY) $(ARGS)

doctor: env ## examine the live fleet: a line for each check, and a fix for each finding
	@$(STOKER) doctor --inventory $(INVENTORY) $(ARGS)

# What this machine lacks is said before anything is changed on it.
machine:
	@scripts/check-machine

lab-up: machine env ## start the lab (root)
	@lab/up

lab-down: ## stop the lab and everything it started; caches stay (root)
	@lab/down

env: ## .venv with the locked packages and Stoker; at once when it is up to date
	@scripts/environment

lock: ## requirements.lock from pyproject.toml; ARGS=--upgrade for newer versions
	@scripts/lock $(ARGS)

bench: machine env ## the measures of README.md, in the lab (root; makes the lab's hosts bare)
	@.venv/bin/python -m benchmarks.run

clean: ## remove .venv and build products; the lab and its caches stay
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache stoker.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
