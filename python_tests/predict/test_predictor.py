"""The way from photographs and videos to AUs and back to their pixels."""

import importlib.util
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas
import pytest
import torch
from skimage import data

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces, align_face, normalize
from jaa_ext.data.faces import alignment_matrix, transform
from jaa_ext.data.images import ImageError
from jaa_ext.data.video import Video, VideoError, VideoFrame
from jaa_ext.device import has_bfloat16
from jaa_ext.models import JAANet, JAANetConfig, JAAOutput
from jaa_ext.predict import (
    DetectedFace,
    FaceDetector,
    MissingDependency,
    Predictor,
    head_pose,
    predictor,
    read_table,
    write_table,
)
from jaa_ext.predict.alignment import MEAN_FACE, MOVED, displacement, place_mean_face
from jaa_ext.predict.batch_detector import DetectorError
from jaa_ext.predict.identity import EmbeddingError
from jaa_ext.predict.prediction import consistent_intensities
from jaa_ext.predict.predictor import in_words

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64
ALIGNED = 73  # round(64 * 200 / 176)
MARGIN = 4  # (73 - 64) // 2


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(landmarks="dlib")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=SIDE, width=2))


class Stub(torch.nn.Module):
    """Returns landmarks at known places of the crop; the first AU is absent, the second present."""

    note = "a stub"
    thresholds = (0.5, 0.5)

    def __init__(self, landmarks, intensities=None):
        super().__init__()
        self.config = SimpleNamespace(
            image_size=SIDE,
            aus=(1, 2),
            au_detection=True,
            alignment=landmarks is not None,
            intensity=intensities is not None,
        )
        self.intensities = intensities
        self.landmarks = None if landmarks is None else torch.tensor(landmarks, dtype=torch.float32)
        self.batches = []

    def fuse(self):
        return self

    def half_precision_layers(self):
        return {}

    def find_landmarks(self, image):
        return self(image).landmarks

    def forward(self, image):
        self.batches.append(image)
        logits = torch.zeros(len(image), 2, 2)
        logits[:, 1, 0] = -1
        logits[:, 1, 1] = 1
        landmarks = None if self.landmarks is None else self.landmarks.expand(len(image), -1, -1)
        intensities = None
        if self.intensities is not None:
            intensities = torch.tensor(self.intensities).expand(len(image), -1)
        return JAAOutput(logits=logits, landmarks=landmarks, intensities=intensities)


class Finding:
    """Finds the same faces everywhere, and confirms all."""

    def __init__(self, *faces):
        self.faces, self.searches = list(faces), 0

    def __call__(self, image):
        self.searches += 1
        return self.faces

    def score(self, aligned):
        return 1.0


def upright_face(shift=(0.0, 0.0), angle=0.0, scale=1.0):
    """Landmarks whose alignment is easily worked out by hand: eyes 40 apart, mouth corners 40 below."""
    points = np.zeros((49, 2))
    points[list(facs.LEFT_EYE)] = (80, 100)
    points[list(facs.RIGHT_EYE)] = (120, 100)
    points[13] = (100, 120)
    points[31], points[37] = (85, 140), (115, 140)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points @ turn.T + shift).astype(np.float32)


def detected(landmarks):
    return DetectedFace((*landmarks.min(0).tolist(), *landmarks.max(0).tolist()), landmarks, 1.0)


def write(path, image, *options):
    assert cv2.imwrite(str(path), image, list(options))
    return path


class TestFaces:
    def test_the_head_pose_is_that_of_the_landmarks(self, astronaut, detector, at_rest):
        height, width = astronaut.shape[:2]
        model = at_rest(JAANet(JAANetConfig.released((1, 12), image_size=SIDE, width=1)))
        for focal_length in (None, 900.0):
            one = Predictor(model, detector=detector, device="cpu", focal_length=focal_length)
            (face,) = one.faces(astronaut)
            pose = head_pose(face.landmarks, width, height, focal_length)
            row = one(astronaut).iloc[0]
            assert np.array_equal(face.pose.rotation, pose.rotation)
            assert np.abs(row[["pose_Rx", "pose_Ry", "pose_Rz"]] - pose.rotation).max() < 5.1e-5
            assert np.abs(row[["pose_Tx", "pose_Ty", "pose_Tz"]] - pose.translation).max() < 0.051
        with pytest.raises(ValueError, match=r"^focal_length must be .* above 0, got -1"):
            Predictor(model, detector=detector, device="cpu", focal_length=-1)

    def test_a_photograph(self, astronaut, detector, model):
        (face,) = Predictor(model, detector=detector, device="cpu").faces(astronaut)
        assert face.face_id == 0 and face.box == detector(astronaut)[0].box
        assert face.landmarks.shape == face.detected_landmarks.shape == (49, 2)
        assert face.probabilities.shape == (12,) and (face.probabilities > 0).all()
        assert np.array_equal(face.present, face.probabilities > 0.5)
        assert face.crop.shape == (SIDE, SIDE, 3) and face.crop.dtype == np.uint8
        assert face.initial_maps.shape == (12, 24, 24) and face.refined_maps.shape == (12, 16, 16)

    def test_the_middle_of_the_crop_is_the_middle_of_the_face(self, astronaut, detector):
        torch.manual_seed(0)
        model = JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=SIDE, width=2))
        (found,) = detector(astronaut)
        model.set_mean_shape(np.full((49, 2), 32.0))
        torch.nn.init.zeros_(model.alignment.landmarks.weight)
        (face,) = Predictor(model, detector=detector, device="cpu").faces(astronaut)
        # The crop is centred on the box of eyes, nose and mouth.
        assert np.abs(face.landmarks - found.landmarks[13]).max() < 20
        assert np.ptp(face.landmarks, axis=0).max() < 1e-3

    def test_a_file_is_what_its_array_is(self, tmp_path, astronaut, detector, model):
        predict = Predictor(model, detector=detector, device="cpu")
        path = write(tmp_path / "a.png", astronaut[..., ::-1])
        (of_file,), (of_array,) = predict.faces(path), predict.faces(astronaut)
        assert np.array_equal(of_file.landmarks, of_array.landmarks)
        assert np.array_equal(of_file.probabilities, of_array.probabilities)

    def test_other_forms_of_the_photograph(self, astronaut, detector, model):
        predict = Predictor(model, detector=detector, device="cpu")
        (rgb,) = predict.faces(astronaut)
        rgba = np.dstack([astronaut, np.full((512, 512), 255, np.uint8)])
        for image in (rgba, astronaut.astype(np.uint16) * 257):
            assert np.array_equal(predict.faces(image)[0].landmarks, rgb.landmarks)
        (grey,) = predict.faces(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY))
        assert np.abs(np.array(grey.box) - rgb.box).max() < 12

    def test_two_faces_from_left_to_right(self, astronaut, detector, model):
        predict = Predictor(model, detector=detector, device="cpu")
        left, right = predict.faces(np.hstack([astronaut, astronaut]))
        assert (left.face_id, right.face_id) == (0, 1)
        assert np.abs(right.landmarks.mean(0) - left.landmarks.mean(0) - (512, 0)).max() < 6

    def test_no_face(self, detector, model):
        assert Predictor(model, detector=detector, device="cpu").faces(data.coffee()) == []

    def test_landmarks_return_through_crop_and_alignment(self):
        """The transform again by hand: a turn, a scale, a shift, then the crop's margin."""
        angle, scale, shift = 0.3, 1.7, np.array((31.0, -12.0))
        in_crop = np.random.default_rng(0).uniform(0, SIDE, (49, 2))
        face = detected(upright_face(shift, angle, scale))
        (got,) = Predictor(Stub(in_crop), detector=Finding(face), device="cpu").faces(
            np.zeros((400, 300, 3), np.uint8)
        )
        # The upright box is x 80..120, y 100..140: its centre (100, 120) is the aligned picture's centre, 36,
        # and 2.9 * 40 pixels fill 72.
        upright = (in_crop + MARGIN - 36) * (2.9 * 40 / 72) + (100, 120)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert np.abs(got.landmarks - (scale * upright @ turn.T + shift)).max() < 1e-3
        assert np.array_equal(got.detected_landmarks, face.landmarks)

    def test_a_marked_point_is_found_where_the_crop_shows_it(self):
        """Independent of any formula: a dot in the photograph, seen in the crop, comes back to its place."""
        photograph = np.zeros((260, 260, 3), np.uint8)
        cv2.circle(photograph, (110, 131), 4, (255, 255, 255), -1)
        face = detected(upright_face(angle=-0.1))
        stub = Stub(np.zeros((49, 2)))
        predict = Predictor(stub, detector=Finding(face), device="cpu")
        # Black is not the grey of the border, so only what lies inside the photograph is 0.
        (first,) = predict.faces(photograph)
        rows, columns = np.nonzero(first.crop[..., 0] > 200)
        stub.landmarks[:] = torch.tensor((columns.mean(), rows.mean()))
        (second,) = predict.faces(photograph)
        assert np.abs(second.landmarks - (110, 131)).max() < 0.75

    def test_what_the_network_sees_and_says(self):
        stub = Stub(np.zeros((49, 2)))
        photograph = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        found = detected(upright_face())
        (face,) = Predictor(stub, detector=Finding(found), device="cpu").faces(photograph)
        (batch,) = stub.batches
        expected = torch.tensor(face.crop).permute(2, 0, 1).float() / 127.5 - 1
        torch.testing.assert_close(batch[0], expected, rtol=0, atol=1e-6)
        sigmoid = 1 / (1 + np.exp(1))
        assert np.allclose(face.probabilities, (sigmoid, 1 - sigmoid))
        assert face.present.tolist() == [False, True]

    def test_many_faces_go_in_batches(self, monkeypatch):
        stub = Stub(np.zeros((49, 2)))
        faces = [detected(upright_face((i, 0))) for i in range(70)]
        found = Predictor(stub, detector=Finding(*faces), device="cpu").faces(np.zeros((300, 300), np.uint8))
        assert [len(batch) for batch in stub.batches] == [32, 32, 6]
        assert [face.face_id for face in found] == list(range(70))
        assert all(
            np.array_equal(a.detected_landmarks, b.landmarks) for a, b in zip(found, faces, strict=True)
        )

    def test_a_model_without_alignment_keeps_the_detectors_landmarks(self):
        face = detected(upright_face())
        (got,) = Predictor(Stub(None), detector=Finding(face), device="cpu").faces(np.zeros((9, 9), np.uint8))
        assert np.array_equal(got.landmarks, face.landmarks)
        assert got.initial_maps is None and got.refined_maps is None

    def test_what_cannot_be_read(self, tmp_path):
        predict = Predictor(Stub(None), detector=Finding(), device="cpu")
        with pytest.raises(ImageError, match=r"none\.png: .*no such file"):
            predict.faces(tmp_path / "none.png")
        with pytest.raises(ValueError, match=r"shape \(3, 3, 2\)"):
            predict.faces(np.zeros((3, 3, 2), np.uint8))
        with pytest.raises(TypeError, match="dtype float64"):
            predict.faces(np.zeros((3, 3)))


def boxed(landmarks):
    """A face whose box has the middle of the landmarks' alignment, as dlib's have."""
    matrix = alignment_matrix(landmarks, size=3)
    x, y = np.linalg.solve(matrix[:, :2], 1 - matrix[:, 2])
    half = 1 / matrix[0, 0] / 1.32
    return DetectedFace((x - half, y - half, x + half, y + half), None, 1.0)


class TestOwnLandmarks:
    """Of faces that the detector gives without any."""

    IN_CROP = transform(MEAN_FACE, alignment_matrix(MEAN_FACE, size=ALIGNED)) - MARGIN

    def test_real_ones_settle(self, astronaut, face, seeing):
        (found,) = seeing(detector=FaceDetector()).faces(astronaut)
        assert found.settled and np.abs(found.landmarks - face.landmarks).max() < 0.5
        assert 0 < displacement(face.landmarks, found.detected_landmarks) < MOVED

    def test_a_photograph_is_aligned_by_what_the_network_saw_last(self):
        """A network that always sees the mean face: it is where the face is aligned by it."""
        finding = Finding(boxed(upright_face()))
        stub = Stub(self.IN_CROP)
        (face,) = Predictor(stub, detector=finding, device="cpu").faces(np.zeros((300, 300), np.uint8))
        assert len(stub.batches) == 2  # a round, and the prediction
        assert face.settled and np.allclose(face.detected_landmarks, face.landmarks, atol=1e-3)
        assert np.allclose(face.detected_landmarks, place_mean_face(face.box), atol=1e-3)

    def test_several_photographs_go_together(self, tmp_path):
        """And faces of which the detector knows the landmarks are aligned by these."""
        known = detected(upright_face((10, 10)))
        finding = Finding(boxed(upright_face()), known, boxed(upright_face((90, 0))))
        stub = Stub(self.IN_CROP)
        predict = Predictor(stub, detector=finding, device="cpu")
        paths = [tmp_path / f"{i}.png" for i in range(20)]
        for path in paths:
            cv2.imwrite(str(path), np.zeros((300, 300, 3), np.uint8))
        frames = list(predict.photographs(paths))
        assert [len(batch) for batch in stub.batches] == [16, 24, 16, 24, 8, 12]
        for frame in frames:
            assert np.array_equal(frame.faces[1].detected_landmarks, known.landmarks)
            for i in (0, 2):
                placed = place_mean_face(frame.faces[i].box)
                assert np.allclose(frame.faces[i].detected_landmarks, placed, atol=1e-3)

    def test_those_that_do_not_settle_are_marked(self, tmp_path):
        """Landmarks in the corner of the crop are no face."""
        finding = Finding(boxed(upright_face()))
        predict = Predictor(Stub(np.zeros((49, 2))), detector=finding, device="cpu")
        (face,) = predict.faces(np.zeros((300, 300), np.uint8))
        assert not face.settled and np.array_equal(face.detected_landmarks, place_mean_face(face.box))
        (row,) = predict(np.zeros((300, 300), np.uint8)).itertuples()
        assert row.success == 0 and row.AU02_p > 0.5

    def test_without_alignment_there_are_none(self):
        with pytest.raises(ValueError, match=r"no landmarks \(alignment=False\).*--landmarks dlib"):
            Predictor(Stub(None), device="cpu")
        finding = Finding(boxed(upright_face()))
        with pytest.raises(DetectorError, match=r"no landmarks \(alignment=False\)"):
            Predictor(Stub(None), detector=finding, device="cpu").faces(np.zeros((9, 9), np.uint8))
        assert Predictor(Stub(None), landmarks="dlib", device="cpu").landmarks == "dlib"

    def test_dlibs_if_they_are_asked_for(self, astronaut, model, detector):
        (face,) = Predictor(model, landmarks="dlib", device="cpu").faces(astronaut)
        assert np.array_equal(face.detected_landmarks, detector(astronaut)[0].landmarks)

    def test_what_makes_no_sense(self):
        with pytest.raises(ValueError, match=r'landmarks must be .*"none"'):
            Predictor(Stub(None), landmarks="none")
        with pytest.raises(ValueError, match=r'^landmarks "dlib" wants .* "dlib", got ".*Finding"'):
            Predictor(Stub(None), detector=Finding(), landmarks="dlib")

    def test_without_dlibs_model_only_dlibs_landmarks_are_missing(self, astronaut, model, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr("jaa_ext.predict.detector.DEBIAN_MODELS", Path("nowhere"))
        assert len(Predictor(model, device="cpu").faces(astronaut)) == 1
        with pytest.raises(MissingDependency, match=r"jaa_ext\[dlib-landmarks\]"):
            Predictor(model, landmarks="dlib", device="cpu")


class TestThresholds:
    def test_they_decide(self):
        stub = Stub(None)
        sigmoid = 1 / (1 + np.exp(1))  # of both AUs, one and the other way round
        for thresholds, present in (
            ((0.5, 0.5), [False, True]),
            ((sigmoid - 0.01, 0.5), [True, True]),
            ((0.5, 1 - sigmoid + 0.01), [False, False]),
        ):
            stub.thresholds = thresholds
            predict = Predictor(stub, detector=Finding(detected(upright_face())), device="cpu")
            assert predict.thresholds == thresholds
            (face,) = predict.faces(np.zeros((300, 300), np.uint8))
            assert face.present.tolist() == present
            (row,) = predict(np.zeros((300, 300), np.uint8)).itertuples()
            assert [row.AU01_c, row.AU02_c] == present


class TestIntensities:
    NOWHERE = np.zeros((300, 300), np.uint8)

    def predictor(self, *intensities, thresholds=(0.5, 0.5)):
        """Of a stub that says AU 1 is absent and AU 2 present, unless there are other thresholds."""
        stub = Stub(None, intensities)
        stub.thresholds = thresholds
        return Predictor(stub, detector=Finding(detected(upright_face())), device="cpu")

    @pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.1, 0.9)])
    @pytest.mark.parametrize("predicted", [(0.0, 0.0), (5.0, 5.0), (0.999, 0.996), (1.0, 1.0), (3.2, 0.4)])
    def test_no_row_contradicts_itself(self, predicted, thresholds):
        predict = self.predictor(*predicted, thresholds=thresholds)
        (face,) = predict.faces(self.NOWHERE)
        table = predict(self.NOWHERE)
        assert list(table.columns[-2:]) == ["AU01_r", "AU02_r"] and predict.intensity
        for place, name in enumerate(("AU01", "AU02")):
            present, degree = table[f"{name}_c"][0] == 1, table[f"{name}_r"][0]
            assert present == face.present[place] == (degree >= 1) == (face.intensities[place] >= 1)
            assert degree == pytest.approx(face.intensities[place], abs=0.005)
            if present == (predicted[place] >= 1):
                assert face.intensities[place] == pytest.approx(
                    min(predicted[place], 0.99) if not present else predicted[place]
                )

    def test_an_au_whose_intensity_was_not_learnt_has_an_empty_cell(self):
        predict = self.predictor(float("nan"), 3.25)
        (face,) = predict.faces(self.NOWHERE)
        assert np.isnan(face.intensities[0]) and face.intensities[1] == 3.25
        table = predict(self.NOWHERE)
        assert table["AU01_r"].isna().all() and table["AU02_r"][0] == 3.25 and table["success"][0] == 1

    def test_a_model_without_has_none(self):
        predict = Predictor(Stub(None), detector=Finding(detected(upright_face())), device="cpu")
        assert predict.faces(self.NOWHERE)[0].intensities is None and not predict.intensity
        assert not [name for name in predict(self.NOWHERE).columns if name.endswith("_r")]

    def test_of_a_network(self, astronaut):
        torch.manual_seed(0)
        config = JAANetConfig.released((1, 12), image_size=SIDE, width=2, intensity=True)
        network = JAANet(config)
        torch.nn.init.normal_(network.au_head.intensity.linear.weight, std=50)
        (face,) = Predictor(network, device="cpu").faces(astronaut)
        crop = torch.from_numpy(face.crop).permute(2, 0, 1)[None]
        with torch.no_grad():
            want = network.eval()(normalize(crop)).intensities[0].numpy()
        np.testing.assert_allclose(face.intensities, consistent_intensities(want, face.present), atol=1e-3)


class TestPredictor:
    def test_a_model_without_aus_is_refused(self):
        config = JAANetConfig(
            (),
            image_size=SIDE,
            width=1,
            au_detection=False,
            global_features=False,
            attention=False,
            refinement=False,
            gradient_enhancement=1.0,
        )
        with pytest.raises(ValueError, match=r"^got a model without AU detection"):
            Predictor(JAANet(config), detector=Finding())

    def test_the_model_stays_as_it_was(self, model):
        model.train()
        assert not Predictor(model, detector=Finding()).model.training
        assert model.training

    def test_options_that_make_no_sense(self):
        with pytest.raises(ValueError, match=r'precision must be .*"half"'):
            Predictor(Stub(None), detector=Finding(), precision="half")
        for seconds in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"search_every must be .*{seconds}"):
                Predictor(Stub(None), detector=Finding(), search_every=seconds)
        for likeness in (0, 1, float("nan")):
            with pytest.raises(ValueError, match=f"^least_likeness must be between 0 and 1, got {likeness}"):
                Predictor(Stub(None), detector=Finding(), least_likeness=likeness)
        with pytest.raises(ValueError, match=r"got least_likeness 0\.5, but no embedding that it is of"):
            Predictor(Stub(None), detector=Finding(), least_likeness=0.5)

    def test_slow_bfloat16_is_float32(self, monkeypatch):
        monkeypatch.setattr("jaa_ext.device.has_bfloat16", lambda device: False)
        monkeypatch.delenv("JAA_SLOW_BFLOAT16", raising=False)
        with pytest.warns(UserWarning, match=r"^this processor .*: float32 is used"):
            predict = Predictor(Stub(None), detector=Finding(), device="cpu", precision="bfloat16")
        assert predict.precision == "float32"
        monkeypatch.setenv("JAA_SLOW_BFLOAT16", "1")
        predict = Predictor(Stub(None), detector=Finding(), device="cpu", precision="bfloat16")
        assert predict.precision == "bfloat16"

    def test_precision_is_that_of_the_network(self, monkeypatch):
        monkeypatch.setenv("JAA_SLOW_BFLOAT16", "1")
        stub = Stub(None)
        dtypes = []
        stub.forward = lambda image: (
            dtypes.append(torch.nn.functional.linear(image[:, :, 0], torch.zeros(2, SIDE)).dtype)
            or Stub.forward(stub, image)
        )
        for precision in ("float32", "bfloat16"):
            predict = Predictor(
                stub, detector=Finding(detected(upright_face())), device="cpu", precision=precision
            )
            (face,) = predict.faces(np.zeros((200, 200), np.uint8))
            assert face.probabilities.dtype == np.float32 and predict.precision == precision
        assert dtypes == [torch.float32, torch.bfloat16]
        assert Predictor(stub, detector=Finding(), device="cpu").precision in ("float32", "bfloat16")


class TestPhotographs:
    GREYS = tuple(range(10, 200, 10))

    @pytest.fixture
    def paths(self, tmp_path):
        """More than are held at a time, each of its own grey."""
        return [
            write(tmp_path / f"{grey:03d}.png", np.full((150, 150, 3), grey, np.uint8)) for grey in self.GREYS
        ]

    class ByGrey(Finding):
        """No face in pictures of grey 30 and 80, two in the others; slower in some."""

        def __call__(self, image):
            grey = int(image[0, 0, 0])
            threading.Event().wait(0.002 * (grey % 40 == 10))
            faces = [detected(upright_face((grey / 10, 0))), detected(upright_face((grey / 10 + 20, 0)))]
            return [] if grey in (30, 80) else faces

    def test_each_has_its_own_faces(self, paths):
        stub = Stub(np.zeros((49, 2)))
        frames = list(Predictor(stub, detector=self.ByGrey(), device="cpu").photographs(paths))
        assert [frame.source for frame in frames] == [str(path) for path in paths]
        for frame, grey in zip(frames, self.GREYS, strict=True):
            assert (frame.image == grey).all() and (frame.frame, frame.timestamp) == (1, 0.0)
            shifts = () if grey in (30, 80) else (grey / 10, grey / 10 + 20)
            assert [face.face_id for face in frame.faces] == list(range(len(shifts)))
            for face, shift in zip(frame.faces, shifts, strict=True):
                assert np.array_equal(face.detected_landmarks, upright_face((shift, 0)))
                assert face.crop[SIDE // 2, SIDE // 2].tolist() == [grey] * 3
        # Faces of several photographs go through the network together.
        assert [len(batch) for batch in stub.batches] == [12, 16, 6]

    def test_those_that_cannot_be_read_are_told_or_raised(self, paths):
        paths[4].write_bytes(paths[4].read_bytes()[:40])
        paths.insert(11, paths[0].with_name("none.png"))
        predict = Predictor(Stub(None), detector=self.ByGrey(), device="cpu")
        told = []
        frames = list(predict.photographs(paths, unreadable=lambda *of: told.append(of)))
        assert [frame.source for frame in frames] == [str(p) for i, p in enumerate(paths) if i not in (4, 11)]
        assert [(name, str(error)) for name, error in told] == [
            (str(paths[4]), f"{paths[4]}: the image is cut short, its end is missing"),
            (str(paths[11]), f"{paths[11]}: there is no such file"),
        ]
        with pytest.raises(ImageError, match="cut short"):
            list(predict.photographs(paths))

    def test_in_constant_memory_and_no_thread_stays(self, paths):
        taken = []
        before = set(threading.enumerate())
        frames = Predictor(Stub(None), detector=self.ByGrey(), device="cpu").photographs(
            path for path in paths * 5 if not taken.append(path)
        )
        next(frames)
        assert len(taken) <= 2 * predictor.PHOTOGRAPHS_AHEAD
        frames.close()
        assert set(threading.enumerate()) == before

    def test_a_detector_that_fails(self, paths):
        class Failing(Finding):
            def __call__(self, image):
                raise MemoryError("dlib wants more")

        before = set(threading.enumerate())
        with pytest.raises(ImageError, match=r"\.png: cannot be searched .*memory"):
            list(Predictor(Stub(None), detector=Failing(), device="cpu").photographs(paths))
        assert set(threading.enumerate()) == before


FRAMES, BLANK = 40, range(18, 24)
"""Frames of the film, and those of them, from 1, in which nobody is to be seen."""


def shift(number):
    """Where the face is in a frame, in pixels from where it is in the photograph."""
    return np.array([round(25 * np.sin(number / 8)), round(10 * np.cos(number / 11))])


class Seeing(Stub):
    """Landmarks exactly where the picture in the crop has moved to from its place in the photograph's."""

    def __init__(self, photograph, face):
        crop, landmarks, _ = align_face(photograph, face.landmarks, size=ALIGNED)
        super().__init__(landmarks - MARGIN)
        self.reference = crop[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE].mean(-1).astype(np.float32)

    def forward(self, image):
        output = super().forward(image)
        output.landmarks = torch.stack([self.moved((one.mean(0).numpy() + 1) * 127.5) for one in image])
        return output

    def moved(self, crop):
        matrix = np.eye(2, 3, dtype=np.float32)
        enough = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)
        _, matrix = cv2.findTransformECC(self.reference, crop, matrix, cv2.MOTION_AFFINE, enough)
        return self.landmarks @ torch.from_numpy(matrix[:, :2]).T + torch.from_numpy(matrix[:, 2])


@pytest.fixture(scope="module")
def film(astronaut, tmp_path_factory, releases):
    """A video of the moving photograph."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    pictures = []
    for number in range(1, FRAMES + 1):
        x, y = np.array([60, 20]) - shift(number)
        blank = np.full((240, 320, 3), 90, np.uint8)
        pictures.append(blank if number in BLANK else astronaut[y : y + 240, x : x + 320])
    releases.write_video(path, pictures)
    return Video(path)


@pytest.fixture(scope="module")
def face(astronaut, detector):
    """Of the photograph."""
    return detector(astronaut)[0]


@pytest.fixture(scope="module")
def seeing(astronaut, face, detector):
    """Makes predictors."""

    def make(**options):
        options = {"detector": detector, "device": "cpu", "precision": "float32"} | options
        return Predictor(Seeing(astronaut, face), **options)

    return make


class Frames:
    """A video out of the pictures that a function draws."""

    name = "drawn"

    def __init__(self, picture, count, fps):
        self.picture, self.count, self.fps = picture, count, fps

    def frames(self, *, every=1, start=0.0, end=None, after=0):
        for i in range(0, self.count, every):
            yield VideoFrame(i + 1, i / self.fps, np.ascontiguousarray(self.picture(i)))


def rows(frames):
    """Everything that was predicted, for comparison."""
    return [
        (frame.frame, frame.timestamp, face and (face.face_id, face.box, face.confidence), digits)
        for frame in frames
        for face in frame.faces or [None]
        for digits in [face and (face.landmarks.tobytes(), face.crop.tobytes())]
    ]


@pytest.fixture(scope="module")
def one_by_one(film, seeing):
    """Rows of frames that are searched, when it is their turn, by no other thread; each eighth one is."""
    predict = seeing(search_every=0.4)
    tracker, frames = predict.tracker(), []
    for frame in film.frames():
        see = lambda faces, image=frame.image: predict._predict([(image, face) for face in faces])  # noqa: E731
        faces = tracker.track(frame.image, frame.timestamp, see)
        frames.append(SimpleNamespace(frame=frame.number, timestamp=frame.timestamp, faces=faces))
    return rows(frames)


class TestVideo:
    @pytest.fixture
    def no_thread_stays(self):
        before = set(threading.enumerate())
        yield
        assert set(threading.enumerate()) == before

    @pytest.mark.parametrize("search_every", [0, 0.35, 1.5])
    def test_the_face_is_followed(self, film, face, seeing, search_every):
        frames = list(seeing(search_every=search_every).video(film))
        assert [frame.frame for frame in frames] == list(range(1, FRAMES + 1))
        assert np.allclose([frame.timestamp for frame in frames], np.arange(FRAMES) / 20)
        assert {frame.source for frame in frames} == {film.name}
        for frame in frames:
            assert frame.image.shape == (240, 320, 3)
            if frame.frame in BLANK:
                assert frame.faces == []
                continue
            (found,) = frame.faces
            assert found.face_id == 0 and found.confidence > 0.5
            truth = face.landmarks - (60, 20) + shift(frame.frame)
            assert np.abs(found.landmarks - truth).max() < 0.5
            assert np.abs(np.array(found.box).reshape(2, 2).mean(0) - truth.mean(0)).max() < 20

    def test_searches_are_few(self, film, seeing, detector):
        used = []

        class Counting:
            score = detector.score

            def __call__(self, image):
                used.append(threading.current_thread())
                return detector(image)

        list(seeing(detector=Counting(), search_every=0.5).video(film))
        # Frames 1, 11, 21, 31; the first without a face, all behind such a one, and no other, but for those
        # searched ahead before a face was seen.
        wanted = len({1, 11, 21, 31} | {*BLANK, BLANK[-1] + 1})
        assert wanted <= len(used) <= wanted + 2 * (predictor.FRAMES_AHEAD + 1)

    @pytest.mark.parametrize("ahead", [1, 32])
    def test_rows_do_not_depend_on_what_is_searched_ahead(self, film, seeing, one_by_one, monkeypatch, ahead):
        monkeypatch.setattr(predictor, "FRAMES_AHEAD", ahead)
        assert rows(seeing(search_every=0.4).video(film)) == one_by_one

    @pytest.mark.parametrize("stop", [5, 20])
    def test_a_part_of_the_way_and_on(self, film, seeing, one_by_one, stop):
        before = seeing(search_every=0.4)
        tracker, first = before.tracker(), []
        frames = before.video(film, tracker=tracker)
        for frame in frames:
            first.append(frame)
            if frame.frame == stop:
                frames.close()
        state = json.loads(json.dumps(tracker.state()))
        later = seeing(search_every=0.4)
        tracker = later.tracker()
        tracker.load_state(state)
        rest = later.video(film, after=stop, tracker=tracker)
        assert rows(first) + rows(rest) == one_by_one

    def test_every_start_and_end(self, film, seeing):
        frames = list(seeing().video(film, every=3, start=0.2, end=0.6))
        assert [frame.frame for frame in frames] == [5, 8, 11]
        assert all(len(frame.faces) == 1 for frame in frames)

    def test_with_the_networks_own_landmarks(self, film, face, seeing):
        """The detector gives boxes alone, which lie beside the face by up to a fifth of its size."""
        one = seeing(detector=FaceDetector(), search_every=0.35)
        frames = list(one.video(film))
        for frame in frames:
            if frame.frame in BLANK:
                assert frame.faces == []
                continue
            (found,) = frame.faces
            truth = face.landmarks - (60, 20) + shift(frame.frame)
            assert found.face_id == 0 and found.settled
            assert np.abs(found.landmarks - truth).max() < 0.5
            assert displacement(truth, found.detected_landmarks) < 2 * MOVED
        # Tracking by itself, as when no frame is searched ahead, gives the same.
        tracker, alone = one.tracker(), []
        for frame in film.frames():
            see = lambda faces, image=frame.image: one._predict([(image, face) for face in faces])  # noqa: E731
            faces = tracker.track(frame.image, frame.timestamp, see)
            alone.append(SimpleNamespace(frame=frame.number, timestamp=frame.timestamp, faces=faces))
        assert rows(alone) == rows(frames)

    def test_a_model_without_alignment_searches_each_frame(self, film):
        finding = Finding(detected(upright_face()))
        predict = Predictor(Stub(None), detector=finding, device="cpu", search_every=30)
        assert predict.search_every == 0
        frames = list(predict.video(film))
        assert finding.searches == FRAMES
        assert all(np.array_equal(frame.faces[0].landmarks, upright_face()) for frame in frames)

    @pytest.mark.parametrize("every", [1, 5, 10])
    def test_a_face_that_moves_fast_at_few_frames_a_second(self, astronaut, face, seeing, every):
        """4 pixels a frame, of eyes that are 46 apart."""

        def place(i):
            return np.array((4 * i, 30 - i // 3))

        moving = Frames(lambda i: np.roll(astronaut, place(i) - (100, 0), (1, 0))[:240, 20:460], 41, 30)
        frames = list(seeing().video(moving, every=every))
        assert len(frames) == 1 + 40 // every
        for frame in frames:
            (found,) = frame.faces
            truth = face.landmarks + place(frame.frame - 1) - (120, 0)
            assert found.face_id == 0 and np.abs(found.landmarks - truth).max() < 0.5
            # The picture that the network saw was aligned as well.
            assert np.abs((found.detected_landmarks - truth).mean(0)).max() < 0.12 * 46

    @pytest.mark.parametrize("every", [1, 5])
    @pytest.mark.parametrize("gap", [0, 10])
    @pytest.mark.parametrize("at", [(100, 100), (120, 90), (450, 120)])
    def test_a_cut_to_another_person(self, detector, every, gap, at):
        """At the same place, beside it, elsewhere; at once or after a while. Drawn faces, found by dlib."""
        people = SyntheticFaces(subjects=range(100, 110), samples_per_subject=1)
        one, other = people.draw(101, {12: 1.0}), people.draw(104, {4: 1.0})

        def picture(i):
            image = np.full((320, 700, 3), 128, np.uint8)
            (x, y), drawn = ((100, 100), one) if i < 10 or i >= 20 + gap else (at, other)
            if not 10 <= i < 10 + gap:
                image[y : y + 200, x : x + 200] = drawn.image
            return image

        _, points, _ = align_face(one.image, one.landmarks, size=ALIGNED)
        predict = Predictor(Stub(points - MARGIN), detector=detector, device="cpu", precision="float32")
        ids = {}
        for frame in predict.video(Frames(picture, 25 + gap, 30), every=every):
            i = frame.frame - 1
            if 10 <= i < 10 + gap:
                assert frame.faces == []
                continue
            (found,) = frame.faces
            (x, y), drawn = ((100, 100), one) if i < 10 or i >= 20 + gap else (at, other)
            off = (found.detected_landmarks - drawn.landmarks - (x, y)).mean(0)
            assert np.abs(off).max() < 0.15 * 60, i
            ids[i] = found.face_id
        assert {ids[i] for i in ids if i < 10 or i >= 20 + gap} == {0}  # it comes back within 2.5 s
        assert {ids[i] for i in ids if 10 + gap <= i < 20 + gap} == {1}

    @pytest.mark.parametrize("every", [1, 4])
    def test_who_comes_back_by_an_embedding(self, detector, every):
        """Drawn people behind cuts and after some seconds without anybody; the embedding sees colours."""
        people = SyntheticFaces(subjects=range(100, 110), samples_per_subject=1)
        drawn = {"one": people.draw(101, {12: 1.0}), "other": people.draw(104, {4: 1.0})}
        shown = ["one"] * 8 + ["other"] * 8 + [None] * 32 + ["other"] * 8 + ["one"] * 8
        backgrounds = np.random.default_rng(0).integers(0, 255, (2, 5, 8, 3), dtype=np.uint8)

        def picture(i):
            image = cv2.resize(backgrounds[int(shown[i] == "one")], (480, 300))
            if shown[i]:
                image[50:250, 100:300] = drawn[shown[i]].image
            return image

        def embed(faces):
            small = np.stack([cv2.resize(face, (8, 8), interpolation=cv2.INTER_AREA) for face in faces])
            return (small - 128.0).reshape(len(faces), -1)

        _, points, _ = align_face(drawn["one"].image, drawn["one"].landmarks, size=ALIGNED)
        options = {"detector": detector, "device": "cpu", "precision": "float32"}
        ids = {"one": 0, "other": 1, None: None}
        for embedding in (None, embed):
            predict = Predictor(
                Stub(points - MARGIN), embedding=embedding, least_likeness=embedding and 0.9, **options
            )
            seen, returns = [], []
            for frame in predict.video(Frames(picture, len(shown), 10), every=every):
                seen.append(frame.faces[0].face_id if frame.faces else None)
                returns += [(frame.frame - 1, face.face_id) for face in frame.faces if face.merged]
            if embedding is None:
                assert list(dict.fromkeys(seen)) == [0, 1, None, 2, 3] and returns == []
                assert predict.stages.seconds["identity"] == 0 and predict.embedding_identity == ""
            else:
                assert seen == [ids[person] for person in shown[::every]]
                assert returns == [(48, 1), (56, 0)] and predict.stages.seconds["identity"] > 0
                assert predict.embedding_identity.endswith("<locals>.embed")

    def test_an_embedding_that_fails_ends_the_video_with_its_name(self, film, seeing, no_thread_stays):
        with pytest.raises(EmbeddingError, match=r"^embedding .*<lambda>: wanted 1 rows, one for each face"):
            list(seeing(embedding=lambda faces: np.ones(3)).video(film))

    def test_every_fifth_frame_alone_is_searched_once_a_second(self, detector):
        class Counting(type(detector)):
            searches = 0

            def __call__(self, image):
                self.searches += 1
                return super().__call__(image)

        drawn = SyntheticFaces(subjects=[101], samples_per_subject=1).draw(101, {})
        picture = cv2.copyMakeBorder(drawn.image, 50, 50, 50, 50, cv2.BORDER_REPLICATE)
        _, points, _ = align_face(drawn.image, drawn.landmarks, size=ALIGNED)
        counting = Counting(landmarks="dlib")
        predict = Predictor(Stub(points - MARGIN), detector=counting, device="cpu", precision="float32")
        still = Frames(lambda i: picture, 91, 30)
        assert len(list(predict.video(still, every=5))) == 19
        assert 4 <= counting.searches <= 4 + predictor.FRAMES_AHEAD + 1  # those before a face was seen

    def test_closing_early_leaves_no_thread(self, film, seeing, no_thread_stays):
        class Endless:
            name = "endless"
            closed = False

            def frames(self, **chosen):
                try:
                    while True:
                        yield from film.frames()
                finally:
                    self.closed = True

        for count in (1, 6):
            endless = Endless()
            frames = seeing().video(endless)
            for _ in range(count):
                next(frames)
            frames.close()
            assert endless.closed
        seeing().video(Endless()).close()  # before anything began

    @pytest.mark.parametrize("failing", [1, 12, 20])
    def test_a_detector_that_fails(self, film, seeing, detector, no_thread_stays, failing):
        """At once; in a search ahead; where a face is lost or in the frames without faces."""

        class Failing:
            score = detector.score

            def __call__(self, image):
                if np.array_equal(image, pictures[failing - 1]):
                    raise RuntimeError("the detector fell down")
                return detector(image)

        pictures = [frame.image for frame in film.frames()]
        frames = seeing(detector=Failing(), search_every=0.55).video(film)
        seen = []
        with pytest.raises(RuntimeError, match="the detector fell down"):
            seen += (frame.frame for frame in frames)
        # All blank frames are alike.
        assert seen == list(range(1, BLANK[0] if failing in BLANK else failing))

    def test_a_video_that_fails(self, film, seeing, no_thread_stays):
        class Broken:
            name = "broken"

            def frames(self, **chosen):
                for frame in film.frames():
                    if frame.number == 4:
                        raise VideoError("broken: is damaged")
                    yield frame

        frames = seeing().video(Broken())
        assert [next(frames).frame for _ in range(3)] == [1, 2, 3]
        with pytest.raises(VideoError, match="broken: is damaged"):
            next(frames)

    def test_how_long_stages_were_busy(self, film, seeing):
        one = seeing()
        list(one.video(film, end=0.5))
        busy = one.stages.seconds
        assert all(busy[stage] > 0 for stage in ("reading", "finding faces", "aligning", "network"))
        assert busy["drawing"] == busy["writing"] == 0


class TestTables:
    """What calling a predictor gives."""

    @pytest.fixture
    def folder(self, tmp_path, releases):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in ("a.png", "c.png"):
            write(folder / name, np.full((150, 150, 3), 50, np.uint8))
        releases.write_video(folder / "b.avi", [np.full((150, 150, 3), 9, np.uint8)] * 4)
        return folder

    @pytest.fixture
    def predict(self):
        points = np.random.default_rng(0).uniform(0, SIDE, (49, 2))
        finding = Finding(detected(upright_face()), detected(upright_face((200, 0))))
        return Predictor(Stub(points), detector=finding, device="cpu", precision="float32")

    def test_it_is_the_table_that_is_written(self, tmp_path, folder, predict):
        table = predict(folder)
        assert list(zip(table["source"], table["frame"], table["face_id"], strict=True)) == [
            *((str(folder / "a.png"), 1, i) for i in (0, 1)),
            *((str(folder / "b.avi"), frame, i) for frame in (1, 2, 3, 4) for i in (0, 1)),
            *((str(folder / "c.png"), 1, i) for i in (0, 1)),
        ]
        assert table["timestamp"].tolist() == [0, 0, 0, 0, 0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0, 0]
        assert table["AU01_c"].tolist() == [0] * 12 and table["AU02_c"].tolist() == [1] * 12
        assert set(table["weights"]) == {"a stub"}
        write_table(tmp_path / "table.csv", predict.frames(folder), predict.aus, weights=predict.note)
        pandas.testing.assert_frame_equal(table, read_table(tmp_path / "table.csv"), check_exact=True)

    def test_of_an_array_a_file_and_a_pattern(self, folder, predict):
        array = predict(np.full((150, 150, 3), 50, np.uint8))
        file = predict(folder / "a.png")
        pandas.testing.assert_frame_equal(array.drop(columns="source"), file.drop(columns="source"))
        assert set(array["source"]) == {""} and set(file["source"]) == {str(folder / "a.png")}
        assert predict(str(folder / "*.png"))["source"].nunique() == 2
        assert predict(folder / "b.avi", every=2, start=0.05)["frame"].tolist() == [2, 2, 4, 4]

    def test_of_a_frame_without_a_face(self, folder):
        predict = Predictor(Stub(None), detector=Finding(), device="cpu")
        table = predict(folder / "b.avi", end=0.1)
        assert table["frame"].tolist() == [1, 2]
        assert (table["success"] == 0).all() and (table["face_id"] == -1).all()

    def test_of_a_camera_an_end_is_wanted(self, predict):
        with pytest.raises(ValueError, match=r"camera 0: .*seconds"):
            predict(0)

    def test_what_is_not_there(self, tmp_path, predict):
        with pytest.raises(ValueError, match=r"none\.mp4: .*no such file"):
            predict(tmp_path / "none.mp4")


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this processor has no AVX512-BF16")
def test_bfloat16_is_autocast_with_weights_cast_once(astronaut, detector, model):
    """To the bit; and near float32."""
    faces = {
        precision: Predictor(model, detector=detector, device="cpu", precision=precision).faces(astronaut)[0]
        for precision in ("bfloat16", "float32")
    }
    crop = torch.from_numpy(faces["bfloat16"].crop).permute(2, 0, 1)[None]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = model.eval().fuse()(normalize(crop))
    np.testing.assert_array_equal(faces["bfloat16"].probabilities, expected.probabilities[0].float().numpy())
    difference = np.abs(faces["bfloat16"].landmarks - faces["float32"].landmarks).max()
    assert 0 < difference < 0.5


def test_an_error_of_opencv_keeps_its_words_when_opencv_fails_again():
    def failure(call):
        with pytest.raises(cv2.error) as caught:
            call()
        return caught.value

    first = failure(lambda: cv2.cvtColor(np.zeros((0, 0, 3), np.uint8), cv2.COLOR_RGB2GRAY))
    failure(lambda: cv2.resize(np.zeros((4, 4), np.uint8), (0, 0)))
    assert in_words(first) == "OpenCV: !_src.empty()"
    assert in_words(cv2.error("too large")) == "OpenCV: too large"
