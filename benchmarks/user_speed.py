"""What a user gets at the instruction set in force: milliseconds a face, frames a second on video, seconds of
`jaa demo`, a training step, a rendered face, and what the weights that come with the package take; on request
beside another build, in turns.

    python benchmarks/user_speed.py [faces] [training] [video] [weights] [rendering] [demo]
                                    [--against OLD] [--out FILE]

Of the six, all where none is named; `demo` takes minutes. OLD is a folder from which jaa_ext with its
compiled kernels is imported (a checkout of an older commit, built in place), or a Python that has it.

Every measurement is a process of its own, so that two builds never meet in one; in each pass both are
measured, each of them first in its turn. A table of medians is printed. The file has every value, and is
written anew after each measurement, so that a run that is cut short loses nothing.

For a lesser instruction set than the processor's, with "forced" in the name of the file:

    JAA_EXT_CPU=avx2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/user_speed.py ...
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Values = dict[str, float]
"""What a measurement gave, by what it is and its unit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="what", help=f"of {', '.join(MEASURES)}; default all")
    parser.add_argument("--against", type=Path, metavar="BUILD", help="a folder or a Python, see above")
    parser.add_argument("--passes", type=int, default=3, help="of everything but the demo, which has one")
    parser.add_argument("--demo-passes", type=int, default=1)
    parser.add_argument("--frames", type=int, default=300, help="of the video")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # a process of one measurement
    chosen = parser.parse_args()
    if chosen.measure:
        name, folder = chosen.measure
        print(json.dumps(({"build": build} | MEASURES)[name](Path(folder))))
        return
    unknown = [name for name in chosen.what if name not in MEASURES]
    if unknown:
        parser.error(f"nothing is called {unknown[0]!r}: there are {', '.join(MEASURES)}")
    from machine import processor, require_name

    if chosen.out:
        try:
            require_name(chosen.out)
        except ValueError as error:
            parser.error(str(error))
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
    builds = {"this": process_of(None)}
    if chosen.against:
        if not chosen.against.exists():
            parser.error(f"{chosen.against}: there is no such folder or Python")
        builds["other"] = process_of(chosen.against)
    result: dict[str, Any] = {"machine": processor(), "builds": {}, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, process in builds.items():
            result["builds"][name] = run("build", process, folder)
        for turn, what in plan(chosen.what or list(MEASURES), chosen.passes, chosen.demo_passes):
            if what in ("video", "weights") and not Path(folder, "model.safetensors").exists():
                prepare_video(Path(folder), chosen.frames)
            for name in turned(list(builds), turn):
                values = run(what, builds[name], folder)
                print(f"{what}, {name}: {listed(values)}", flush=True)
                result["runs"].append({"what": what, "build": name, "values": values})
                if chosen.out:
                    write(chosen.out, result)
    print(f"\n{table(result)}")


def plan(what: list[str], passes: int, demo_passes: int) -> list[tuple[int, str]]:
    """Number of the pass and what is measured: the quick ones first, pass by pass."""
    quick = [(turn, name) for turn in range(passes) for name in what if name != "demo"]
    return quick + [(turn, "demo") for turn in range(demo_passes) if "demo" in what]


def turned(names: list[str], turn: int) -> list[str]:
    """Each time another one is the first."""
    return names[turn % len(names) :] + names[: turn % len(names)]


# Processes, each of one build


def process_of(build: Path | None) -> tuple[str, dict[str, str]]:
    """Interpreter and environment that import the build's jaa_ext; None for the one that is imported here."""
    if build is None:
        return sys.executable, dict(os.environ)
    if build.is_file():
        others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return str(build), others
    paths = [str(build.resolve()), os.environ.get("PYTHONPATH", "")]
    return sys.executable, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(what: str, process: tuple[str, dict[str, str]], folder: str) -> dict[str, Any]:
    """What a process prints last, from JSON."""
    python, environment = process
    command = [python, str(HERE / "user_speed.py"), "--measure", what, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        sys.exit(f"{what} failed with {python}: {done.stderr.strip()[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def build(folder: Path) -> dict[str, Any]:
    """Which one it is. Not one without kernels."""
    import torch

    import jaa_ext
    from jaa_ext import _C, _library

    package = Path(jaa_ext.__file__).parent
    asked = ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(asked, capture_output=True, text=True)
    return {
        "commit": os.environ.get("JAA_EXT_COMMIT") or told.stdout.strip() or "unknown",
        "torch": torch.__version__,
        "cpu_level": _C.build_info()["cpu_level"],
        "devices": sorted(_library.DEVICES),
    }


def faces(folder: Path) -> Values:
    """Inference in float32, faces that are cut out already."""
    import torch
    from bench_jaanet import Batch, Case, Step, networks, prepared

    keep_memory()
    values = {}
    for batch in (1, 8):
        case = Case(batch=batch)
        network = prepared(networks(case.network)[0], "inference")
        step = Step(network, Batch.draw(case).to("cpu", torch.channels_last), "inference", torch.float32)
        values[f"ms a face, {batch} at a time"] = 1e3 * median_seconds(step) / batch
    return values


def training(folder: Path) -> Values:
    """Forward pass, losses and gradients of eight faces in float32."""
    import torch
    from bench_jaanet import Batch, Case, Step, networks, prepared

    keep_memory()
    case = Case(batch=8)
    network = prepared(networks(case.network)[0], "training")
    step = Step(network, Batch.draw(case).to("cpu", torch.channels_last), "training", torch.float32)
    return {"ms a training step of 8": 1e3 * median_seconds(step)}


def video(folder: Path) -> Values:
    """`jaa predict` over the video, and the most memory that it took."""
    import resource

    import torch
    from video_speed import measure

    from jaa_ext.device import has_bfloat16
    from jaa_ext.models import load_model

    keep_memory()
    precisions = ["float32"] + ["bfloat16"] * has_bfloat16(torch.device("cpu"))
    values = {}
    for precision in precisions:
        found = measure(load_model(folder / "model.safetensors"), folder / "face.mp4", precision)
        values[f"frames/s of video, {precision}"] = found["frames_per_second"]
        values[f"faces found, {precision}"] = found["faces"]
        if precision == "float32":
            values["MB at most, video in float32"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return values


def weights(folder: Path) -> Values:
    """The network that comes with the package: faces that are cut out already, and the video."""
    import torch
    from video_speed import measure

    import jaa_ext

    keep_memory()
    network = jaa_ext.load().fuse()
    values = {}
    with torch.inference_mode():
        for batch in (1, 8):
            side = network.config.image_size
            images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
            seconds = median_seconds(lambda images=images: network(images))  # type: ignore[misc]
            values[f"ms a face, {batch} at a time, own weights"] = 1e3 * seconds / batch
    found = measure(jaa_ext.load(), folder / "face.mp4", "float32")
    values["frames/s of video, float32, own weights"] = found["frames_per_second"]
    values["faces found, float32, own weights"] = found["faces"]
    return values


def rendering(folder: Path) -> Values:
    """Rendered faces, one after the other on one core, with all that people and pictures vary in."""
    from jaa_ext.data import RenderedFaces

    values = {}
    for size in (200, 109):
        people = RenderedFaces(subjects=range(40), samples_per_subject=1, size=size)
        people[0]
        samples = []
        for i in range(len(people)):
            begin = time.perf_counter()
            people[i]
            samples.append(time.perf_counter() - begin)
        values[f"ms a rendered face of {size} pixels"] = 1e3 * statistics.mean(samples)
    return values


def demo(folder: Path) -> Values:
    """`jaa demo` from nothing, as a command."""
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "jaa_ext", "demo", "--out", out]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - begin
        scores = json.loads(Path(out, "metrics.json").read_text(encoding="utf-8"))
    return {
        "s of jaa demo": seconds,
        "F1 of the demo, %": 100 * scores["f1_mean"],
        "mean error of the demo, %": scores["mean_error"],
    }


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "faces": faces,
    "training": training,
    "video": video,
    "weights": weights,
    "rendering": rendering,
    "demo": demo,
}


def prepare_video(folder: Path, frames: int) -> None:
    """The moving astronaut, and a network that follows his face."""
    import cv2
    from video_speed import fitted_model, make_video

    from jaa_ext.models import save_model

    make_video(folder / "face.mp4", frames)
    capture = cv2.VideoCapture(str(folder / "face.mp4"))
    image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    save_model(fitted_model(image), folder / "model.safetensors")


def keep_memory() -> None:
    """As the program `jaa` does."""
    from jaa_ext.memory import keep_freed_memory

    keep_freed_memory()


def median_seconds(call: Callable[[], Any], least: float = 5.0) -> float:
    """Of calls that take so many seconds together, at least five, after two to warm up."""
    call(), call()
    samples: list[float] = []
    while len(samples) < 5 or sum(samples) < least:
        begin = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


# Results


def write(path: Path, result: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def table(result: dict[str, Any]) -> str:
    """Medians over the passes, and how many times as fast this build is as the other where there are two."""
    from report import level_in_words, markdown

    builds = list(result["builds"])
    commits = [f"{name} ({result['builds'][name]['commit']})" for name in builds]
    names = list(dict.fromkeys(name for run in result["runs"] for name in run["values"]))
    rows = [["", *commits, *["times as fast"] * (len(builds) - 1)]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for name in names:
        found = [median_of(result, build, name) for build in builds]
        cells = ["" if value is None else f"{value:.4g}" for value in found]
        if len(found) == 2:
            this, other = found
            kind = name.partition(" ")[0]
            if this is None or other is None or kind not in ("ms", "s", "frames/s"):
                cells.append("")
            else:
                cells.append(f"{this / other if kind == 'frames/s' else other / this:.2f}")
        rows.append([name, *cells])
    machine = result["machine"]
    facts = [
        f"{machine['cpu']} ({level_in_words(machine)})",
        f"{machine['torch_threads']} threads",
        f"torch {machine['torch']}",
    ]
    return f"{', '.join(facts)}\n\n{markdown(rows)}"


def median_of(result: dict[str, Any], build: str, name: str) -> float | None:
    found = [run["values"][name] for run in result["runs"] if run["build"] == build and name in run["values"]]
    return statistics.median(found) if found else None


def listed(values: Values) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


if __name__ == "__main__":
    main()
