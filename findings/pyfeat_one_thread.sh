#!/usr/bin/env bash
# py-feat 2.1.5, torch 2.11.0 with torchvision 0.26.0 (some 6 GB for a while); for a machine of two cores or more.
#
# `import feat` leaves torch one thread, for the whole process and all else in it: it puts OMP_NUM_THREADS=1 into os.environ, which
# torch reads when it is imported later, as isort's order has it ("feat" before "torch"). Imported after torch it does no
# harm here, but programs started from there inherit the variable. torch.set_num_threads mends it.
# Source: feat/__init__.py, with its reason (two OpenMP libraries on macOS) in a comment; not in its documentation.
#
# Output seen, on two cores:
#   feat, then torch: 1 thread, OMP_NUM_THREADS 1      torch, then feat: 2 threads, OMP_NUM_THREADS 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-cache-dir torch==2.11.0 torchvision==0.26.0 py-feat==2.1.5
export HF_HUB_OFFLINE=1
for first in feat torch; do
  env -u OMP_NUM_THREADS -u MKL_NUM_THREADS "$work/venv/bin/python" -W ignore - "$first" <<'PYTHON'
import importlib
import os
import sys

if len(os.sched_getaffinity(0)) < 2:
    sys.exit("this needs a machine of two cores or more")
importlib.import_module(sys.argv[1])
import feat
import torch

threads = torch.get_num_threads()
print(f"{sys.argv[1]} first: {threads} of torch's threads, OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}")
assert (threads == 1) is (sys.argv[1] == "feat") and os.environ["OMP_NUM_THREADS"] == "1"
PYTHON
done
