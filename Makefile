# `make train` and `make test` need nothing before them but Python 3.11+, make and (for speed) a C++ compiler.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Overrides of the configuration: make train ARGS="roi=pool seed=3"
ARGS ?=

.PHONY: train test install lint types benchmark cuda-matrix gpu-check gpu-kit oldest docs clean

train: $(VENV)/installed
	$(RUN) scripts/train.py $(ARGS)

test: $(VENV)/installed
	$(RUN) -m pytest $(ARGS)

install: $(VENV)/installed

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/installed
	$(RUN) -m mypy

# Every table of docs/benchmarks/ that needs no GPU, one after the other: leave the machine alone meanwhile.
benchmark: $(VENV)/installed
	for suite in roi_ops cuda_bytes model detectors retrofit train data; do $(RUN) scripts/benchmark.py suite=$$suite output_dir=docs/benchmarks $(ARGS) || exit 1; done

# Every CUDA kernel for every supported architecture, with the NVRTC of the environment: needs no GPU.
cuda-matrix: $(VENV)/installed
	$(RUN) -m roi_ops.cuda.compile_all $(ARGS)

# The documentation as a site in site/; a broken link or a docstring that does not fit its function is an error.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

# On a machine with a GPU: tests of the kernels there, tables, memory checks, counters; BUDGET=430 seconds. docs/gpu.md
gpu-check: $(VENV)/installed
	$(RUN) scripts/gpu_check.py $(ARGS)

# Makes .gpu/: what a bare GPU machine without a network needs beside this tree to run scripts/gpu_check.py.
gpu-kit: $(VENV)/installed
	PYTHONPATH=tests $(RUN) -m gpu_kit.prepare $(ARGS)

# Fast tests and a short training with the oldest PyTorch that pyproject.toml allows, in an environment of its own.
oldest:
	PYTHON=$(PYTHON) .ci/oldest

# Installed again when what is installed or how it is built has changed. Written last: a broken install is redone.
$(VENV)/installed: pyproject.toml $(wildcard roi_ops/cpu/*.cpp roi_ops/cpu/*.h roi_ops/cpu/CMakeLists.txt roi_ops/include/*)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 train"'
	@echo "installing into $(VENV): PyTorch is large, this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .gpu build site
