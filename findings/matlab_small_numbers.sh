#!/usr/bin/env bash
# scipy 1.17.1, a file of MATLAB's format 5 ("-v7" without compression, DISFA's landmarks are such) written here by hand.
#
# loadmat gives a MATLAB matrix of doubles as uint8 if all its numbers are whole and below 256: MATLAB stores them in the
# smallest type that holds them, and scipy keeps that type unless mat_dtype=True. Landmarks that were rounded to pixels then
# wrap: 10 - 30 is 236. The same variable of the next frame, with one larger or broken number, comes as another type.
# Source: documented at scipy.io.loadmat's `mat_dtype`, which is False by default; MATLAB's "MAT-File Format", on numeric types.
#
# Output seen:
#   a double matrix [[10, 200], [30, 100]]: uint8, first row minus second [236, 100]
#   the same with 300 for 200:              uint16, first row minus second [65516, 200]
#   with mat_dtype=True:                    float64, first row minus second [-20.0, 100.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/python" - <<'PYTHON'
import io
import struct

import numpy as np
from scipy.io import loadmat

INT8, UINT8, UINT16, INT32, UINT32, MATRIX = 1, 2, 4, 5, 6, 14
DOUBLE = 6  # a class of MATLAB's, not a type of storage


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def file(numbers):
    kind, stored = (UINT8, np.uint8) if max(map(max, numbers)) < 256 else (UINT16, np.uint16)
    values = np.array(numbers, stored).T.tobytes()  # by columns
    head = [element(UINT32, struct.pack("<II", DOUBLE, 0)), element(INT32, struct.pack("<ii", 2, 2)), element(INT8, b"pts")]
    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024".ljust(116) + bytes(8)
    return io.BytesIO(text + b"\0\1IM" + element(MATRIX, b"".join(head) + element(kind, values)))


for label, numbers, options, kind, difference in (
    ("a double matrix [[10, 200], [30, 100]]:", [[10, 200], [30, 100]], {}, "uint8", [236, 100]),
    ("the same with 300 for 200:", [[10, 300], [30, 100]], {}, "uint16", [65516, 200]),
    ("with mat_dtype=True:", [[10, 200], [30, 100]], {"mat_dtype": True}, "float64", [-20, 100]),
):
    points = loadmat(file(numbers), **options)["pts"]
    got = (points[0] - points[1]).tolist()
    print(f"{label:39} {points.dtype}, first row minus second {got}")
    assert points.dtype == kind and got == difference
PYTHON
