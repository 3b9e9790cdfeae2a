"""What tests of several models share."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The module `plain` beside this file, which tests cannot import under --import-mode=importlib."""
    spec = importlib.util.spec_from_file_location("plain", Path(__file__).with_name("plain.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
