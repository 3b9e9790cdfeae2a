"""Miniature releases of the licensed data sets."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def releases() -> ModuleType:
    """The module `releases` beside this file, which tests cannot import under --import-mode=importlib."""
    spec = importlib.util.spec_from_file_location("releases", Path(__file__).with_name("releases.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
