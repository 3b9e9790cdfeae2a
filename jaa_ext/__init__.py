"""Joint facial action unit detection and face alignment on PyTorch, with C++ and CUDA kernels.

`ops` and `facs` come with ``import jaa_ext``; the other parts load when they are first used.

Example:
    >>> model = jaa_ext.load()  # the weights that come with jaa_ext
    >>> model.config.image_size
    96
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaa_ext import facs, ops

if TYPE_CHECKING:
    from jaa_ext import data, evaluation, experiments, export, models, nn, plots, predict, recipes, training
    from jaa_ext.models import load_model as load

__all__ = [
    "data",
    "evaluation",
    "experiments",
    "export",
    "facs",
    "load",
    "models",
    "nn",
    "ops",
    "plots",
    "predict",
    "recipes",
    "training",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        from jaa_ext.models import load_model

        return load_model
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("jaa_ext")
        except PackageNotFoundError:
            return "source tree"
    if name in __all__:
        return importlib.import_module(f"jaa_ext.{name}")
    raise AttributeError(f"module 'jaa_ext' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
