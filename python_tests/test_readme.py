"""The README's code runs as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_code_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names = {"image": torch.randn(2, 3, 176, 176)}
    for block in blocks:
        exec(block, names)
    assert names["net"][0].weight.grad.abs().sum() > 0
    assert names["output"].probabilities.shape == (2, 12)


def test_pictures_are_there_and_small() -> None:
    for picture in re.findall(r"\]\(([^)]*\.png)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / picture).stat().st_size < 300_000, picture
