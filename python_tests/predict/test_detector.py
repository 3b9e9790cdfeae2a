"""Faces found by dlib in a real photograph, NASA's portrait of Eileen Collins."""

import importlib.util
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import dlib
import numpy as np
import pytest
from skimage import data

from jaa_ext import facs
from jaa_ext.data import align_face
from jaa_ext.predict import FaceDetector, MissingDependency, detector


@pytest.fixture(scope="module")
def find():
    return FaceDetector(landmarks="dlib")


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def face(find, astronaut):
    return find(astronaut)[0]


def eyes(face):
    return [face.landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)]


def test_one_face_with_landmarks_in_their_places(find, astronaut):
    (face,) = find(astronaut)
    left, top, right, bottom = face.box
    assert 160 < left < 190 and 70 < top < 95 and 255 < right < 280 and 160 < bottom < 180
    assert face.landmarks.shape == (49, 2) and face.landmarks.dtype == np.float32
    assert face.score > 1
    # Read off the photograph: where the pupils, the nose tip and the mouth are.
    left_eye, right_eye = eyes(face)
    assert np.abs(left_eye - (202, 101)).max() < 4
    assert np.abs(right_eye - (248, 102)).max() < 4
    assert np.abs(face.landmarks[13] - (226, 129)).max() < 8
    assert np.abs(face.landmarks[31:49].mean(0) - (222, 147)).max() < 6


def test_faces_come_from_left_to_right(find, astronaut):
    single = find(astronaut)[0]
    first, second = find(np.hstack([astronaut, astronaut]))
    for face, shift in ((first, 0), (second, 512)):
        assert np.abs(np.array(face.box) - single.box - (shift, 0, shift, 0)).max() < 12
        assert np.abs(np.array(eyes(face)) - eyes(single) - (shift, 0)).max() < 3


def test_nothing_is_found_where_nobody_is(find):
    assert find(data.coffee()) == []
    assert find(np.zeros((1, 1, 3), np.uint8)) == []


def test_a_small_face_is_found_by_upsampling(find, astronaut):
    # Half the size: the face has 43 pixels, dlib's window 80.
    half = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    (face,) = find(half)
    assert np.abs(np.array(eyes(face)) - (np.array(eyes(find(astronaut)[0])) - 0.5) / 2).max() < 2


def test_a_large_photograph_is_scaled_down_and_the_results_back(find, astronaut):
    wide = cv2.resize(astronaut, (4096, 4000), interpolation=cv2.INTER_LINEAR)
    (face,) = find(wide)
    stretch = np.array((4096 / 512, 4000 / 512))
    expected = (np.array(eyes(find(astronaut)[0])) + 0.5) * stretch - 0.5
    assert np.abs(np.array(eyes(face)) - expected).max() < 3 * 8
    left, top, right, bottom = face.box
    assert left < expected[0, 0] < expected[1, 0] < right and top < expected[0, 1] < bottom


def test_results_of_a_view_are_those_of_a_copy(find, astronaut):
    mirrored = astronaut[:, ::-1]
    assert [f.box for f in find(mirrored)] == [f.box for f in find(mirrored.copy())] != []


class TestScore:
    def test_a_face_in_the_middle(self, find, astronaut, face):
        aligned, _, _ = align_face(astronaut, face.landmarks, size=160)
        assert find.score(aligned) > 1
        assert type(find.score(aligned)) is float

    def test_where_it_is(self, find, astronaut, face):
        aligned, landmarks, _ = align_face(astronaut, face.landmarks, size=160)
        score, (left, top, right, bottom) = find.locate(aligned)
        assert score == find.score(aligned)
        assert left < landmarks[:, 0].min() + 10 and right > landmarks[:, 0].max() - 10
        assert 80 < right - left < 130 and 80 < bottom - top < 130
        assert abs((left + right) / 2 - 80) < 10 and 0 < top < landmarks[:, 1].min() + 10
        assert find.locate(np.full((160, 160, 3), 128, np.uint8)) == (-np.inf, None)

    def test_nobody(self, find):
        assert find.score(data.coffee()[:160, :160]) < -0.2
        assert find.score(np.full((160, 160, 3), 128, np.uint8)) == -np.inf

    def test_a_face_at_the_side_is_another(self, find, astronaut, face):
        for shift in ((60, 0), (-60, 0), (0, 75), (0, -75)):
            aligned, _, _ = align_face(astronaut, face.landmarks + np.float32(shift), size=160)
            assert find.score(aligned) < find.score(align_face(astronaut, face.landmarks, size=160)[0]) - 1

    def test_half_a_face_is_less_of_one(self, find, astronaut, face):
        aligned, _, _ = align_face(astronaut, face.landmarks, size=160)
        covered = aligned.copy()
        covered[:, 80:] = 128
        assert find.score(covered) < find.score(aligned) - 0.5

    def test_of_a_view(self, find, astronaut, face):
        mirrored = align_face(astronaut, face.landmarks, size=160)[0][:, ::-1]
        assert find.score(mirrored) == find.score(mirrored.copy())


def test_several_threads_may_search_at_once(find, astronaut):
    pictures = [np.roll(astronaut[:240, 80:400], 10 * i, axis=1) for i in range(4)]
    expected = [[face.box for face in find(picture)] for picture in pictures]
    barrier = threading.Barrier(3)

    def search(_):
        barrier.wait(10)
        return [[face.box for face in find(picture)] for picture in pictures]

    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(search, range(3))) == [expected] * 3
    assert all(len(boxes) == 1 for boxes in expected)


def test_no_more_of_dlibs_detectors_are_made_than_search_at_once(astronaut, monkeypatch):
    """Each takes as long as a hundred searches; threads come and go with every video and photograph."""
    made = []
    new = dlib.get_frontal_face_detector
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: made.append(None) or new())
    find = FaceDetector(landmarks="dlib")
    picture = astronaut[:240, 80:400]
    for _ in range(3):
        with ThreadPoolExecutor(1) as executor:
            assert len(executor.submit(find, picture).result()) == 1
            executor.submit(find.score, picture).result()
        find(picture)
    assert len(made) == 1


def test_without_dlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingDependency, match=r"needs dlib, .* pip install 'jaa_ext\[faces\]'"):
        FaceDetector()


def test_the_landmark_model_is_found_without_importing_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "face_recognition_models", raising=False)
    assert detector.landmark_model().name == "shape_predictor_68_face_landmarks.dat"
    assert "face_recognition_models" not in sys.modules


def test_debians_landmark_model_is_second_choice_and_without_any_the_message_names_the_extra(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(detector, "DEBIAN_MODELS", tmp_path)
    with pytest.raises(
        MissingDependency, match=r"shape_predictor_68.*pip install 'jaa_ext\[dlib-landmarks\]'"
    ):
        detector.landmark_model()
    (tmp_path / "shape_predictor_68_face_landmarks.dat").touch()
    assert detector.landmark_model().parent == tmp_path
