#!/usr/bin/env bash
# torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0.
#
# An interpolation to the nearest neighbour, exported by torch.onnx.export, reads other pixels in ONNX Runtime than in torch. torch
# multiplies by the ratio of the sizes rounded to float32 (52/44 here), so that positions which are whole numbers fall just
# below: columns 12 and 25 are read where 13 and 26 are exact. ONNX Runtime takes the exact ones. The maps that the JAA-Net
# authors' program resizes so, 52x52 to 44x44, then differ in 172 of 1,936 pixels. The exporter says nothing.
# Source: tried. torch's documentation of interpolate says that `nearest` is OpenCV's, and offers `nearest-exact` for the one of
# other libraries; that counts from the centres of the pixels and is a third result, not ONNX Runtime's.
#
# Output seen:
#   torch reads columns      [..., 11, 12, 14, ..., 24, 25, 27, ...]
#   onnxruntime reads        [..., 11, 13, 14, ..., 24, 26, 27, ...]
#   pixels that differ: 172 of 1936; of "nearest-exact": 1536
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
"$work/venv/bin/python" -W ignore - <<'PYTHON' 2>/dev/null || { echo "it has changed"; exit 1; }
import io

import onnxruntime
import torch
from torch.nn.functional import interpolate


class Resize(torch.nn.Module):
    def forward(self, maps):
        return interpolate(maps, (44, 44), mode="nearest")


maps = torch.arange(52.0 * 52).reshape(1, 1, 52, 52)  # each pixel its number
file = io.BytesIO()
torch.onnx.export(Resize().eval(), (maps,), file, dynamo=True, verbose=False)
session = onnxruntime.InferenceSession(file.getvalue())
theirs = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: maps.numpy()})[0])
ours, centred = Resize()(maps), interpolate(maps, (44, 44), mode="nearest-exact")
print("torch reads columns ", ours[0, 0, 0].int().tolist())
print("onnxruntime reads   ", theirs[0, 0, 0].int().tolist())
differ, of_exact = int((ours != theirs).sum()), int((centred != theirs).sum())
print(f'pixels that differ: {differ} of {ours.numel()}; of "nearest-exact": {of_exact}')
assert (differ, of_exact) == (172, 1536)
PYTHON
