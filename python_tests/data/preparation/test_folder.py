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
    for folder, message in (
        (tmp_path, r"got no prepare\.json in that folder$"),
        (str(tmp_path / "nowhere"), "got no such folder$"),
    ):
        with pytest.raises(FolderError, match=message):
            read_settings(folder)
