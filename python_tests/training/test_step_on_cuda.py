"""An iteration of training on a GPU, traced operation by operation with tensors that have no data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

FAKE_CUDA = Path(__file__).parent / "fake_cuda"
TORCH = Path(torch.__file__).parent

WANTED = [f"{name}:{kind}" for name in ("released", "paper", "journal") for kind in ("32-true", "bf16-mixed")]

# What a CUDA graph cannot hold: the host waits for a value or a size, or makes a tensor that is copied.
HOST = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique", "aten.lift_fresh"}


def compiled_device(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("g++") or pytest.skip("there is no g++ to compile a CUDA device without a GPU")
    path = tmp_path_factory.mktemp("fake_cuda") / "device.so"
    options = ["-std=c++20", "-shared", "-fPIC", "-I", TORCH / "include", f"-Wl,-rpath,{TORCH / 'lib'}"]
    libraries = ["-L", TORCH / "lib", "-lc10", "-ltorch_cpu"]
    subprocess.run([compiler, *options, FAKE_CUDA / "device.cpp", *libraries, "-o", path], check=True)
    return str(path)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """See fake_cuda/trace.py."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if not torch.cuda.is_available():
        if torch.backends.cuda.is_built():
            pytest.skip("torch is built for CUDA, but there is no GPU: its autograd refuses tensors of one")
        environment["LD_PRELOAD"] = compiled_device(tmp_path_factory)
    command = [sys.executable, FAKE_CUDA / "trace.py", *WANTED]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=WANTED)
def calls(request: pytest.FixtureRequest, traces: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The operations of an iteration."""
    return traces[request.param]


def test_the_host_is_not_needed(calls: list[dict[str, Any]]) -> None:
    assert not {call["name"] for call in calls} & HOST
    devices = {tensor["device"] for call in calls for tensor in call["inputs"] + call["outputs"]}
    assert devices == {"cuda"}


def test_a_few_hundred_operations(calls: list[dict[str, Any]]) -> None:
    counts = Counter(call["name"] for call in calls if call["computes"])
    assert counts.total() <= 340, counts
    # One of each for all AUs and all cells, and one for all parameters.
    assert counts["aten.convolution"] == counts["aten.convolution_backward"] <= 26
    assert counts["jaa_ext.region_conv2d"] == counts["jaa_ext.region_conv2d_backward"] == 6
    assert counts["jaa_ext.region_batch_norm"] == counts["jaa_ext.region_batch_norm_backward"] == 29
    assert counts["aten._fused_sgd_"] == 1


def test_features_are_channels_last(calls: list[dict[str, Any]]) -> None:
    layers = {
        "aten.max_pool2d_with_indices",
        "aten.max_pool2d_with_indices_backward",
        "jaa_ext.region_batch_norm",
        "jaa_ext.region_batch_norm_backward",
        "jaa_ext.region_conv2d",
        "jaa_ext.region_conv2d_backward",
    }
    for call in calls:
        if call["name"] in layers:
            # Gradients may come from flattened or sliced tensors.
            features = call["outputs"] + ([] if call["name"].endswith("backward") else call["inputs"])
            assert all(t["channels_last"] for t in features if len(t["shape"]) == 4), call
        if call["name"] == "aten.convolution" and len(call["inputs"][0]["shape"]) == 4:
            image, weight = call["inputs"][:2]
            # The attention maps are drawn plane by plane.
            assert weight["channels_last"] and (image["channels_last"] or weight["shape"][1] == 1), call


def test_dtypes(calls: list[dict[str, Any]], request: pytest.FixtureRequest) -> None:
    low = "bfloat16" if request.node.callspec.params["calls"].endswith("bf16-mixed") else "float32"
    dtypes: dict[str, set[tuple[str, ...]]] = {}
    for call in calls:
        if call["name"].startswith(("jaa_ext", "aten.convolution")):
            dtypes.setdefault(call["name"], set()).add(tuple(t["dtype"] for t in call["inputs"]))
    assert dtypes["aten.convolution"] == dtypes["jaa_ext.region_conv2d"] == {(low,) * 3}
    assert dtypes["jaa_ext.region_conv2d_backward"] == {(low,) * 3}
    assert dtypes["jaa_ext.region_batch_norm"] == {(low, *["float32"] * 4)}
    assert dtypes["jaa_ext.attention_maps"] == {("float32",)}
    assert dtypes["jaa_ext.softmax_dice_loss"] == {("float32", "int64", "float32")}
