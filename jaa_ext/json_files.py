"""Our own JSON files: written without what JSON does not have, and checked when they are read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jaa_ext.atomic import replacing


def write_json(path: Path, value: Any) -> None:
    """Write plain numbers, lists, dicts and text. A number that is not finite, which JSON lacks, is null;
    bytes of a file's name that are no UTF-8 become escapes."""
    with replacing(path) as temporary:
        text = json.dumps(_plain(value), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, kind: Any, wanted: str) -> Any:
    """Read a file as values of a type, such as ``list[float]``, a dataclass or a ``TypedDict``.

    Args:
        path: the file.
        kind: the type; its values are not converted: "1" is no number.
        wanted: what it says of itself, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged; the message names the file and the first place that does not fit.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] == "json_invalid":
            raise ValueError(f"{path}: is damaged: wanted JSON ({problem['msg']})") from None
        place = ".".join(str(part)[:60] for part in problem["loc"][:9])
        raise ValueError(
            f"{path}: is damaged: wanted {wanted}, got {place or 'something else'}: {problem['msg']}"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
