"""Loads the compiled kernels and tells which devices they serve."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def build_info() -> dict[str, str]:
    """What the kernels were compiled with: torch, cuda, archs, compiler, note. Empty in a source tree."""
    if importlib.util.find_spec("jaa_ext._build_info") is None:
        return {}
    from jaa_ext import _build_info

    return dict(_build_info.BUILD_INFO)


def _load() -> frozenset[str]:
    """Load `_C`, which registers the ops; return the device types that it has kernels for."""
    info = build_info()
    if not info:
        _say("jaa_ext runs from a source tree without compiled kernels: `pip install .` builds them")
        return frozenset()
    if not info["compiler"]:
        _say(f"jaa_ext was installed without compiled kernels ({info['note']}); reinstall to build them")
        return frozenset()

    built, running = info["torch"], torch.__version__
    cuda = torch.version.cuda or ""
    # Compared before loading: another torch or CUDA major version dies in the loader, without a word.
    if _minor(built) != _minor(running) or (
        info["cuda"] and info["cuda"].split(".")[0] != cuda.split(".")[0]
    ):
        raise ImportError(
            f"jaa_ext was built for torch {built} (CUDA {info['cuda'] or 'none'}), but torch {running} "
            f"(CUDA {cuda or 'none'}) is running: reinstall jaa_ext with "
            "`pip install --force-reinstall --no-deps .`"
        )
    from jaa_ext import _C  # noqa: F401

    return frozenset(("cpu", "meta", "cuda") if info["cuda"] else ("cpu", "meta"))


def has_kernel(device: torch.device) -> bool:
    """Whether compiled kernels serve the device; says once for each kind of device where they do not."""
    if device.type in DEVICES:
        return True
    if DEVICES and device.type not in _said and not torch.compiler.is_compiling():
        _said.add(device.type)
        _say(f"jaa_ext has no compiled kernels for {device.type}: the reference implementations run there")
    return False


def wanted_only(gradients: Sequence[Any], output_mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Put empty tensors in place of gradients that are not asked for, or None, as kernels of backward do."""
    pairs = zip(gradients, output_mask, strict=True)
    first, second, third = (
        g if wanted and g is not None else gradients[0].new_empty(0) for g, wanted in pairs
    )
    return first, second, third


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


_said: set[str] = set()
DEVICES = _load()
"""Device types with compiled kernels; empty where nothing was compiled."""
