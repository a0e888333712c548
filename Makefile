# Two commands do everything on a fresh machine with Python >= 3.10, git and make:
#   make demo    sets up .venv, trains on embedded data, deploys to Loihi 2, certifies against Lava
#   make test    sets up .venv, runs linter, type checker and tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LAVA   := lava-nc==0.10.0
STAMP  := $(VENV)/.axonport-installed
DOCS   := $(VENV)/.axonport-docs

.PHONY: demo test lint slow coverage proofs peers bench docs audit clean

demo: $(STAMP)
	$(BIN)/neuro demo --out runs/demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -m "not slow"

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# kernels run uncompiled, so that their lines count; takes several times as long
coverage: $(STAMP)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m coverage run -m pytest -q -m "not slow" tests/unit
	$(BIN)/python -m coverage report

# NEURO_PEERS, NEURO_PYNN: the interpreter that has other people's simulators; without it they are left out by name
ifneq ($(wildcard .venv-peers/bin/python),)
export NEURO_PEERS := $(CURDIR)/.venv-peers/bin/python
export NEURO_PYNN := $(NEURO_PEERS)
endif

# NEURO_TORCH_PEERS: the interpreter that has other people's training frameworks
ifneq ($(wildcard .venv-torch-peers/bin/python),)
export NEURO_TORCH_PEERS := $(CURDIR)/.venv-torch-peers/bin/python
endif

proofs: $(STAMP)
	@set -e; for proof in tests/proofs/*.py; do echo "== $$proof"; $(BIN)/python $$proof; done
	$(BIN)/python tests/bench/speed_page.py  # docs/speed.md and its pictures

# simulators and training frameworks that are measured beside ours, in environments of their own: none is a part of
# this project. The frameworks come without their dependencies, which are named here: torchvision and torchaudio, which
# nothing measured needs, would pull in another torch. SpikingJelly's last release before 2 is kept beside it.
TORCH_PEERS := .venv-torch-peers/bin/python -m pip --disable-pip-version-check install --quiet
peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet "numpy<2" cython brian2==2.9.0 sanafe==2.2.9 pynn==0.13.0
	test -x .venv-torch-peers/bin/python || $(PYTHON) -m venv .venv-torch-peers
	$(TORCH_PEERS) torch==2.13.0 numpy scipy h5py nir matplotlib tqdm loguru packaging requests
	$(TORCH_PEERS) --no-deps snntorch==1.0.0 norse==1.1.0 nirtorch==2.6 DCLS==0.1.1 spikingjelly==2.0.0
	$(TORCH_PEERS) spyx==1.0.0 jax==0.10.2
	test -d .venv-torch-peers/older || \
	  $(TORCH_PEERS) --no-deps --target .venv-torch-peers/older spikingjelly==0.0.0.0.14

bench: $(STAMP)
	@set -e; for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

docs: $(DOCS)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# lava-nc declares Python 3.10 and old pins of its own, so it is installed by itself; what it needs
# at run time comes with the extra "lava". axonport carries the shim that makes it import.
$(STAMP): setup.cfg constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make $(VENV): on Debian, apt-get install python3-venv"; exit 1; }
	$(PIP) install --quiet -c constraints.txt -e '.[lava,tonic,events,snntorch,place,sweep,convert,search,pynn,test]'
	$(PIP) install --quiet --no-deps --ignore-requires-python $(LAVA)
	@touch $@

$(DOCS): $(STAMP)
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

# known holes in what is installed, from the registries' database (what it cannot say is counted), and every licence
audit: $(STAMP)
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1
	.venv-audit/bin/python tests/audit.py "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
