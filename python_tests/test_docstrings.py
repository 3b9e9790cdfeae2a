"""The docstring of every public function and class ends with an example that works."""

import doctest
from types import ModuleType

import pytest

from jaa_ext import data, models, nn, ops

PACKAGES = (data, models, nn, ops)
WITHOUT = {"ReleaseError", "eye_distance", "reference"}
"""Public names that need no example."""

PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in PACKAGES
    for name in package.__all__
    if name not in WITHOUT
]


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_the_example_works(package: ModuleType, name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(package, name), name)
    assert example.examples, f"{name} has no example"
    told: list[str] = []
    failures = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=told.append)
    assert failures.failed == 0, "".join(told)
