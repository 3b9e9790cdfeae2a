#!/usr/bin/env bash
# numpy 2.4.6.
#
# picture.mean((0, 1)), the mean of each colour, is off by 15 grey levels for a single bright photograph of 12 megapixels in
# float32, and a grey card gets a standard deviation of 12.5 instead of 0. numpy adds by pairs, which keeps the digits, only
# along the axis that lies closest in memory. Colours lie there, so the pixels are added one after the other to a float32 that
# soon is too large to take them up exactly. The mean of one colour alone, of (3, H, W), and of uint8 is right.
# Source: the notes of numpy.sum's documentation; numpy#8869 and #22956 (open), of sums that stop growing at 2^24 ones.
#
# Output seen:
#   bright photograph: mean 232.5, rightly 217.5; of (3, H, W) 217.5, of uint8 217.5
#   grey card:         mean 113.4, rightly 100.0; standard deviation 12.5, rightly 0.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np

bytes_ = np.random.default_rng(0).integers(180, 256, (3000, 4000, 3), dtype=np.uint8)
bright = bytes_.astype(np.float32)
got, right = bright.mean((0, 1))[0], np.bincount(bytes_[..., 0].ravel()) @ np.arange(256) / 12e6
planes, whole = bright.transpose(2, 0, 1).copy().mean((1, 2))[0], bytes_.mean((0, 1))[0]
print(f"bright photograph: mean {got:.1f}, rightly {right:.1f}; of (3, H, W) {planes:.1f}, of uint8 {whole:.1f}")
assert got - right > 10 and max(abs(planes - right), abs(whole - right), abs(bright[..., 0].mean() - right)) < 0.01

card = np.full((3000, 4000, 3), 100, np.float32)
mean, deviation = card.mean((0, 1))[0], card.std((0, 1))[0]
print(f"grey card:         mean {mean:.1f}, rightly 100.0; standard deviation {deviation:.1f}, rightly 0.0")
assert mean > 110 and deviation > 10
PYTHON
