"""Faces known again: the gallery on vectors that a test says, alignment, embeddings by name, mistakes."""

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from jaa_ext.data import SyntheticFaces
from jaa_ext.data.faces import transform
from jaa_ext.predict import identity
from jaa_ext.predict.identity import (
    ASKED_EVERY,
    FIVE_POINTS,
    MOST_ASKED,
    SIDE,
    EmbeddingError,
    Gallery,
    align_five_points,
    choose_embedding,
    five_point_matrix,
)

IMAGE = np.zeros((200, 200, 3), np.uint8)


def unit(*degrees):
    """A vector at angles to the axes of a space of so many dimensions more."""
    vector = np.ones(1)
    for angle in np.radians(degrees):
        vector = np.append(np.cos(angle) * vector, np.sin(angle))
    return vector


class Said:
    """Faces with the vectors that the test gives them; counts those that it is asked for."""

    def __init__(self, **options):
        self.vectors, self.asked, self.time = [], 0, 0.0
        self.gallery = Gallery(self.embed, name="said", **options)
        self.next_id = 0

    def embed(self, pictures):
        self.asked += len(pictures)
        assert pictures.shape[1:] == (SIDE, SIDE, 3) and pictures.dtype == np.uint8
        return [self.vectors.pop(0) for _ in pictures]

    def come(self, *vectors, beside=()):
        """A frame with new faces, beside those with ids; returns the ids given and how many came back."""
        self.gallery.begin_frame()
        self.vectors = list(vectors)
        faces = [self.face(-1 - i) for i in range(len(vectors))]
        ids = self.gallery.name_faces(IMAGE, faces, beside, self.next_id)
        self.next_id = max([self.next_id, *(face_id + 1 for face_id in ids)])
        self.gallery.see(IMAGE, [self.face(face_id) for face_id in (*ids, *beside)], self.time)
        return ids

    def stay(self, *ids, vector=None, **options):
        """A frame a second later."""
        self.time += 1
        self.vectors = [unit(0, 0) if vector is None else vector for _ in ids]
        self.gallery.begin_frame()
        self.gallery.see(IMAGE, [self.face(face_id, **options) for face_id in ids], self.time)

    @staticmethod
    def face(face_id, score=1.0, settled=True):
        points = np.random.default_rng(0).uniform(50, 150, (49, 2)).astype(np.float32)
        return SimpleNamespace(face_id=face_id, landmarks=points, score=score, settled=settled)


@pytest.fixture
def said():
    return Said()


class TestGallery:
    def test_who_comes_back(self, said):
        assert said.come(unit(0, 0)) == [0] and said.gallery.merged == {}
        said.stay()
        assert said.come(unit(90, 0)) == [1] and said.gallery.merged == {}
        said.stay()
        # The length of a vector means nothing.
        assert said.come(7 * unit(30, 0)) == [0]
        assert said.gallery.merged == {0: pytest.approx(np.cos(np.radians(30)))}
        said.stay(0)
        assert said.gallery.merged == {}

    def test_only_who_is_like_enough(self):
        for least, back in ((0.4, True), (0.7, False)):
            said = Said(least_likeness=least)
            said.come(unit(0))
            said.stay()
            assert said.come(unit(60)) == [0 if back else 1]

    def test_only_who_is_not_there(self, said):
        said.come(unit(0))
        assert said.come(unit(0), beside=[0]) == [1]
        said.stay(1)
        assert said.come(unit(0), beside=[1]) == [0]

    def test_who_is_like_two_people_is_new(self, said):
        """People who were there at once, or who are not like each other."""
        said.come(unit(0), unit(20))
        said.stay()
        assert said.come(unit(10)) == [2] and said.gallery.merged == {}
        said = Said()
        said.come(unit(50))
        said.stay()
        said.come(unit(-50))
        said.stay()
        assert said.come(unit(2)) == [2] and said.gallery.merged == {}
        said.stay()
        assert said.come(unit(40)) == [0]  # clearly the one

    def test_who_is_like_a_third_id_and_two_people_who_met_is_new(self, said):
        """The third alone is near enough to both to count as either."""
        said.come(unit(24), unit(-24))
        said.stay()
        said.come(unit(180))
        said.gallery.people[2].total = unit(0)
        said.stay()
        assert said.come(unit(0)) == [3] and said.gallery.merged == {}

    def test_of_two_faces_like_ids_of_one_person_neither_is(self, said):
        """Each is most like another of two ids that count as one person."""
        one, other = np.array([1.0, 0, 0]), np.array([0.5, 0.75**0.5, 0])
        said.come(one)
        said.stay()
        said.come(np.array([0, 0, 1.0]))
        said.gallery.people[1].total = other
        said.stay()
        faces = [[0.8, 0.577, 0.164], [0.95, 0.26, 0.173]]
        assert np.dot(faces, np.stack([one, other]).T).round(2).tolist() == [[0.8, 0.9], [0.95, 0.7]]
        assert said.come(*faces) == [2, 3] and said.gallery.merged == {}

    def test_of_two_faces_like_one_person_neither_is(self, said):
        said.come(unit(0))
        said.stay()
        assert said.come(unit(5), unit(-5)) == [1, 2] and said.gallery.merged == {}
        said = Said()
        said.come(unit(0))
        said.stay()
        assert said.come(unit(60), unit(5)) == [1, 0]

    def test_two_ids_that_never_met_and_are_alike_are_one_person(self, said):
        """Once not known again, turned away, the person would be like two from then on."""
        said.come(unit(0))
        said.stay()
        assert said.come(unit(70)) == [1]  # turned away
        for _ in range(3):
            said.stay(1, vector=unit(10))
            said.time += ASKED_EVERY
        said.stay()
        assert said.come(unit(5)) == [0]

    def test_it_goes_by_the_mean(self, said):
        said.come(unit(60))
        for _ in range(30):
            said.stay(0, vector=unit(0))
        said.stay()
        assert said.come(unit(-50)) == [0]

    def test_what_is_unlike_is_told_once_and_not_taken_up(self, said):
        """Two people swapped while they are followed, which the looks did not see."""
        said.come(unit(0))
        for second in range(1, 9):
            said.stay(0, vector=unit(80))
            assert said.gallery.unlike == ({0} if second == ASKED_EVERY else set())
        said.stay()
        assert said.come(unit(80)) == [1]
        said.stay()
        assert said.come(unit(0)) == [0]

    def test_a_person_has_no_more_than_so_many(self, said):
        for _ in range(2 * MOST_ASKED):
            said.come(unit(0))
            said.stay()
        assert said.gallery.people[0].total.tolist() == [MOST_ASKED, 0]

    def test_a_face_that_did_not_settle_is_new_and_no_template_until_it_did(self, said):
        said.come(unit(0))
        said.stay()
        said.gallery.begin_frame()
        face = said.face(-1, settled=False)
        assert said.gallery.name_faces(IMAGE, [face], [], 1) == [1] and said.asked == 1
        said.next_id = 2
        said.stay(1, settled=False)
        assert said.asked == 1 and said.gallery.merged == {}
        other = Said()
        other.gallery.load_state(json.loads(json.dumps(said.gallery.state())))
        other.next_id = 2
        for one in (said, other):
            one.stay(1, vector=unit(90))
            one.stay()
            assert one.come(unit(80)) == [1]

    def test_how_often_it_is_asked(self, said):
        said.come(unit(0))
        for second in range(1, 100):
            said.stay(0, vector=unit(0))
            assert said.asked == min(1 + second // ASKED_EVERY, MOST_ASKED)
        said.stay()
        said.come(unit(0))
        assert said.asked == MOST_ASKED + 1

    def test_faces_seen_badly_are_not_taken_up(self, said):
        said.come(unit(0))
        for _ in range(5):
            said.stay(0, score=0.2)
            said.stay(0, settled=False)
        assert said.asked == 1

    def test_a_new_face_that_is_dropped_in_its_frame_leaves_nothing(self, said):
        said.come(unit(0))
        said.stay()
        said.gallery.begin_frame()
        said.vectors = [unit(0), unit(90)]
        assert said.gallery.name_faces(IMAGE, [said.face(-1), said.face(-2)], [], 1) == [0, 1]
        said.gallery.see(IMAGE, [], 1.0)
        assert said.gallery.merged == {} and list(said.gallery.people) == [0]

    def test_those_seen_last_are_kept(self, said, monkeypatch):
        monkeypatch.setattr(identity, "MOST_PEOPLE", 2)
        said.come(unit(0, 0))
        said.come(unit(90, 0))
        said.come(unit(0, 90), beside=[0])
        assert list(said.gallery.people) == [0, 2] and said.gallery.people[0].met == {2}
        assert said.come(unit(90, 0)) == [3]

    def test_its_state_goes_through_json(self, said):
        said.come(unit(1, 2), unit(90, 3))
        said.stay(0, 1)
        said.come(unit(0.3, 80), beside=[0])
        other = Said()
        other.gallery.load_state(json.loads(json.dumps(said.gallery.state(), allow_nan=False)))
        assert other.gallery.state() == said.gallery.state()
        other.next_id = said.next_id
        for one in (said, other):
            one.stay()
        vectors = unit(85, 2), unit(5, 70)
        assert other.come(*vectors) == said.come(*vectors) == [1, 2]
        assert other.gallery.merged == said.gallery.merged


class TestMistakes:
    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ([[1.0, 0.0]] * 3, r"wanted 2 rows, one for each face, got shape \(3, 2\)"),
            ([1.0, 0.0], r"wanted 2 rows, one for each face, got shape \(2,\)"),
            (np.zeros((2, 1, 4)), r"wanted 2 rows, one for each face, got shape \(2, 1, 4\)"),
            (np.zeros((2, 0)), r"wanted 2 rows, one for each face, got shape \(2, 0\)"),
            (None, r"wanted 2 rows, one for each face, got shape \(\)"),
            ([[1.0, np.nan], [1.0, 0.0]], "wanted finite vectors that are not all 0"),
            ([[1.0, 0.0], [np.inf, 0.0]], "wanted finite vectors that are not all 0"),
            ([[1.0, 0.0], [0.0, 0.0]], "wanted finite vectors that are not all 0"),
            ([[1.0], [1.0, 0.0]], "ValueError: setting an array element with a sequence"),
            (["a", "b"], "ValueError: could not convert string to float"),
            (torch.ones(2, 3, requires_grad=True), "RuntimeError: Can't call numpy"),
        ],
    )
    def test_what_is_no_vector_for_each_face(self, given, sentence):
        gallery = Gallery(lambda pictures: given, name="faces:embed")
        with pytest.raises(EmbeddingError, match=f"^embedding faces:embed: {sentence}") as error:
            gallery.name_faces(IMAGE, [Said.face(-1), Said.face(-2)], [], 0)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "raised", [kind("no\nface") for kind in (ValueError, OSError, cv2.error, IndexError, AttributeError)]
    )
    def test_what_it_raises(self, raised):
        def fail(pictures):
            raise raised

        with pytest.raises(EmbeddingError, match=rf"^embedding: {type(raised).__name__}: no face$") as error:
            Gallery(fail).name_faces(IMAGE, [Said.face(-1)], [], 0)
        assert error.value.__cause__ is raised

    def test_vectors_of_another_length(self, said):
        said.come(unit(0))
        said.stay()
        with pytest.raises(EmbeddingError, match="wanted vectors of 2 numbers as before, got 3"):
            said.come(unit(0, 0))

    def test_a_tensor_is_as_good_as_an_array(self):
        gallery = Gallery(lambda pictures: torch.ones(len(pictures), 3))
        assert gallery.name_faces(IMAGE, [Said.face(-1), Said.face(-2)], [], 5) == [5, 6]


class TestAlignment:
    def landmarks(self, five):
        """Landmarks with these five points."""
        points = np.zeros((49, 2))
        points[19:25], points[25:31] = five[0], five[1]
        points[[13, 31, 37]] = five[2:]
        return points.astype(np.float32)

    @pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.7), (-110, 2.5)])
    def test_a_similarity_is_undone(self, degrees, scale):
        picture = SyntheticFaces(subjects=[0], samples_per_subject=1)[0].image[:SIDE, :SIDE]
        picture = cv2.GaussianBlur(picture, (0, 0), 2)
        matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, scale)
        matrix[:, 2] += 200
        image = cv2.warpAffine(picture, matrix, (500, 500))
        aligned = align_five_points(image, self.landmarks(transform(FIVE_POINTS, matrix)))
        assert np.abs(aligned.astype(int) - picture)[5:-5, 5:-5].mean() < 1

    def test_it_is_the_nearest(self):
        five = FIVE_POINTS * (1.3, 0.9) + np.random.default_rng(0).normal(0, 4, (5, 2))
        (x, y), one, none = five.T, np.ones(5), np.zeros(5)
        design = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
        a, b, left, top = np.linalg.lstsq(design, FIVE_POINTS.T.ravel(), rcond=None)[0]
        wanted = [[a, -b, left], [b, a, top]]
        np.testing.assert_allclose(five_point_matrix(self.landmarks(five)), wanted, rtol=1e-4, atol=1e-4)

    def test_points_in_one_place_align_nothing(self):
        assert not align_five_points(IMAGE, np.full((49, 2), 50.0)).any()


OWN = """
def embed(faces):
    return faces.mean((1, 2))

class Named:
    identity = "version 2"

    def __call__(self, faces):
        return faces.mean((1, 2))

class Wanting(Named):
    def __init__(self, file):
        pass

class Nothing:
    pass
"""


class TestByName:
    @pytest.fixture(autouse=True)
    def own(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", [*sys.path])
        (tmp_path / "jaa_test_embedding.py").write_text(OWN)
        yield
        sys.modules.pop("jaa_test_embedding", None)

    def test_functions_and_classes(self):
        for name in ("embed", "Named"):
            embedding = choose_embedding(f"jaa_test_embedding:{name}")
            assert embedding(np.ones((2, 4, 4, 3))).tolist() == [[1, 1, 1]] * 2

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("sface", 'identity must be FILE.onnx or MODULE:ATTRIBUTE, got "sface"'),
            ("", 'identity must be FILE.onnx or MODULE:ATTRIBUTE, got ""'),
            ("jaa_nowhere:embed", 'identity "jaa_nowhere:embed": no module jaa_nowhere, neither'),
            ("jaa_test_embedding:none", "jaa_test_embedding has no class or function none"),
            ("jaa_test_embedding:Wanting", "called without arguments: .* missing 1 required"),
            ("jaa_test_embedding:Nothing", "a Nothing cannot be called with faces"),
            ("none.onnx", r"none.onnx: cannot be read \(No such file or directory\); wanted a network"),
        ],
    )
    def test_names_of_nothing(self, name, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            choose_embedding(name)
        assert "\n" not in str(error.value)
