"""PEP 517 backend: setuptools, building against the torch that is already installed.

In pip's isolated build environment `import torch` would find nothing, or a freshly downloaded other torch,
against which a build is useless. So: where the environment that will run jaa_ext has torch, its directory is
put on sys.path for the build; only where it has none is torch required for the build too.
"""

import importlib.util
import sys
import sysconfig
from pathlib import Path

from setuptools.build_meta import *  # noqa: F403


def _show_installed_torch() -> bool:
    if importlib.util.find_spec("torch") is not None:
        return True
    for scheme in ("purelib", "platlib"):
        directory = Path(sysconfig.get_paths()[scheme])
        if (directory / "torch" / "__init__.py").exists():
            # At the end: the build environment's own setuptools goes before the installed one.
            sys.path.append(str(directory))
            return True
    return False


_REQUIREMENTS = [] if _show_installed_torch() else ["torch"]


# setuptools would run setup.py to answer these, and that needs torch.
def get_requires_for_build_wheel(config_settings=None):
    return _REQUIREMENTS


def get_requires_for_build_editable(config_settings=None):
    return _REQUIREMENTS


def get_requires_for_build_sdist(config_settings=None):
    return _REQUIREMENTS
