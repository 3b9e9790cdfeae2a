#!/usr/bin/env bash
# pymatreader 1.3.2 and mat73 0.65, the file written by h5py 3.16.0 in MATLAB's v7.3 layout.
#
# BP4D's landmarks are cells of a v7.3 file, one a frame, empty where no face was found. MATLAB stores an empty array as
# its size, two zeros marked `MATLAB_empty`. pymatreader reads that right in a cell of several elements, but a cell of one it
# unpacks by another way that misses the mark: {[]} becomes the two numbers 0, 0, "a landmark". So a sequence of one frame
# has values where it has none; and a cell of one full element is no list, as one of two is. mat73 gives None and lists.
# Source: tried; no issue of pymatreader's about it is known to us.
#
# Output seen:
#   {M, [], M}  mat73: list of (2, 49), None, (2, 49)   pymatreader: list of (2, 49), (0,), (2, 49)
#   {[]}        mat73: list of None                     pymatreader: array [0, 0]
#   {M}         mat73: list of (2, 49)                  pymatreader: array (2, 49)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq numpy==2.4.6 h5py==3.16.0 scipy==1.17.1 mat73==0.65 pymatreader==1.3.2
"$work/venv/bin/python" - "$work/cells.mat" <<'PYTHON'
import sys

import h5py
import mat73
import numpy as np
import pymatreader

path = sys.argv[1]
M = np.arange(98.0).reshape(2, 49)
cells = {"three": [M, None, M], "one_empty": [None], "one": [M]}
with h5py.File(path, "w", userblock_size=512) as file:
    for name, elements in cells.items():
        cell = file.create_dataset(name, (len(elements), 1), h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        for i, element in enumerate(elements):
            stored = np.zeros(2, np.uint64) if element is None else element.T  # MATLAB's order is by columns
            array = file.create_dataset(f"#refs#/{name}{i}", data=stored)
            array.attrs["MATLAB_class"] = np.bytes_("double")
            if element is None:
                array.attrs["MATLAB_empty"] = np.uint8(1)
            cell[i, 0] = array.ref
with open(path, "r+b") as file:
    file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024".ljust(124) + b"\0\2IM")


def described(value):
    if isinstance(value, list):
        return [described(element) for element in value]
    return value if value is None else value.tolist() if value.ndim == 1 and value.size else value.shape


for name in cells:
    ours, theirs = described(mat73.loadmat(path)[name]), described(pymatreader.read_mat(path)[name])
    print(f"{name:10} mat73: {ours}   pymatreader: {theirs}")
    assert ours == [element if element is None else (2, 49) for element in cells[name]]
    assert theirs == {"three": [(2, 49), (0,), (2, 49)], "one_empty": [0, 0], "one": (2, 49)}[name]
PYTHON
