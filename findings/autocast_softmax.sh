#!/usr/bin/env bash
# torch 2.13.0, on the CPU.
#
# Under torch.autocast softmax computes in float32 on a GPU ("ops that autocast to float32" of the AMP documentation); under
# CPU autocast it is in no list and stays bfloat16, and so do log_softmax, exp, sum and norm, which CUDA's list has. A loss of
# probabilities that someone wrote for a GPU loses its digits on a CPU: -log(1 - p) of an AU that is surely present is infinite.
# Source: the two lists of https://docs.pytorch.org/docs/stable/amp.html, side by side; tried.
#
# Output seen:
#   softmax, log_softmax, exp, sum, norm under CPU autocast: torch.bfloat16
#   cross_entropy: torch.float32
#   p of logits 0 and 7: 1.0, loss of "absent" inf   (in float32: 0.9990890, 7.0010)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch

layer = torch.nn.Linear(1, 2)  # its output, under autocast, is bfloat16
torch.nn.init.zeros_(layer.weight)
layer.bias.data = torch.tensor([0.0, 7.0])
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    logits = layer(torch.ones(1, 1))
    p = logits.softmax(1)[0, 1]
    listed_for_cuda = (logits.softmax(1), logits.log_softmax(1), logits.exp(), logits.sum(), logits.norm())
    loss = -(1 - p).log()
    entropy = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
types = {result.dtype for result in listed_for_cuda}
print("softmax, log_softmax, exp, sum, norm under CPU autocast:", *types)
print("cross_entropy:", entropy.dtype)
exact = logits.float().softmax(1)[0, 1]
print(f'p of logits 0 and 7: {float(p)}, loss of "absent" {float(loss)}   (in float32: {float(exact):.7f},', end=" ")
print(f"{float(-(1 - exact).log()):.4f})")
assert types == {torch.bfloat16} and entropy.dtype == torch.float32 and loss.isinf() and exact < 1
PYTHON
