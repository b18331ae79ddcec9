"""What scripts/gpu_check.py and `make gpu-kit` are made of.

=====================  ==========================================================================
``prepare.py``         `make gpu-kit`: fills `.gpu/` with the three things that follow
``wheels.py``          packages that a bare GPU machine (``installed.txt``) lacks
``interpreter.py``     where a Python of the machine's version is
``floors.py``           for .ci/oldest: the oldest versions that pyproject.toml allows
``cuda_cache.py``      every CUDA kernel, compiled for the machine's GPU
``steps.py``           the steps of gpu_check: commands, limits, environments
``budget.py``          runs steps within a budget of seconds
``results.py``         the files that come back
``smoke.py``           step smoke: every kernel against float64
``tables.py``          steps ops and train: the suites of detector.benchmark
``counters.py``        step ncu: Nsight Compute over ``profiled_calls.py``
=====================  ==========================================================================
"""
