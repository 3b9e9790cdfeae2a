"""The README's code runs as it stands, its figures are measured ones, and it is short."""

import json
import re
import shlex
from pathlib import Path
from statistics import geometric_mean, median

import cv2
import numpy as np
import skimage.data
import torch
from typer.core import TyperGroup
from typer.main import get_command

from jaa_ext import cli, facs
from jaa_ext.models import JAANet, JAANetConfig, save_model
from jaa_ext.recipes import builtin_recipes

README = Path(__file__).parents[1] / "README.md"
EXPERIMENTS = README.parent / "docs" / "experiments.md"
RESULTS = README.parent / "benchmarks" / "results"


def test_code_examples_run(tmp_path: Path, at_rest) -> None:
    """In a folder with a photograph, a video and a model."""
    picture = np.ascontiguousarray(skimage.data.astronaut()[:300, 80:380, ::-1])
    cv2.imwrite("photo.jpg", picture)
    video = cv2.VideoWriter("talk.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (300, 300))
    for _ in range(3):
        video.write(picture)
    video.release()
    small = at_rest(JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=64, width=1)))
    save_model(small, tmp_path / "jaa-demo" / "model.safetensors")

    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names = {"image": torch.randn(2, 3, 176, 176)}
    for block in blocks:
        exec(block, names)
    assert names["table"]["success"].tolist() == [1, 1, 1] and len(names["faces"]) == 1
    assert names["net"][0].weight.grad.abs().sum() > 0
    assert names["output"].probabilities.shape == (2, 12)


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_table_of_speed_is_of_the_results() -> None:
    table = README.read_text(encoding="utf-8").partition("| AVX-512 |")[2].partition("\n\n")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines()[2:]]
    for column, name in enumerate(("zen4-2cores", "zen4-2cores-avx2-forced")):
        cells = [re.findall(r"\d+(?:\.\d+)?", row[column])[:2] for row in rows]
        one, eight, step = (
            of_a_user(name, what)
            for what in ("ms a face, 1 at a time", "ms a face, 8 at a time", "ms a training step of 8")
        )
        convolutions = times_ours(name, "region_conv2d", "ordinary convolution").values()
        assert cells == [
            [f"{one:.1f}", f"{eight:.1f}"],
            [f"{step:.0f}"],
            *(
                [f"{times[f'batch {batch}, 176x176, c=8, memory kept']:.1f}" for batch in (1, 8)]
                for other in ("onnxruntime", "authors' arrangement")
                for times in [times_ours(name, "JAA-Net", other)]
            ),
            [f"{geometric_mean(convolutions):.2f}", f"{min(convolutions):.2f}"],
        ]


def of_a_user(name: str, what: str) -> float:
    """The median of what `user_speed.py` measured of this build."""
    runs = json.loads((RESULTS / "user" / f"{name}.json").read_text())["runs"]
    return median(run["values"][what] for run in runs if run["build"] == "this" and what in run["values"])


def times_ours(name: str, op: str, other: str) -> dict[str, float]:
    """How many times as long as ours the quickest form of another formulation takes, by case."""
    times = {}
    for benchmark in json.loads((RESULTS / f"{name}.json").read_text())["benchmarks"]:
        run = benchmark["extra_info"]
        if run["op"] == op:
            ours, others = (
                min(f["median_ms"] for f in run["formulations"] if f["name"].startswith(which))
                for which in ("jaa_ext", other)
            )
            times[run["case"]] = others / ours
    return times


def test_every_recipe_stands_in_the_table_of_systems() -> None:
    text = EXPERIMENTS.read_text(encoding="utf-8")
    links = re.findall(r"\[`([a-z0-9-]+)`\]\((\S+/recipes/\S+\.yaml)\)", text)
    assert sorted(name for name, _ in links) == builtin_recipes()
    for name, path in links:
        assert Path(path).stem == name and (EXPERIMENTS.parent / path).is_file()


def test_commands_are_those_there_are() -> None:
    """Every `jaa` command line of the README and the documents parses: commands and options exist."""
    pages = [README, *(README.parent / "docs").glob("*.md")]
    lines = [
        line
        for page in pages
        for line in re.findall(r"^(?:torchrun .*-m jaa_ext|jaa) (.*)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(lines) >= 10
    for line in lines:
        command, words = get_command(cli.app), shlex.split(line, comments=True)
        while isinstance(command, TyperGroup):
            command = command.commands[words.pop(0)]
        command.make_context("jaa", words)  # raises for what it does not know


def test_links_lead_somewhere() -> None:
    for page in (README, *(README.parent / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_pictures_are_there_and_small() -> None:
    for picture in re.findall(r"\]\(([^)]*\.png)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / picture).stat().st_size < 300_000, picture
