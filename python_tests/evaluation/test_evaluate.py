from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.data import CombinedFaces, FaceSample, SyntheticFaces
from jaa_ext.evaluation import Scores, evaluate
from jaa_ext.models import JAANet, JAANetConfig, JAAOutput


def test_evaluate_is_what_the_model_says_of_central_crops(tmp_path: Path) -> None:
    torch.manual_seed(0)
    faces = SyntheticFaces(subjects=[3, 8], samples_per_subject=3, size=73, aus=(1, 12))
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=2))
    model.note = "Untrained."
    scores = evaluate(model, faces, batch_size=4, predictions=tmp_path / "predictions.csv")
    assert model.training  # as it was
    assert scores.note == "Untrained."
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [r["id"] for r in rows] == [faces[i].id for i in range(6)]
    assert [r["subject"] for r in rows] == ["S003"] * 3 + ["S008"] * 3
    assert {r["note"] for r in rows} == {"Untrained."}
    assert [[int(r["AU01"]), int(r["AU12"])] for r in rows] == faces.label_matrix().tolist()

    crop = torch.from_numpy(faces[4].image[4:68, 4:68].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        output = model.eval()((crop / 255 - 0.5) / 0.5)
    p = [float(rows[4]["AU01_p"]), float(rows[4]["AU12_p"])]
    assert p == pytest.approx(output.logits.softmax(1)[0, 1].tolist(), abs=2e-6)
    assert float(rows[4]["y_48"]) == pytest.approx(output.landmarks[0, 48, 1].item(), abs=2e-3)

    hits = {
        au: [(float(r[f"AU{au:02d}_p"]) > 0.5) == (r[f"AU{au:02d}"] == "1") for r in rows] for au in (1, 12)
    }
    assert scores.accuracy == pytest.approx(tuple(sum(hits[au]) / 6 for au in (1, 12)))


def test_evaluate_compares_intensities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    faces = SyntheticFaces(subjects=[3, 8], samples_per_subject=3, size=73, aus=(1, 12))
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=2, intensity=True))
    torch.nn.init.normal_(model.au_head.intensity.linear.weight, std=50)
    scores = evaluate(model, faces, batch_size=4, predictions=tmp_path / "p.csv", bootstrap=20)
    crop = torch.from_numpy(faces[4].image[4:68, 4:68].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        want = model.eval()((crop / 255 - 0.5) / 0.5).intensities[0].tolist()
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    true, predicted = (
        np.array([[float(row[f"AU{au:02d}_{name}"]) for au in (1, 12)] for row in rows])
        for name in ("intensity", "r")
    )
    assert predicted[4].tolist() == pytest.approx(want, abs=1e-4)
    assert true == pytest.approx(faces.intensity_matrix(), abs=1e-4)
    assert scores.mae == pytest.approx(np.abs(true - predicted).mean(0), abs=1e-4)
    assert scores.rated == (6, 6) and scores.icc_mean is not None
    assert scores.intervals is not None and scores.intervals.mae_mean is not None

    model.set_rated([False, True])
    scores = evaluate(model, faces, predictions=tmp_path / "p.csv")
    assert scores.rated == (0, 6) and scores.icc is not None and scores.icc[0] is None
    assert next(csv.DictReader((tmp_path / "p.csv").open()))["AU01_r"] == ""


def test_evaluate_on_faces_without_intensities() -> None:
    class Without(SyntheticFaces):
        def __getitem__(self, index: int) -> FaceSample:
            return super().__getitem__(index)._replace(intensities=None)

    faces = Without(subjects=[3], samples_per_subject=2, size=73, aus=(1, 12))
    scores = evaluate(JAANet(JAANetConfig.released((1, 12), image_size=64, width=2, intensity=True)), faces)
    assert (scores.icc, scores.icc_mean, scores.rated) == ((None, None), None, (0, 0))


def test_evaluate_decides_by_the_models_thresholds() -> None:
    torch.manual_seed(0)
    faces = SyntheticFaces(subjects=[3, 8], samples_per_subject=3, size=73, aus=(1, 12))
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=2))
    assert evaluate(model, faces).thresholds is None
    present = faces.label_matrix().mean(0)
    for threshold, predicted in ((0.001, 1), (0.999, 0)):
        model.thresholds = (threshold, threshold)
        scores = evaluate(model, faces)
        assert scores.thresholds == (threshold, threshold)
        assert scores.accuracy == pytest.approx(tuple(present if predicted else 1 - present))


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
    assert (only_landmarks.auc, only_landmarks.positives, only_landmarks.abaw_score) == (None, None, None)
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert rows[0][2:4] == ["x_0", "y_0"]
    assert {len(row) for row in rows} == {2 + 98 + 1}


def test_evaluate_refuses_other_aus() -> None:
    faces = SyntheticFaces(subjects=[1], samples_per_subject=2, size=73, aus=(1, 2))
    model = JAANet(JAANetConfig((2, 1), image_size=64, width=2))
    with pytest.raises(ValueError, match=r"^the model has AUs \[2, 1\], but the data set has \[1, 2\]"):
        evaluate(model, faces)


class Told(torch.nn.Module):
    """A model of the same interface that says what it was told, in the order of the faces."""

    note = "Told."

    def __init__(self, probabilities: np.ndarray, aus: tuple[int, ...]) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.from_numpy(probabilities).float())
        self.config = SimpleNamespace(aus=aus, image_size=64, au_detection=True, alignment=False)
        self.done = 0

    def fuse(self) -> Told:
        return self

    def forward(self, image: torch.Tensor) -> JAAOutput:
        p = self.p[self.done : self.done + len(image)]
        self.done += len(image)
        return JAAOutput(logits=torch.stack([torch.zeros_like(p), p.logit()], 1))


AUS = (1, 6, 12)


def faces() -> SyntheticFaces:
    return SyntheticFaces(subjects=[2, 5, 9, 11], samples_per_subject=5, size=73, aus=AUS)


def told(seed: int = 0) -> Told:
    p = np.random.default_rng(seed).uniform(0.05, 0.6, (20, 3)) + 0.3 * (faces().label_matrix() == 1)
    return Told(p, AUS)


def of_told(**options: object) -> Scores:
    return evaluate(told(), faces(), batch_size=7, workers=0, **options)  # type: ignore[arg-type]


def test_any_model_of_the_interface_is_scored() -> None:
    scores = of_told()
    labels, predicted = faces().label_matrix(), told().p.detach().numpy() > 0.5
    for i in range(3):
        hits = (predicted[:, i] & (labels[:, i] == 1)).sum()
        assert scores.precision is not None and scores.positives is not None
        assert scores.precision[i] == pytest.approx(hits / max(1, predicted[:, i].sum()))
        assert scores.positives[i] == (labels[:, i] == 1).sum()
    assert scores.valid == (20, 20, 20)
    assert scores.accuracy_total == pytest.approx((predicted == (labels == 1)).mean())
    assert (scores.subjects, scores.intervals, scores.mean_error) == (4, None, None)


def test_intervals_are_made_where_asked_for_and_change_no_score() -> None:
    plain, resampled, again = of_told(), of_told(bootstrap=200, seed=4), of_told(bootstrap=200, seed=4)
    assert resampled == again
    assert resampled.intervals is not None and resampled.intervals.f1_mean is not None
    assert (resampled.intervals.resamples, resampled.intervals.seed) == (200, 4)
    low, high = resampled.intervals.f1_mean
    assert resampled.f1_mean is not None and 0 <= low < resampled.f1_mean < high <= 1
    assert {**resampled.to_dict(), "intervals": None} == plain.to_dict()
    assert of_told(bootstrap=200, seed=5).intervals != resampled.intervals


def test_figures_are_written_where_asked_for(tmp_path: Path) -> None:
    of_told(figures=tmp_path / "figures")
    assert sorted(f.name for f in (tmp_path / "figures").iterdir()) == [
        "AU1.png", "AU12.png", "AU6.png", "scores.png",
    ]  # fmt: skip


def test_evaluate_refuses_a_negative_number_of_resamples() -> None:
    with pytest.raises(ValueError, match=r"bootstrap must be .*-1"):
        of_told(bootstrap=-1)


def test_rules_with_numbers_are_the_aus_of_the_data() -> None:
    data = SyntheticFaces(subjects=[1, 2], samples_per_subject=2, size=73, aus=(1, 12))
    own = (facs.AURule((4, 5), -0.4, number=1), facs.AURule((31, 37), number=12))
    scores = evaluate(JAANet(JAANetConfig.released(own, image_size=64, width=2)), data, workers=0)
    assert scores.aus == (1, 12)
    with pytest.raises(ValueError, match=r"the model has AUs \[12, 1\], but the data set has \[1, 12\]"):
        evaluate(JAANet(JAANetConfig.released(own[::-1], image_size=64, width=2)), data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floats_are_scored_in_float32(dtype: torch.dtype) -> None:
    data = SyntheticFaces(subjects=[1], samples_per_subject=2, size=73, aus=(1, 12))
    torch.manual_seed(0)
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)).to(dtype)
    scores = evaluate(model, data)
    assert scores.mean_error is not None and scores.valid == (2, 2)
    assert next(model.parameters()).dtype == dtype


def test_true_landmarks_that_are_no_face_s() -> None:
    class Flat(SyntheticFaces):
        def __getitem__(self, index: int) -> FaceSample:
            sample = super().__getitem__(index)
            return sample._replace(landmarks=np.full((49, 2), 30, np.float32)) if index == 1 else sample

    data = Flat(subjects=[1], samples_per_subject=2, size=73, aus=(1, 12))
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=1))
    with pytest.raises(ValueError, match=r"landmarks of face S001/00001 must be finite"):
        evaluate(model, data)


def test_a_negative_seed() -> None:
    data = SyntheticFaces(subjects=[1], samples_per_subject=2, size=73, aus=(1, 12))
    with pytest.raises(ValueError, match=r"seed must be .*-1$"):
        evaluate(JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)), data, bootstrap=5, seed=-1)


def test_several_data_sets_are_scored_together_and_one_by_one() -> None:
    """An AU without a label in a data set has no score there, nor an interval; it does not count as 0."""
    torch.manual_seed(0)
    model = JAANet(JAANetConfig.released((1, 4, 12), image_size=64, width=2))
    one, two = (
        SyntheticFaces(subjects=people, samples_per_subject=6, size=73, aus=aus)
        for people, aus in (([3, 8], (1, 12)), ([3, 4, 5], (4, 12)))
    )
    both = CombinedFaces({"one": one, "two": two}, aus=(1, 4, 12))
    scores = evaluate(model, both, bootstrap=50, workers=0)
    assert (scores.valid, scores.subjects) == ((12, 18, 30), 5)
    assert scores.sets is not None and scores.intervals is not None
    for name, faces, lacking in (("one", one, 1), ("two", two, 0)):
        part, alone = scores.sets[name], CombinedFaces({name: faces}, aus=(1, 4, 12))
        assert part.valid is not None and part.valid[lacking] == 0
        wanted = evaluate(model, alone, bootstrap=50, workers=0)
        assert wanted.sets is None and wanted.subjects == part.subjects == len(faces.subjects)
        assert part.f1 == wanted.f1 and part.intervals is not None and wanted.intervals is not None
        assert part.f1[lacking] is part.intervals.f1[lacking] is None
        assert part.intervals.f1 == wanted.intervals.f1
        assert part.f1_mean == pytest.approx(sum(v for v in part.f1 if v is not None) / 2)
        assert part.mean_error == pytest.approx(wanted.mean_error, rel=1e-4)
