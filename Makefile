# The newcomer's commands. `make` alone lists them.

VENV := .venv
FARM := $(VENV)/bin/farm
INSTALLED := $(VENV)/.installed

# What a person types reaches `farm` as it was typed: $(value) keeps make from expanding it, the environment keeps the
# shell from reading it, and a recipe names it only inside double quotes.
TYPED := PROMPT NEGATIVE CHECKPOINT SIZE STEPS CFG SAMPLER SCHEDULE SEED COUNT OUT PLANS
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name)))$(eval export $(name)))

export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help render up doctor venv test nightly chaos lint docs messages judge lessons lock format clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make render PROMPT="a red sailboat at sea" SEED=7     also: NEGATIVE CHECKPOINT SIZE=512x768 STEPS CFG'
	@echo '                                                        SAMPLER SCHEDULE COUNT OUT=folder'
	@echo '  Settings are FARM_* variables: docs/configuration.md. PYTHON= and TORCH_INDEX= choose what venv is made of.'

render: $(INSTALLED) ## Render PROMPT="…" to ./pictures, with the running farm or one started for it
	@test -n "$$PROMPT" || { echo 'Say what to render: make render PROMPT="a red sailboat at sea"' >&2; exit 2; }
	@$(FARM) render $${NEGATIVE:+--negative="$$NEGATIVE"} $${CHECKPOINT:+--checkpoint="$$CHECKPOINT"} \
		$${SIZE:+--size="$$SIZE"} $${STEPS:+--steps="$$STEPS"} $${CFG:+--cfg="$$CFG"} $${SAMPLER:+--sampler="$$SAMPLER"} \
		$${SCHEDULE:+--schedule="$$SCHEDULE"} $${SEED:+--seed="$$SEED"} $${COUNT:+--count="$$COUNT"} $${OUT:+--out="$$OUT"} \
		-- "$$PROMPT"

up: $(INSTALLED) ## Start the farm and print the address of its pages; Ctrl-C stops it
	@$(FARM) up

doctor: $(INSTALLED) ## Check this machine and this farm, and say what to do about what is wrong
	@$(FARM) doctor

venv: $(INSTALLED) ## Make .venv with everything that constraints.txt pins, as deploy/lock has it

# The processes that tests start, some hundreds, find the farm's modules compiled.
test nightly chaos: export PYTHONDONTWRITEBYTECODE :=

test: $(INSTALLED) ## Run every test, by three processes; the expensive proofs are left to `make nightly`
	$(VENV)/bin/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations 20

nightly: $(INSTALLED) ## Run the expensive proofs
	$(VENV)/bin/python -m pytest -m nightly --timeout 3600 --durations 20

chaos: $(INSTALLED) ## Kill, stop and cut off farms by PLANS=500 plans, the first of SEED=n; a fresh seed by default
	@$(VENV)/bin/python -m tests.chaos $${PLANS:+--plans="$$PLANS"} $${SEED:+--seed="$$SEED"}

lint: $(INSTALLED) ## Check style, types, import contracts and wording
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(VENV)/bin/python tools/prose.py

docs: $(INSTALLED) ## Write the tables of docs/parameters.md from the parameters' facts
	PYTHONPATH=. $(VENV)/bin/python tools/parameter_docs.py

messages: $(INSTALLED) ## Write what pages say into the catalogues of shared/translations, to be translated there
	PYTHONPATH=. $(VENV)/bin/python tools/messages.py

judge: $(INSTALLED) ## Say what the demo checkpoint's pictures show of their prompts: some minutes
	$(VENV)/bin/python -m tools.demo_checkpoint.judge --readme models/demo/README.md

lessons: $(INSTALLED) ## Render the six experiments of docs/lessons.md again
	$(VENV)/bin/python -m tools.demo_checkpoint.show lessons

lock: $(INSTALLED) ## Write deploy/lock from constraints.txt, after that or pyproject.toml has changed
	$(VENV)/bin/python deploy/lock.py

format: $(INSTALLED) ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## Remove .venv and what tools cache; pictures and the farm's data in var stay
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt $(wildcard deploy/lock/*.txt) deploy/pytorch.py deploy/venv.sh
	@deploy/venv.sh $(VENV)
	@touch $@
