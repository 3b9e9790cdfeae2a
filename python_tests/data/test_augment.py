"""Augmented training faces: landmarks that follow, pictures that vary, and the same bits again."""

import time

import numpy as np
import pytest
from pydantic import ValidationError

from jaa_ext.data import Augmentation, Crops, SyntheticFaces

NOTHING = Augmentation(geometry=0, colour=0, grey=0, blur=0, noise=0, occlusion=0)
FACES = SyntheticFaces(subjects=range(3), samples_per_subject=2, size=114)


def crops(augment: Augmentation | None = None, **arguments) -> Crops:
    return Crops(FACES, 100, train=True, augment=augment, **arguments)


def only(**kind: float) -> Augmentation:
    return NOTHING.model_copy(update=kind)


def test_no_augmentation_leaves_the_bits_as_they_are() -> None:
    for i in range(6):
        plain, varied = crops()[2, i], crops(NOTHING)[2, i]
        assert np.array_equal(plain["image"], varied["image"])
        np.testing.assert_allclose(plain["landmarks"], varied["landmarks"], atol=1e-4)
        assert varied["landmarks"].dtype == plain["landmarks"].dtype


def test_a_crop_depends_on_seed_epoch_and_index_alone() -> None:
    usual = crops(Augmentation())
    first = usual[1, 3]
    usual[0, 0]
    again = usual[1, 3]
    assert np.array_equal(first["image"], again["image"])
    assert np.array_equal(first["landmarks"], again["landmarks"])
    for other in (usual[2, 3], usual[1, 4], crops(Augmentation(), seed=1)[1, 3]):
        assert not np.array_equal(first["image"], other["image"])
    assert np.array_equal(first["labels"], crops()[1, 3]["labels"])


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """A picture with a small bright blob on each of some points."""
    points = np.array([(x, y) for x in (35, 57, 80) for y in (30, 52, 84)], np.float32)
    y, x = np.mgrid[:114, :114]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 4) for px, py in points)
    return np.repeat((250 * light)[..., None], 3, 2).astype(np.uint8), points


def test_landmarks_stay_where_they_were_on_the_face() -> None:
    image, points = blobs()
    turns = []
    for seed in range(20):
        moved, at = only(geometry=2.0).crop(image, points, (7, 7), 100, np.random.default_rng(seed))
        assert moved.shape == (100, 100, 3) and at.dtype == np.float32
        for x, y in at:
            left, top = int(x) - 4, int(y) - 4
            part = moved[top : top + 10, left : left + 10, 0].astype(float)
            rows, columns = np.mgrid[top : top + 10, left : left + 10]
            centre = ((columns * part).sum() / part.sum(), (rows * part).sum() / part.sum())
            np.testing.assert_allclose(centre, (x, y), atol=0.2)
        across = at[6] - at[0]
        turns.append(np.degrees(np.arctan2(across[1], across[0])))
    assert 3 < np.std(turns) < 10 and np.abs(turns).max() <= 15.1


def test_each_kind_changes_what_it_should() -> None:
    base = FACES[0].image[7:107, 7:107].astype(float)

    def pictures(augment: Augmentation) -> np.ndarray:
        made = [
            augment.crop(FACES[0].image, FACES[0].landmarks, (7, 7), 100, np.random.default_rng(seed))
            for seed in range(30)
        ]
        for _, at in made:
            np.testing.assert_allclose(at, FACES[0].landmarks - 7, atol=1e-4)
        return np.stack([image for image, _ in made]).astype(float)

    colours = pictures(only(colour=1))
    assert colours.mean((1, 2, 3)).std() > 8 and len(np.unique(colours.mean((1, 2, 3)))) == 30
    grey = pictures(only(grey=1))
    assert np.ptp(grey, axis=-1).max() == 0 and np.ptp(base, axis=-1).max() > 50
    edges = lambda images: np.abs(np.diff(images, axis=-2)).mean((-3, -2, -1))  # noqa: E731
    blurred = edges(pictures(only(blur=1)))
    assert (blurred < 0.98 * edges(base)).all() and blurred.min() < 0.6 * edges(base)
    off = np.abs(pictures(only(noise=1)) - base).mean((1, 2, 3))
    assert off.min() > 1 and 4 < off.max() < 15  # noise of up to 12 grey levels, and JPEG
    covered = (pictures(only(occlusion=1)) != base).any(-1).mean((1, 2))
    assert 0.01 < covered.mean() < 0.2 and covered.max() < 0.4
    # The rest of the picture stays.
    assert ((pictures(only(occlusion=0.3)) != base).any((1, 2, 3))).mean() < 0.7


def test_the_usual_augmentation_is_cheap() -> None:
    augment, rng = Augmentation(), np.random.default_rng(0)
    image, landmarks = FACES[0].image, FACES[0].landmarks
    start = time.process_time()
    for _ in range(200):
        augment.crop(image, landmarks, (7, 7), 100, rng)
    assert (time.process_time() - start) / 200 < 0.004  # 0.6 ms where this was written


@pytest.mark.parametrize("values", [{"blur": 1.5}, {"colour": -1.0}, {"geometry": 4.0}, {"sharpness": 1.0}])
def test_bad_strengths(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**values)


def test_augmentation_is_for_training() -> None:
    with pytest.raises(ValueError, match=r"^Crops: augment varies training faces alone"):
        Crops(FACES, 100, train=False, augment=Augmentation())
