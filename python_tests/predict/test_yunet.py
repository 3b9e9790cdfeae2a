"""YuNet's adapter: OpenCV runs a network of YuNet's inputs and outputs that sees faces in red squares.

YuNet itself is not here: its model is the user's.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_files import save_graph, save_relu

from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import MissingDependency, Predictor, YuNet, face_by_points
from jaa_ext.predict.batch_detector import BatchSearch

pytest.importorskip("onnx")

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = 32
POINTS = np.array([(8.0, 10.0), (24.0, 10.0), (17.0, 17.0), (9.0, 25.0), (23.0, 25.0)])
"""Where the network sees the five points of a face, in pixels of its cell: those of the left of the picture
first, as YuNet (the person's right eye and corner of the mouth)."""


def save_network(path: Path, side: int | None = None, bias: float = 0.0) -> Path:
    """Write a network with YuNet's twelve outputs.

    A cell of 32 pixels is a face with a probability of the square root of its red less its blue, and `bias`.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, outputs = [], [], []
    for stride in (8, 16, 32):
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            weight, shift = (
                np.zeros((channels, 3, stride, stride), np.float32),
                np.zeros(channels, np.float32),
            )
            if name == "cls" and stride == CELL:
                # BGR, of 0 to 255
                weight[0, 2], weight[0, 0], shift[:] = 1 / (255 * CELL**2), -1 / (255 * CELL**2), bias
            elif name == "obj":
                shift[:] = 1
            elif name == "bbox":
                shift[:] = (0.5, 0.6, 0, 0.4)  # exp(0.4) times as high as wide
            elif name == "kps":
                shift[:] = POINTS.ravel() / CELL
            made, out = f"{name}{stride}", f"{name}_{stride}"
            constants += [
                numpy_helper.from_array(weight, f"weight {made}"),
                numpy_helper.from_array(shift, f"bias {made}"),
                numpy_helper.from_array(np.array([1, -1, channels]), f"shape {made}"),
            ]
            nodes += [
                helper.make_node(
                    "Conv",
                    ["input", f"weight {made}", f"bias {made}"],
                    [f"map {made}"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                ),
                helper.make_node("Transpose", [f"map {made}"], [f"last {made}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"last {made}", f"shape {made}"], [out]),
            ]
            number = None if side is None else (side // stride) ** 2
            outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, number, channels]))
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "faces", [entry], outputs, constants)
    return save_graph(graph, path)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return save_network(tmp_path_factory.mktemp("networks") / "yunet.onnx")


@pytest.fixture(scope="module")
def yunet(network) -> YuNet:
    return YuNet(network)


def picture(*corners, size=(200, 160), colour=(230, 0, 0)):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for x, y in corners:
        image[y : y + CELL, x : x + CELL] = colour
    return image


def test_a_face_is_where_its_five_points_are(yunet):
    """And its box is not the one of YuNet, which is taller than wide."""
    ((face,),) = yunet.find_faces([picture((64, 32))])
    wanted = face_by_points(POINTS + np.array((64, 32)), np.sqrt(230 / 255))
    assert face.box == pytest.approx(wanted.box, abs=1e-3) and face.roll == pytest.approx(0)
    assert face.score == pytest.approx(wanted.score, rel=1e-3) and face.landmarks is None
    left, top, right, bottom = face.box
    assert right - left == pytest.approx(bottom - top) and 64 < (left + right) / 2 < 96


def test_pictures_have_their_own_faces(yunet):
    none, two, one = yunet.find_faces(
        [picture(), picture((0, 0), (128, 96)), picture((32, 64), size=(97, 131))]
    )
    assert (len(none), len(two), len(one)) == (0, 2, 1)
    assert sorted(face.box[0] < 60 for face in two) == [False, True]


def test_red_is_red(yunet):
    """Pictures are RGB, YuNet's are BGR."""
    assert yunet.find_faces([picture((64, 32), colour=(0, 0, 230))]) == [[]]


def test_doubtful_faces_are_given_for_those_that_are_followed(yunet):
    """Of a probability of the root of 60/255, 0.49: enough to confirm one, not to find it."""
    doubtful = picture((64, 32), colour=(60, 0, 0))
    assert len(yunet.find_faces([doubtful])[0]) == 1
    search = BatchSearch(yunet)
    assert search(doubtful) == [] and search.score(doubtful[:96, :160]) == pytest.approx(-0.01, abs=0.02)


def test_a_large_picture_is_scaled_down_and_the_faces_back(yunet):
    """By 2.5: a face of 80 pixels is a cell of 32. Width and height are scaled by factors of their own."""
    image = cv2.resize(picture((320, 64), size=(640, 333)), (1600, 833), interpolation=cv2.INTER_NEAREST)
    ((face,),) = yunet.find_faces([image])
    stretch = np.array((1600 / 640, 833 / 333))
    wanted = face_by_points((POINTS + np.array((320, 64)) + 0.5) * stretch - 0.5, 0.9)
    assert face.box == pytest.approx(wanted.box, abs=0.5)


def test_where_nobody_is_found_a_picture_is_searched_once_more_at_half_the_size(yunet, monkeypatch):
    searched = []

    def detect(image):
        searched.append(image.shape)
        return np.zeros((0, 15), np.float32)

    monkeypatch.setattr(yunet, "_detect", detect)
    shapes = [(480, 1280, 3), (640, 400, 3), (100, 90, 3), (4000, 1, 3)]
    assert yunet.find_faces([np.zeros(shape, np.uint8) for shape in shapes]) == [[]] * 4
    assert searched == [
        *((240, 640, 3), (120, 320, 3), (640, 400, 3), (320, 200, 3)),
        *((100, 90, 3), (640, 1, 3), (320, 1, 3)),
    ]


def test_pictures_of_a_few_pixels(yunet):
    assert yunet.find_faces([np.zeros((1, 1, 3), np.uint8), np.zeros((3, 700, 3), np.uint8)]) == [[], []]


def test_a_network_of_a_fixed_size_takes_pictures_of_others(tmp_path):
    """As the model of 2023 is, of 640x640."""
    yunet = YuNet(save_network(tmp_path / "fixed.onnx", side=640))
    assert [
        len(faces) for faces in yunet.find_faces([picture((64, 32)), picture((0, 0), size=(64, 96))])
    ] == [1, 1]


def test_in_a_predictor(yunet, network, at_rest, tmp_path):
    model = at_rest(JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)))
    for detector in (yunet, f"opencv-yunet:{network}"):
        predictor = Predictor(model, detector=detector, device="cpu", precision="float32")
        left, right = predictor.faces(picture((128, 64), (32, 64)))
        assert left.box[0] < 60 < 100 < right.box[0] and left.settled and right.settled
        assert left.confidence == pytest.approx(np.sqrt(230 / 255), rel=1e-3)  # YuNet's own score
    # By its content: another file of the same name is another detector.
    other = YuNet(save_network(tmp_path / "yunet.onnx", bias=0.01))
    assert predictor.detector_identity == yunet.identity == YuNet(network).identity != other.identity


def test_nothing_is_printed(network, capfd):
    """OpenCV 5 has warnings of its own."""
    level = cv2.utils.logging.getLogLevel()
    YuNet(network).find_faces([picture((64, 32))])
    assert capfd.readouterr() == ("", "") and cv2.utils.logging.getLogLevel() == level


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, r"cannot be read \(No such file or directory\)"),
        (lambda path: path.mkdir(), r"cannot be read \(Is a directory\)"),
        (lambda path: path.touch(), "is no face detector that OpenCV runs"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "is no face detector",
        ),
        (lambda path: path.write_bytes(save_network(path).read_bytes()[:9000]), "is no face detector"),
        (save_relu, "is no face detector"),
    ],
    ids=["missing", "folder", "empty", "a pointer of Git LFS", "cut", "another network"],
)
def test_what_is_no_model_of_yunet(tmp_path, capfd, make, why):
    path = tmp_path / "bad.onnx"
    make(path)
    with pytest.raises(
        ValueError, match=rf"bad\.onnx: {why}.*; wanted YuNet's of OpenCV's model zoo"
    ) as error:
        YuNet(path)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_without_it_in_opencv_the_message_names_the_version(monkeypatch, network):
    monkeypatch.delattr(cv2, "FaceDetectorYN")
    with pytest.raises(MissingDependency, match=r"YuNet needs OpenCV 4\.10 or later, got "):
        YuNet(network)
