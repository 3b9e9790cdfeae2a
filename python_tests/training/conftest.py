"""What all tests of training share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """For every test here."""


@pytest.fixture(scope="session", autouse=True)
def bfloat16_everywhere() -> Iterator[None]:
    """Recipes in bfloat16 are trained in it on any processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAA_SLOW_BFLOAT16", "1")
        yield
