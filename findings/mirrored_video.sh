#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and 4.14.0.94, av 18.1.0, the video made with av.
#
# A video that is to be shown mirrored (its display matrix flips left and right, as cameras for selfies write) comes out of
# OpenCV upside down: the matrix is reduced to an angle, and the angle of a mirrored axis is 180. PyAV's frame.rotation says
# -180 too. A video to be flipped upside down is not turned at all. Rotations by 90, 180 and 270 degrees are right.
# A detector of faces finds none in such a video.
# Source: tried. FFmpeg's av_display_rotation_get extracts "the rotation component" of the matrix, and both use that alone; we
# know of no issue about it (opencv#26876 and #22088 are about rotations).
#
# Output seen, both versions (the corner that is white as stored, as to be shown, as OpenCV gives it):
#   rotated 90   top left   top right      top right
#   mirrored     top left   top right      bottom right   (PyAV: rotation -180)
#   flipped      top left   bottom left    top left       (PyAV: rotation 0)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
for version in 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.4.6 av==18.1.0 "opencv-python-headless==$version"
  "$work/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT, ONE = 120, 80, 1 << 16  # numbers of the matrix have 16 binary places
stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
stored[: HEIGHT // 2, : WIDTH // 2] = 255


def white_corner(picture):
    y, x = (np.argmax([half.mean() for half in np.array_split(picture, 2, axis)]) for axis in (0, 1))
    return f"{('top', 'bottom')[y]} {('left', 'right')[x]}"


for name, matrix, shown, given, angle in (  # a, b, u, c, d, v, x, y, w: (p, q) goes to (a p + c q + x, b p + d q + y)
    ("rotated 90", (0, ONE, 0, -ONE, 0, 0, HEIGHT * ONE, 0, 1 << 30), "top right", "top right", -90),
    ("mirrored", (-ONE, 0, 0, 0, ONE, 0, WIDTH * ONE, 0, 1 << 30), "top right", "bottom right", -180),
    ("flipped", (ONE, 0, 0, 0, -ONE, 0, 0, HEIGHT * ONE, 1 << 30), "bottom left", "top left", 0),
):
    with av.open("face.mp4", "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(stored)))
        file.mux(stream.encode())
    data = bytearray(Path("face.mp4").read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    Path("face.mp4").write_bytes(data)

    got = white_corner(cv2.VideoCapture("face.mp4").read()[1])
    with av.open("face.mp4") as file:
        rotation = next(file.decode(video=0)).rotation
    print(f"OpenCV {cv2.__version__}, {name}: to be shown {shown}, given {got}; PyAV's rotation {rotation}")
    assert (got, rotation) == (given, angle)
PYTHON
done
