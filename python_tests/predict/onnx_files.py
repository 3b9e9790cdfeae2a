"""ONNX files that tests write."""

from pathlib import Path
from typing import Any


def save_graph(graph: Any, path: Path) -> Path:
    import onnx

    opset = onnx.helper.make_opsetid("", 11)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def save_relu(path: Path) -> Path:
    """Write a network from pictures to pictures, which is neither an embedding nor a face detector."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return save_graph(helper.make_graph(nodes, "other", ends[:1], ends[1:]), path)
