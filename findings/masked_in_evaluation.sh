#!/usr/bin/env bash
# torch 2.13.0, on the CPU.
#
# A sample of a batch of which all is masked, say a video clip without one face, is finite in nn.TransformerEncoderLayer while it
# trains. With model.eval() and torch.no_grad() together, but with neither alone, the layer takes another way ("fast path"), and
# all of that sample becomes NaN. nn.MultiheadAttention does the same with need_weights=False; with need_weights=True, its
# default, it gives NaN at all times. So a model may train to the end without fault and give NaN when it is first used.
# Source: tried; pytorch#190486 (open) has it for rows that two masks hide together, #160064 (open) the influence of need_weights.
#
# Output seen (NaN in the sample that is masked whole; the other sample is the same each time):
#   layer     training: no   eval() alone: no   no_grad() alone: no   both: NaN   both, fast path off: no
#   attention training: no   eval() alone: no   no_grad() alone: no   both: NaN   both, fast path off: no
#   attention with need_weights=True, training: NaN
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch

torch.manual_seed(0)
frames = torch.randn(2, 3, 8)
masked = torch.tensor([[False, False, True], [True, True, True]])
layer = torch.nn.TransformerEncoderLayer(8, 2, dropout=0, batch_first=True)
attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
modules = (
    ("layer", layer, lambda: layer(frames, src_key_padding_mask=masked)),
    ("attention", attention, lambda: attention(frames, frames, frames, masked, need_weights=False)[0]),
)
ways = (("training", True, True), ("eval() alone", False, True), ("no_grad() alone", True, False), ("both", False, False))
for name, module, call in modules:
    outputs, line = [], f"{name:9}"
    for way, training, recorded in (*ways, ("both, fast path off", False, False)):
        module.train(training)
        torch.backends.mha.set_fastpath_enabled("off" not in way)
        with torch.set_grad_enabled(recorded):
            outputs.append(call().detach())
        line += f" {way}: {'NaN' if outputs[-1][1].isnan().all() else 'no'}  "
    print(line.rstrip())
    assert [bool(output[1].isnan().any()) for output in outputs] == [False, False, False, True, False]
    for output in outputs:
        torch.testing.assert_close(output[0], outputs[0][0])
attention.train()
with_weights = attention(frames, frames, frames, masked)[0]
print("attention with need_weights=True, training:", "NaN" if with_weights[1].isnan().all() else "no")
assert with_weights[1].isnan().all() and not with_weights[0].isnan().any()
PYTHON
