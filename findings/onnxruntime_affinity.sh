#!/usr/bin/env bash
# onnxruntime 1.32.0, onnx 1.23.2; for a machine of two cores or more.
#
# A session of ONNX Runtime, made in a process that may use one core alone (taskset, a share of a cluster's node), starts a
# thread for each core of the machine and binds each to its core, so it leaves the limit that the process was given. torch,
# OpenCV and OpenBLAS keep to it. With the number of threads set (SessionOptions.intra_op_num_threads) nothing is bound.
# Source: tried; onnxruntime#8313, #10113 (where the limit is a cgroup's the binding fails and is logged instead).
#
# Output seen, on two cores:
#   process bound to [0]: threads of the session run on [[1]]; with intra_op_num_threads = 1: none
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" - <<'PYTHON'
import os
import sys
import time

import onnxruntime
from onnx import TensorProto, helper

cores = os.sched_getaffinity(0)
if len(cores) < 2:
    sys.exit("this needs a machine of two cores or more")
one = min(cores)
os.sched_setaffinity(0, {one})
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def threads():
    return set(os.listdir("/proc/self/task"))


def where_a_session_runs(options):
    before = threads()
    session = onnxruntime.InferenceSession(model, options)
    for _ in range(100):  # a thread binds itself when it starts to run
        cores = sorted(sorted(os.sched_getaffinity(int(thread))) for thread in threads() - before)
        if [one] not in cores:
            break
        time.sleep(0.1)
    return session, cores


limited = onnxruntime.SessionOptions()
limited.intra_op_num_threads = 1
_first, by_default = where_a_session_runs(onnxruntime.SessionOptions())
_second, set_to_one = where_a_session_runs(limited)
print(f"process bound to [{one}]: threads of the session run on {by_default}; ", end="")
print(f"with intra_op_num_threads = 1: {set_to_one or 'none'}")
assert by_default and all(one not in core for core in by_default) and not set_to_one
PYTHON
