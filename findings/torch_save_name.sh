#!/usr/bin/env bash
# torch 2.13.0.
#
# torch.save writes the file's name into the file: the folder inside the archive has it, without its ending. The same tensors saved
# as a.pt and b.pt differ in bytes, and so do checksums. Written to a temporary name and renamed, as one writes files safely,
# a checkpoint carries the temporary name for ever: with a random one no two runs give the same bytes. Saved to an open
# file the name is "archive" and the bytes are the same.
# Source: tried; torch/serialization.py, _open_zipfile_writer_file (pytorch#42163 and #184219 are about other causes).
#
# Output seen:
#   a.pt and b.pt are the same: False; inside: ['a/data.pkl', ...] and ['b/data.pkl', ...]
#   saved to open files: True; inside: ['archive/data.pkl', ...]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import zipfile
from pathlib import Path

import torch


def first(name):
    with zipfile.ZipFile(name) as archive:
        return archive.namelist()[0]


def same(*names):
    return len({Path(name).read_bytes() for name in names}) == 1


weights = {"weight": torch.ones(3)}
for name in ("a.pt", "b.pt"):
    torch.save(weights, name)
    with open(f"open-{name}", "wb") as file:
        torch.save(weights, file)
print(f"a.pt and b.pt are the same: {same('a.pt', 'b.pt')}; inside: {first('a.pt')} and {first('b.pt')}")
print(f"saved to open files: {same('open-a.pt', 'open-b.pt')}; inside: {first('open-a.pt')}")
assert not same("a.pt", "b.pt") and same("open-a.pt", "open-b.pt") and first("a.pt") == "a/data.pkl"
PYTHON
