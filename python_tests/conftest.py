"""Every op test runs on the CPU and, where there is one, on the GPU."""

from pathlib import Path

import pytest
import torch

from jaa_ext import _library

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() and "cuda" in _library.DEVICES else [])


def pytest_configure(config: pytest.Config) -> None:
    # From the source tree every test would pass on the reference implementations: that must not go unseen.
    if "cpu" not in _library.DEVICES:
        pytest.exit(
            "the compiled kernels are not loaded: install with `pip install '.[test]'` and run `pytest`, not "
            "`python -m pytest` from the repository's root, which imports the source tree",
            returncode=2,
        )
    # float32 means float32: TensorFloat-32, which convolutions use by default, keeps three digits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository's root, other processes that a test starts would import the source tree."""
    monkeypatch.chdir(tmp_path)
