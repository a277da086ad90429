# One command each; `make` alone lists them. The work is in deploy/, which can be read on its own.

help:  # this list
	@sed -n 's/^\([a-z]*\):  *# /  make \1\t/p' Makefile

up:  # start everything, with Docker or without (MODE=docker, MODE=local), until the first row is there
	@mode=$$(deploy/mode) && exec deploy/$$mode up

down:  # stop whatever runs; all data stay
	@deploy/local running || deploy/docker running || echo "Nothing runs here."
	@deploy/local down
	@deploy/docker down

clean:  # stop, and remove containers, volumes, images and .run/; logs/ and .venv/ stay
	@deploy/local down
	@deploy/docker clean
	@rm -rf .run

dead:  # show what could not be used, and why, without taking it out
	@mode=$$(deploy/mode) && exec deploy/$$mode dead

replay:  # send it back to the queue it came from
	@mode=$$(deploy/mode) && exec deploy/$$mode replay

demo:  # watch the model lose its accuracy and recover, in a system of its own, in some three minutes
	@deploy/demo

sample:  # write data and a model that retraining can be tried with into sample/
	@mode=$$(deploy/mode) && exec deploy/$$mode sample

PRODUCT = common serving features model metric plot drift retrain_api retrain_worker tools
NEEDS_NOTHING = not (broker or docker or browser or root or tensorflow or slow)
check:  # style, types and the tests that need nothing but Python, in less than two minutes
	@deploy/venv .venv-check requirements/check.txt
	.venv-check/bin/ruff check .
	.venv-check/bin/ruff format --check .
	.venv-check/bin/mypy $(PRODUCT)
	.venv-check/bin/pytest --numprocesses 3 --dist loadfile -m "$(NEEDS_NOTHING)"

test:  # style, types and all tests, in an environment and with a broker of their own
	@deploy/venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(PRODUCT)
	.venv/bin/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(TESTS)  # they wait more than they compute

bench:  # measure what is promised of speed, in about ten minutes
	@deploy/venv
	@.venv/bin/python -m bench

SEED ?= $(shell date +%s)
SECONDS ?= 300
chaos:  # break the whole system again and again, and see what is left (SEED=7, SECONDS=60; as root)
	@deploy/venv
	CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) .venv/bin/pytest -s tests/system/test_chaos.py

soak: export SOAK = 1
soak:  # all tests, for hours: a million rows, ten seeds of chaos, ten times the random input
	@$(MAKE) --no-print-directory test

lock:  # compile pyproject.toml into requirements.txt and requirements/ (UPGRADE=--upgrade: newest versions)
	@deploy/venv .venv-check requirements/check.txt
	@deploy/lock $(UPGRADE)

.PHONY: help up down clean dead replay demo sample check test bench chaos soak lock
