import numpy as np
import pytest

from jaa_ext.data.preparation.parts import Part


@pytest.mark.parametrize("name", Part._fields)
@pytest.mark.parametrize("change", [lambda a: a[1:], lambda a: a[..., None], lambda a: a == "0"])
def test_a_part_of_other_arrays_is_made_anew(tmp_path, name, change):
    empty = Part.of([], [], 3)
    whole = Part(*(np.ones((2, *array.shape[1:])).astype(array.dtype) for array in empty))
    np.savez(tmp_path / "whole.npz", **whole._asdict())
    assert Part.load(tmp_path / "whole.npz") is not None
    np.savez(tmp_path / "other.npz", **{**whole._asdict(), name: change(getattr(whole, name))})
    assert Part.load(tmp_path / "other.npz") is None
