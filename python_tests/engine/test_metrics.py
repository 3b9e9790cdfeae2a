from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.engine import Metrics, Scores, evaluate
from jaa_ext.models import JAANet, JAANetConfig

PROBABILITIES = torch.tensor(
    [[0.9, 0.1, 0.2], [0.8, 0.6, 0.2], [0.2, 0.7, 0.9], [0.4, 0.3, 0.8], [0.7, 0.5, 0.1]]
)
LABELS = torch.tensor([[1, 0, -1], [0, -1, -1], [1, 1, -1], [0, 0, -1], [1, -1, -1]])
# AU 1: 2 hits, 1 false alarm, 1 miss, 1 rejection. AU 6 (rows 0, 2, 3): 1 hit, 2 rejections. AU 12: nothing.


def face(distance: float) -> torch.Tensor:
    """Landmarks whose eyes' means lie `distance` pixels apart."""
    points = torch.rand(facs.NUM_LANDMARKS, 2, generator=torch.Generator().manual_seed(1)) * 50
    points[list(facs.LEFT_EYE)] = torch.tensor([10.0, 20.0])
    points[list(facs.RIGHT_EYE)] = torch.tensor([10.0 + distance, 20.0])
    return points


def score(probabilities: torch.Tensor, labels: torch.Tensor, aus: tuple[int, ...], batch: int = 2) -> Scores:
    metrics = Metrics(aus)
    nowhere = torch.empty(0, facs.NUM_LANDMARKS, 2)
    for p, y in zip(probabilities.split(batch), labels.split(batch), strict=True):
        metrics.update(p, y, None, nowhere)
    return metrics.result()


def test_f1_and_accuracy_by_hand_with_missing_labels() -> None:
    scores = score(PROBABILITIES, LABELS, (1, 6, 12))
    assert scores.f1 is not None and scores.accuracy is not None
    assert scores.f1[:2] == pytest.approx((2 * 2 / (2 * 2 + 1 + 1), 1.0))
    assert scores.accuracy[:2] == pytest.approx((3 / 5, 1.0))
    assert (scores.f1[2], scores.accuracy[2]) == (None, None)
    assert scores.f1_mean == pytest.approx((2 / 3 + 1) / 2)
    assert scores.accuracy_mean == pytest.approx((3 / 5 + 1) / 2)
    assert (scores.mean_error, scores.failure_rate) == (None, None)


def test_random_predictions_against_plain_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, 4, generator=generator)
    y = torch.randint(-1, 2, (200, 4), generator=generator)
    scores = score(p, y, (1, 2, 4, 6), batch=33)
    for au in range(4):
        pairs = [(p[i, au].item() > 0.5, y[i, au].item()) for i in range(200) if y[i, au] >= 0]
        hits = sum(said and true == 1 for said, true in pairs)
        wrong = sum(said != (true == 1) for said, true in pairs)
        assert scores.f1 is not None and scores.accuracy is not None
        assert scores.f1[au] == pytest.approx(2 * hits / (2 * hits + wrong))
        assert scores.accuracy[au] == pytest.approx(1 - wrong / len(pairs))


def test_frames_are_pooled_not_batches() -> None:
    one, many = (
        score(PROBABILITIES, LABELS, (1, 6, 12), batch=5),
        score(PROBABILITIES, LABELS, (1, 6, 12), batch=1),
    )
    assert one == many


@pytest.mark.parametrize("said", [0.1, 0.9])
def test_an_au_without_positives_has_f1_zero_and_counts(said: float) -> None:
    scores = score(torch.tensor([[said, 0.9], [0.1, 0.2]]), torch.tensor([[0, 1], [0, 0]]), (1, 2))
    assert scores.f1 == (0, 1)
    assert scores.f1_mean == 0.5


def test_landmark_error_in_percent_of_the_eye_distance() -> None:
    target = torch.stack([face(40.0), face(20.0), face(50.0)])
    shift = torch.tensor([[3.0, 4.0], [0.0, 1.0], [3.0, 4.0]])  # 5, 1 and 5 pixels
    metrics = Metrics((1,))
    metrics.update(None, torch.zeros(3, 1), target + shift[:, None], target)
    scores = metrics.result()
    assert scores.mean_error == pytest.approx((100 * 5 / 40 + 100 * 1 / 20 + 100 * 5 / 50) / 3, rel=1e-5)
    assert (scores.f1, scores.f1_mean, scores.accuracy) == (None, None, None)


def test_a_face_fails_beyond_ten_percent_or_without_a_number() -> None:
    target = face(40.0).expand(4, -1, -1)
    predicted = target + torch.tensor([3.9, 4.1, 0.0, float("nan")])[:, None, None] * torch.tensor([1.0, 0.0])
    metrics = Metrics((1,))
    metrics.update(None, torch.zeros(4, 1), predicted, target)
    assert metrics.result().failure_rate == 50


def test_files_and_table_say_the_same(tmp_path: Path) -> None:
    note = "Not for real use."
    scores = Scores((1, 12), (0.25, None), (0.75, None), 0.25, 0.75, 6.5, 12.5, note)
    scores.to_json(tmp_path / "metrics.json")
    scores.to_csv(tmp_path / "metrics.csv")
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert Scores.from_dict(values) == scores
    assert values["f1"] == [0.25, None]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(r["au"], r["f1"], r["mean_error"], r["note"]) for r in rows] == [
        ("1", "0.25", "", note),
        ("12", "", "", note),
        ("mean", "0.25", "6.5", note),
    ]
    console = Console(width=80, record=True)
    scores.show(console)
    text = console.export_text()
    assert all(part in text for part in ("25.0", "75.0", "6.5", "12.5", "mean", note))


def test_evaluate_is_what_the_model_says_of_central_crops(tmp_path: Path) -> None:
    torch.manual_seed(0)
    faces = SyntheticFaces(subjects=[3, 8], samples_per_subject=3, size=73, aus=(1, 12))
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=2))
    model.note = "Untrained."
    scores = evaluate(model, faces, batch_size=4, predictions=tmp_path / "predictions.csv")
    assert not model.training
    assert scores.note == "Untrained."
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [r["id"] for r in rows] == [faces[i].id for i in range(6)]
    assert [r["subject"] for r in rows] == ["S003"] * 3 + ["S008"] * 3
    assert {r["note"] for r in rows} == {"Untrained."}
    assert [[int(r["AU1"]), int(r["AU12"])] for r in rows] == faces.label_matrix().tolist()

    crop = torch.from_numpy(faces[4].image[4:68, 4:68].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        output = model((crop / 255 - 0.5) / 0.5)
    p = [float(rows[4]["AU1_probability"]), float(rows[4]["AU12_probability"])]
    assert p == pytest.approx(output.logits.softmax(1)[0, 1].tolist(), abs=2e-6)
    assert float(rows[4]["y48"]) == pytest.approx(output.landmarks[0, 48, 1].item(), abs=2e-3)

    hits = {
        au: [(float(r[f"AU{au}_probability"]) > 0.5) == (r[f"AU{au}"] == "1") for r in rows] for au in (1, 12)
    }
    assert scores.accuracy == pytest.approx(tuple(sum(hits[au]) / 6 for au in (1, 12)))


def test_evaluate_variants_without_landmarks_or_aus(tmp_path: Path) -> None:
    faces = SyntheticFaces(subjects=[1], samples_per_subject=2, size=73, aus=(1,))
    parts = {
        "image_size": 64,
        "width": 2,
        "attention": False,
        "refinement": False,
        "gradient_enhancement": 1.0,
    }
    only_aus = evaluate(JAANet(JAANetConfig((1,), alignment=False, **parts)), faces)
    assert (only_aus.mean_error, only_aus.failure_rate) == (None, None)
    assert only_aus.accuracy_mean is not None
    model = JAANet(JAANetConfig((1,), au_detection=False, global_features=False, **parts))
    only_landmarks = evaluate(model, faces, predictions=tmp_path / "p.csv")
    assert (only_landmarks.f1, only_landmarks.f1_mean) == (None, None)
    assert only_landmarks.mean_error is not None
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert rows[0][2:4] == ["x0", "y0"]
    assert {len(row) for row in rows} == {2 + 98 + 1}


def test_evaluate_refuses_other_aus() -> None:
    faces = SyntheticFaces(subjects=[1], samples_per_subject=2, size=73, aus=(1, 2))
    model = JAANet(JAANetConfig((2, 1), image_size=64, width=2))
    with pytest.raises(ValueError, match=r"the model has AUs \[2, 1\], but the data set has \[1, 2\]"):
        evaluate(model, faces)
