"""The commands for model files."""

import torch

from jaa_ext.device import has_bfloat16


def test_info(jaa) -> None:
    code, printed, _ = jaa("info")
    assert code == 0
    for word in ("jaa_ext", "torch", "kernels", "CPU", "conv3x3", "compiler", "GPU"):
        assert word in printed
    assert any(level in printed for level in ("baseline", "avx2", "avx512"))
    native = has_bfloat16(torch.device("cpu"))
    assert f"bfloat16  CPU {'native' if native else 'slow: float32 in its place'}" in printed
