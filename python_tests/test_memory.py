"""The memory of the process."""

import ctypes
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys, torch
from jaa_ext.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(48):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_not_cleared_page_by_page_again():
    def faults(argument):
        run = [sys.executable, "-c", PAGE_FAULTS, argument]
        return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    # The heap grows for the first tensors, until an aligned block fits.
    assert 3 * faults("keep") < faults("default")
