# Two commands: `make demo` and `make test`. Each does all the set-up it needs; `make help` lists the rest.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c '$(SUPPORTED)' 2>/dev/null && { echo "$$p"; break; }; done)
VENV_PYTHON := .venv/bin/python
ARGS ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test conformance lab cuadernos diapositivas lint model env clean distclean python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  ARGS='…' is passed on to the command of demo, test, conformance and lab."
	@echo "  PYTHON=… chooses the interpreter (3.11 to 3.13); TORCH_INDEX_URL=… chooses where torch comes from."
	@echo "  JOBS=… is how many processes run the tests (2; a file's tests stay together)."

demo: model ## serve the real model to fifty clients, measure it, write reports/demo.html
	@$(VENV_PYTHON) -m minillm_serve.cli demo $(ARGS)

test: model ## run all the tests
	@$(VENV_PYTHON) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

conformance: model ## send the same requests to vLLM (installed once) and to this server, show the differences
	@$(VENV_PYTHON) -m minillm_serve.cli compare setup vllm
	@$(VENV_PYTHON) -m minillm_serve.cli compare conformance --json reports/conformance.json $(ARGS)

lab: model ## open JupyterLab on the course notebooks
	@cd labs/cuadernos && ../../$(VENV_PYTHON) -m jupyter lab \
		$$(../../$(VENV_PYTHON) -c 'import webbrowser; webbrowser.get()' 2>/dev/null || echo --no-browser) \
		$$([ "$$(id -u)" = 0 ] && echo --allow-root) $(ARGS)

cuadernos: env ## generate the student notebooks from labs/fuente
	@$(VENV_PYTHON) -m minilab.construir $(ARGS)

diapositivas: env ## build the slide decks to slides/build (needs Node.js)
	@$(VENV_PYTHON) slides/construir.py $(ARGS)

lint: env ## check style and formatting
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .

model: python ## set up, and put the real model into the user's cache
	@"$(PYTHON)" -I minillm_serve/setup_env.py --model

env: python ## set up the virtual environment .venv only
	@"$(PYTHON)" -I minillm_serve/setup_env.py

clean: ## remove what builds and runs have written (reports, caches)
	@rm -rf reports build dist slides/build .pytest_cache .hypothesis .ruff_cache
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.git/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too (the model stays in the user's cache)
	@rm -rf .venv *.egg-info slides/node_modules

python:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "set-up stopped: Python 3.11, 3.12 or 3.13 is needed and $(or $(PYTHON:%='%' is not one),none was found);" \
			"install one and name it with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
