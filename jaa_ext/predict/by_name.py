"""Detectors and embeddings of the user's own: imported by a name, and named in what is unfinished."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def name_of(chosen: Any, called: str = "") -> str:
    """Give the name by which an unfinished table knows a detector or an embedding.

    It is its attribute `identity`; without one, the MODULE:ATTRIBUTE by which it was called; else the name of
    the function, or of the object's class.

    Example:
        >>> name_of(name_of), name_of(name_of, "my_people:embed")
        ('jaa_ext.predict.by_name.name_of', 'my_people:embed')
    """
    named = chosen if hasattr(chosen, "__qualname__") else type(chosen)
    own = called if ":" in called else f"{named.__module__}.{named.__qualname__}"
    return str(getattr(chosen, "identity", own))


def is_attribute(name: str) -> bool:
    """Tell whether a name has the form MODULE:ATTRIBUTE.

    Example:
        >>> is_attribute("my_faces:CnnFaces"), is_attribute("dlib")
        (True, False)
    """
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), attribute))


def attribute_of(option: str, name: str) -> Any:
    """Import the class or function MODULE:ATTRIBUTE, from what is installed or else from the working folder.

    Raises:
        ValueError: no such module, class or function; the message begins with the option.

    Example:
        >>> attribute_of("identity", "math:hypot")(3, 4)
        5.0
    """
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f'{option} "{name}": no module {error.name}, neither installed nor in {folder}'
        ) from None
    if not callable(getattr(found, attribute, None)):
        raise ValueError(f'{option} "{name}": {found.__name__} has no class or function {attribute}')
    return getattr(found, attribute)
