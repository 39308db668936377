# make demo   distil MNIST end to end on this machine       make test    run all tests
# make up     start the service here                        make check   lint, types, import contracts
# make bench  measure                                       make migrate bring the database up to date
# make docs   write the pages that come from the code       make audit   known holes in dependencies; secrets in the tree
# make faults provoke every fault of docs/faults.md         make chaos   two minutes of faults at random
# make fuzz   look for bytes that no parser foresees

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin

.PHONY: demo up test faults chaos fuzz check audit bench docs migrate install-local install-dev
.NOTPARALLEL:

demo: install-local
	@$(BIN)/python -m examples.mnist.demo

up: install-local
	@$(BIN)/stillhouse up

# Processes whose idle threads spin take the processors from each other; all of them must collect the same tests.
test: export OMP_WAIT_POLICY := passive
test: export PYTHONHASHSEED := 0
test: install-dev
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)
	@$(BIN)/python -m pytest -n 3 --dist worksteal --backends production $(ARGS)

faults: install-dev
	@$(BIN)/python -m pytest tests/faults -m "not gpu" $(ARGS)

chaos: install-dev
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

fuzz: install-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -r tests/fuzz/requirements.txt
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

check: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

audit: install-dev
	@$(BIN)/python -m scripts.audit

bench: install-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -r benchmarks/requirements.txt
	@$(BIN)/python -m benchmarks.engine
	@$(BIN)/python -m benchmarks.service
	@$(BIN)/python -m benchmarks.sweep
	@$(BIN)/python -m benchmarks.mnist_gain

docs: install-dev
	@$(BIN)/python -m scripts.objectives_page
	@$(BIN)/python -m scripts.augmentation_page
	@$(BIN)/python -m scripts.recipes_page
	@$(BIN)/python -m scripts.security_page
	@$(BIN)/python -m scripts.faults_page

migrate: install-local
	@$(BIN)/python -m app migrate

install-local install-dev: install-%:
	@command -v $(PYTHON) >/dev/null || { echo "stillhouse: no $(PYTHON) found; install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) scripts/install.py $*
