"""The examples in the docstrings of `jaa_ext.data` work."""

import doctest

import pytest

from jaa_ext import data


@pytest.mark.parametrize("name", sorted(set(data.__all__) - {"ReleaseError", "eye_distance"}))
def test_the_example_works(name: str) -> None:
    thing = getattr(data, name)
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(thing, name)
    assert example.examples, f"{name} has no example"
    told: list[str] = []
    failures = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=told.append)
    assert failures.failed == 0, "".join(told)
