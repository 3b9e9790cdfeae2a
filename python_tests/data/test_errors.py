import pytest

from jaa_ext.data.errors import quoted, require_package, wrap_errors
from jaa_ext.data.release import ReleaseError


@pytest.mark.parametrize("error", [ValueError("odd\nand long"), IndexError("odd"), MemoryError("odd")])
def test_whatever_a_library_raises_is_told(error):
    with (
        pytest.raises(ReleaseError, match=r"^a\.mat: wanted numbers \(odd\)$"),
        wrap_errors("a.mat: wanted numbers"),
    ):
        raise error


def test_errors_of_ours_and_interrupts_pass_as_they_are():
    for error in (ReleaseError("of ours"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, wrap_errors("a.mat: wanted numbers"):
            raise error
        assert raised.value is error
    with pytest.raises(ReleaseError, match=r"\(RecursionError\)"), wrap_errors("a.mat: wanted numbers"):
        raise RecursionError


def test_pieces_of_files_are_quoted_and_shortened():
    assert quoted("  a\0b\n") == r"'a\x00b'" and quoted("x" * 1000) == f"'{'x' * 57}...'"


def test_a_missing_package_comes_with_its_cure():
    require_package("json", "tests need")
    with pytest.raises(ImportError, match=r"tests need no_such_package, .*pip install 'jaa_ext\[data\]'"):
        require_package("no_such_package", "tests need")
