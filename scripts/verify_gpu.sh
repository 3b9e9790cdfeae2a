#!/usr/bin/env bash
# Builds jaa_ext for this machine's NVIDIA GPU, runs the tests, compute-sanitizer and the benchmarks on it, and writes
# OUT/<gpu>.json (for benchmarks/report.py) and OUT/<gpu>.md, in under 9 minutes on 16 cores:
#     scripts/verify_gpu.sh OUT [build] [test] [sanitize] [bench]
# Stages named alone run alone, on the build and beside the results that earlier calls left in build/verify_gpu; of
# `bench` also single files, such as region_conv2d. Each has a time limit, and the next one starts when one fails; then the exit status is 1. It is 2 where there is no GPU.
# Needs nvcc, a CUDA torch, ninja, pybind11, pytest, pytest-benchmark, hypothesis, OpenCV and matplotlib; tests that
# need another package are skipped and named where it is missing. PYTHON names the interpreter, JAA_EXT_COMMIT the
# commit of a copy without git.
exec "${PYTHON:-python3}" "$(dirname "$0")/verify_gpu.py" "$@"
