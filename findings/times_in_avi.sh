#!/usr/bin/env bash
# av 18.1.0 (PyAV) and opencv-python-headless 5.0.0.93.
#
# An AVI stores no times, only an order. For H.264 with B frames in it PyAV's frame.time is out of order: pictures come in the right
# order, with the times 0.04, 0.12, 0.16, 0.08 ... s. OpenCV counts on and gives 0.04, 0.08, 0.12 ... s, and 0 to the last,
# so a table of the one cannot be joined to a table of the other by time; and the first frame is at 0.04 s, in an MP4 at 0.
# Sorting frames by their time, the usual advice, shuffles such a video.
# Source: tried; FFmpeg's AVI demuxer gives decoding times alone, and PyAV passes on what the decoder makes of them.
#
# Output seen:
#   avi  PyAV [0.04, 0.12, 0.16, 0.08, 0.24, 0.28]  OpenCV [0.04, 0.08, 0.12, 0.16, 0.2, 0.24], the last at 0.0  pictures [0, 1, 2, 3, 4, 5]
#   mp4  PyAV [0.0, 0.04, 0.08, 0.12, 0.16, 0.2]  OpenCV [0.0, 0.04, 0.08, 0.12, 0.16, 0.2], the last at 0.76  pictures [0, 1, 2, 3, 4, 5]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
"$work/venv/bin/pip" install -qq numpy==2.4.6 av==18.1.0 opencv-python-headless==5.0.0.93
"$work/venv/bin/python" - <<'PYTHON'
import av
import cv2
import numpy as np

in_order = [0.0, 0.04, 0.08, 0.12, 0.16, 0.2]
for kind in ("avi", "mp4"):
    with av.open(f"talk.{kind}", "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "2", "b-pyramid": "none"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(20):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 4 * number, np.uint8))))
        file.mux(stream.encode())

    with av.open(f"talk.{kind}") as file:
        frames = [(round(frame.time, 3), round(frame.to_ndarray(format="gray").mean())) for frame in file.decode(video=0)]
    pav, brightness = zip(*frames)
    pictures = [int(np.argsort(np.argsort(brightness))[i]) for i in range(6)]
    video, ocv = cv2.VideoCapture(f"talk.{kind}"), []
    while video.read()[0]:
        ocv.append(round(video.get(cv2.CAP_PROP_POS_MSEC) / 1000, 3))
    print(f"{kind}  PyAV {list(pav[:6])}  OpenCV {ocv[:6]}, the last at {ocv[-1]}  pictures {pictures}")
    assert len(pav) == len(ocv) == 20 and pictures == [0, 1, 2, 3, 4, 5]
    if kind == "avi":
        assert list(pav) != sorted(pav) and ocv[:19] == sorted(ocv[:19]) and pav[0] == ocv[0] == 0.04 and ocv[19] == 0
    else:
        assert list(pav[:6]) == ocv[:6] == in_order and ocv[19] == 0.76
PYTHON
