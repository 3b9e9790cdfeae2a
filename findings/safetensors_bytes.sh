#!/usr/bin/env bash
# safetensors 0.8.0.
#
# The same tensors with the same metadata give a file of other bytes at each call: metadata are written in the order of a
# hash map of Rust's, which is seeded anew each time. Tensors are sorted; without metadata, or with one entry, the bytes are
# stable. So a checksum of a model file does not tell whether a training was repeated exactly, and a cache by content misses.
# Source: safetensors#584 (open).
#
# Output seen:
#   20 saves of two tensors: 1 file without metadata, 1 with one entry, 20 with eight
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq numpy==2.4.6 safetensors==0.8.0
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
from safetensors.numpy import save

tensors = {"weight": np.ones((3, 3), np.float32), "bias": np.zeros(3, np.float32)}


def different_files(metadata):
    return len({save(tensors, metadata=metadata) for _ in range(20)})


counts = [different_files(metadata) for metadata in (None, {"aus": "1 2 4"}, {name: name for name in "abcdefgh"})]
print("20 saves of two tensors: {} file without metadata, {} with one entry, {} with eight".format(*counts))
assert counts[:2] == [1, 1] and counts[2] > 10
PYTHON
