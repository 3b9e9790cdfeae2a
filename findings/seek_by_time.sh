#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and 4.14.0.94, the video made with av 18.1.0.
#
# In a video of variable frame rate, as telephones write in the dark, cap.set(CAP_PROP_POS_MSEC, t) goes somewhere else: OpenCV
# multiplies t by one frame rate and counts frames. In an MP4 that is the average rate, in Matroska and WebM the one that
# its header names. The second asked for may be missed by more than a second, or be "after the end" of a video that goes
# on. Reading on and looking at POS_MSEC gives right times, so the file is fine.
# Source: opencv#9053 (seeking is not exact), #26827; of the time in milliseconds we know of no issue.
#
# Output seen, both versions (70 frames in 4 s: 30, 5 and 30 in a second; asked for 1, 2, 3 s):
#   mp4 is at 0.600, 2.000, 3.433 s     mkv is at 1.000, 3.667, nothing at all
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
for version in 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.4.6 av==18.1.0 "opencv-python-headless==$version"
  "$work/venv/bin/python" - <<'PYTHON'
from fractions import Fraction

import av
import cv2
import numpy as np

times = [Fraction(i, 30) for i in range(30)] + [1 + Fraction(i, 5) for i in range(10)]
times += [3 + Fraction(i, 30) for i in range(30)]
found = {}
for kind in ("mp4", "mkv"):
    with av.open(f"talk.{kind}", "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 3 * number, np.uint8))
            frame.pts, frame.time_base = int(time * 90000), Fraction(1, 90000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())

    video = cv2.VideoCapture(f"talk.{kind}")
    read = []
    while video.read()[0]:
        read.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    assert np.allclose(read, [float(time) for time in times], atol=0.001)  # in turn, all is right
    found[kind] = []
    for second in (1, 2, 3):
        video.set(cv2.CAP_PROP_POS_MSEC, 1000 * second)
        there, picture = video.read()
        number = round(picture.mean() / 3) if there else None  # what it shows, whatever it says
        found[kind].append(None if number is None else round(float(times[number]), 3))
    print(f"OpenCV {cv2.__version__}, {kind}: asked for 1, 2, 3 s; is at", *found[kind])
assert found == {"mp4": [0.6, 2.0, 3.433], "mkv": [1.0, 3.667, None]}
PYTHON
done
