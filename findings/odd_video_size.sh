#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and 4.14.0.94.
#
# cv2.VideoWriter opened for frames of odd width or height says that it is open, takes the frames and writes videos that are one
# column and one row smaller: the last ones are cut off. Landmarks at the right edge then lie outside, and a test that a
# copy has the size of its video fails for half of all crops. Other tools refuse such sizes (libx264: "not divisible by 2").
# Source: a note in the documentation of VideoWriter ("we truncate the rightmost column/the bottom row"); opencv#24081.
#
# Output seen, both versions: open True, frames of 101 x 75 written, frames of 100 x 74 read (mp4v, MJPG and XVID alike)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
for version in 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.4.6 "opencv-python-headless==$version"
  "$work/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np

frame = np.zeros((75, 101, 3), np.uint8)
for codec, name in (("mp4v", "odd.mp4"), ("MJPG", "odd.avi"), ("XVID", "odd.avi")):
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*codec), 25, (101, 75))
    is_open = writer.isOpened()
    for _ in range(5):
        writer.write(frame)
    writer.release()
    _, got = cv2.VideoCapture(name).read()
    print(f"OpenCV {cv2.__version__}, {codec}: open {is_open}, frames of 101 x 75 written, of {got.shape[1]} x {got.shape[0]} read")
    assert is_open and got.shape == (74, 100, 3)
PYTHON
done
