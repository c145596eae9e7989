# Two commands for a fresh machine with Python 3.11 or newer; both say what they download before they do.
#   make demo    build and prove the product editor, then edit a card with its bundle without PyTorch
#   make test    lint, types, tests; "make test-slow" runs the tests that take longer than that allows
# Variables: PYTHON (python3), JOBS (2 test processes), TORCH_INDEX (where Linux finds the CPU build of PyTorch;
# "none" asks only your own pip configuration).

PYTHON ?= python3
JOBS ?= 2
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export JOBS TORCH_INDEX

.PHONY: help demo test test-slow clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo:
	@$(PYTHON) scripts/demo.py

test:
	@$(PYTHON) scripts/check.py

test-slow:
	@$(PYTHON) scripts/check.py -m slow

clean:
	@rm -rf .venv .venv-run build/editor.port build/editor.report.json build/edited.png
