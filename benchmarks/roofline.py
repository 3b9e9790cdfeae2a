"""What the machine can do at most: multiplications and additions a second, and bytes copied a second.

The multiply-add peak is the better of a loop over registers, compiled here for the widest instruction set of
the processor and run on all threads, and of a large matrix product (which knows matrix units, and is all
there is without a compiler or on a GPU). The bandwidth is that of copying a tensor many times the last cache.
A GPU has a peak for each precision: float32 without matrix units, TF32 and bfloat16 with them. Matrices are
random: zeros take less power, and a GPU then runs faster than it ever does in earnest.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from comparison import DTYPE, DeviceClock, seconds_a_call

LOOP = r"""
#ifdef __x86_64__
#include <immintrin.h>
#endif
// 12 chains hide the latency of two multiply-adds a cycle, and fit 16 registers.
#define LOOP(NAME, TARGET, VECTOR, FMA)                          \
  extern "C" TARGET float NAME(long steps, float start) {        \
    VECTOR a = VECTOR{} + start, sums[12];                       \
    for (int k = 0; k < 12; ++k) sums[k] = a * float(k);         \
    for (long i = 0; i < steps; ++i) {                           \
      _Pragma("GCC unroll 12") for (int k = 0; k < 12; ++k) FMA; \
    }                                                            \
    VECTOR sum = sums[0];                                        \
    for (int k = 1; k < 12; ++k) sum += sums[k];                 \
    return sum[0];                                               \
  }
typedef float Floats4 __attribute__((vector_size(16)));
typedef float Floats8 __attribute__((vector_size(32)));
typedef float Floats16 __attribute__((vector_size(64)));

LOOP(baseline, , Floats4, (sums[k] = sums[k] * a + a))
#ifdef __x86_64__
LOOP(avx2, __attribute__((target("avx2,fma"))), Floats8, (sums[k] = sums[k] * a + a))
LOOP(avx512, __attribute__((target("avx512f"))), Floats16, (sums[k] = sums[k] * a + a))
LOOP(avx512_bf16, __attribute__((target("avx512f,avx512bf16"))), Floats16,
     (sums[k] = Floats16(_mm512_dpbf16_ps(__m512(sums[k]), __m512bh(a), __m512bh(a)))))
#endif
"""
OPERATIONS_A_STEP = {
    level: 12 * 2 * width
    for level, width in {"baseline": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 32}.items()
}
LOOPS = {
    "float32": {"baseline": "baseline", "avx2": "avx2", "avx512": "avx512", "avx512_bf16": "avx512"},
    "bfloat16": {"avx512_bf16": "avx512_bf16"},
}
"""By the type of the factors, the loop for each instruction set (`build_info()["cpu_level"]`)."""


def measure(device: str, cpu_level: str, *, forced: bool = False) -> dict[str, Any]:
    """GFLOP/s by precision with how they were found, and GB/s read plus written by a copy.

    Args:
        forced: the level is less than the processor's, so that matrix products, which nothing holds to it,
            say nothing.
    """
    result: dict[str, Any] = {}
    loops = compiled_loops() if device == "cpu" else None
    for name in ("float32", "bfloat16") if device == "cpu" else ("float32", "TF32", "bfloat16"):
        found = {} if forced and device == "cpu" else {"matrix product": matmul_gflops(name, device)}
        if loops is not None and cpu_level in LOOPS[name]:
            loop = LOOPS[name][cpu_level]
            found[f"{loop} loop"] = loop_gflops(loops, loop)
        if found:
            how = max(found, key=lambda key: found[key])
            result[name] = {"gflops": round(found[how]), "by": how}
    return {**result, "copy_gb_per_s": round(copy_gb_per_s(device), 1)}


def allow_tf32(allow: bool) -> None:
    """Whether float32 convolutions and matrix products on a GPU may multiply in TensorFloat-32."""
    torch.backends.cudnn.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_tf32 = allow


def compiled_loops() -> ctypes.CDLL | None:
    """The loops above; None without a compiler that knows them."""
    compiler = shutil.which("c++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "loop.cpp"), Path(folder, "loop.so")
        source.write_text(LOOP)
        command = [compiler, "-O2", "-ffp-contract=fast", "-shared", "-fPIC", source, "-o", library]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        return ctypes.CDLL(str(library))


def loop_gflops(loops: ctypes.CDLL, name: str) -> float:
    function = loops[name]
    function.argtypes, function.restype = [ctypes.c_long, ctypes.c_float], ctypes.c_float
    threads, steps = torch.get_num_threads(), 4_000_000
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of Python's lock

        def run() -> None:
            list(pool.map(lambda _: function(steps, 0.5), range(threads)))

        return threads * steps * OPERATIONS_A_STEP[name] / shortest(run) / 1e9


def matmul_gflops(precision: str, device: str) -> float:
    side = 2048 if device == "cpu" else 8192
    a = torch.randn(side, side, device=device).to(DTYPE[precision])
    out = torch.empty_like(a)
    allow_tf32(precision == "TF32")
    seconds = shortest(lambda: torch.mm(a, a, out=out), device)
    allow_tf32(False)
    return 2 * side**3 / seconds / 1e9


def copy_gb_per_s(device: str) -> float:
    source = torch.ones(2**28, device=device)  # 1 GiB; of zeros it would be one page again and again
    target = torch.ones_like(source)
    return 2 * source.nbytes / shortest(lambda: target.copy_(source), device) / 1e9


def shortest(function: Callable[[], Any], device: str = "cpu") -> float:
    """Seconds of the shortest of five calls after one to warm up."""
    if device == "cuda":
        clock = DeviceClock()
        return min([clock.seconds(function, 100e-6) for _ in range(6)][1:])
    return min([seconds_a_call(function, 1) for _ in range(6)][1:])
