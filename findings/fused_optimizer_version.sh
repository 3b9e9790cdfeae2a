#!/usr/bin/env bash
# torch 2.13.0, on the CPU.
#
# An optimizer with fused=True changes the parameters and leaves their version (`_version`) as it was; without, each step raises
# it. Autograd tells by the version that a tensor was changed between forward and backward. So a step that is taken too early,
# between two losses of one forward pass say, ends in an error with the usual optimizer, and in wrong gradients without a word
# with the fused one. What is cached by `_version`, such as weights that were packed or cast, stays stale likewise.
# Source: tried. torch's generator raises the versions of what an op returns (gen_inplace_or_view_type.py, which the wheel holds);
# the fused ones return nothing (native_functions.yaml), and their kernels write to memory. The others end in add_ and the like.
#
# Output seen (the gradient is 2; Adam, AdamW and Adagrad likewise):
#   SGD by default:    version 0 to 1, weight 2 to 1.5, gradient: an error
#   SGD, foreach=True: version 0 to 1, weight 2 to 1.5, gradient: an error
#   SGD, fused=True:   version 0 to 0, weight 2 to 1.5, gradient: 1.5
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch


def step_before_backward(kind, **options):
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    x = torch.tensor([3.0], requires_grad=True)
    y = weight * x  # its gradient by x is the weight of now
    weight.grad = torch.ones(1)
    before = weight._version
    kind([weight], lr=0.5, **options).step()
    try:
        y.backward()
        gradient = x.grad.item()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        gradient = None
    return before, weight._version, weight.item(), gradient


for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    for label, options in ((" by default:", {}), (", foreach=True:", {"foreach": True}), (", fused=True:", {"fused": True})):
        before, after, weight, gradient = step_before_backward(kind, **options)
        if kind is torch.optim.SGD:
            seen = "an error" if gradient is None else f"{gradient:.3g}"
            print(f"{kind.__name__ + label:18} version {before} to {after}, weight 2 to {weight:.3g}, gradient: {seen}")
        if "fused" in options:
            assert after == before and gradient == weight != 2
        else:
            assert after > before and gradient is None
PYTHON
