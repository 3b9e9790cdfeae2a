"""What `SyntheticFaces` and `RenderedFaces` share."""

import pytest

from jaa_ext.data import RenderedFaces, SyntheticFaces

pytestmark = pytest.mark.parametrize("kind", [SyntheticFaces, RenderedFaces])


def test_samples_are_numbered_subject_by_subject(kind) -> None:
    faces = kind(subjects=[7, 3], samples_per_subject=2, size=48)
    first, second = faces.subjects
    assert len(faces) == 4 and first.endswith("07") and second.endswith("03")
    assert [face.id for face in faces] == [
        f"{subject}/0000{i}" for subject in (first, second) for i in (0, 1)
    ]
    assert [face.subject for face in faces] == [first, first, second, second]
    assert faces[-3].id == faces[1].id
    for index in (4, -5):
        message = rf"^{kind.__name__}: index {index} .* 4 samples$"
        with pytest.raises(IndexError, match=message):
            faces[index]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"subjects": []}, r"subjects .*distinct .*at least 0, got \[\]$"),
        ({"subjects": [1, 1]}, r"subjects .*distinct .*at least 0, got \[1, 1\]$"),
        ({"subjects": [-1]}, r"subjects .*distinct .*at least 0, got \[-1\]$"),
        ({"samples_per_subject": 0}, r"samples_per_subject .*at least 1, .*got samples_per_subject=0,"),
        ({"seed": -1}, "seed at least 0 .*got samples_per_subject=4, seed=-1, size=73$"),
        ({"size": 20}, "size at least 48, got samples_per_subject=4, seed=5, size=20$"),
        ({"aus": (1, 3)}, r"aus .*\[1, 2, 4, .*\], got \[1, 3\]$"),
        ({"aus": ()}, r"aus .*\[1, .*, got \[\]$"),
    ],
)
def test_bad_arguments_get_a_clear_sentence(kind, changed, message: str) -> None:
    arguments = {"subjects": range(3), "samples_per_subject": 4, "seed": 5, "size": 73, **changed}
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
