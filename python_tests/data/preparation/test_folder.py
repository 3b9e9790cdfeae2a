import pytest

from jaa_ext.data.preparation.folder import (
    FolderError,
    au_columns,
    intensity_columns,
    read_settings,
    sort_folds,
)


def test_numbers_in_names_of_folds_are_sorted_by_size():
    assert sort_folds(["b", "10", "", "9", "a2", "a10", "9", "²"]) == ("9", "10", "a2", "a10", "b", "²")


def test_names_of_columns():
    assert au_columns((1, 12)) == ["AU01", "AU12"]
    assert intensity_columns((1, 12)) == ["AU01_intensity", "AU12_intensity"]


def test_a_folder_without_a_preparation(tmp_path):
    for folder in (tmp_path, str(tmp_path / "nowhere")):
        with pytest.raises(FolderError, match=r"got no prepare\.json"):
            read_settings(folder)
