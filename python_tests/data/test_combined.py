from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from jaa_ext.data import CombinedFaces, Crops, FaceDataset, FaceSample, RenderedFaces, SyntheticFaces
from jaa_ext.data.combined import union_of_aus
from jaa_ext.nn import au_weights


def drawn(
    aus: tuple[int, ...], subjects: tuple[int, ...] = (1, 2), count: int = 3, **options: Any
) -> SyntheticFaces:
    return SyntheticFaces(subjects=subjects, samples_per_subject=count, size=73, aus=aus, **options)


ONE, TWO = drawn((12, 1)), drawn((4, 12, 17), (1, 5), 2, seed=9)
BOTH = CombinedFaces({"one": ONE, "two": TWO})
"""Six faces and four; of AUs 1, 4, 12 and 17."""


def test_one_after_another() -> None:
    assert BOTH.aus == (1, 4, 12, 17)
    assert len(BOTH) == 10 and BOTH.sizes == (6, 4)
    assert BOTH.subjects == ("one:S001", "one:S002", "two:S001", "two:S005")
    for index, (name, faces, i) in {
        0: ("one", ONE, 0), 5: ("one", ONE, 5), 6: ("two", TWO, 0), 9: ("two", TWO, 3), -1: ("two", TWO, 3),
        -10: ("one", ONE, 0),
    }.items():  # fmt: skip
        got, wanted = BOTH[index], faces[i]
        assert np.array_equal(got.image, wanted.image) and np.array_equal(got.landmarks, wanted.landmarks)
        assert (got.subject, got.id) == (f"{name}:{wanted.subject}", f"{name}:{wanted.id}")
        assert got.id.split("/")[0] == got.subject
        labels = dict(zip(faces.aus, wanted.labels.tolist(), strict=True))
        assert got.labels.tolist() == [labels.get(au, -1) for au in BOTH.aus]
        assert got.intensities is not None and wanted.intensities is not None
        intensities = dict(zip(faces.aus, wanted.intensities.tolist(), strict=True))
        assert np.array_equal(
            got.intensities, [intensities.get(au, np.nan) for au in BOTH.aus], equal_nan=True
        )
    assert len({BOTH[i].id for i in range(10)}) == 10
    for index in (10, -11):
        with pytest.raises(IndexError, match=rf"index {index} is out of range for 10 samples"):
            BOTH[index]


def test_matrices_are_those_of_the_samples() -> None:
    samples = [BOTH[i] for i in range(10)]
    assert np.array_equal(BOTH.label_matrix(), [sample.labels for sample in samples])
    intensities = np.stack([sample.intensities for sample in samples if sample.intensities is not None])
    assert np.array_equal(BOTH.intensity_matrix(), intensities, equal_nan=True)
    assert BOTH.label_matrix().dtype == np.int64 and BOTH.intensity_matrix().dtype == np.float32


def test_aus_asked_for_stand_in_that_order() -> None:
    faces = CombinedFaces({"one": ONE, "two": TWO}, aus=(17, 12, 9))
    assert faces.aus == (17, 12, 9)
    by_au = dict(zip(TWO.aus, TWO.label_matrix().T, strict=True))
    assert (
        np.array_equal(faces.label_matrix()[6:, 0], by_au[17]) and (faces.label_matrix()[:6, 0] == -1).all()
    )
    assert np.array_equal(faces.label_matrix()[6:, 1], by_au[12]) and (faces.label_matrix()[:6, 1] >= 0).all()
    assert (faces.label_matrix()[:, 2] == -1).all()  # no data set has AU 9


def test_the_union_is_in_the_order_of_numbers() -> None:
    aus: Any = ((12, 26, 4), (4, "12R", "12L", "4L", 100))
    assert union_of_aus(aus) == (4, "4L", 12, "12L", "12R", 26, 100)


def test_weights_are_those_of_the_labels_that_are_there() -> None:
    many = CombinedFaces({"one": drawn((1, 12), count=50), "two": drawn((4, 12), count=30, seed=2)})
    weights = au_weights(many.label_matrix())
    own, others = (part.label_matrix() for part in many.sets.values())
    rates = own[:, 0].mean(), others[:, 0].mean(), np.concatenate((own[:, 1], others[:, 1])).mean()
    assert weights.tolist() == pytest.approx(
        [3 / rate / sum(1 / r for r in rates) for rate in rates], rel=1e-5
    )


class Plain(NamedTuple):
    """Faces of a data set that knows no intensities, of any size of images."""

    faces: SyntheticFaces
    aus: tuple[int, ...] = (1, 12)
    subjects: tuple[str, ...] = ("S001", "S002")

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> FaceSample:  # type: ignore[override]
        return self.faces[index]._replace(intensities=None)

    def label_matrix(self) -> Any:
        return self.faces.label_matrix()


def test_intensities_that_a_data_set_does_not_have() -> None:
    plain: Any = Plain(drawn((1, 12)))
    faces = CombinedFaces({"plain": plain, "two": TWO})
    assert np.isnan(faces.intensity_matrix()[:6]).all()
    assert np.isfinite(faces.intensity_matrix()[6:, 1:]).all()
    assert faces[0].intensities is None
    crop = Crops(faces, 64, train=False)[0]
    assert crop["intensities"].isnan().all() and crop["labels"].tolist()[1:4:2] == [-1, -1]


def test_crops_of_several_are_those_of_each() -> None:
    several, alone = Crops(BOTH, 64, train=False), Crops(TWO, 64, train=False)
    assert torch.equal(several[8]["image"], alone[2]["image"]) and several[8]["id"] == "two:S005/00000"


def test_flips_where_a_data_set_has_one_side_or_none() -> None:
    one, two = (
        RenderedFaces(subjects=[0], samples_per_subject=8, size=73, aus=aus, **options)
        for aus, options in ((("12L",), {}), ((12, "12R"), {"mix": "sides"}))
    )
    faces = CombinedFaces({"a": one, "b": two})
    assert faces.aus == (12, "12L", "12R")
    seen = set()
    plain, crops = (Crops(faces, 73, train=train) for train in (False, True))
    for i in range(len(faces)):
        before, after = plain[i], crops[i]
        mirrored = not torch.equal(before["image"], after["image"])
        seen.add((i // 8, mirrored))
        for name, missing in (("labels", -1), ("intensities", torch.nan)):
            both, left, right = before[name].tolist()
            wanted = [both, *((right, left) if mirrored else (left, right))]
            assert np.array_equal(after[name], wanted, equal_nan=True)
            # What a set lacks is missing on the side of the crop where its faces do not show it.
            lacks = [0, 1 if mirrored else 2] if i < 8 else [2 if mirrored else 1]
            unknown = after[name].isnan() if name == "intensities" else after[name] == missing
            assert unknown.nonzero().flatten().tolist() == lacks
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("sets", "options", "message"),
    [
        ({}, {}, "wanted at least one data set, got none"),
        ({"a:b": ONE}, {}, 'names must have neither ":" nor "/", got \'a:b\''),
        ({"a/b": ONE}, {}, "names must have neither"),
        ({"": ONE}, {}, "names must have neither"),
        ({"one": ONE}, {"aus": (1, 1)}, "wanted distinct AUs, got [1, 1]"),
        ({"one": ONE}, {"aus": ()}, "wanted distinct AUs, got []"),
        ({"one": ONE, "two": TWO}, {"shares": (1,)}, "a number above 0 for each of 2 data sets, got [1]"),
        ({"one": ONE, "two": TWO}, {"shares": (1, 0)}, "above 0 for each of 2 data sets, got [1, 0]"),
        ({"one": ONE, "two": TWO}, {"shares": (1, float("nan"))}, "above 0 for each of 2 data sets"),
        (
            {"one": ONE, "large": SyntheticFaces(subjects=[1], samples_per_subject=1, size=100)},
            {},
            "the images of large have 100 pixels and those of one 73: prepare both with one --size",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    sets: dict[str, FaceDataset], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        CombinedFaces(sets, **options)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_faces_is_named() -> None:
    class Nothing(SyntheticFaces):
        def __len__(self) -> int:
            return 0

    nothing = Nothing(subjects=[1], samples_per_subject=1, size=73)
    with pytest.raises(ValueError, match="CombinedFaces: nothing has no faces"):
        CombinedFaces({"one": ONE, "nothing": nothing})
