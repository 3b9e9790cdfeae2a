#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.13.0.
#
# One NaN among probabilities sends all of them through a sigmoid, after which nearly all are above 0.5, "present". torchmetrics takes
# predictions for logits as soon as one lies outside 0 to 1, and asks for that by "not all are inside": NaN is not inside.
# That the NaN's own label is to be ignored (ignore_index) does not help. Accuracy falls from 1.00 to 0.25 without a word.
# Source: the sigmoid is documented ("values outside [0,1] range"), NaN is not; torchmetrics#3269 and #1526 are about the guess.
#
# Output seen:
#   accuracy of four right probabilities:                       1.00
#   with a fifth, NaN, whose label is to be ignored:            0.25
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torchmetrics.classification import BinaryAccuracy

probabilities, labels = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 0, 0, 1])
metric = BinaryAccuracy(ignore_index=-1)
right = float(metric(probabilities, labels))
print(f"accuracy of four right probabilities:                       {right:.2f}")
with_nan = torch.cat([probabilities, torch.tensor([torch.nan])])
wrong = float(metric(with_nan, torch.cat([labels, torch.tensor([-1])])))
print(f"with a fifth, NaN, whose label is to be ignored:            {wrong:.2f}")
assert (right, wrong) == (1.0, 0.25)
PYTHON
