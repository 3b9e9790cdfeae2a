"""Faces of other conventions than dlib's, and detectors that find those of several pictures at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data.faces import alignment_matrix
from jaa_ext.data.images import ImageError
from jaa_ext.data.rendered.expression import Expression
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face
from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import DetectedFace, FaceDetector, Predictor, face_by_box, face_by_points
from jaa_ext.predict.alignment import MEAN_FACE, MOVED, displacement, place_mean_face
from jaa_ext.predict.batch_detector import BatchSearch, DetectorError, score_of
from jaa_ext.predict.detector import MIN_SCORE
from jaa_ext.predict.predictor import FRAMES_AHEAD
from jaa_ext.predict.tracking import confidence

pytestmark = pytest.mark.usefixtures("one_thread")


def five_points(landmarks):
    eyes = [landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)]
    return np.stack([*eyes, landmarks[13], landmarks[31], landmarks[37]])


class TestFivePoints:
    @pytest.mark.parametrize("roll", [0.0, 25.0, -70.0, 170.0])
    @pytest.mark.parametrize("across", [1.0, 0.4, 1.6], ids=["frontal", "turned", "wide"])
    def test_the_mean_face_is_aligned_as_the_face_itself(self, across, roll):
        """The truth is `alignment_matrix` of all 49 points of a face that is turned to the side or rolled."""
        turned = MEAN_FACE * (across, 1.0) + (0.3 * (1 - across) * (np.arange(49) == 13))[:, None] * (1, 0)
        angle = np.radians(roll)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        landmarks = 140 * turned @ turn.T + (310, 205)
        face = face_by_points(five_points(landmarks), 0.9)
        placed = place_mean_face(face.box, face.roll)
        got, wanted = (alignment_matrix(points, size=200) for points in (placed, landmarks))
        assert np.allclose(got, wanted, atol=1e-3)
        assert np.diff(np.reshape(face.box, (2, 2)), axis=0).std() < 1e-9  # square, as dlib's
        assert face.landmarks is None and face.settled

    def test_a_frontal_face_has_the_box_it_was_made_of(self):
        face = face_by_points(five_points(place_mean_face((50.0, 80.0, 150.0, 180.0), 20.0)), 0.5)
        assert face.box == pytest.approx((50, 80, 150, 180), abs=1e-3)
        assert (face.roll, face.score) == (pytest.approx(20, abs=1e-3), 0)

    @pytest.mark.parametrize("points", [np.zeros((4, 2)), np.full((5, 2), np.nan), np.zeros((5, 3))])
    def test_what_are_no_five_points(self, points):
        with pytest.raises(ValueError, match=r"face_by_points: points must be \(5, 2\) and finite, got \[\["):
            face_by_points(points, 0.9)

    def test_a_face_turned_by_55_degrees_is_aligned(self):
        """dlib does not find it; by its five points the shipped network sees where it is."""
        person = Person.random(np.random.default_rng((0, 5001, 0)))
        view = View(yaw=55.0, jitter=(0.1, np.log(2.2), 0.2, -0.1))
        image, landmarks, _ = render_face(person, Expression.of({12: 3.0}), view, 320)
        assert FaceDetector()(image) == []

        class Points:
            def find_faces(self, images):
                return [[face_by_points(five_points(landmarks), 0.9)] for _ in images]

        (face,) = Predictor(detector=Points(), device="cpu", precision="float32").faces(image)
        assert face.settled and face.confidence == pytest.approx(0.9)
        eyes = np.hypot(*np.diff(five_points(landmarks)[:2], axis=0)[0])
        assert np.hypot(*(face.landmarks - landmarks).T).mean() < 0.15 * eyes
        assert displacement(face.detected_landmarks, landmarks) < 4 * MOVED


class TestBox:
    def test_a_tall_box_becomes_dlibs(self):
        """100 wide, 140 high, around (150, 170): side 0.8 of 120, the middle 14 lower, 5 further right."""
        face = face_by_box((100.0, 100.0, 200.0, 240.0), 0.5, size=0.8, shift=(0.05, 0.1), roll=7.0)
        assert face.box == pytest.approx((155 - 48, 184 - 48, 155 + 48, 184 + 48))
        assert (face.roll, face.score, face.landmarks) == (7.0, 0.0, None)

    def test_dlibs_own_stays(self):
        assert face_by_box((1.0, 2.0, 31.0, 32.0), 0.5).box == (1, 2, 31, 32)


def test_scores_are_probabilities_on_the_scale_of_dlibs():
    for probability in (0.01, 0.31, 0.5, 0.95):
        assert confidence(score_of(probability)) == pytest.approx(probability)
    assert np.isfinite([score_of(0.0), score_of(1.0)]).all()
    assert score_of(0.73) < MIN_SCORE < score_of(0.74)


def face(left, score=1.0, side=40.0):
    return DetectedFace((left, 10.0, left + side, 10.0 + side), None, score)


class Scripted:
    """Finds the same faces in every picture, and keeps what it was asked."""

    def __init__(self, *faces):
        self.faces, self.asked = list(faces), []

    def find_faces(self, images):
        self.asked.append([image.shape for image in images])
        return [self.faces for _ in images]


class TestSearch:
    PICTURE = np.zeros((60, 80, 3), np.uint8)

    def test_faces_come_from_left_to_right_without_doubtful_ones(self):
        search = BatchSearch(Scripted(face(30), face(5), face(1, MIN_SCORE - 0.01)))
        both = search.batch([self.PICTURE] * 2)
        assert [[found.box[0] for found in faces] for faces in both] == [[5, 30]] * 2
        assert [found.box[0] for found in search(self.PICTURE)] == [5, 30]

    def test_the_surest_face_in_the_middle_is_confirmed_even_if_doubtful(self):
        search = BatchSearch(Scripted(face(20, -0.1), face(25, -0.15), face(50)))  # the middle is at 40
        assert search.locate(self.PICTURE) == (-0.1, (20, 10, 60, 50)) and search.score(self.PICTURE) == -0.1
        assert BatchSearch(Scripted(face(50))).locate(self.PICTURE) == (-np.inf, None)

    def test_pictures_lie_in_memory_row_by_row(self):
        class Asking(Scripted):
            def find_faces(self, images):
                assert all(image.flags.c_contiguous for image in images)
                return super().find_faces(images)

        assert len(BatchSearch(Asking(face(1))).batch([self.PICTURE[:, ::-1], self.PICTURE[::2]])) == 2

    def test_one_thread_at_a_time(self):
        class Alone(Scripted):
            inside = 0

            def find_faces(self, images):
                self.inside += 1
                threading.Event().wait(0.01)
                assert self.inside == 1
                self.inside -= 1
                return super().find_faces(images)

        with ThreadPoolExecutor(4) as executor:
            assert len(list(executor.map(BatchSearch(Alone(face(1))), [self.PICTURE] * 8))) == 8

    def test_what_is_no_answer(self):
        class Wrong:
            answer = ()

            def find_faces(self, images):
                return self.answer

        wrong = Wrong()
        with pytest.raises(DetectorError, match=r"Wrong\.find_faces: .* for each image, 1, got 0"):
            BatchSearch(wrong)(self.PICTURE)
        wrong.answer = [[(1, 2, 3, 4)]]
        with pytest.raises(
            DetectorError, match=r"Wrong\.find_faces: wanted lists of DetectedFace, got a tuple"
        ):
            BatchSearch(wrong)(self.PICTURE)
        whole = (0.0, 0.0, 9.0, 9.0)
        for box, score in (((3.0, 3.0, 3.0, 9.0), 1.0), ((0.0, 0.0, np.nan, 9.0), 1.0), (whole, np.nan)):
            wrong.answer = [[DetectedFace(box, None, score)]]
            with pytest.raises(DetectorError, match=r"Wrong\.find_faces: wanted finite scores and boxes"):
                BatchSearch(wrong)(self.PICTURE)

    def test_an_error_of_its_own_is_none_of_the_picture(self):
        class Faulty:
            def find_faces(self, images):
                raise ValueError("shapes differ")

        with pytest.raises(DetectorError, match=r"Faulty\.find_faces: shapes differ"):
            BatchSearch(Faulty())(self.PICTURE)


@pytest.fixture(scope="module")
def model(at_rest):
    return at_rest(JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)))


class Predicted:
    """A predictor whose detector finds one face in each picture, as far right as the picture is bright."""

    def __init__(self, model, fails_at=None):
        class ByGrey(Scripted):
            def find_faces(self, images):
                super().find_faces(images)
                if fails_at is not None and any(image[0, 0, 0] == fails_at for image in images):
                    raise cv2.error("too grey")
                return [[face(float(image[0, 0, 0]))] for image in images]

        self.detector = ByGrey()
        self.predictor = Predictor(model, detector=self.detector, device="cpu", precision="float32")


class TestPredictor:
    @pytest.fixture
    def paths(self, tmp_path):
        for grey in range(10, 120, 10):
            cv2.imwrite(str(tmp_path / f"{grey:03d}.png"), np.full((60, 200, 3), grey, np.uint8))
        return sorted(tmp_path.glob("*.png"))

    def test_photographs_are_searched_eight_at_a_time(self, model, paths):
        predicted = Predicted(model)
        frames = list(predicted.predictor.photographs(paths))
        assert [len(asked) for asked in predicted.detector.asked] == [8, 3]
        assert [[round(face.box[0]) for face in frame.faces] for frame in frames] == [
            [grey] for grey in range(10, 120, 10)
        ]
        assert predicted.predictor.stages.seconds["finding faces"] > 0

    def test_one_that_cannot_be_searched_costs_the_others_nothing(self, model, paths):
        told = []
        frames = Predicted(model, fails_at=30).predictor.photographs(
            paths, unreadable=lambda *of: told.append(of)
        )
        assert [frame.source for frame in frames] == [str(path) for path in paths if path != paths[2]]
        ((name, error),) = told
        assert name == str(paths[2])
        assert str(error) == f"{name}: cannot be searched for faces (OpenCV: too grey)"
        with pytest.raises(ImageError, match=r"030\.png: cannot be searched"):
            list(Predicted(model, fails_at=30).predictor.photographs(paths))
        with pytest.raises(cv2.error):
            Predicted(model, fails_at=30).predictor.faces(np.full((60, 200, 3), 30, np.uint8))

    def test_in_videos_faces_are_followed(self, model, tmp_path):
        video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (200, 60))
        for _ in range(20):
            video.write(np.full((60, 200, 3), 80, np.uint8))
        video.release()

        class InBoth(Scripted):
            def find_faces(self, images):
                super().find_faces(images)
                # In the aligned picture, where it is confirmed, its box has 121 pixels: 160 / 1.32.
                return [[face(80) if image.shape[1] == 200 else face(20, 1.0, 121.0)] for image in images]

        detector = InBoth()
        predictor = Predictor(model, detector=detector, device="cpu", precision="float32")
        frames = list(predictor.frames(tmp_path / "v.avi"))
        assert [[face.face_id for face in frame.faces] for frame in frames] == [[0]] * 20
        searches = [asked for asked in detector.asked if asked == [(60, 200, 3)]]
        # Once a second, and some frames ahead at the start, until the first face is seen.
        assert 2 <= len(searches) <= 4 + FRAMES_AHEAD
        assert [(160, 160, 3)] in detector.asked  # confirmed

    def test_which_detector_it_is(self, model):
        predictor = Predicted(model).predictor
        assert predictor.detector_identity.endswith("ByGrey")
        assert Predictor(model, device="cpu").detector_identity == "jaa_ext.predict.detector.FaceDetector"
