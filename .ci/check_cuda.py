"""Import the CUDA build (no GPU needed) and see that every op has its kernels, on CUDA but for conv3x3."""

import torch

import jaa_ext  # noqa: F401
from jaa_ext import _library

assert "cuda" in _library.DEVICES, _library.build_info()
ops = sorted(
    {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("jaa_ext::")}
)
for_cpus = [op for op in ops if op.startswith("jaa_ext::conv3x3")]  # on a GPU cuDNN convolves
assert len(ops) == 11 and len(for_cpus) == 4, ops
for op in ops:
    keys = ["CPU", "Autograd"]
    if op not in for_cpus:
        keys.append("CUDA")
        # Backward passes are not called under autocast, and batch norm takes what type comes.
        if not op.endswith("_backward") and op != "jaa_ext::region_batch_norm":
            keys.append("AutocastCUDA")
    for key in keys:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, key), f"{op} has no {key} kernel"
print(
    f"{len(ops) - len(for_cpus)} ops have CPU and CUDA kernels, {len(for_cpus)} CPU kernels alone: "
    f"torch {torch.__version__}, {_library.build_info()['archs']}"
)
