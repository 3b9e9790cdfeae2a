#!/usr/bin/env bash
# opencv-python-headless 4.12.0.88, 4.13.0.92, 4.14.0.94 and 5.0.0.93, the video made with av 18.1.0.
#
# Of interlaced video (camcorders' AVCHD and DV, television, DVDs) OpenCV from 4.13 on gives what its memory holds: the picture
# before where only some frames are interlaced, and anything where all are, a picture of another video, say. read() says that all
# went well; only FFmpeg tells, on standard error: "Cannot convert interlaced to progressive frames or vice versa". No option of
# VideoCapture helps, CAP_PROP_CONVERT_RGB neither. A copy helps: ffmpeg -i old.mts -vf yadif=deint=interlaced new.mp4
# 4.12 is right (the two halves of a picture woven, as they are stored), and so again is opencv-contrib-python 5.1.0.95.
# Source: tried. vllm#47853 meets black pictures; of an issue of OpenCV's we know none. opencv#27755 brought sws_scale_frame,
# which converts no interlaced frame into one that is not marked so, and whose answer is not looked at.
#
# Output seen (ten frames of grey 60 to 105, of which the last five are interlaced; and those five in a file of their own):
#   4.12.0                   60 65 70 75 80 85 90 95 100 105     85 90 95 100 105
#   4.13.0, 4.14.0, 5.0.0    60 65 70 75 80 80 80 80 80 80       one level five times (80, 5 and 5)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
for version in 4.12.0.88 4.13.0.92 4.14.0.94 5.0.0.93; do
  "$work/venv/bin/pip" install -qq numpy==2.2.6 av==18.1.0 "opencv-python-headless==$version"
  "$work/venv/bin/python" - 2>>errors <<'PYTHON' || { cat errors >&2; exit 1; }
from pathlib import Path

import av
import cv2
import numpy as np


def write(name, first_level, flags):
    with av.open(name, "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"flags": flags})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for level in range(first_level, first_level + 25, 5):
            picture = np.full((256, 320, 3), level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode())


def levels(name):
    video, seen = cv2.VideoCapture(name), []
    while (frame := video.read())[0]:
        seen.append(5 * round(frame[1].mean() / 5))
    return seen


write("progressive.ts", 60, "+bitexact")
write("interlaced.ts", 85, "+ildct+ilme")
with av.open("interlaced.ts") as file:
    assert all(frame.interlaced_frame for frame in file.decode(video=0))
Path("both.ts").write_bytes(Path("progressive.ts").read_bytes() + Path("interlaced.ts").read_bytes())
both, interlaced = levels("both.ts"), levels("interlaced.ts")
print(f"OpenCV {cv2.__version__}:", *both, "   and", *interlaced)
if cv2.__version__ == "4.12.0":
    assert both == list(range(60, 110, 5)) and interlaced == both[5:]
else:
    assert both == [60, 65, 70, 75] + [80] * 6 and len(interlaced) == 5 and len(set(interlaced)) == 1
PYTHON
done
grep -q "Cannot convert interlaced to progressive frames" errors
