#!/usr/bin/env bash
# opencv-python-headless 4.14.0.94 and 5.0.0.93, photographs written by pillow 13.0.0.
#
# OpenCV turns a photograph upright by its EXIF orientation, and leaves it as stored under IMREAD_IGNORE_ORIENTATION and
# IMREAD_UNCHANGED; so its documentation says of imread. By format that is true of JPEG, PNG and WebP only:
#   AVIF  is never turned: its orientation is in the boxes `irot` and `imir`, which OpenCV passes over;
#   TIFF  is always turned, also where the flag says not to.
# A detector of faces finds none in the AVIF of a phone held upright, and code that turns pictures itself turns TIFFs twice.
# Source: tried; no issue of OpenCV's about it is known to us.
#
# Output seen, both versions (a picture 80 wide and 40 high, stored as 80x40, to be shown as 40x80):
#   JPEG  by default (40, 80)  told to ignore (80, 40)  unchanged (80, 40)      (PNG and WEBP alike)
#   TIFF  by default (40, 80)  told to ignore (40, 80)  unchanged (40, 80)
#   AVIF  by default (80, 40)  told to ignore (80, 40)  unchanged (80, 40)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.4.6 pillow==13.0.0 "opencv-python-headless==$version"
  "$work/venv/bin/python" - <<'PYTHON'
import io

import cv2
import numpy as np
from PIL import Image, ImageOps

turn = Image.Exif()
turn[0x0112] = 6  # orientation: to be turned right by 90 degrees
stored, upright = (80, 40), (40, 80)
expected = {name: (upright, stored, stored) for name in ("JPEG", "PNG", "WEBP")}
expected |= {"TIFF": (upright, upright, upright), "AVIF": (stored, stored, stored)}
print("OpenCV", cv2.__version__)
for name, sizes in expected.items():
    file = io.BytesIO()
    Image.new("RGB", stored, "white").save(file, name, exif=turn)
    data = np.frombuffer(file.getvalue(), np.uint8)
    assert ImageOps.exif_transpose(Image.open(file)).size == upright  # the file is right
    flags = (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, cv2.IMREAD_UNCHANGED)
    got = tuple(cv2.imdecode(data, flag).shape[1::-1] for flag in flags)
    print(f"{name:5} by default {got[0]}  told to ignore {got[1]}  unchanged {got[2]}")
    assert got == sizes, name
PYTHON
done
