from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from jaa_ext import facs
from jaa_ext.data import (
    Crops,
    FaceSample,
    RenderedFaces,
    SyntheticFaces,
    align_face,
    eye_distance,
    flip,
    mirror_aus,
    normalize,
    with_mirror,
)

LEFT, RIGHT = list(facs.LEFT_EYE), list(facs.RIGHT_EYE)
BOX = [13, 31, 37]


def tilted_face(angle=0.4, scale=1.7, shift=(180.0, 150.0)):
    """The landmarks of a drawn face, rotated, scaled and moved within a larger picture."""
    landmarks = SyntheticFaces(subjects=[1], samples_per_subject=1, size=100)[0].landmarks.astype(float)
    turn = np.exp(1j * angle) * scale
    z = (landmarks[:, 0] - 50 + 1j * (landmarks[:, 1] - 50)) * turn + complex(*shift)
    return np.column_stack([z.real, z.imag])


def smooth_picture(height=320, width=360):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 0.6, y * 0.7, (x + y) * 0.3], -1).astype(np.uint8)


@pytest.mark.parametrize("angle", [-2.0, -0.3, 0.0, 0.4])
@pytest.mark.parametrize(("size", "enlarge"), [(200, 2.9), (127, 2.2)])
def test_aligned_eyes_are_level_and_the_box_is_centred_and_to_scale(angle, size, enlarge):
    _, aligned, _ = align_face(smooth_picture(), tilted_face(angle), size=size, enlarge=enlarge)
    left, right = aligned[LEFT].mean(0), aligned[RIGHT].mean(0)
    assert left[1] == pytest.approx(right[1], abs=1e-3)
    assert left[0] < right[0]
    box = np.stack([left, right, *aligned[BOX]])
    np.testing.assert_allclose((box.min(0) + box.max(0)) / 2, (size - 1) / 2, atol=1e-3)
    assert np.ptp(box, axis=0).max() * enlarge == pytest.approx(size - 1, abs=1e-2)


def test_matrix_is_a_similarity_and_maps_the_landmarks_there_and_back():
    landmarks = tilted_face()
    _, aligned, matrix = align_face(smooth_picture(), landmarks)
    (a, b, _), (c, d, _) = matrix
    assert a == pytest.approx(d) and b == pytest.approx(-c) and a * d - b * c > 0
    assert matrix.dtype == np.float64 and aligned.dtype == np.float32
    for point, expected in zip(landmarks, aligned, strict=True):
        np.testing.assert_allclose(matrix @ [*point, 1], expected, atol=1e-3)
    back = np.linalg.solve(matrix[:, :2], (aligned - matrix[:, 2]).T).T
    np.testing.assert_allclose(back, landmarks, atol=1e-3)


def test_aligned_pixels_are_bilinear_samples_of_the_original_and_128_outside():
    picture = smooth_picture()
    aligned, _, matrix = align_face(picture, tilted_face(shift=(60.0, 150.0)))
    assert aligned.shape == (200, 200, 3) and aligned.dtype == np.uint8
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    inside = outside = 0
    for y in range(0, 200, 13):
        for x in range(0, 200, 13):
            u, v, _ = inverse @ [x, y, 1]
            if 1 <= u < 358 and 1 <= v < 318:
                i, j = int(v), int(u)
                fv, fu = v - i, u - j
                patch = picture[i : i + 2, j : j + 2].astype(float)
                weights = np.outer([1 - fv, fv], [1 - fu, fu])[..., None]
                np.testing.assert_allclose(aligned[y, x], (patch * weights).sum((0, 1)), atol=1)
                inside += 1
            elif u < -1 or v < -1 or u > 360 or v > 320:
                assert (aligned[y, x] == 128).all()
                outside += 1
    assert inside > 50 and outside > 5


def test_a_panorama_longer_than_opencv_warps():
    face, picture = tilted_face(), smooth_picture()
    for axis in (0, 1):
        for place in (0, 35000):
            longer = np.full((40000, 360, 3) if axis == 0 else (320, 40000, 3), 90, np.uint8)
            top, left = (place, 0) if axis == 0 else (0, place)
            longer[top : top + 320, left : left + 360] = picture
            shown, points, matrix = align_face(longer, face + np.array((left, top)))
            alone, wanted, _ = align_face(longer[top : top + 330, left : left + 370], face)
            assert np.abs(shown.astype(int) - alone).max() <= 1
            np.testing.assert_allclose(points, wanted, atol=0.02)
            assert (matrix @ (face[0, 0] + left, face[0, 1] + top, 1)) == pytest.approx(points[0], abs=0.01)


def test_alignment_does_not_depend_on_where_the_face_was():
    _, first, _ = align_face(smooth_picture(), tilted_face(0.4, 1.7, (180, 150)))
    _, second, _ = align_face(smooth_picture(), tilted_face(-1.1, 0.6, (20, 300)))
    np.testing.assert_allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    ("image", "landmarks", "error", "message"),
    [
        (np.zeros((9, 9), np.uint8), None, ValueError, r"image must be \(H, W, 3\), got \(9, 9\)"),
        (np.zeros((9, 9, 3)), None, TypeError, "image must be uint8, got float64"),
        (None, np.zeros((68, 2)), ValueError, r"landmarks must be \(49, 2\), got \(68, 2\)"),
        (None, np.full((49, 2), np.nan), ValueError, "landmarks must be finite"),
        (None, np.full((49, 2), 5.0), ValueError, r"eyes must lie apart, got both means at \(5, 5\)"),
    ],
)
def test_align_face_says_what_is_wrong(image, landmarks, error, message):
    image = smooth_picture() if image is None else image
    landmarks = tilted_face() if landmarks is None else landmarks
    with pytest.raises(error, match=message):
        align_face(image, landmarks)


def test_flip_mirrors_pixels_and_landmarks_and_is_its_own_inverse():
    sample = SyntheticFaces(subjects=[2], samples_per_subject=1, size=96)[0]
    image, landmarks = flip(sample.image, sample.landmarks)
    np.testing.assert_array_equal(image[:, 3], sample.image[:, 92])
    np.testing.assert_allclose(landmarks[0], [95 - sample.landmarks[9, 0], sample.landmarks[9, 1]])
    again = flip(image, landmarks)
    np.testing.assert_array_equal(again[0], sample.image)
    np.testing.assert_allclose(again[1], sample.landmarks, atol=1e-4)


class Marked:
    """Pictures whose every pixel says where it is: red x, green y, blue the sample; one landmark on each."""

    aus = (1, 2)
    subjects = ("S000",)
    side = 73  # round(64 * 200 / 176)

    def __len__(self):
        return 40

    def __getitem__(self, index):
        y, x = np.mgrid[: self.side, : self.side].astype(np.uint8)
        image = np.stack([x, y, np.full_like(x, index)], -1)
        points = np.random.default_rng(index).integers(10, 60, (49, 2)).astype(np.float32)
        return FaceSample(image, points, np.array([1, -1]), "S000", f"S000/{index:05d}")

    def label_matrix(self):
        return np.tile([1, -1], (40, 1))


def offset(item):
    """Left and top edge of a crop of `Marked`, and whether it was flipped."""
    first, last = item["image"][:2, 0, 0].tolist(), item["image"][:2, 0, -1].tolist()
    return first[0], first[1], last[0] < first[0]


def test_central_crop():
    crops = Crops(Marked(), 64, train=False)
    item = crops[3]
    assert len(crops) == 40
    assert offset(item) == (4, 4, False)
    assert item["image"].shape == (3, 64, 64) and item["image"].dtype == torch.uint8
    assert item["landmarks"].dtype == torch.float32 and item["labels"].dtype == torch.int64
    assert item["labels"].tolist() == [1, -1] and item["id"] == "S000/00003"
    np.testing.assert_allclose(item["landmarks"], Marked()[3].landmarks - 4)


def test_intensities_come_with_the_crop():
    crops = Crops(SyntheticFaces(subjects=[3], samples_per_subject=2, size=73, aus=(1, 12)), 64, train=True)
    for i in range(2):
        degrees = crops[i]["intensities"]
        assert degrees.dtype == torch.float32
        assert np.array_equal(degrees.numpy(), crops.dataset[i].intensities)
    missing = Crops(Marked(), 64, train=False)[0]["intensities"]
    assert missing.shape == (2,) and missing.dtype == torch.float32 and missing.isnan().all()


def test_a_flip_swaps_labels_and_intensities_of_the_sides():
    """Against the picture: the corner of the mouth that is pulled up is on the side of the label."""
    aus = ("12R", 12, "12L", "1L")
    faces = RenderedFaces(subjects=[0], samples_per_subject=1, size=73, aus=aus)
    rest, left = (faces.render(1, {12: sides}) for sides in (0, (0, 4.0)))  # right, left
    assert left.labels.tolist() == [0, 1, 1, 0] and left.intensities.tolist() == [0, 4, 4, 0]
    assert left.landmarks[37, 1] < rest.landmarks[37, 1] - 1  # on the right of the picture
    assert abs(left.landmarks[31, 1] - rest.landmarks[31, 1]) < 0.5

    class One(Marked):
        def __getitem__(self, index):
            return left

    One.aus, flipped = aus, {}
    plain = Crops(One(), 73, train=False)[0]
    for i in range(8):
        item = Crops(One(), 73, train=True)[i]
        mirrored = not torch.equal(item["image"], plain["image"])
        flipped[mirrored] = item
    item = flipped[True]
    assert item["landmarks"][31, 1] < item["landmarks"][37, 1] - 1
    assert item["labels"].tolist() == [1, 1, 0, -1] and item["labels"].dtype == torch.int64
    degrees = item["intensities"].numpy()
    assert (
        np.array_equal(degrees, np.float32([4, 4, 0, np.nan]), equal_nan=True) and degrees.dtype == np.float32
    )
    for name in ("labels", "intensities", "landmarks"):
        assert torch.equal(flipped[False][name], plain[name])


def test_mirrored_twice_is_as_it_was():
    labels = np.array([1, 0, -1, 1, 0])
    aus = ("4R", 25, "4L", "12L", "12R")
    mirrored = mirror_aus(labels, aus)
    assert mirrored.tolist() == [-1, 0, 1, 0, 1]
    assert mirror_aus(mirrored, aus).tolist() == labels.tolist()
    assert mirror_aus(labels, facs.BP4D_AUS[:5]).tolist() == labels.tolist()


def test_faces_and_their_mirror_images():
    labels = np.array([[1, 0, -1, 1, 0], [0, 0, 1, 1, 1]])
    aus = ("4R", 25, "4L", "12L", "12R")
    both = with_mirror(labels, aus)
    assert both.dtype == labels.dtype and both.tolist() == [
        *labels.tolist(),
        *(mirror_aus(row, aus).tolist() for row in labels),
    ]
    assert with_mirror(labels, facs.BP4D_AUS[:5]) is labels
    one = with_mirror(np.float32([[2, 3]]), ("12L", 25))
    assert one.dtype == np.float32 and np.array_equal(one, [[2, 3], [np.nan, 3]], equal_nan=True)


def test_random_crops_depend_on_seed_epoch_and_index_alone():
    def offsets(seed, epoch, order):
        crops = Crops(Marked(), 64, train=True, seed=seed)
        crops.set_epoch(epoch)
        return {i: offset(crops[i]) for i in order}

    first = offsets(5, 2, range(40))
    assert offsets(5, 2, reversed(range(40))) == first
    assert offsets(5, 3, range(40)) != first
    assert offsets(6, 2, range(40)) != first
    assert len(set(first.values())) > 20


def test_an_index_may_say_its_epoch():
    crops, others = (Crops(Marked(), 64, train=True) for _ in range(2))
    crops.set_epoch(5)
    others.set_epoch(2)
    for i in range(40):
        assert offset(crops[2, i]) == offset(others[i])
    drawn = Crops(SyntheticFaces(subjects=[3], samples_per_subject=2, size=73), 64, train=True)
    assert torch.equal(drawn[-1]["image"], drawn[1]["image"])
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        crops.set_epoch(-1)


@pytest.mark.parametrize(("method", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_a_plain_data_loader_takes_crops(method, persistent):
    """Shuffled, read by two workers that read ahead; the second epoch is broken off."""
    crops = Crops(SyntheticFaces(subjects=range(3), samples_per_subject=4, size=73), 64, train=True)
    loader = DataLoader(
        crops,
        batch_size=2,
        shuffle=True,
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )
    for epoch, batches in enumerate((6, 1, 6)):
        crops.set_epoch(epoch)
        read = {}
        for batch in islice(loader, batches):
            read |= dict(zip(batch["id"], batch["image"], strict=True))
        wanted = {crops[epoch, i]["id"]: crops[epoch, i]["image"] for i in range(len(crops))}
        assert len(read) == 2 * batches
        assert all(torch.equal(image, wanted[name]) for name, image in read.items())


def test_random_crops_use_every_offset_and_both_directions():
    crops = Crops(Marked(), 64, train=True)
    seen = [offset(crops[epoch, i]) for epoch in range(10) for i in range(40)]
    # A flipped crop begins at the mirrored column.
    assert {72 - x if flipped else x for x, _, flipped in seen} == set(range(10))
    assert {y for _, y, _ in seen} == set(range(10))
    flips = sum(flipped for *_, flipped in seen)
    assert 140 < flips < 260  # 6 standard deviations


def test_landmarks_of_crops_stay_on_their_pixels():
    crops, data = Crops(Marked(), 64, train=True), Marked()
    crops.set_epoch(1)
    for i in range(40):
        item = crops[i]
        _, _, flipped = offset(item)
        for k, (x, y) in enumerate(item["landmarks"].round().long().tolist()):
            if 0 <= x < 64 and 0 <= y < 64:
                original = data[i].landmarks[facs.FLIP[k] if flipped else k]
                assert item["image"][:, y, x].tolist() == [*original.astype(int).tolist(), i]


def test_crops_name_the_sample_of_the_wrong_size():
    with pytest.raises(
        ValueError,
        match=r"^crops of 176 .*\(200, 200, 3\) or \(176, 176, 3\), got \(73, 73, 3\) for sample S000/00002: "
        r"prepare the faces with --size 200 \(and with --align similarity, if they were kept as they are\)$",
    ):
        Crops(Marked(), 176, train=False)[2]
    with pytest.raises(ValueError, match="size must be at least 1"):
        Crops(Marked(), 0, train=False)


def test_normalize():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    assert normalize(image).flatten().tolist() == pytest.approx([-1, -0.6, 1])
    assert normalize(image[None]).dtype == torch.float32
    with pytest.raises(TypeError, match="must be uint8, got float32"):
        normalize(image.float())


def test_eye_distance():
    landmarks = torch.randn(3, 2, 49, 2, dtype=torch.float64)
    expected = np.linalg.norm(
        landmarks[:, :, 19:25].numpy().mean(2) - landmarks[:, :, 25:31].numpy().mean(2), axis=-1
    )
    np.testing.assert_allclose(eye_distance(landmarks), expected)
