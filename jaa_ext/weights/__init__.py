"""The weights that come with jaa_ext, which ``jaa_ext.load()`` loads and `jaa predict` uses by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILE = Path(__file__).parent / "default.safetensors"


def default_weights() -> Path:
    """Their file.

    Raises:
        FileNotFoundError: this build comes without them.
    """
    if not FILE.is_file():
        raise FileNotFoundError(
            f"this build of jaa_ext comes without weights of its own ({FILE} is missing): "
            "name a model file (on the command line by --weights)"
        )
    return FILE


def digest(file: Path) -> str:
    """SHA-256 of a model file, by which it is known again."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
