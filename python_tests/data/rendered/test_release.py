"""Rendered faces written down as a prepared data set."""

from pathlib import Path

import numpy as np
import pytest

from jaa_ext.data import PreparedFaces, RenderedFaces, prepare
from jaa_ext.data.preparation.folder import FolderError
from jaa_ext.data.rendered import AUS
from jaa_ext.data.rendered.labels import LABELLED_AUS
from jaa_ext.data.rendered.release import rendered_release, rendered_seed


def test_a_prepared_folder_holds_the_same_faces(tmp_path: Path) -> None:
    release = rendered_release(subjects=2, samples_per_subject=3, seed=4, size=73)
    report = prepare(release, tmp_path / "faces", align=False, workers=0, table="csv")
    assert (report.kept, report.subjects, report.image_size, report.skipped) == (6, 2, 73, {})
    prepared = PreparedFaces(tmp_path / "faces")
    rendered = RenderedFaces(subjects=range(2), samples_per_subject=3, seed=4, size=73)
    assert prepared.name == "rendered faces" and prepared.aus == AUS and len(prepared) == 6
    assert prepared.subjects == rendered.subjects
    np.testing.assert_array_equal(prepared.label_matrix(), rendered.label_matrix())
    np.testing.assert_allclose(prepared.intensity_matrix(), rendered.intensity_matrix(), atol=1e-5)
    for i in (0, 4):
        assert np.array_equal(prepared[i].image, rendered[i].image)
        np.testing.assert_allclose(prepared[i].landmarks, rendered[i].landmarks, atol=1e-3)
        assert np.array_equal(prepared[i].labels, rendered[i].labels)
    assert [prepared[i].id for i in (0, 4)] == ["R0000/0", "R0001/1"]


def test_other_faces_do_not_go_into_the_same_folder(tmp_path: Path) -> None:
    prepare(
        rendered_release(subjects=1, samples_per_subject=1, size=73),
        tmp_path,
        align=False,
        workers=0,
        table="csv",
    )
    for changes, named in (({"seed": 1}, "source 'seed 0"), ({"subjects": 2}, "fold 'test', not 'train'")):
        arguments = {"subjects": 1, "samples_per_subject": 1, "size": 73, **changes}
        with pytest.raises(FolderError, match=f"was begun with {named}"):
            prepare(rendered_release(**arguments), tmp_path, align=False, workers=0, table="csv")


def test_sides_if_they_are_asked_for(tmp_path: Path) -> None:
    arguments = {"subjects": 2, "samples_per_subject": 3, "size": 73, "mix": "sides"}
    release = rendered_release(**arguments, sides=True)
    assert release.source.endswith(", with sides") and rendered_seed(release.source) == rendered_seed("") == 0
    assert rendered_seed(rendered_release(**arguments, seed=2**40).source) == 2**40
    prepare(release, tmp_path, align=False, workers=0, table="csv")
    aus = ("12R", 4, "12L")
    prepared = PreparedFaces(tmp_path, aus=aus)
    rendered = RenderedFaces(**{**arguments, "subjects": range(2)}, aus=aus)
    assert prepared.aus == aus and PreparedFaces(tmp_path).aus == LABELLED_AUS
    np.testing.assert_array_equal(prepared.label_matrix(), rendered.label_matrix())
    np.testing.assert_allclose(prepared.intensity_matrix(), rendered.intensity_matrix(), atol=1e-5)
    with pytest.raises(FolderError, match=r"has no labels of AU 17L, only of \[1, 2,.*'12L'"):
        PreparedFaces(tmp_path, aus=("17L",))
    with pytest.raises(FolderError, match="was begun with"):
        prepare(rendered_release(**arguments), tmp_path, align=False, workers=0, table="csv")
