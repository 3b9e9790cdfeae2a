"""The format of a prepared folder: prepare.json, and the names of the other files and of the columns.

`jaa_ext.data.preparation.prepare` explains them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal

import cv2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.data.errors import quoted, require_package
from jaa_ext.data.preparation.report import Report

FORMAT = 1
"""Version of the folder's layout."""
SETTINGS = "prepare.json"
IMAGES = "images"
LANDMARK_COLUMNS = tuple(f"{axis}_{i}" for axis in "xy" for i in range(facs.NUM_LANDMARKS))


class FolderError(ValueError):
    """The folder of a prepared data set cannot be used as asked."""


Side = Annotated[int, Field(ge=1, le=65_535)]
AU = Annotated[int, Field(ge=1, le=999)] | Annotated[str, Field(pattern=f"^{facs.ONE_SIDED.pattern}$")]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Settings(_Section):
    """What `prepare` was asked to do."""

    name: str
    """Name of the data set."""
    source: str = ""
    """See `Release.source`; empty in folders of early versions."""
    aus: Annotated[list[AU], Field(min_length=1)]
    size: Annotated[int, Field(ge=2)] | None
    align: bool
    detector: bool
    table: Literal["parquet", "csv"]

    @field_validator("aus")
    @classmethod
    def _distinct(cls, aus: list[facs.AU]) -> list[facs.AU]:
        if len(set(aus)) < len(aus):
            raise ValueError("an AU is listed twice")
        return aus


class Preparation(_Section):
    """The content of prepare.json."""

    format: int
    settings: Settings
    sequences: list[Annotated[list[str], Field(min_length=4, max_length=4)]]
    """Name, subject, task and fold of each clip."""
    opencv: list[str] = []
    """The versions of OpenCV that aligned the faces; empty if they were kept as they are, and in folders of
    early versions, which did not record it."""
    image_size: Side | None
    """Side of the images in pixels; None, like the report, until the preparation is finished."""
    report: Report | None


class _Version(BaseModel):
    format: int


def read_settings(folder: str | os.PathLike[str]) -> Preparation:
    """Read the prepare.json of a finished preparation.

    Raises:
        FolderError: it is missing, not finished, damaged, or of another version.
    """
    known = read_begun(folder)
    if known is None:
        got = f"no {SETTINGS} in that folder" if Path(folder).exists() else "no such folder"
        raise FolderError(f"{folder}: wanted a prepared data set, got {got}")
    if known.report is None:
        raise FolderError(f"{folder}: its preparation is not finished; the command that began it goes on")
    return known


def read_begun(folder: str | os.PathLike[str]) -> Preparation | None:
    """Read the prepare.json of a preparation that may not be finished; None if there is none.

    Raises:
        FolderError: it is damaged or of another version.
    """
    path = Path(folder) / SETTINGS
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        version = _Version.model_validate_json(content).format
        if version == FORMAT:
            return Preparation.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FolderError(
            f"{path}: is damaged: wanted the JSON that the preparation writes "
            f"({where + ': ' if where else ''}{first['msg']})"
        ) from None
    raise FolderError(f"{path}: wanted format {FORMAT}, got {version}; prepare the data set anew")


def write_preparation(folder: Path, preparation: Preparation) -> None:
    """Write prepare.json, whole or not at all."""
    with replacing(folder / SETTINGS) as temporary:
        temporary.write_text(preparation.model_dump_json(indent=1) + "\n", encoding="utf-8")


def alignment_warning(folder: str | os.PathLike[str], opencv: Collection[str]) -> str | None:
    """Write a warning of faces that other versions of OpenCV aligned than this one; None if none did.

    Pixels differ by up to 3 grey levels between OpenCV 4, which rounds positions to 1/32 pixel, and OpenCV 5,
    which does not.
    """
    majors = {version.partition(".")[0] for version in opencv}
    differ = "the same face differs by up to 3 grey levels between major versions"
    if len(majors) > 1:
        return f"{folder}: its faces were aligned by OpenCV {' and '.join(opencv)}; {differ}"
    if majors and majors != {cv2.__version__.partition(".")[0]}:
        return (
            f"{folder}: its faces were aligned by OpenCV {', '.join(opencv)}, and this is {cv2.__version__}, "
            f"which will align those that a model is used on; {differ}"
        )
    return None


def index_file(folder: Path, table: str) -> Path:
    """The path of the index; `table` is "parquet" or "csv"."""
    return folder / f"index.{table}"


def au_columns(aus: Iterable[facs.AU]) -> list[str]:
    """The names of the columns of labels: AU01 for AU 1, AU01L for its left side."""
    return [facs.au_column(au) for au in aus]


def intensity_columns(aus: Iterable[facs.AU]) -> list[str]:
    """The names of the columns of intensities: AU01_intensity for AU 1."""
    return [f"{name}_intensity" for name in au_columns(aus)]


def require_table(table: str) -> None:
    """Check that the packages which read and write an index are installed.

    Raises:
        ImportError: one is not.
    """
    for package in ("pandas", "pyarrow") if table == "parquet" else ("pandas",):
        require_package(package, f"prepared data sets with a {table} index need")


def require_exclusive_folds(subjects_and_folds: Iterable[tuple[str, str]], where: str) -> None:
    """Check that no subject is in two folds.

    Raises:
        FolderError: one is.
    """
    fold_of: dict[str, str] = {}
    for subject, fold in dict.fromkeys(subjects_and_folds):
        if fold_of.setdefault(subject, fold) != fold:
            raise FolderError(
                f"{where}: subject {quoted(subject)} is in folds {quoted(fold_of[subject])} and "
                f"{quoted(fold)}, wanted in one"
            )


def sort_folds(folds: Iterable[str]) -> tuple[str, ...]:
    """Sort the distinct folds that have a name, "2" before "10"."""

    def key(fold: str) -> list[str | tuple[int, str]]:
        # Text and numbers take turns in the key, so text is compared with text and numbers with numbers. The
        # longer number is the larger one; int would refuse very long ones.
        parts = re.split(r"0*([0-9]+)", fold)
        return [(len(part), part) if i % 2 else part for i, part in enumerate(parts)]

    return tuple(sorted(sorted(set(folds) - {""}), key=key))
