"""Conversions of the half types in csrc/common/scalar.h, bit by bit against NumPy and torch."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

CSRC = Path(__file__).parents[2] / "csrc"
CODE = """
#include "common/scalar.h"
using namespace jaa_ext;
extern "C" void widen_half(const uint16_t* from, float* to, long n) {
  for (long i = 0; i < n; ++i) to[i] = widen(Half{from[i]});
}
extern "C" void narrow_half(const float* from, uint16_t* to, long n) {
  for (long i = 0; i < n; ++i) to[i] = narrow<Half>(from[i]).bits;
}
extern "C" void widen_bfloat16(const uint16_t* from, float* to, long n) {
  for (long i = 0; i < n; ++i) to[i] = widen(BFloat16{from[i]});
}
extern "C" void narrow_bfloat16(const float* from, uint16_t* to, long n) {
  for (long i = 0; i < n; ++i) to[i] = narrow<BFloat16>(from[i]).bits;
}
"""


@pytest.fixture(scope="module", params=["_Float16", "software"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("scalar")
    (folder / "scalar.cpp").write_text(CODE)
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    flags = ["-DJAA_EXT_SOFTWARE_HALF"] if request.param == "software" else []
    subprocess.run(
        [
            compiler,
            "-std=c++17",
            "-O2",
            "-shared",
            "-fPIC",
            f"-I{CSRC}",
            *flags,
            "scalar.cpp",
            "-o",
            "scalar.so",
        ],
        cwd=folder,
        check=True,
    )
    return ctypes.CDLL(str(folder / "scalar.so"))


def call(function, values: np.ndarray, result: type) -> np.ndarray:
    values = np.ascontiguousarray(values)
    converted = np.empty(values.shape, result)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (values, converted))
    function(*pointers, ctypes.c_long(values.size))
    return converted


def test_every_half_widens(library: ctypes.CDLL) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(call(library.widen_half, bits, np.float32), bits.view(np.float16))
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(call(library.widen_bfloat16, bits, np.float32), expected)


def test_floats_narrow_to_the_nearest(library: ctypes.CDLL) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.concatenate([halves, (halves[:-1] + halves[1:]) / 2])  # ties, then their neighbours
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    floats = np.concatenate(
        [
            between,
            np.nextafter(between, np.float32(np.inf)),
            np.nextafter(between, -np.float32(np.inf)),
            drawn,
        ]
    )
    with np.errstate(over="ignore"):
        expected = floats.astype(np.float16)
    narrowed = call(library.narrow_half, floats, np.uint16).view(np.float16)
    np.testing.assert_array_equal(narrowed, expected)
    np.testing.assert_array_equal(np.signbit(narrowed), np.signbit(expected))

    expected_bits = torch.from_numpy(floats).bfloat16().float().numpy()
    bits = call(library.narrow_bfloat16, floats, np.uint16)
    np.testing.assert_array_equal(call(library.widen_bfloat16, bits, np.float32), expected_bits)
