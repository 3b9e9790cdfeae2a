#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.13.0.
#
# torchmetrics has two ways to one metric, and their defaults differ: F1Score(task="multilabel") pools all labels ("micro"),
# MultilabelF1Score, which the former makes, averages over labels ("macro"). Publications on AUs mean the second; of rare AUs the
# first gives much higher figures. Accuracy(task="multiclass") and MulticlassAccuracy differ in the same way.
# Source: torchmetrics' documentation, in the signatures alone; the text names no difference.
#
# Output seen (three labels that occur in 50, 10 and 2 % of the samples, the same predictions):
#   F1Score(task="multilabel") 0.682   MultilabelF1Score 0.515
#   Accuracy(task="multiclass") 0.900  MulticlassAccuracy 0.500
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torchmetrics import Accuracy, F1Score
from torchmetrics.classification import MulticlassAccuracy, MultilabelF1Score

torch.manual_seed(0)
labels = (torch.rand(1000, 3) < torch.tensor([0.5, 0.1, 0.02])).int()
probabilities = 0.4 * labels + 0.6 * torch.rand(1000, 3)
short = float(F1Score(task="multilabel", num_labels=3)(probabilities, labels))
long = float(MultilabelF1Score(num_labels=3)(probabilities, labels))
print(f'F1Score(task="multilabel") {short:.3f}   MultilabelF1Score {long:.3f}')

classes, always_zero = torch.tensor([0] * 90 + [1] * 10), torch.zeros(100, dtype=torch.long)
pooled = float(Accuracy(task="multiclass", num_classes=2)(always_zero, classes))
averaged = float(MulticlassAccuracy(num_classes=2)(always_zero, classes))
print(f'Accuracy(task="multiclass") {pooled:.3f}  MulticlassAccuracy {averaged:.3f}')
assert short - long > 0.1 and round(pooled, 3) == 0.9 and round(averaged, 3) == 0.5
PYTHON
