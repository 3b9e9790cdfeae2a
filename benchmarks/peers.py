"""Whole programs that find AUs, side by side on one video: `jaa predict` and four others.

    python benchmarks/peers.py [--program NAME=PATH ...] [--in NAME=FOLDER ...] [--video FILE] [--out FILE]

    NAME       PATH                              called as in
    openface2  its binary FeatureExtraction      2.2, TadasBaltrusaitis/OpenFace
    openface3  a Python that has openface-test   0.1.26, CMU-MultiComp-Lab/OpenFace-3.0
    py-feat    a Python that has py-feat         2.1.5, cosanlab/py-feat
    libreface  a Python that has libreface       0.2.0, ihp-lab/LibreFace

`jaa predict` is that of the Python which runs this file, and always measured. FOLDER is where a program
runs, the present folder if not given: openface3 needs weights/ there, libreface weights_libreface/. Fetch
all weights beforehand: while they are measured, programs reach no network.

Each run is a process of its own, on the CPU, with the same number of threads and of processors. After a run
that is not counted, each pass times the first frame alone and the whole video, each program first in its
turn. What the first frame takes is the start: Python, libraries, model. Frames a second are the further
frames over what the whole video takes longer. Memory is that of a program's largest process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

# This file also runs in the other programs' Pythons, from 3.9 on: what they may not have is imported inside.
import user_speed

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there."""


class Failed(Exception):
    """A program gave no table of the video; why, in a few words."""


class Program(NamedTuple):
    """How a program is called, and what its table says."""

    title: str
    command: Callable[[Path, Path, Path], list[str]]
    """Of its path, a video, and the CSV file that it is to write."""
    frame: str
    """The column that numbers frames."""
    face: str = ""
    """The column that is empty or 0 in a frame without a face; "" where such frames have no row."""
    package: str = ""
    """What a Python must have installed to be its path."""
    weights: str = ""
    """What the folder in which it runs must have."""


def jaa(path: Path, video: Path, table: Path) -> list[str]:
    return [str(path), "-m", "jaa_ext", "predict", str(video), "--out", str(table), "--device", "cpu"]


def openface2(path: Path, video: Path, table: Path) -> list[str]:
    """Landmarks, pose and AUs; without them named it would also write videos and pictures."""
    what = ["-2Dfp", "-pose", "-aus"]
    return [str(path), "-f", str(video), "-out_dir", str(table.parent), "-of", table.stem, *what]


def driven(path: Path, video: Path, table: Path, name: str) -> list[str]:
    return [str(path), str(Path(__file__).resolve()), "--drive", name, str(video), str(table)]


def libreface(path: Path, video: Path, table: Path) -> list[str]:
    """Its command `libreface`, with a folder for what it keeps of each frame."""
    kept = str(table.with_name("frames"))
    files = ["--input_path", str(video), "--output_path", str(table), "--temp", kept]
    return [str(path), "-m", "libreface.commandline", *files, "--device", "cpu"]


PROGRAMS = {
    "jaa": Program("jaa predict", jaa, "frame", "success"),
    "openface2": Program("OpenFace 2", openface2, "frame", "success"),
    "openface3": Program(
        "OpenFace 3",
        lambda *paths: driven(*paths, name="openface3"),
        "frame",
        "face",
        package="openface-test",
        weights="weights",
    ),
    "py-feat": Program(
        "py-feat", lambda *paths: driven(*paths, name="py-feat"), "frame", "FaceScore", package="py-feat"
    ),
    "libreface": Program(
        "LibreFace", libreface, "frame_idx", package="libreface", weights="weights_libreface"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--program", action="append", default=[], metavar="NAME=PATH", help="see above")
    parser.add_argument(
        "--in", action="append", default=[], dest="folder", metavar="NAME=FOLDER", help="see above"
    )
    parser.add_argument("--video", type=Path, help="of one face, in place of the moving astronaut")
    parser.add_argument("--frames", type=int, default=300, help="of the moving astronaut")
    parser.add_argument("--weights", type=Path, help="of jaa predict; default those that come with jaa_ext")
    parser.add_argument("--threads", type=int, default=len(processors()), help="of each program; default all")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that a run may take")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--time", help=argparse.SUPPRESS)  # a process that times a program
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)  # a process of another program's Python
    chosen = parser.parse_args()
    if chosen.time:
        print(json.dumps(timed(**json.loads(chosen.time))))
        return
    if chosen.drive:
        name, video, table = chosen.drive
        sys.path[:] = [path for path in sys.path if path != str(Path(__file__).resolve().parent)]
        DRIVERS[name](Path(video), Path(table))
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            peers = Peers(chosen)
            peers.prepare(Path(folder), chosen.video, chosen.frames)
        except ValueError as error:
            parser.error(str(error))
        peers.measure(chosen.passes)
    print(f"\n{table_of(peers.result)}")
    if peers.result["failed"]:
        sys.exit(1)


class Peers:
    """The programs that are at hand, and what is measured of them.

    Raises a `ValueError` of one sentence for what cannot be measured.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        for option, least in (("passes", 1), ("threads", 1), ("frames", 2)):
            if getattr(chosen, option) < least:
                raise ValueError(f"--{option} must be at least {least}, got {getattr(chosen, option)}")
        if chosen.threads > len(processors()):
            raise ValueError(f"--threads must be at most {len(processors())} here, got {chosen.threads}")
        self.threads, self.limit = chosen.threads, chosen.timeout
        paths, folders = named("--program", chosen.program), named("--in", chosen.folder)
        for name in folders:
            if name not in paths:
                raise ValueError(f"--in {name}: no --program has this name")
        for name, path in paths.items():
            weights = folders.setdefault(name, Path.cwd()) / PROGRAMS[name].weights
            if not (path.is_file() and os.access(path, os.X_OK)):
                raise ValueError(f"{path}: no program that can be run, wanted for {name}")
            if not weights.is_dir():
                raise ValueError(f"{weights}: no such folder, wanted for {name} (--in {name}=FOLDER)")
        for file in (chosen.video, chosen.weights):
            if file is not None and not file.is_file():
                raise ValueError(f"{file}: there is no such file")
        if chosen.out is not None:
            from machine import require_name

            require_name(chosen.out)
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
        self.out = chosen.out
        self.paths = {"jaa": Path(sys.executable), **paths}
        self.folders = folders  # jaa predict has none: in the repository's it would import the source tree
        self.options = {"jaa": [] if chosen.weights is None else ["--weights", str(chosen.weights.resolve())]}
        builds = {name: {"version": version(path, PROGRAMS[name].package)} for name, path in paths.items()}
        ours = {"weights": "those of jaa_ext" if chosen.weights is None else chosen.weights.name}
        self.result: dict[str, Any] = {
            "machine": {},
            "threads": self.threads,
            "video": {},
            "builds": {"jaa": ours, **builds},
            "failed": {},
            "runs": [],
        }

    def prepare(self, folder: Path, video: Path | None, frames: int) -> None:
        """The video, its first frame as a video of its own, and the facts for the file of results."""
        from machine import processor
        from video_speed import make_video

        self.video = folder / "astronaut.mp4" if video is None else video.resolve()
        self.first = folder / "first.mp4"
        if video is None:
            make_video(self.video, frames)
        size, self.frames = cut_first_frame(self.video, self.first)
        what = "moving astronaut" if video is None else video.name
        self.result["machine"] = processor()
        self.result["video"] = {"what": what, "size": size, "frames": self.frames}
        self.result["builds"]["jaa"].update(user_speed.run("build", user_speed.process_of(None), str(folder)))

    def measure(self, passes: int) -> None:
        """In turns; a program that failed has no further turn."""
        for name in self.paths:
            self.attempt(name, lambda name: self.run(name, self.first))
        for turn in range(passes):
            for name in user_speed.turned(list(self.paths), turn):
                if name in self.result["failed"]:
                    continue
                values = self.attempt(name, self.once)
                if values is not None:
                    print(f"{PROGRAMS[name].title}: {user_speed.listed(values)}", flush=True)
                    self.result["runs"].append({"what": "video", "build": name, "values": values})
                    self.write()

    def write(self) -> None:
        if self.out is not None:
            user_speed.write(self.out, self.result)

    def attempt(self, name: str, call: Callable[[str], dict[str, float]]) -> dict[str, float] | None:
        try:
            return call(name)
        except Failed as failed:
            print(f"{PROGRAMS[name].title} {failed}", file=sys.stderr, flush=True)
            self.result["failed"][name] = str(failed)
            self.write()
            return None

    def once(self, name: str) -> dict[str, float]:
        """The first frame, then the whole video."""
        start, whole = self.run(name, self.first), self.run(name, self.video)
        longer = whole["seconds"] - start["seconds"]
        return {
            **({"frames/s": (self.frames - 1) / longer} if longer > 0 else {}),
            "s to start": start["seconds"],
            "s of the whole video": whole["seconds"],
            "MB at most": max(start["megabytes"], whole["megabytes"]),
            "frames with a face": whole["faces"],
            "frames in the table": whole["rows"],
        }

    def run(self, name: str, video: Path) -> dict[str, float]:
        """One process: its seconds and memory, and what its table counts."""
        program = PROGRAMS[name]
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.csv"
            command = program.command(self.paths[name].absolute(), video, table)
            found = timed_apart(
                command + self.options.get(name, []),
                self.folders.get(name, table.parent),
                environment(name, self.paths[name], self.threads),
                Path(folder) / "said.txt",
                self.limit,
                processors()[: self.threads],
            )
            said = last_line(Path(folder) / "said.txt")
            if found["late"]:
                raise Failed(f"took longer than {self.limit:g} s")
            if found["code"] != 0:
                raise Failed(f"ended with exit code {found['code']}{said}")
            if not table.is_file():
                raise Failed(f"wrote no table{said}")
            faces, rows = counted(table, program)
        return {**found, "faces": faces, "rows": rows}


def named(option: str, pairs: Sequence[str]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not path:
            raise ValueError(f'{option} must be NAME=PATH, got "{pair}"')
        if name not in PROGRAMS or name == "jaa":
            names = ", ".join(known for known in PROGRAMS if known != "jaa")
            raise ValueError(f"{option} {pair}: nothing is called {name!r}: there are {names}")
        found[name] = Path(path)
    return found


def version(python: Path, package: str) -> str:
    """Of what a Python has installed; OpenFace 2 does not tell its own."""
    if not package:
        return ""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    command, variables = [str(python.absolute()), "-c", code], user_speed.process_of(python)[1]
    asked = subprocess.run(command, env=variables, capture_output=True, text=True)
    if asked.returncode != 0:
        raise ValueError(f"{python}: does not have {package}")
    return asked.stdout.strip()


def processors() -> list[int]:
    """Numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(name: str, path: Path, threads: int) -> dict[str, str]:
    """As many threads as said, no GPU, no network, and no modules of ours in another program's Python."""
    variables = dict(os.environ) if name == "jaa" else user_speed.process_of(path)[1]
    proxies = {f"{kind}_proxy": NOWHERE for kind in ("http", "https", "all")}
    return {
        **{known: value for known, value in variables.items() if known.lower() != "no_proxy"},
        **proxies,
        **{proxy.upper(): NOWHERE for proxy in proxies},
        **dict.fromkeys(THREADS, str(threads)),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def timed_apart(
    command: list[str],
    folder: Path,
    variables: dict[str, str],
    log: Path,
    limit: float,
    cores: list[int],
) -> dict[str, float]:
    """`timed` in a small process: a program's peak of memory is at least what its parent had."""
    asked = json.dumps({"command": command, "log": str(log), "limit": limit, "cores": cores})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--time", asked],
        env=variables,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def timed(command: list[str], log: str, limit: float, cores: list[int]) -> dict[str, float]:
    """Seconds, megabytes and exit code of a command, which is held to processors and ended if it is late.

    What it prints is in `log`.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    late = threading.Event()
    with open(log, "wb") as said:
        begin = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            said.write(str(error).encode())
            return {"seconds": 0.0, "megabytes": 0.0, "code": 127, "late": False}

        def stop() -> None:
            late.set()
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": seconds,
        "megabytes": used.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024),
        "code": process.returncode,
        "late": late.is_set(),
    }


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1][:200]}" if said else ""


def counted(table: Path, program: Program) -> tuple[int, int]:
    """Frames with a face, and frames, each once."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        names = rows.fieldnames or ()
        missing = [name for name in (program.frame, program.face) if name and name not in names]
        if missing:
            raise Failed(f"wrote a table without the column {missing[0]}")
        cells = [(row[program.frame], row[program.face] if program.face else "1") for row in rows]
    faces = {frame for frame, face in cells if face not in ("", "0", "0.0", "nan")}
    return len(faces), len({frame for frame, _ in cells})


def cut_first_frame(video: Path, first: Path) -> tuple[str, int]:
    """Write the first frame as a video; size of the frames, and how many the whole video has."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    read, frame = capture.read()
    if not read:
        raise ValueError(f"{video}: no video that OpenCV can read")
    height, width = frame.shape[:2]
    rate = capture.get(cv2.CAP_PROP_FPS) or 30
    writer = cv2.VideoWriter(str(first), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    writer.write(frame)
    writer.release()
    frames = 1
    while capture.grab():
        frames += 1
    capture.release()
    if frames < 2:
        raise ValueError(f"{video}: must have two frames at least, got {frames}")
    return f"{width}x{height}", frames


# In another program's Python


def drive_py_feat(video: Path, table: Path) -> None:
    """Its newer detector with all its defaults."""
    from feat import Detectorv2

    found = Detectorv2(device="cpu").detect(str(video), data_type="video", progress_bar=False)
    found.to_csv(table, index=False)


def drive_openface3(video: Path, table: Path) -> None:
    """Its three networks frame by frame.

    Its own command `openface detect-video` hands frames to a function that reads files, and fails.
    """
    import cv2
    from openface.face_detection import FaceDetector
    from openface.landmark_detection import LandmarkDetector
    from openface.multitask_model import MultitaskPredictor

    detector = FaceDetector(model_path="./weights/Alignment_RetinaFace.pth", device="cpu")
    landmarks = LandmarkDetector(model_path="./weights/Landmark_98.pkl", device="cpu")
    network = MultitaskPredictor(model_path="./weights/MTL_backbone.pth", device="cpu")
    capture, picture = cv2.VideoCapture(str(video)), table.with_name("frame.bmp")
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["frame", "face", "action_units"])
        number = 0
        while True:
            read, frame = capture.read()
            if not read:
                break
            number += 1
            cv2.imwrite(str(picture), frame)
            face, boxes = detector.get_face(str(picture))
            if face is None or not face.size:
                rows.writerow([number, 0, ""])
                continue
            landmarks.detect_landmarks(frame, boxes)
            _, _, aus = network.predict(face)
            rows.writerow([number, 1, " ".join(f"{value:.4f}" for value in aus.flatten().tolist())])


DRIVERS: dict[str, Callable[[Path, Path], None]] = {"py-feat": drive_py_feat, "openface3": drive_openface3}


# Results


def table_of(result: dict[str, Any]) -> str:
    """Medians over the passes, and frames a second over those of `jaa predict`."""
    from report import level_in_words, markdown

    rows = [["", "frames/s", "times jaa predict", "s to start", "MB at most", "frames with a face"]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    ours = user_speed.median_of(result, "jaa", "frames/s")
    for name, program in PROGRAMS.items():
        build = result["builds"].get(name)
        told = "" if build is None else build.get("version") or build.get("commit", "")
        title = f"{program.title} {told}".strip()
        if name in result["failed"]:
            rows.append([title, result["failed"][name].replace("|", "\\|"), *[""] * 4])
            continue
        if build is None:
            rows.append([title, "not measured here", *[""] * 4])
            continue
        rate, start, memory, faces = (
            user_speed.median_of(result, name, what)
            for what in ("frames/s", "s to start", "MB at most", "frames with a face")
        )
        rows.append(
            [
                title,
                "too short a video" if rate is None else f"{rate:.3g}",
                "" if rate is None or ours is None else f"{rate / ours:.2f}",
                "" if start is None else f"{start:.1f}",
                "" if memory is None else f"{memory:.0f}",
                "" if faces is None else f"{faces:.0f} of {result['video']['frames']}",
            ]
        )
    machine, video = result["machine"], result["video"]
    threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    facts = [
        f"{machine['cpu']} ({level_in_words(machine)})",
        threads,
        f"{video['what']}, {video['size']}",
        f"{video['frames']} frames",
    ]
    return f"{', '.join(facts)}\n\n{markdown(rows)}"


if __name__ == "__main__":
    main()
