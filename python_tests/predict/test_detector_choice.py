"""Detectors by name, and modules of one's own."""

import sys

import pytest

from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import FaceDetector, Predictor, choose_detector

OWN = """
class Nobody:
    def find_faces(self, images):
        return [[] for _ in images]

class Old:
    def __call__(self, image):
        return []

    def score(self, aligned):
        return 0.0

class Neither:
    pass

nothing = None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the working folder, which is not on the path before and after."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "jaa_test_faces.py").write_text(OWN)
    (tmp_path / "jaa_test_pack").mkdir()
    (tmp_path / "jaa_test_pack" / "inner.py").write_text(OWN)
    yield "jaa_test_faces"
    for name in [name for name in sys.modules if name.startswith("jaa_test_")]:
        del sys.modules[name]


def test_dlibs():
    for name, shapes in (("dlib", False), ("dlib-landmarks", True)):
        detector = choose_detector(name)
        assert type(detector) is FaceDetector and (detector._shape_predictor is not None) is shapes


def test_ones_own_of_either_kind(own):
    assert choose_detector(f"{own}:Nobody").find_faces([None]) == [[]]
    assert choose_detector("jaa_test_pack.inner:Nobody").find_faces([]) == []
    assert choose_detector(f"{own}:Old")(None) == []


def test_an_installed_module_stands_before_a_file_of_its_name(tmp_path, own):
    (tmp_path / "wave.py").write_text("raise SystemExit('the file of the working folder')")
    with pytest.raises(ValueError, match="wave has no class or function Faces"):
        choose_detector("wave:Faces")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mtcnn",
        "DLIB",
        "opencv-yunet",
        "dlib:",
        ":Faces",
        "a:b:c",
        "a.:b",
        "os:abort()",
        "a b:c",
        "./a:b",
    ],
)
def test_names_of_nothing(name):
    with pytest.raises(ValueError, match=r"^detector must be dlib, dlib-landmarks, opencv-yunet:FILE or MOD"):
        choose_detector(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jaa_nowhere:Faces", "no module jaa_nowhere, neither installed nor in /"),
        ("jaa_test_pack.nowhere:Faces", r"no module jaa_test_pack\.nowhere"),
        ("jaa_test_faces:Faces", "jaa_test_faces has no class or function Faces"),
        ("jaa_test_faces:nothing", "jaa_test_faces has no class or function nothing"),
        ("jaa_test_faces:Neither", r"wanted what has a method find_faces, as .* has, got a Neither"),
        ("os:getcwd", ".* got a str"),
        ("os:chdir", "called without arguments: chdir.. missing"),
    ],
)
def test_modules_without_a_detector(own, name, sentence):
    with pytest.raises(ValueError, match=rf'^detector "{name}": {sentence}') as error:
        choose_detector(name)
    assert "\n" not in str(error.value)


def test_what_a_module_itself_lacks_is_its_own_message(tmp_path, own):
    (tmp_path / "jaa_test_lacking.py").write_text("import jaa_nowhere")
    with pytest.raises(ModuleNotFoundError, match="No module named 'jaa_nowhere'"):
        choose_detector("jaa_test_lacking:Faces")


class TestPredictor:
    @pytest.fixture
    def model(self):
        return JAANet(JAANetConfig.released((1, 12), image_size=64, width=1))

    def test_names(self, model, own):
        for name, landmarks in (("dlib", "network"), ("dlib-landmarks", "dlib")):
            predictor = Predictor(model, detector=name, device="cpu")
            assert predictor.landmarks == landmarks and "FaceDetector" in predictor.detector_identity
        predictor = Predictor(model, detector=f"{own}:Nobody", device="cpu")
        assert predictor.detector_identity == f"{own}:Nobody"

    def test_dlibs_landmarks_are_those_of_dlibs_faces(self, model, own):
        for name in ("dlib", "dlib-landmarks"):
            assert Predictor(model, detector=name, landmarks="dlib", device="cpu").landmarks == "dlib"
        with pytest.raises(
            ValueError, match=f'^landmarks "dlib" wants the detector "dlib", got "{own}:Nobody"'
        ):
            Predictor(model, detector=f"{own}:Nobody", landmarks="dlib", device="cpu")
