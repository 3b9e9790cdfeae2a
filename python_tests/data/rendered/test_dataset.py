"""`RenderedFaces` behaves as `SyntheticFaces` does; the pictures are the renderer's matter."""

import numpy as np
import pytest

from jaa_ext.data import Crops, FaceDataset, RenderedFaces
from jaa_ext.data.faces import HasIntensities
from jaa_ext.data.rendered import AUS, PRESENT

SIZE = 73


def faces(**arguments) -> RenderedFaces:
    usual = {"subjects": range(3), "samples_per_subject": 4, "size": SIZE, "seed": 5}
    return RenderedFaces(**{**usual, **arguments})


@pytest.fixture(scope="module")
def some() -> list:
    dataset = faces()
    return [dataset[i] for i in range(len(dataset))]


def same(a, b) -> bool:
    pairs = zip(a, b, strict=True)
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def test_a_sample_and_its_matrices(some: list) -> None:
    dataset: FaceDataset = faces()
    assert len(dataset) == 12 and dataset.aus == AUS and dataset.subjects == ("R0000", "R0001", "R0002")
    labels, intensities = dataset.label_matrix(), dataset.intensity_matrix()
    assert labels.shape == intensities.shape == (12, 17)
    assert labels.dtype == np.int64 and intensities.dtype == np.float32
    assert isinstance(dataset, HasIntensities)
    for i, sample in enumerate(some):
        assert sample.image.shape == (SIZE, SIZE, 3) and sample.image.dtype == np.uint8
        assert sample.landmarks.shape == (49, 2) and sample.landmarks.dtype == np.float32
        assert sample.pose.shape == (3,) and sample.pose.dtype == np.float32
        assert np.array_equal(sample.labels, labels[i]) and sample.labels.dtype == np.int64
        assert np.array_equal(sample.intensities, intensities[i])
        assert np.array_equal(sample.labels, sample.intensities >= PRESENT)
        assert sample.subject == f"R000{i // 4}" and sample.id == f"R000{i // 4}/0000{i % 4}"
    assert same(dataset[-1], some[-1])


def test_a_sample_depends_on_seed_subject_and_index_alone(some: list) -> None:
    other = faces(subjects=[2, 7], samples_per_subject=3, aus=(12, 1))
    chosen = [AUS.index(12), AUS.index(1)]
    a, b = other[1], some[9]
    assert np.array_equal(a.image, b.image) and np.array_equal(a.landmarks, b.landmarks)
    assert np.array_equal(a.labels, b.labels[chosen]) and np.array_equal(a.intensities, b.intensities[chosen])
    assert (a.subject, a.id) == (b.subject, b.id)
    assert not np.array_equal(faces(seed=6)[9].image, b.image)
    images = {sample.image.tobytes() for sample in some}
    assert len(images) == 12


def test_bp4d_s_mixture_can_be_asked_for() -> None:
    arguments = dict(subjects=range(20), samples_per_subject=200)
    natural, bp4d = (faces(**arguments, mix=mix).label_matrix().mean(0) for mix in ("natural", "bp4d"))
    assert bp4d[AUS.index(10)] == pytest.approx(0.594, abs=0.03)
    assert natural[AUS.index(10)] < 0.35


def test_sides_have_labels_of_their_own() -> None:
    aus = ("12L", 12, "12R", "1R", 25)
    dataset = faces(subjects=range(40), samples_per_subject=50, aus=aus, mix="sides")
    left, both, right, _, _ = dataset.intensity_matrix().T
    assert np.array_equal(both, np.maximum(left, right))
    shown = both >= PRESENT
    assert np.array_equal(dataset.label_matrix(), dataset.intensity_matrix() >= PRESENT)
    apart = np.abs(left - right)[shown] > 0.3 * both[shown]
    assert apart.mean() == pytest.approx(0.5, abs=0.05)
    assert (left > right)[shown][apart].mean() == pytest.approx(0.5, abs=0.08)
    # The stronger side is as in all faces.
    natural = faces(subjects=range(40), samples_per_subject=50, aus=aus)
    assert np.array_equal(natural.intensity_matrix()[:, 1], both)
    sample = faces(aus=aus).render(1, {12: (0.5, 4.5), 1: (3, 2)})  # right, left
    assert sample.intensities.tolist() == [4.5, 4.5, 0.5, 3, 0] and sample.labels.tolist() == [1, 1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"aus must be some of .*'12L', '12R', .*got \['17L'\]"):
        faces(aus=("17L",))


def test_chosen_aus() -> None:
    dataset = faces(aus=(12, 6, 25))
    rest, smile = dataset.render(1, {}), dataset.render(1, {12: 4.5, 6: (3, 2), 4: 1.0})
    assert rest.labels.tolist() == [0, 0, 0] and rest.pose.tolist() == [0, 0, 0]
    assert smile.labels.tolist() == [1, 1, 0]
    assert smile.intensities.tolist() == [4.5, 3, 0]
    assert (smile.subject, smile.id) == ("R0001", "R0001/rendered")
    # A smile: the corners of the mouth go up against the middle of the lips, and apart.
    wide = [s.landmarks[37, 0] - s.landmarks[31, 0] for s in (rest, smile)]
    high = [s.landmarks[[31, 37], 1].mean() - s.landmarks[34, 1] for s in (rest, smile)]
    assert wide[1] > 1.1 * wide[0] and high[1] < high[0] - 1
    again = dataset.render(1, {12: 4.5, 6: (3, 2), 4: 1.0})
    assert np.array_equal(smile.image, again.image)
    one, two = (dataset.render(1, {12: 4.5}, np.random.default_rng(seed)) for seed in (1, 1))
    assert np.array_equal(one.image, two.image) and not np.array_equal(one.image, smile.image)
    with pytest.raises(ValueError, match=r"AU 13 is not one of"):
        dataset.render(1, {13: 2.0})
    with pytest.raises(ValueError, match=r"AU 12 wants an intensity from 0 to 5, got 6$"):
        dataset.render(1, {12: 6})


def test_crops_of_rendered_faces() -> None:
    crop = Crops(faces(), 64, train=True)[3]
    assert tuple(crop["image"].shape) == (3, 64, 64) and crop["intensities"].shape == (17,)


def test_an_unknown_mixture_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^RenderedFaces: mix must be one of natural, bp4d, sides, got 'disfa'$"
    ):
        faces(mix="disfa")
