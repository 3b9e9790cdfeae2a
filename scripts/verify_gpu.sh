#!/usr/bin/env bash
# Builds jaa_ext for this machine's NVIDIA GPU, runs the tests, compute-sanitizer and the benchmarks on it, and writes
# OUT/<gpu>.json (for benchmarks/report.py) and OUT/<gpu>.md, in under 9 minutes on 16 cores:
#     scripts/verify_gpu.sh OUT [build] [test] [sanitize] [bench]
# Or in two calls, where a GPU is lent for 15 minutes in all:
#     scripts/verify_gpu.sh --first OUT    # under 6 minutes: the build, the tests that use the GPU, memcheck at small sizes;
#                                          # maps, loss, the six region convolutions, training step and inference
#     scripts/verify_gpu.sh --rest OUT     # under 7: the other tests, racecheck, torch.compile and the other benchmarks
# All is built for the GPU that is there alone. --rest takes the build of --first, if it is still in build/verify_gpu and no
# source has changed. Every outcome is a file or a line in OUT/parts as soon as it is there, so that a call that is cut short
# loses nothing. Where the two calls had folders of their own, copy the files of both parts/ into one, and then, without a GPU:
#     scripts/verify_gpu.sh --summary OUT  # writes <gpu>.json and <gpu>.md anew
# Stages named alone run alone, on the build and beside the results that earlier calls left in OUT; of `bench` also single
# files, such as region_conv2d. Each has a time limit, and the next one starts when one fails; then the exit status is 1. It
# is 2 where there is no GPU.
# Needs nvcc, a CUDA torch, ninja, pybind11, pytest, pytest-benchmark, hypothesis, OpenCV and matplotlib; tests that
# need another package are skipped and named where it is missing. PYTHON names the interpreter, JAA_EXT_COMMIT the
# commit of a copy without git.
exec "${PYTHON:-python3}" "$(dirname "$0")/verify_gpu.py" "$@"
