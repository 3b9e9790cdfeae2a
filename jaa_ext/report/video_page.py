"""A video beside the time line of its table, as one HTML file in which a click goes to a frame."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import urllib.parse
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.data.video import Video, VideoError
from jaa_ext.plots.timeline import COLOURS, distinct_text, frame_times
from jaa_ext.predict.tables import printable, read_table

if TYPE_CHECKING:
    import pandas

TEMPLATE = "video_page.html.jinja"
EMBED_LIMIT = 24_000_000
"""Most bytes of a video that is put into the page. As text they become 32 MB, of which every browser since
2022 takes so long an address; beyond that the page also loads slowly."""
BROWSERS_PLAY = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
"""Endings of the files that browsers play, and the types under which they take them."""
BROWSERS_DECODE = {"h264", "avc1", "vp80", "vp90", "av01"}
"""Codecs that they play, by the four letters that OpenCV gives."""
NO_INTENSITY = 0xFFFF
NO_PROBABILITY = 0xFF
PRESENT = 0x80
"""Added to a probability in percent."""
FOUND, UNSETTLED = 1, 2
"""States of a face in a frame: found, found with success 0; 0 is neither."""


class VideoPage(NamedTuple):
    """What was written."""

    embedded: bool
    """Whether the video is in the page; else the page links to it."""
    notes: list[str]
    """Sentences on what may not be as wanted."""


def write_video_page(
    table: str | os.PathLike[str],
    video: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    link: bool = False,
) -> VideoPage:
    """Write a page with a video beside its time line, for any browser; it loads nothing from elsewhere.

    A row is an AU, its colour the probability or the intensity, below it a mark where the AU is present. A
    pixel column that stands for several frames shows their maximum, as `timeline_figure` does. A line marks
    where a face came back and got its id again. A click goes to the frame, the cursor follows the video, and
    the arrow keys step a frame.

    A video of at most `EMBED_LIMIT` bytes in a format that browsers play is put into the page; to any other
    the page links, relative to its own place, so that both must be moved together.

    Args:
        table: CSV or Parquet of `jaa predict`. Of a table of several videos, that of the video's name counts.
        video: the file that was predicted, or a copy in another format with the same times and size.
        path: the HTML file; folders are made if need be.
        link: link to the video even if it could be put into the page.

    Raises:
        FileNotFoundError, ValueError: no such table or video, none of two frames or more, a table of other
            videos, or a page in place of the table or the video.
        MissingDependency: see `read_table`.

    Example:
        >>> write_video_page("talk.csv", "talk.mp4", "talk.html").embedded  # doctest: +SKIP
        True
    """
    table, video, path = Path(table), Path(video), Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, wanted the name of the HTML file")
    for file in (table, video):
        if path.exists() and file.exists() and path.samefile(file):
            raise ValueError(f"{path}: is the table or the video itself; name another file for the page")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: the name of the page must end in .html")
    rows, notes = _rows_of(read_table(table), table, video)
    data = _page_data(rows, table)
    opened = Video(video)
    first = next(opened.frames(), None)
    if first is None:
        raise VideoError(f"{video}: has no frame")
    data["size"] = [first.image.shape[1], first.image.shape[0]]
    if {"left", "right"} <= set(rows) and (rows["left"] + rows["right"]).max() / 2 > data["size"][0]:
        notes.append(f"{video}: is smaller than what was predicted, and boxes lie elsewhere in it")
    if opened.count is not None and data["end"] > opened.count / opened.fps + 1:
        notes.append(
            f"{video}: ends after {opened.count / opened.fps:.1f} s, but the table after "
            f"{data['end']:.1f} s; is it another video?"
        )
    codec = _codec(video)
    plays = video.suffix.lower() in BROWSERS_PLAY and codec.lower() in BROWSERS_DECODE
    if not plays:
        notes.append(
            f"{video}: most browsers do not play {codec or 'its codec'} in {video.suffix or 'this format'}, "
            "and the page then has the time line alone; they play a copy: ffmpeg -i OLD -c:v libx264 "
            "-pix_fmt yuv420p NEW.mp4"
        )
    embedded = plays and not link and video.stat().st_size <= EMBED_LIMIT
    if embedded:
        address, data["linked"] = _data_uri(video), None
    else:
        beside = os.path.relpath(os.path.abspath(video), os.path.abspath(path.parent))
        address, data["linked"] = urllib.parse.quote(os.fsencode(beside)), printable(beside)
    page = _render(
        name=printable(video.name),
        note=distinct_text(rows, "weights"),
        address=address,
        media="data:" if embedded else "'self' file:",
        data=_json(data),
        size=data["size"],
        seen=[face["seen"] for face in data["faces"]],
        frames=data["count"],
        table=printable(table.name),
        corrected=distinct_text(rows, "corrected"),
        sides=any(au["both"] for au in data["aus"]),
        has_empty=_has_empty(rows),
        has_returns=any(face["returns"] for face in data["faces"]),
        has_intensity=any(face["r"] is not None for face in data["faces"]),
        colours=data["colours"],
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return VideoPage(embedded, notes)


def _rows_of(whole: pandas.DataFrame, table: Path, video: Path) -> tuple[pandas.DataFrame, list[str]]:
    """Choose the rows of the video, and say if they bear another name."""
    sources = list(dict.fromkeys(whole["source"].astype(str)))
    if not sources:
        raise ValueError(f"{table}: has no row, wanted the table of a video")
    name = printable(video.name)
    named = [source for source in sources if source == printable(os.fspath(video))]
    named = named or [source for source in sources if os.path.basename(source) == name]
    notes = []
    if len(sources) == 1 and not named:
        notes.append(f"{table}: is of {sources[0]}, taken for the same as {video}")
        named = sources
    if len(named) != 1:
        listed = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
        what = "none of them is" if not named else f"{len(named)} of them are"
        raise ValueError(f"{table}: has {len(sources)} sources ({listed}); {what} named {name}")
    rows = whole[whole["source"] == named[0]]
    if rows["frame"].nunique() < 2:
        raise ValueError(f"{table}: has 1 frame of {named[0]}, wanted a video of two frames or more")
    return rows, notes


def _page_data(rows: pandas.DataFrame, table: Path) -> dict[str, Any]:
    """Give what the page draws: times, and for each face its values from its first frame to its last."""
    groups = facs.group_sides([name for name in facs.predicted_aus(rows.columns) if f"{name}_c" in rows])
    names = [name for group in groups for name in group]
    if not names:
        raise ValueError(f"{table}: has no AU, wanted columns such as AU12_c and AU12_p")
    frames, times = frame_times(rows, f"{table}: ")
    usual = float(np.median(np.diff(times))) or 1.0
    both = {group[0]: _labels(group[0][:-1]) for group in groups if len(group) == 2}
    seen = rows[rows["face_id"] >= 0]
    counts = (seen["success"] == 1).groupby(seen["face_id"]).sum().sort_values(ascending=False, kind="stable")
    return {
        "colours": _colours(),
        "aus": [{"name": name, **_labels(name), "both": both.get(name)} for name in names],
        "count": len(frames),
        "usual": usual,
        "end": float(times[-1]) + usual,
        "times": _base64(times, "<f8"),
        "frames": _base64(frames, "<u4"),
        "faces": [
            {"id": int(face), "seen": int(count), **_face_data(seen[seen["face_id"] == face], names, frames)}
            for face, count in counts.items()
        ],
    }


def _has_empty(rows: pandas.DataFrame) -> bool:
    """Tell whether a face that was found has no AUs, as without a neutral face in a corrected table."""
    aus = [f"{name}_p" for name in facs.predicted_aus(rows.columns)]
    return bool(rows.loc[rows["success"] == 1, aus].isna().all(axis=1).any())


def _labels(name: str) -> dict[str, str]:
    label, long = facs.column_in_words(name)
    return {"label": label, "long": long}


def _face_data(face: pandas.DataFrame, names: list[str], frames: NDArray[np.int64]) -> dict[str, Any]:
    """Pack the rows of one face into arrays over the frames from its first to its last, AU by AU."""
    places = np.searchsorted(frames, face["frame"].to_numpy(np.int64))
    merged = face["merged"].to_numpy(np.float64, na_value=np.nan) if "merged" in face else np.zeros(len(face))
    back = (merged > 0) & (merged <= 1)
    returns = list(zip(places[back].tolist(), merged[back].tolist(), strict=True))
    first, span = int(places.min()), int(places.max() - places.min()) + 1
    places = places - first

    def packed(columns: list[str], factor: float, empty: int, dtype: str) -> NDArray[Any]:
        values = np.full((len(columns), span), empty, dtype)
        for i, column in enumerate(columns):
            if column in face:
                numbers = face[column].to_numpy(np.float64, na_value=np.nan)
                known = np.isfinite(numbers)
                limits = np.iinfo(dtype)
                scaled = np.clip(np.rint(factor * numbers[known]), limits.min, limits.max)
                values[i, places[known]] = scaled.astype(dtype)
        return values

    probability = packed([f"{name}_p" for name in names], 100, NO_PROBABILITY, "<u1")
    present = packed([f"{name}_c" for name in names], 1, 0, "<u1")
    probability[(probability != NO_PROBABILITY) & (present == 1)] += PRESENT
    intensities = [f"{name}_r" for name in names]
    edges = ["left", "top", "right", "bottom"]
    state = np.zeros(span, np.uint8)
    state[places] = np.where(face["success"].to_numpy() == 1, FOUND, UNSETTLED)
    return {
        "first": first,
        "span": span,
        "state": _base64(state, "<u1"),
        "returns": returns,
        "p": _base64(probability, "<u1"),
        "r": _base64(packed(intensities, 100, NO_INTENSITY, "<u2"), "<u2")
        if any(name in face and face[name].notna().any() for name in intensities)
        else None,
        "box": _base64(packed(edges, 1, 0, "<i2"), "<i2") if all(edge in face for edge in edges) else None,
    }


def _render(**values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    text = (resources.files("jaa_ext") / "report" / TEMPLATE).read_text(encoding="utf-8")
    # Only these scripts run, whatever stands in the files.
    digests = [
        hashlib.sha256(script.encode()).digest()
        for script in re.findall(r"<script>(.*?)</script>", text, re.S)
    ]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    rules = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return rules.from_string(text).render(values, allowed=allowed)


def _json(data: dict[str, Any]) -> Any:
    """Write JSON that may stand in a script element, which any "</script" would end."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _colours() -> list[str]:
    """Give the time line's colours for 0 to 100 percent."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, 101))]


def _codec(video: Path) -> str:
    """Give the four letters of the video's codec, as OpenCV names it."""
    capture = cv2.VideoCapture(os.fspath(video))
    try:
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
    finally:
        capture.release()
    letters = code.to_bytes(4, "little", signed=code < 0).decode("latin-1")
    return "".join(letter for letter in letters if letter.isalnum())


def _data_uri(video: Path) -> str:
    return (
        f"data:{BROWSERS_PLAY[video.suffix.lower()]};base64,{base64.b64encode(video.read_bytes()).decode()}"
    )


def _base64(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
