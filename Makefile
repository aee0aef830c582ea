# make demo    all three stages on the emoji recipe, and the table of what came out
# make words   the same on rated words, from a pretrained model
# make test    lint, types and every test but the long ones of the next
# make chaos   whole stages whose processes are killed, hang or lose their node; times to recover are printed
# Each creates .venv and installs into it first; once that is done, it takes no time.

# The first of these that is Python 3.11 to 3.13 and can make a virtual environment.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell \
	$(name) -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	>/dev/null 2>&1 && echo $(name))))
BIN := .venv/bin

.PHONY: install demo words test chaos lint format docs clean constraints

install: $(BIN)/python
	@$(BIN)/python -m cluster.setup.install

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Caliber needs Python 3.11, 3.12 or 3.13 with venv: install one," \
		"or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv

demo: install
	$(BIN)/caliber pipeline configs/emoji/demo.yaml

words: install
	$(BIN)/caliber pipeline configs/words/words.yaml

test: lint
	$(BIN)/python -m pytest

chaos: install
	$(BIN)/python -m pytest -m chaos -s tests/chaos

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/, as a site in site/.
docs: install
	$(BIN)/mkdocs build --strict

# Exact versions of what .venv holds now; the file itself says what is left out.
constraints: install
	{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' \
		| grep -vE '^(torchaudio|torchcodec|triton)=='; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv build site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
