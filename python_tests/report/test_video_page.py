"""The page of a video: its data are the table's, its scripts draw what the figure draws, a browser obeys."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from jaa_ext.plots import timeline
from jaa_ext.report import video_page
from jaa_ext.report.video_page import write_video_page

NODE = shutil.which("node")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
with_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")
FRAMES, FPS = 40, 10


def table(
    frames: int = FRAMES,
    fps: float = FPS,
    aus: tuple[int, ...] = (1, 12),
    intensity: bool = True,
    **fields: Any,
) -> pd.DataFrame:
    """Face 0 in all frames but two of ten, face 3 in the second half; the last frame of face 3 unsettled."""
    random = np.random.default_rng(0)
    parts = []
    for face, keep in ((0, np.arange(frames) % 10 > 1), (3, np.arange(frames) >= frames // 2)):
        n = np.flatnonzero(keep)
        part = {"frame": n + 1, "face_id": face, "timestamp": (n / fps).round(3), "success": 1}
        for au in aus:
            p = random.random(len(n)).round(6)
            r = np.where(p > 0.5, 1 + 4 * p, p).round(2)
            part |= {f"AU{au:02d}_c": (p > 0.5).astype(int), f"AU{au:02d}_p": p}
            part |= {f"AU{au:02d}_r": r} if intensity else {}
        part |= {"left": 10.0 + n, "top": -4.25, "right": 30.0 + n, "bottom": 44.0}
        parts.append(pd.DataFrame(part))
    parts[1].loc[parts[1].index[-1], "success"] = 0
    missing = np.setdiff1d(np.arange(frames), [*(parts[0]["frame"] - 1), *(parts[1]["frame"] - 1)])
    empty = {"frame": missing + 1, "face_id": -1, "timestamp": (missing / fps).round(3), "success": 0}
    whole = pd.concat([*parts, pd.DataFrame(empty)]).sort_values(["frame", "face_id"], kind="stable")
    return whole.assign(**{"source": "talk.webm", "weights": "only a test"} | fields).reset_index(drop=True)


def write_film(path: Path, frames: int = FRAMES, fps: float = FPS, codec: str = "VP80") -> Path:
    """A video whose frame i, from 0, has the brightness 10 + 6 i."""
    file = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert file.isOpened()
    for i in range(frames):
        file.write(np.full((48, 64, 3), 10 + 6 * i % 240, np.uint8))
    file.release()
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(tmp_path / "talk.webm")


class Page(HTMLParser):
    """The elements of a page and the scripts' texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def scripts(self) -> list[str]:
        return [text for tag, text in self.texts if tag == "script"]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    @property
    def policy(self) -> str:
        (policy,) = (meta["content"] for meta in self.all("meta") if "http-equiv" in meta)
        assert policy is not None
        return policy


@pytest.fixture
def make(tmp_path: Path, film: Path):
    def run(rows: pd.DataFrame | None = None, video: Path = film, name: str = "talk.html", **options) -> Page:
        (table() if rows is None else rows).to_csv(tmp_path / "talk.csv", index=False)
        run.written = write_video_page(tmp_path / "talk.csv", video, tmp_path / name, **options)
        return Page(tmp_path / name)

    return run


def unpack(text: str, dtype: str, rows: int = 1) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(rows, -1)


def test_what_was_corrected_is_told(make) -> None:
    page = make()
    assert (
        "corrected" not in "".join(text for _, text in page.texts[:-2]) and 'class="empty"' not in page.source
    )
    rows = table().assign(corrected="smoothed over 0.5 s")
    rows.loc[rows["face_id"] == 3, ["AU01_c", "AU01_p", "AU01_r", "AU12_c", "AU12_p", "AU12_r"]] = np.nan
    page = make(rows)
    assert any("AUs are corrected: smoothed over 0.5 s." in text for _, text in page.texts)
    assert any("no neutral face was seen" in text for _, text in page.texts)


def test_the_data_are_those_of_the_table(make) -> None:
    rows = table()
    data = make(rows).data
    assert unpack(data["frames"], "<u4")[0].tolist() == list(range(1, FRAMES + 1))
    np.testing.assert_allclose(unpack(data["times"], "<f8")[0], np.arange(FRAMES) / FPS)
    assert data["end"] == pytest.approx(FRAMES / FPS) and data["size"] == [64, 48]
    assert [(au["label"], au["long"]) for au in data["aus"]] == [
        ("AU 1", "inner brow raiser"),
        ("AU 12", "lip corner puller"),
    ]
    assert [(face["id"], face["seen"]) for face in data["faces"]] == [(0, 32), (3, 19)]
    for face in data["faces"]:
        own = rows[rows["face_id"] == face["id"]]
        at = own["frame"].to_numpy() - 1 - face["first"]
        state = unpack(face["state"], "<u1")[0]
        assert len(state) == face["span"] == at.max() + 1 and at.min() == 0
        assert np.flatnonzero(state).tolist() == at.tolist()
        assert (state[at] == np.where(own["success"] == 1, 1, 2)).all()
        probabilities, intensities = unpack(face["p"], "<u1", 2), unpack(face["r"], "<u2", 2)
        for i, name in enumerate(("AU01", "AU12")):
            assert np.abs((probabilities[i, at] & 127) / 100 - own[f"{name}_p"]).max() <= 0.005001
            assert ((probabilities[i, at] >= 128) == (own[f"{name}_c"] == 1)).all()
            assert (intensities[i, at] / 100 == own[f"{name}_r"]).all()
            assert (np.delete(probabilities[i], at) == 255).all()
        boxes = own[["left", "top", "right", "bottom"]].round().to_numpy()
        assert (boxes == unpack(face["box"], "<i2", 4)[:, at].T).all()


def test_columns_that_a_table_may_lack(make) -> None:
    rows = table(intensity=False).drop(columns=["left", "top", "right", "bottom", "weights"])
    page = make(rows.rename(columns={"AU12_c": "AU12L_c", "AU12_p": "AU12L_p"}))
    assert [au["label"] for au in page.data["aus"]] == ["AU 1", "AU 12L"]
    assert "present: probability above the AU's threshold" in [text for _, text in page.texts]
    assert all(face["r"] is face["box"] is None for face in page.data["faces"])
    assert not any(select.get("id") == "quantity" for select in page.all("select"))
    some = table()
    some.loc[some["face_id"] == 3, "AU12_r"] = np.nan
    data = make(some).data
    assert (unpack(data["faces"][1]["r"], "<u2", 2)[1] == 0xFFFF).all()


def sided() -> pd.DataFrame:
    """AU 1, and both sides of AU 12, the right one first."""
    rows = table()
    left = {f"AU12L_{kind}": rows[f"AU12_{kind}"] for kind in "cpr"}
    right = {f"AU12R_{kind}": rows[f"AU01_{kind}"] for kind in "cpr"}
    return rows.drop(columns=list(rows.filter(like="AU12"))).assign(**right, **left)


def test_both_sides_of_an_au_stand_together(make) -> None:
    page = make(sided())
    assert [(au["name"], au["label"], au["long"]) for au in page.data["aus"]] == [
        ("AU01", "AU 1", "inner brow raiser"),
        ("AU12L", "AU 12L", "lip corner puller, left"),
        ("AU12R", "AU 12R", "lip corner puller, right"),
    ]
    both = {"label": "AU 12", "long": "lip corner puller"}
    assert [au["both"] for au in page.data["aus"]] == [None, both, None]
    face = page.data["faces"][0]
    plain = make(table()).data["faces"][0]
    for name, dtype in (("p", "<u1"), ("r", "<u2")):
        one, two = unpack(plain[name], dtype, 2)
        assert (unpack(face[name], dtype, 3) == (one, two, one)).all()
    assert "the person's own left and right" in page.source
    assert "the person's own left and right" not in make(table()).source


def test_a_video_without_a_face(make) -> None:
    rows = table()[["frame", "timestamp", "source", "AU01_c", "AU01_p"]].drop_duplicates("frame")
    page = make(rows.assign(face_id=-1, success=0, AU01_c=None, AU01_p=None))
    assert page.data["faces"] == [] and "no face in any of them" in page.source


def test_the_page_loads_and_runs_nothing_else(make) -> None:
    page = make()
    scripts = page.scripts[1:]
    assert len(page.scripts) == 3 and [script.get("src") for script in page.all("script")] == [None] * 3
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert page.policy.startswith("default-src 'none';") and "'unsafe-eval'" not in page.policy
    assert re.search(r"script-src ([^;]*);", page.policy)[1] == " ".join(
        f"'sha256-{each}'" for each in digests
    )
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "img", "a")
        assert all(
            "http" not in (value or "") for name, value in attributes.items() if name in ("src", "href")
        )
    assert "innerHTML" not in page.source


def test_names_are_no_code(make, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}.webm"
    video = write_film(tmp_path / evil)
    clean = [tag for tag, _ in make().elements]
    rows = table(source=evil, weights="</script><script>alert(2)</script><b>")
    rows = rows.rename(columns={"AU12_c": 'AU12"><b>_c', "AU12_p": 'AU12"><b>_p'})
    rows[["AUrule1</script>_p", "AU_öß_p", "AU_öß_c"]] = 0.0
    page = make(rows, video, link=True)
    assert [tag for tag, _ in page.elements] == clean
    assert unquote(page.all("video")[0]["src"]) == evil and "<" not in page.all("video")[0]["src"]
    assert page.data["linked"] == evil and "49" not in page.data["linked"]
    assert ("p", "</script><script>alert(2)</script><b>") in page.texts
    assert [au["name"] for au in page.data["aus"]] == ["AU01", "AU_öß"]


def test_a_small_video_is_in_the_page_and_a_large_one_beside_it(
    make, film: Path, tmp_path: Path, monkeypatch
) -> None:
    page = make()
    assert make.written == (True, []) and "media-src data:;" in page.policy
    address = page.all("video")[0]["src"]
    assert address.startswith("data:video/webm;base64,")
    assert base64.b64decode(address.partition(",")[2]) == film.read_bytes()
    page = make(name="pages/talk.html", link=True)
    assert not make.written.embedded and page.all("video")[0]["src"] == "../talk.webm"
    assert "media-src 'self' file:;" in page.policy
    monkeypatch.setattr(video_page, "EMBED_LIMIT", film.stat().st_size - 1)
    assert make().all("video")[0]["src"] == "talk.webm"
    monkeypatch.setattr(video_page, "EMBED_LIMIT", film.stat().st_size)
    assert make().all("video")[0]["src"].startswith("data:")


def test_the_same_files_give_the_same_page(make) -> None:
    assert make().source == make().source


def test_what_browsers_do_not_play_is_told(make, tmp_path: Path) -> None:
    page = make(video=write_film(tmp_path / "talk.mp4", codec="mp4v"))
    first, second = make.written.notes
    assert "is of talk.webm, taken for the same as" in first and "do not play FMP4 in .mp4" in second
    assert not make.written.embedded and page.all("video")[0]["src"] == "talk.mp4"
    make(table(frames=80), video=write_film(tmp_path / "talk.webm"))
    small, short = make.written.notes  # of a table whose last boxes lie beyond the film's 64 pixels
    assert "is smaller than what was predicted" in small
    assert "ends after 4.0 s, but the table after 8.0 s" in short


def test_mistakes(make, film: Path, tmp_path: Path) -> None:
    two = pd.concat([table(source="a/talk.webm"), table(source="b/talk.webm"), table(source="c.webm")])
    late = table()
    late.loc[late["frame"] == 7, "timestamp"] = 0.1
    for rows, sentence in (
        (two, "has 3 sources (a/talk.webm, b/talk.webm, c.webm); 2 of them are named talk.webm"),
        (
            two[two["source"] != "b/talk.webm"].assign(source=lambda t: t["source"] + "x"),
            "none of them is named",
        ),
        (table()[:1], "has 1 frame of talk.webm, wanted a video of two frames or more"),
        (table().iloc[:0], "has no row"),
        (table().drop(columns=["AU01_c", "AU12_c"]), "has no AU, wanted columns such as AU12_c and AU12_p"),
        (late, "time must rise with the frames, got 0.5 s for frame 6 and 0.1 s for frame 7"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            make(rows)
    assert make(two[two["source"] != "b/talk.webm"]).data["count"] == FRAMES
    (tmp_path / "talk.csv").write_text(before := (tmp_path / "talk.csv").read_text())
    for name, sentence in (
        ("talk.webm", "the table or the video itself"),
        ("new.csv", "must end in .html"),
        ("new.mp4", "must end in .html"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make(name=name)
    with pytest.raises(ValueError, match="there is no such file"):
        make(video=tmp_path / "none.webm")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_video_page(tmp_path / "talk.csv", film, tmp_path)
    assert (tmp_path / "talk.csv").read_text() and before
    assert not (tmp_path / "new.csv").exists()


# The scripts, without a document.


def run_node(page: Page, expression: str) -> Any:
    code = f"{page.scripts[1]}\nconst data = {page.scripts[0]};\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize(("frames", "fps"), [(FRAMES, FPS), (5000, 29.97)])
def test_columns_and_peaks_are_those_of_the_figure(make, frames: int, fps: float) -> None:
    """Against `jaa draw`'s own time line, of fewer frames than columns and of more."""
    rows = table(frames=frames, fps=fps)
    rows = rows[(rows["frame"] < frames // 3) | (rows["frame"] > frames // 3 + frames // 7)]
    time_ = timeline._Time.of(rows)
    found = run_node(
        make(rows),
        f"""(() => {{
          const {{times, ends, faces}} = unpackAll(data), plain = values => Array.from(values);
          const columns = columnsOf(times, ends, times[0], data.end, {timeline.COLUMNS});
          const peaks = (face, au) => {{
            const {{level, present, gap, frame}} = peaksOf(face, au, columns, "p");
            const high = peaksOf(face, au, columns, "r").level;
            return [level, present, gap, frame, high].map(plain);
          }};
          return {{
            first: plain(columns.first), stop: plain(columns.stop), end: data.end,
            peaks: faces.map(face => [peaks(face, 0), peaks(face, 1)]),
          }};
        }})()""",
    )
    filled = time_.first < time_.stop
    first, stop = np.array(found["first"]), np.array(found["stop"])
    assert found["end"] == pytest.approx(time_.end)
    # A time at the very edge of a column may belong to either by rounding.
    assert ((stop > first) == filled).mean() > 0.998
    assert (first[filled] == time_.first[filled]).mean() > 0.995
    assert (stop[filled] == time_.stop[filled]).mean() > 0.995
    for face, peaks in zip((0, 3), found["peaks"], strict=True):
        own = rows[(rows["face_id"] == face) & (rows["success"] == 1)]
        places = np.searchsorted(time_.frames, own["frame"].to_numpy())
        known = np.zeros(len(time_.frames), int)
        known[places] = 1
        counts = time_.total(known)
        for name, peak in zip(("AU01", "AU12"), peaks, strict=True):
            level, marked, gap, best, high = map(np.array, peak)
            assert ((level >= 0) == (counts > 0)).mean() > 0.995
            for kind, drawn, factor in (("p", level, 100), ("r", high, 20)):
                wanted = factor * time_.maximum(places, own[f"{name}_{kind}"].to_numpy())
                assert (np.abs(drawn - wanted)[(counts > 0) & (level >= 0)] <= 1).mean() > 0.99, kind
            present = time_.maximum(places, own[f"{name}_c"].to_numpy(float)) > 0.5
            assert (marked == present).mean() > 0.99
            assert (gap == (2 * counts <= time_.stop - time_.first)).mean() > 0.99
            shown = own.set_index("frame")[f"{name}_p"].reindex(time_.frames)
            at = level >= 0
            assert np.abs(100 * shown.to_numpy()[best[at]] - level[at]).max() <= 0.5001


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_small_functions_of_the_page(make) -> None:
    page = make()
    assert run_node(page, "[0, 61.5, 3599.9996, 3600, -2].map(s => clock(s, 3))") == [
        *("0:00.000", "1:01.500", "1:00:00.000", "1:00:00.000", "-0:02.000"),
    ]
    assert run_node(page, "[59.6, 119, 3661].map(s => clock(s, 0))") == ["1:00", "1:59", "1:01:01"]
    assert run_node(page, "ticksOf(0, 600, 10)") == {"ticks": [60 * i for i in range(11)], "digits": 0}
    for span in (0.31, 4, 59, 7200, 200000):
        ticks = run_node(page, f"ticksOf(0.013, {span}, 9).ticks")
        assert 1 <= len(ticks) <= 11 and all(0.013 <= tick <= span + 1e-6 for tick in ticks)
    assert run_node(
        page, "[-1, 0, 0.0997, 0.1, 0.17, 3.95, 99].map(t => frameAt(unpackAll(data).times, t))"
    ) == [
        *(0, 0, 1, 1, 1, 39, 39),
    ]
    missing, unsettled = run_node(page, "[0, 39].map(i => valuesAt(unpackAll(data).faces[1], 1, i))")
    row = table().iloc[-1]
    assert missing is None and row["face_id"] == 3
    assert unsettled == {
        "state": 2,
        "probability": pytest.approx(row["AU12_p"], abs=0.0051),
        "present": bool(row["AU12_c"]),
        "intensity": row["AU12_r"],
    }


# In a browser.


class Browser:
    """Chromium without a window, driven by its debugging protocol over a pipe."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1400, 1000)) -> None:
        ours = os.pipe(), os.pipe()

        def place() -> None:  # the protocol wants these two numbers
            high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0][0], ours[1][1])]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
        command += [
            f"--window-size={size[0]},{size[1]}",
            "--autoplay-policy=no-user-gesture-required",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0][0])
        os.close(ours[1][1])
        self._to, self._from = ours[0][1], os.fdopen(ours[1][0], "rb")
        self._rest, self._number, self._session = b"", 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.errors: list[str] = []
        self.call("Runtime.enable")
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = self._from.read1(1 << 20)
                assert part, "the browser has ended"
                self._rest += part
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"])[:2000])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def eval(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.eval(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete' && typeof choose === 'function'")

    def press(self, key: str, modifiers: int = 0) -> None:
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, " ": 32}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                modifiers=modifiers,
            )

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def screenshot(self, path: Path) -> NDArray[np.uint8]:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return cv2.imread(str(path))

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self.call("Browser.close")
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._to)
        self._from.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path)
    yield opened
    opened.close()
    assert opened.errors == []


SETTLED = "video.readyState >= 2 && !video.seeking && target === null"
SHOWN = """(() => {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  canvas.width = canvas.height = 8;
  context.drawImage(video, 0, 0, 8, 8);
  return context.getImageData(4, 4, 1, 1).data[0];
})()"""
"""The brightness of the picture that the video shows."""


def see(browser: Browser, frame: int) -> None:
    """Wait until the page is at a frame and the video shows it."""
    assert browser.eval("current") == frame
    browser.until(SETTLED)
    browser.until(f"Math.round(({SHOWN} - 10) / 6) === {frame}")


@with_browser
def test_a_click_goes_to_the_frame_and_keys_step(make, browser: Browser, tmp_path: Path) -> None:
    make()
    browser.open(tmp_path / "talk.html")
    browser.until("video.readyState >= 2")
    assert browser.eval("document.querySelectorAll('.panel').length") == 2
    box = browser.eval(
        "(() => { const b = panels[0].canvas.getBoundingClientRect(); return [b.left, b.top, b.width]; })()"
    )
    for frame in (25, 7, 39, 2):
        # In the middle of the frame's stretch, in the row of AU 12.
        browser.click(box[0] + (frame + 0.5) / FRAMES * box[2], box[1] + 22 + 8)
        see(browser, frame)
        x = browser.eval("new DOMMatrix(panels[0].cursor.style.transform).m41")
        assert x == pytest.approx((frame + 0.5) / FRAMES * box[2], abs=1.5)
        told = browser.eval("find('now').textContent")
        assert told.endswith(f"frame {frame + 1}")
    for key, modifiers, frame in (
        ("ArrowRight", 0, 3), ("ArrowRight", 0, 4), ("ArrowLeft", 0, 3), ("ArrowRight", 8, 13),
        ("End", 0, 39), ("ArrowRight", 0, 39), ("ArrowLeft", 8, 29), ("Home", 0, 0), ("ArrowLeft", 0, 0),
    ):  # fmt: skip
        browser.press(key, modifiers)
        see(browser, frame)
    for _ in range(12):  # faster than the video seeks
        browser.press("ArrowRight")
    see(browser, 12)


@with_browser
def test_hovering_tells_values_and_the_cursor_follows_the_video(
    make, browser: Browser, tmp_path: Path
) -> None:
    rows = table()
    make(rows)
    browser.open(tmp_path / "talk.html")
    box = browser.eval(
        "(() => { const b = panels[0].canvas.getBoundingClientRect(); return [b.left, b.top, b.width]; })()"
    )
    browser.mouse("mouseMoved", box[0] + 23.5 / FRAMES * box[2], box[1] + 22 + 8)
    row = rows[(rows["frame"] == 24) & (rows["face_id"] == 0)].iloc[0]
    presence = "present" if row["AU12_c"] else "absent"
    assert browser.eval("find('tip').textContent") == (
        "0:02.300  frame 24  face 0\nAU 12 lip corner puller\n"
        f"probability {row['AU12_p']:.2f}, {presence}, intensity {row['AU12_r']:.2f}"
    )
    browser.mouse("mouseMoved", box[0] + 20.5 / FRAMES * box[2], box[1] + 22 + 8)
    assert browser.eval("find('tip').textContent").endswith("face not found")
    browser.eval("choose(23)")
    cell = browser.eval("panels[0].values[1].line.textContent")
    assert cell == f"{row['AU12_p']:.2f}" + "✓" * int(row["AU12_c"]) + f"{row['AU12_r']:.2f}"
    assert browser.eval("[...document.querySelectorAll('#boxes .edge')].map(e => e.getAttribute('x'))") == [
        "33",
        "33",
    ]
    browser.until(SETTLED)
    browser.eval("choose(2)")
    browser.until(SETTLED)
    browser.press(" ")
    browser.until("current > 8")
    browser.press(" ")
    browser.until("video.paused")
    time.sleep(0.3)
    assert browser.eval("Math.abs(current - frameAt(times, video.currentTime))") <= 1


def back(rows: pd.DataFrame) -> pd.DataFrame:
    """Face 0 comes back in frames 13 and 33."""
    again = (rows["face_id"] == 0) & rows["frame"].isin([13, 33])
    return rows.assign(merged=np.where(rows["face_id"] < 0, np.nan, np.where(again, 0.714, 0.0)))


def test_faces_that_came_back(make) -> None:
    page = make(back(table()))
    assert [face["returns"] for face in page.data["faces"]] == [[[12, 0.714], [32, 0.714]], []]
    assert "a face came back" in page.source
    page = make(table())
    assert not any(face["returns"] for face in page.data["faces"]) and "a face came back" not in page.source


@with_browser
def test_a_line_marks_where_a_face_came_back(make, browser: Browser, tmp_path: Path) -> None:
    make(back(table()))
    browser.open(tmp_path / "talk.html")
    box = browser.eval(
        "(() => { const b = panels[0].canvas.getBoundingClientRect(); return [b.left, b.top, b.width]; })()"
    )
    for frame, told in ((12, True), (20, False), (32, True)):
        x = (frame + 0.5) / FRAMES * box[2]
        for panel in range(2):
            pixel = f"panels[{panel}].canvas.getContext('2d').getImageData(Math.round({x}), 8, 1, 1).data"
            marked = browser.eval(f"[...{pixel}].slice(0, 3).join()") == "163,25,91"
            assert marked == (told and panel == 0), (frame, panel)
        browser.mouse("mouseMoved", box[0] + x, box[1] + 8)
        text = browser.eval("find('tip').textContent")
        sentence = f"\nface 0 came back at 0:0{frame / FPS:.3f}, likeness 0.714"
        assert text.endswith(sentence) == told and ("came back" in text) == told
    browser.screenshot(tmp_path / "back.png")


@with_browser
def test_both_sides_have_one_row(make, browser: Browser, tmp_path: Path) -> None:
    rows = sided()
    make(rows)
    browser.open(tmp_path / "talk.html")
    box = browser.eval(
        "(() => { const b = panels[0].canvas.getBoundingClientRect(); return [b.left, b.top, b.width]; })()"
    )
    row = rows[(rows["frame"] == 24) & (rows["face_id"] == 0)].iloc[0]
    names = "[...document.querySelectorAll('.names div')].map(e => [e.textContent, e.offsetHeight])"
    assert browser.eval(names)[:2] == [["inner brow raiserAU 1", 22], ["lip corner pullerAU 12LR", 40]]
    # Strips of 13 pixels and marks of 5, with 4 below the row.
    for y, name, words in (
        (11, "AU01", "AU 1 inner brow raiser"),
        (22 + 8, "AU12L", "AU 12L lip corner puller, left"),
        (22 + 18 + 8, "AU12R", "AU 12R lip corner puller, right"),
    ):
        browser.mouse("mouseMoved", box[0] + 23.5 / FRAMES * box[2], box[1] + y)
        said = browser.eval("find('tip').textContent").splitlines()
        assert said[1] == words and said[2].startswith(f"probability {row[f'{name}_p']:.2f}")
    browser.eval("choose(23)")
    for i, name in enumerate(("AU01", "AU12L", "AU12R")):
        line = f"panels[0].values[{i}].line"
        assert browser.eval(f"{line}.textContent").startswith(f"{row[f'{name}_p']:.2f}")
        top = browser.eval(f"{line}.getBoundingClientRect().top")
        assert top - box[1] == pytest.approx((0, 22, 40)[i], abs=1)


@with_browser
def test_a_video_that_does_not_play_leaves_the_time_line(make, browser: Browser, tmp_path: Path) -> None:
    make(video=write_film(tmp_path / "talk.mp4", codec="mp4v"))
    browser.open(tmp_path / "talk.html")
    browser.until("!find('silent').hidden")
    assert "does not play the video" in browser.eval("find('silent').textContent")
    browser.press("End")
    browser.press("ArrowLeft")
    assert browser.eval("current") == FRAMES - 2 and browser.eval("find('play').disabled")


@with_browser
def test_a_linked_video_plays_and_nothing_overflows(make, browser: Browser, tmp_path: Path) -> None:
    make(name="pages/talk.html", link=True)
    for width in (1400, 800, 390):
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=2, mobile=False
        )
        browser.open(tmp_path / "pages" / "talk.html")
        browser.until("video.readyState >= 2")
        assert browser.eval("document.documentElement.scrollWidth") <= width
        assert browser.eval("panels[0].canvas.width") == 2 * browser.eval("panels[0].drawing.clientWidth")
    browser.eval("choose(30)")
    browser.until(SETTLED)
    assert browser.eval("video.currentTime") == pytest.approx(30.5 / FPS, abs=0.01)


@with_browser
def test_ten_minutes_react_at_once(make, browser: Browser, tmp_path: Path) -> None:
    aus = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)
    page = make(table(frames=18000, fps=30, aus=aus))
    assert len(page.source) < 5_000_000
    browser.open(tmp_path / "talk.html")
    # Of many times the shortest, since the machine does other things; with layout, which offsetWidth forces.
    took = browser.eval("""(() => {
      const box = panels[0].canvas.getBoundingClientRect(), drawing = panels[0].drawing;
      const place = i => ({clientX: box.left + i * 7, clientY: box.top + 15 + i, bubbles: true});
      const key = new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true});
      const timed = action => {
        const began = performance.now();
        action();
        find("tip").offsetWidth;
        return performance.now() - began;
      };
      const least = action => Math.min(...Array.from({length: 15}, (_, i) => timed(() => action(i + 1))));
      return {
        click: least(i => drawing.dispatchEvent(new PointerEvent("click", place(i)))),
        hover: least(i => drawing.dispatchEvent(new PointerEvent("pointermove", place(i)))),
        step: least(() => document.body.dispatchEvent(key)),
        redraw: least(() => drawAll()),
      };
    })()""")
    assert max(took.values()) < 100, took
    picture = browser.screenshot(tmp_path / "page.png")
    # Both the pale and the dark end of the colours, the marks of presence, and the hatching.
    for rgb in ((0x08, 0x40, 0x81), (0xF7, 0xFC, 0xF0), (0xE6, 0x9F, 0x00)):
        assert (np.abs(picture.astype(int) - rgb[::-1]).max(-1) <= 12).sum() > 50, rgb
