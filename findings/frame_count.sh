#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and 4.14.0.94, videos made with av 18.1.0.
#
# CAP_PROP_FRAME_COUNT is no count of the frames that read() gives, too many in three ordinary files:
#   an MP4 that was trimmed by its edit list, as telephones trim without encoding again: it counts what was cut off;
#   a Matroska file of variable frame rate: duration times a rate that the header names;
#   an FLV: duration times rate, and the duration has the delay of the B frames in it.
# A table with as many rows as the count, or the "middle" of a video, is wrong without a word.
# Source: OpenCV's cap_ffmpeg_impl.hpp, get_total_frames(); tried.
#
# Output seen, both versions:
#   trimmed mp4: counted 40, read 25     mkv: counted 120, read 70     flv: counted 22, read 20
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
for version in 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.4.6 av==18.1.0 "opencv-python-headless==$version"
  "$work/venv/bin/python" - <<'PYTHON'
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def write(name, times, rate):
    with av.open(name, "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12800)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 3 * number, np.uint8))
            frame.pts, frame.time_base = round(time * 12800), Fraction(1, 12800)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


write("trimmed.mp4", [i / 25 for i in range(40)], 25)
data = bytearray(Path("trimmed.mp4").read_bytes())
entry = data.index(b"elst") + 12  # version and flags, number of entries, then duration (ms) and start of the first
_, start = struct.unpack_from(">Ii", data, entry)
struct.pack_into(">Ii", data, entry, 1000, start + 15 * 512)  # from the 16th frame on, a frame lasts 512 / 12800 s
Path("trimmed.mp4").write_bytes(data)
uneven = [i / 30 for i in range(30)] + [1 + i / 5 for i in range(10)] + [3 + i / 30 for i in range(30)]
write("uneven.mkv", uneven, 30)
write("even.flv", [i / 25 for i in range(20)], 25)

print("OpenCV", cv2.__version__)
for name, counted, given in (("trimmed.mp4", 40, 25), ("uneven.mkv", 120, 70), ("even.flv", 22, 20)):
    video, read = cv2.VideoCapture(name), 0
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    while video.read()[0]:
        read += 1
    print(f"{name}: counted {count}, read {read}")
    assert (count, read) == (counted, given)
PYTHON
done
