#!/usr/bin/env bash
# torch 2.13.0, on the CPU.
#
# Batch norm's gradients are wrong, without a word, for an input of width (or height) 1 whose memory lies channels last, if the
# gradient that comes back does not. Tokens (N, L, C) that are made a picture (N, C, L, 1) by transpose and unsqueeze are such
# an input, and any contiguous layer behind gives such a gradient. The output is right; the gradients of input, weight and
# bias are not: that of the bias, which is a mere sum, shows it best.
# Source: tried. It looks as if the fast path of batch_norm_backward_cpu (aten/src/ATen/native/Normalization.cpp) were taken when
# input and gradient each are contiguous in some layout and suggest_memory_format() of both is the same; a dimension of size 1
# has any stride, so the two can agree in that and differ in memory. pytorch#147303 and #107199 are of other faults of the layout.
#
# Output seen:
#   output:             largest error 2.2e-16 at values up to 2.5
#   gradient of input:  largest error 2.9 at values up to 2.4
#   gradient of weight: largest error 4.6 at values up to 4.9
#   gradient of bias:   largest error 7 at values up to 2.8
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import batch_norm

torch.manual_seed(0)
n, c, l = 3, 5, 4
tokens = torch.randn(n, l, c, dtype=torch.float64)
picture = tokens.transpose(1, 2).unsqueeze(3)  # (n, c, l, 1), without a copy
back = torch.randn(n, c, l, 1, dtype=torch.float64)
weight = torch.ones(c, dtype=torch.float64, requires_grad=True)
bias = torch.zeros(c, dtype=torch.float64, requires_grad=True)


def output_and_gradients(picture):
    picture = picture.detach().requires_grad_()
    output = batch_norm(picture, None, None, weight, bias, training=True)
    return output, *torch.autograd.grad(output, (picture, weight, bias), back)


got, right = output_and_gradients(picture), output_and_gradients(picture.contiguous())
torch.testing.assert_close(right[3], back.sum((0, 2, 3)))  # worked out independently
errors = []
for name, one, other in zip(("output:", "gradient of input:", "gradient of weight:", "gradient of bias:"), got, right):
    errors.append(float((one - other).detach().abs().max()))
    print(f"{name:19} largest error {errors[-1]:.2g} at values up to {other.detach().abs().max():.2g}")
assert errors[0] < 1e-12 and min(errors[1:]) > 1
PYTHON
