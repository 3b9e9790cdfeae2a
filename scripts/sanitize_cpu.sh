#!/usr/bin/env bash
# Runs the tests of the ops and of the renderer with C++ built for AddressSanitizer and UBSan:
#     scripts/sanitize_cpu.sh [arguments of pytest]
# in an environment with torch and the extra `test` (PYTHON names its interpreter). Needs g++; takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Into folders of its own: neither a build nor an installation that is there is touched.
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
CXX=g++ CFLAGS="$sanitize -fno-omit-frame-pointer -g1" LDFLAGS=$sanitize JAA_EXT_NO_CUDA=1 \
  "$python" setup.py -q build --build-base "$work/build" --build-lib "$work/site"

# Python itself is not instrumented, so the libraries come before it; the second one is for exceptions. Leaks are
# not looked for: Python leaves too much behind at its end. New memory holds NaN, which shows where it is read.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS=detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1073741824
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH=$work/site
repository=$PWD
cd "$work"  # from the root the source tree would be imported
"$python" -c "from jaa_ext import _C; assert _C.__file__.startswith('$work'), _C.__file__"
# The CUDA kernels run under sanitizers in test_cuda_harness.py; test_speed.py would time the sanitizers.
tests=$repository/python_tests/ops
"$python" -m pytest -q -p no:cacheprovider --rootdir "$repository" -c "$repository/pyproject.toml" "$tests" \
  "$repository/python_tests/data/rendered/test_render.py" \
  --ignore "$tests/test_cuda_on_host.py" --ignore "$tests/test_cuda_harness.py" --ignore "$tests/test_speed.py" "$@"
