"""`jaa demo`."""

import json
from pathlib import Path

import cv2

from jaa_ext.cli.demo import FILES
from jaa_ext.models import load_model
from jaa_ext.recipes import load_recipe


def test_demo_writes_what_it_says(jaa, recipe: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("jaa_ext.recipes.load_recipe", lambda name: load_recipe(recipe))
    out = tmp_path / "demo"
    for _ in range(2):  # again: goes on from what is there
        code, printed, error = jaa("demo", "--out", out, "--seed", 3)
        assert code == 0, error
    for name in FILES:
        assert (out / name).stat().st_size > 0 and name in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["f1_mean"] <= 1 and 0 <= metrics["accuracy_mean"] <= 1
    assert metrics["mean_error"] > 0 and 0 <= metrics["failure_rate"] <= 100
    assert "not for real use" in printed and "Try next: jaa predict" in printed
    assert "not for real use" in load_model(out / "model.safetensors").note
    for figure in ("training.png", "attention.png"):
        assert cv2.imread(str(out / figure)).std() > 10
