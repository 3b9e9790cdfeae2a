"""Each example runs as its docstring says, in little, and learns."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBERS = re.compile(r"loss (\d+\.\d+) -> (\d+\.\d+)")

LINES = {
    "attention_priors": ["no priors", "fixed priors", "own priors"],
    "region_resnet": ["nn.Conv2d", "RegionConv2d"],
    "unet_dice": ["cross entropy", "cross entropy", "with Dice", "with Dice"],
}
"""How the lines begin that an example prints."""


def start(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EXAMPLES / f"{name}.py", "--steps", "12", "--faces", "80"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_examples_are_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(LINES)


@pytest.mark.parametrize("name", LINES)
def test_the_loss_falls_and_a_seed_gives_the_same_numbers(name: str) -> None:
    runs = [start(name), start(name)]
    (printed, errors), (again, _) = (run.communicate() for run in runs)
    assert [run.returncode for run in runs] == [0, 0] and errors == "", errors
    assert again == printed
    lines = printed.splitlines()
    assert len(lines) == len(LINES[name])
    for line, begin in zip(lines, LINES[name], strict=True):
        assert line.startswith(begin)
        first, last = map(float, NUMBERS.search(line).groups())
        assert 0 < last < first, line
        percentages = [float(number) for number in re.findall(r"(\S+) %", line)]
        assert len(percentages) == (6 if name == "unet_dice" else 1), line
        assert all(0 <= number <= 100 for number in percentages), line


@pytest.mark.parametrize("name", LINES)
def test_its_docstring_gives_the_command(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"\n    python examples/{name}.py\n" in text.split('"""')[1]
