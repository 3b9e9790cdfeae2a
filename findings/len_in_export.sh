#!/usr/bin/env bash
# torch 2.13.0, on the CPU.
#
# torch.export.export with a dynamic batch: a module that asks for len(images) is exported for the one batch size of the
# example, while one that asks for images.shape[0] is exported for all. With Dim("batch") the export fails, with a message that
# names no line; with Dim.AUTO it succeeds, and the program refuses every other batch size when it runs. With strict=True,
# which is not the default, len(images) is as good as shape[0].
# Source: tried; the two modes are told apart in https://docs.pytorch.org/docs/stable/export/programming_model.html
#
# Output seen:
#   len, strict=False, Dim("batch"): UserError, ... your code specialized it to be a constant (2)
#   len, strict=False, Dim.AUTO: exported; 5 images: AssertionError
#   len, strict=True: 5 images: (5, 3)
#   shape[0], strict=False: 5 images: (5, 3)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch.export import Dim, export


class Halves(torch.nn.Module):
    """The mean of each image and its mirror image, which are computed in one batch."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, images):
        n = self.count(images)
        both = torch.cat((images, images.flip(1)))
        return (both[:n] + both[n:]) / 2


def exported(count, batch, strict):
    return export(Halves(count), (torch.rand(2, 3),), dynamic_shapes=[{0: batch}], strict=strict).module()


def of_shape(images):
    return images.shape[0]


five = torch.rand(5, 3)
try:
    exported(len, Dim("batch"), False)
    raise SystemExit("len with Dim: exported")
except torch._dynamo.exc.UserError as error:
    assert "specialized it to be a constant (2)" in str(error)
    print('len, strict=False, Dim("batch"): UserError, ... your code specialized it to be a constant (2)')
program = exported(len, Dim.AUTO, False)
assert program(torch.rand(2, 3)).shape == (2, 3)
try:
    program(five)
    raise SystemExit("len with Dim.AUTO: ran with 5 images")
except AssertionError:
    print("len, strict=False, Dim.AUTO: exported; 5 images: AssertionError")
for name, count, strict in (("len", len, True), ("shape[0]", of_shape, False)):
    shape = tuple(exported(count, Dim("batch"), strict)(five).shape)
    print(f"{name}, strict={strict}: 5 images: {shape}")
    assert shape == (5, 3)
PYTHON
