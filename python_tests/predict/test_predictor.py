"""The way from a photograph to AUs and back to the photograph's pixels."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, JAAOutput
from jaa_ext.predict import DetectedFace, FaceDetector, Predictor

SIDE = 64
ALIGNED = 73  # round(64 * 200 / 176)
MARGIN = 4  # (73 - 64) // 2


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=SIDE, width=2))


class Stub(torch.nn.Module):
    """Returns landmarks at known places of the crop, and the crop's mean as logit of the second AU."""

    def __init__(self, landmarks):
        super().__init__()
        self.config = SimpleNamespace(image_size=SIDE, aus=(1, 2), au_detection=True)
        self.landmarks = None if landmarks is None else torch.tensor(landmarks, dtype=torch.float32)
        self.batches = []

    def fuse(self):
        return self

    def forward(self, image):
        self.batches.append(image)
        logits = torch.zeros(len(image), 2, 2)
        logits[:, 1, 0] = -1
        logits[:, 1, 1] = 1
        landmarks = None if self.landmarks is None else self.landmarks.expand(len(image), -1, -1)
        return JAAOutput(logits=logits, landmarks=landmarks)


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


class TestPredictor:
    def test_a_photograph(self, astronaut, detector, model):
        (face,) = Predictor(model, detector=detector, device="cpu")(astronaut)
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
        (face,) = Predictor(model, detector=detector, device="cpu")(astronaut)
        # The crop is centred on the box of eyes, nose and mouth.
        assert np.abs(face.landmarks - found.landmarks[13]).max() < 20
        assert np.ptp(face.landmarks, axis=0).max() < 1e-3

    def test_a_file_is_what_its_array_is(self, tmp_path, astronaut, detector, model):
        predictor = Predictor(model, detector=detector, device="cpu")
        path = write(tmp_path / "a.png", astronaut[..., ::-1])
        (of_file,), (of_array,) = predictor(path), predictor(astronaut)
        assert np.array_equal(of_file.landmarks, of_array.landmarks)
        assert np.array_equal(of_file.probabilities, of_array.probabilities)

    def test_other_forms_of_the_photograph(self, astronaut, detector, model):
        predictor = Predictor(model, detector=detector, device="cpu")
        (rgb,) = predictor(astronaut)
        rgba = np.dstack([astronaut, np.full((512, 512), 255, np.uint8)])
        for image in (rgba, astronaut.astype(np.uint16) * 257):
            assert np.array_equal(predictor(image)[0].landmarks, rgb.landmarks)
        (grey,) = predictor(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY))
        assert np.abs(np.array(grey.box) - rgb.box).max() < 12

    def test_two_faces_from_left_to_right(self, astronaut, detector, model):
        predictor = Predictor(model, detector=detector, device="cpu")
        left, right = predictor(np.hstack([astronaut, astronaut]))
        assert (left.face_id, right.face_id) == (0, 1)
        assert np.abs(right.landmarks.mean(0) - left.landmarks.mean(0) - (512, 0)).max() < 6

    def test_no_face(self, detector, model):
        assert Predictor(model, detector=detector, device="cpu")(data.coffee()) == []

    def test_landmarks_return_through_crop_and_alignment(self):
        """The transform again by hand: a turn, a scale, a shift, then the crop's margin."""
        angle, scale, shift = 0.3, 1.7, np.array((31.0, -12.0))
        in_crop = np.random.default_rng(0).uniform(0, SIDE, (49, 2))
        face = detected(upright_face(shift, angle, scale))
        (got,) = Predictor(Stub(in_crop), detector=lambda image: [face], device="cpu")(
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
        predictor = Predictor(stub, detector=lambda image: [face], device="cpu")
        # Black is not the grey of the border, so only what lies inside the photograph is 0.
        (first,) = predictor(photograph)
        rows, columns = np.nonzero(first.crop[..., 0] > 200)
        stub.landmarks[:] = torch.tensor((columns.mean(), rows.mean()))
        (second,) = predictor(photograph)
        assert np.abs(second.landmarks - (110, 131)).max() < 0.75

    def test_what_the_network_sees_and_says(self):
        stub = Stub(np.zeros((49, 2)))
        photograph = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        found = detected(upright_face())
        (face,) = Predictor(stub, detector=lambda image: [found], device="cpu")(photograph)
        (batch,) = stub.batches
        expected = torch.tensor(face.crop).permute(2, 0, 1).float() / 127.5 - 1
        torch.testing.assert_close(batch[0], expected, rtol=0, atol=1e-6)
        sigmoid = 1 / (1 + np.exp(1))
        assert np.allclose(face.probabilities, (sigmoid, 1 - sigmoid))
        assert face.present.tolist() == [False, True]

    def test_many_faces_go_in_batches(self, monkeypatch):
        stub = Stub(np.zeros((49, 2)))
        faces = [detected(upright_face((i, 0))) for i in range(70)]
        found = Predictor(stub, detector=lambda image: faces, device="cpu")(np.zeros((300, 300), np.uint8))
        assert [len(batch) for batch in stub.batches] == [32, 32, 6]
        assert [face.face_id for face in found] == list(range(70))
        assert all(
            np.array_equal(a.detected_landmarks, b.landmarks) for a, b in zip(found, faces, strict=True)
        )

    def test_a_model_without_alignment_keeps_the_detectors_landmarks(self):
        face = detected(upright_face())
        (got,) = Predictor(Stub(None), detector=lambda image: [face], device="cpu")(
            np.zeros((9, 9), np.uint8)
        )
        assert np.array_equal(got.landmarks, face.landmarks)
        assert got.initial_maps is None and got.refined_maps is None

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
        with pytest.raises(ValueError, match="without AU detection"):
            Predictor(JAANet(config), detector=lambda image: [])

    def test_the_model_is_put_into_evaluation_mode(self, model):
        model.train()
        assert not Predictor(model, detector=lambda image: []).model.training
