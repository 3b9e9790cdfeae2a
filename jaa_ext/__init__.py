"""Joint facial action unit detection and face alignment on PyTorch, with C++ and CUDA kernels."""

from jaa_ext import facs, ops

__all__ = ["facs", "ops"]
