"""Networks that OpenCV runs: their input, and files that are none. SFace and ArcFace are the user's."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_files import save_graph, save_relu

from jaa_ext.predict.by_name import name_of
from jaa_ext.predict.identity import choose_embedding
from jaa_ext.predict.onnx_embedding import OnnxEmbedding

pytest.importorskip("onnx")

pytestmark = pytest.mark.usefixtures("one_thread")

FACES = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)


def save_network(path: Path, *, subtract: float | None = None, side: int = 112) -> Path:
    """Write a network that gives the mean colour of pictures of a size, after what it subtracts, if it does.

    It is a convolution and a product with a matrix.
    """
    from onnx import TensorProto, helper, numpy_helper

    weight = np.zeros((3, 3, 4, 4), np.float32)
    weight[range(3), range(3)] = 1 / 16
    cells = (side // 4) ** 2
    constants = {"weight": weight, "less": np.float32(subtract or 0)}
    constants["mean"] = np.repeat(np.eye(3, dtype=np.float32), cells, 0) / cells
    nodes = [helper.make_node("Sub", ["face", "less"], ["centred"])] * (subtract is not None)
    nodes += [
        helper.make_node(
            "Conv", [nodes[0].output[0] if nodes else "face", "weight"], ["map"], strides=[4, 4]
        ),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mean"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return save_graph(graph, path)


def test_faces_are_rgb_from_minus_1_to_1(tmp_path):
    vectors = OnnxEmbedding(save_network(tmp_path / "arcface.onnx"))(FACES)
    np.testing.assert_allclose(vectors, FACES.mean((1, 2)) / 127.5 - 1, atol=1e-5)


def test_or_from_0_to_255_for_a_network_that_subtracts_something_itself(tmp_path):
    vectors = OnnxEmbedding(save_network(tmp_path / "sface.onnx", subtract=100.0))(FACES)
    np.testing.assert_allclose(vectors, FACES.mean((1, 2)) - 100, atol=1e-3)


def test_by_name_and_by_content(tmp_path):
    one = choose_embedding(str(save_network(tmp_path / "A.ONNX")))
    assert isinstance(one, OnnxEmbedding) and one(FACES[:1]).shape == (1, 3)
    same, other = save_network(tmp_path / "b.onnx"), save_network(tmp_path / "c.onnx", subtract=1)
    assert name_of(one) == OnnxEmbedding(same).identity != OnnxEmbedding(other).identity


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, r"cannot be read \(No such file or directory\)"),
        (lambda path: path.mkdir(), r"cannot be read \(Is a directory\)"),
        (lambda path: path.touch(), "is no network that OpenCV runs"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "is no network"),
        (lambda path: path.write_bytes(save_network(path).read_bytes()[:9000]), "is no network"),
        (lambda path: save_network(path, side=160), "is no network"),
        (save_relu, r"gives an output of shape \(1, 3, 112, 112\)"),
    ],
    ids=["missing", "folder", "empty", "a pointer of Git LFS", "cut", "another size", "pictures"],
)
def test_what_is_no_embedding(tmp_path, capfd, make, why):
    path = tmp_path / "bad.onnx"
    make(path)
    wanted = r"wanted a network from \(1, 3, 112, 112\) to one vector, such as SFace or ArcFace"
    with pytest.raises(ValueError, match=rf"bad\.onnx: {why}.*; {wanted}$") as error:
        OnnxEmbedding(path)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_nothing_is_printed(tmp_path, capfd):
    level = cv2.utils.logging.getLogLevel()
    OnnxEmbedding(save_network(tmp_path / "a.onnx"))(FACES)
    assert capfd.readouterr() == ("", "") and cv2.utils.logging.getLogLevel() == level
