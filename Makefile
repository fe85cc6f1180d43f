# `make demo` and `make test` are all a newcomer needs; the rest is for maintainers.
PYTHON ?= python3
BIN := .venv/bin
# Real templates when they lie beside the checkout; otherwise the demo makes its own.
DEMO_DATA := $(if $(wildcard ../shared/data/leader),--data ../shared/data/leader)
STAMP := .venv/.installed
VERIFY_STAMP := .venv-verify/.installed

.PHONY: venv demo test format lint types suite protos lock clean

venv: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	@echo "==> creating .venv and installing the locked dependencies (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What a department installs: the verifier alone, in an environment of its own.
$(VERIFY_STAMP): requirements/verify.lock $(STAMP)
	@echo "==> creating .venv-verify: the offline verifier without grpcio, faiss or SQLAlchemy"
	$(PYTHON) -m venv .venv-verify
	.venv-verify/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/verify.lock
	.venv-verify/bin/python -c "import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path('purelib'), 'anju.pth').write_text(str(pathlib.Path.cwd()) + '\n')"
	@touch $@

demo: $(STAMP) $(VERIFY_STAMP)
	rm -rf demo-run
	ANJU_VERIFIER_PYTHON=.venv-verify/bin/python $(BIN)/anju demo demo-run $(DEMO_DATA)

test: $(STAMP) $(VERIFY_STAMP) format lint types suite

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

suite: $(STAMP) $(VERIFY_STAMP)
	$(BIN)/pytest -q

protos: $(STAMP)
	$(BIN)/python proto/generate.py

lock:
	uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal \
	  --extra terminal --extra extract --extra service --extra dev pyproject.toml -o requirements/dev.lock
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal \
	  pyproject.toml -c requirements/dev.lock -o requirements/verify.lock

clean:
	rm -rf .venv .venv-verify demo-run .mypy_cache .ruff_cache .pytest_cache .hypothesis
