PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-slow lint types imports check bench peers install clean

run: .venv/installed  ## set up, learn cart-pole swing-up, evaluate, plot, film
	$(BIN)/mbrl train pets --env cartpole-swingup --seed 0
	$(BIN)/mbrl evaluate latest --episodes 3 --video
	$(BIN)/mbrl plot latest

test: .venv/installed-dev  ## set up and run the default suite
	$(BIN)/pytest -n 2

test-slow: .venv/installed-dev  ## the tests that take minutes
	$(BIN)/pytest -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyright

imports: .venv/installed-dev
	$(BIN)/lint-imports

check: lint types imports test

bench: .venv/installed
	$(BIN)/mbrl bench all

peers:  ## the libraries that we are compared with, in environments of their own
	$(PYTHON) -m venv .peers/venv
	.peers/venv/bin/pip install -q torch==2.13.0
	.peers/venv/bin/pip install -q --no-deps -r experiments/peers/requirements.txt
	$(PYTHON) -m venv .peers/judo
	.peers/judo/bin/pip install -q --no-deps -r experiments/peers/judo-requirements.txt
	$(PYTHON) -m venv .peers/mctx
	.peers/mctx/bin/pip install -q --no-deps -r experiments/peers/mctx-requirements.txt
	$(PYTHON) -m venv .peers/suite
	.peers/suite/bin/pip install -q --no-deps -r experiments/peers/suite-requirements.txt
	$(PYTHON) -m venv .peers/learners
	.peers/learners/bin/pip install -q torch==2.13.0
	.peers/learners/bin/pip install -q --no-deps -r experiments/peers/learners-requirements.txt
	$(PYTHON) -m venv .peers/bayesian
	.peers/bayesian/bin/pip install -q torch==2.13.0
	.peers/bayesian/bin/pip install -q --no-deps -r experiments/peers/bayesian-requirements.txt

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[viewer]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .peers build dist
