"""The memory of the process."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensors; does nothing where it is not glibc.

    glibc gives blocks of more than 32 MB, and the end of the heap, back to the kernel, which clears every
    page of them when the next tensor asks for it. Batch 8 on two Zen 5 cores in float32: inference takes 303
    ms instead of 317, a training step 1087 instead of 1117. It holds for the whole process: for programs, not
    for libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no blocks of their own for large tensors
    mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks
