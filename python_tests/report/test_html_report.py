"""The HTML report: that it tells what the files say, finds the right faces, and stands in a real browser."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.evaluation import Predictions, Scores, score
from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.evaluation.results import EvaluationSource, read_scores
from jaa_ext.experiments.crossval import CrossValidation, FoldResult
from jaa_ext.models import JAANetConfig
from jaa_ext.recipes.datasets import DEMONSTRATION, Prepared, Synthetic
from jaa_ext.report.html_report import write_report

AUS = (1, 12, 17)
RECIPE = """
name: tiny <i>one</i>
model: {aus: [1, 12, 17], image_size: 64, width: 1}
data: {name: synthetic, train_subjects: 2, test_subjects: 6, samples_per_subject: 3}
batch_size: 8
stages: [{name: joint, epochs: 2, lr: 0.01}]
"""
MARGIN = (73 - 64) // 2
"""Between the aligned pictures of drawn faces and their central crops."""


def drawn_faces() -> SyntheticFaces:
    """The test set of `RECIPE`."""
    return SyntheticFaces(subjects=range(2, 8), samples_per_subject=3, size=73, aus=AUS)


def eye_distance(landmarks: NDArray[np.float32]) -> float:
    left, right = (landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    return float(np.hypot(*(right - left)))


def predictions_of_drawn_faces(note: str = DEMONSTRATION) -> Predictions:
    """Face i of 18 has its landmarks off by 2 + i % 3 + i // 3 pixels and probabilities off by 1 to 18 %,
    the last face most; so subject k has its worst face in place 3 k + 2."""
    faces = drawn_faces()
    truth = np.stack([face.landmarks for face in (faces[i] for i in range(18))]) - MARGIN
    off = np.array([2 + i % 3 + i // 3 for i in range(18)], np.float32)
    landmarks = truth + np.stack([off, 0 * off], 1)[:, None]
    labels = faces.label_matrix()
    away = np.linspace(0.01, 0.18, 18)[:, None]
    p = np.where(labels == 1, 1 - away, away).astype(np.float32)
    errors = np.array([100 * o / eye_distance(t) for o, t in zip(off, truth, strict=True)])
    ids = tuple(faces[i].id for i in range(18))
    return Predictions(AUS, labels, p, landmarks, errors, ids, note)


def put_scores(folder: Path, predictions: Predictions, scores: Scores | None = None) -> None:
    (scores or score(predictions)).to_json(folder / "metrics.json")
    predictions.to_csv(folder / "predictions.csv")


def history(note: str = DEMONSTRATION) -> list[dict]:
    values = score(predictions_of_drawn_faces(note)).to_dict()
    losses = [{"au_softmax": 0.6 / e, "align": 0.2 / e, "total": 0.8125 / e} for e in (1, 2)]
    return [
        {"epoch": e, "stage": "joint", "lr": 0.01, "losses": losses[e - 1], "scores": values} for e in (1, 2)
    ]


def make_run(folder: Path) -> Path:
    """A folder as `train` leaves it, as far as the report goes."""
    put_scores(folder, predictions_of_drawn_faces())
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "history.json").write_text(json.dumps(history()))
    return folder


def make_evaluation(folder: Path) -> Path:
    """A folder as `evaluate` leaves it, with intervals and evaluation.json."""
    predictions = predictions_of_drawn_faces()
    put_scores(
        folder, predictions, replace(score(predictions), intervals=bootstrap_intervals(predictions, 50))
    )
    data = Synthetic(train_subjects=2, test_subjects=6, samples_per_subject=3)
    EvaluationSource(JAANetConfig(AUS, image_size=64, width=1), data, model="some/model.safetensors").write(
        folder
    )
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "scores")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests of what else the page has: drawing takes most of the time."""
    monkeypatch.setattr("jaa_ext.plots.scores.write_figures", lambda folder, predictions, scores: ())
    monkeypatch.setattr("jaa_ext.plots.training.training_figure", lambda history, path, note: path.touch())


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of `make_run`."""
    return report(make_run(tmp_path_factory.mktemp("reported") / "run"))


@pytest.fixture(scope="module")
def evaluation_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of `make_evaluation`."""
    return report(make_evaluation(tmp_path_factory.mktemp("reported") / "scores"))


class Page(HTMLParser):
    """Elements and text of a report."""

    VOID = ("meta", "img", "br", "path", "circle")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        assert self._open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag  # every element is closed where it should be

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def between(self, start: str, end: str) -> str:
        return self.text.split(start, 1)[1].split(end, 1)[0]


def report(folder: Path, **options: object) -> Page:
    out = folder / "pages" / "report.html"
    write_report(folder, out, **options)
    return Page(out)


def test_a_run_says_what_it_is_and_its_scores(run_page: Page) -> None:
    page = run_page
    assert page.text.index(DEMONSTRATION) < page.text.index("Scores")
    assert ("p", {"class": "note", "role": "note"}) in page.elements
    for fact in ("tiny <i>one</i>", "2 epochs (joint 2)", "3 AUs, images of 64 pixels", "drawn faces"):
        assert fact in page.between("Training run", "Best and worst")
    assert "18 faces of 6 subjects" in page.text
    scores = score(predictions_of_drawn_faces())
    assert page.between("landmark error", "failures").strip() == f"{scores.mean_error:.2f} %"
    failed = int((predictions_of_drawn_faces().errors > 10).sum())
    assert 0 < failed < 18 and f"{failed} of 18 faces" in page.text
    # All right at the threshold 0.5: every score of every AU is 100 %.
    positives = drawn_faces().label_matrix()[:, 1].mean()
    assert f"AU 12 lip corner puller {'100.0 ' * 5}{100 * positives:.1f}" in page.text
    assert "Every epoch in figures" in page.text and "0.8125" in page.text and "0.4062" in page.text
    assert "train_subjects: 2" in page.text  # the recipe itself


def test_a_run_of_one_epoch(run: Path, no_figures: None) -> None:
    (run / "recipe.yaml").write_text(RECIPE.replace("epochs: 2", "epochs: 1"))
    assert "1 epoch (joint 1)" in report(run).text


def test_the_worst_and_best_faces_are_those_with_the_largest_and_smallest_errors(run_page: Page) -> None:
    page, predictions = run_page, predictions_of_drawn_faces()
    order = sorted(range(18), key=lambda i: predictions.errors[i])
    subject = [name.split("/")[0] for name in predictions.ids]

    def first_of_each_subject(places: list[int]) -> list[str]:
        subjects = list(dict.fromkeys(subject[i] for i in places))[:4]
        return [predictions.ids[next(i for i in places if subject[i] == name)] for name in subjects]

    worst_aus = [17, 14, 11, 8]  # of the four last subjects
    expected = {
        "Landmarks: the largest errors": first_of_each_subject(order[::-1]),
        "Landmarks: the smallest errors": first_of_each_subject(order),
        "AUs: the largest errors": [predictions.ids[i] for i in worst_aus],
        "AUs: the smallest errors": [predictions.ids[i] for i in (0, 3, 6, 9)],
    }
    headings = [*expected, "Recipe recipe.yaml"]
    for heading, following in pairwise(headings):
        shown = re.findall(r"S\d{3}/\d{5}", page.between(heading, following))
        assert shown == expected[heading], heading
    worst = page.between("Landmarks: the largest errors", "Landmarks: the smallest errors")
    assert f"landmark error {predictions.errors.max():.1f} %, a failure" in worst
    assert "AU error 18.0 %, 0 of 3 wrong" in page.between("AUs: the largest errors", "AUs: the smallest")


def test_pictures_and_landmarks_of_a_face(run_page: Page) -> None:
    page = run_page
    i = 17  # the first of the group of AUs
    (uri,) = {
        image["src"]
        for image in page.all("img")
        if (image["alt"] or "").startswith(f"Face {drawn_faces()[i].id}")
    }
    assert uri is not None and uri.startswith("data:image/jpeg;base64,")
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 64, 3)

    def distance(top: int, left: int, order: int = 1) -> float:
        crop = drawn_faces()[i].image[top : top + 64, left : left + 64, ::order].astype(float)
        return float(np.abs(picture[..., ::-1] - crop).mean())

    offsets = [(top, left) for top in range(73 - 64) for left in range(73 - 64)]
    assert min(offsets, key=lambda at: distance(*at)) == (MARGIN, MARGIN)
    assert distance(MARGIN, MARGIN) < 6 < distance(MARGIN, MARGIN, -1)

    article = next(a for a in page.source.split("<article") if f"Face {drawn_faces()[i].id}" in a)
    assert 'viewBox="-0.5 -0.5 64 64"' in article  # pixel centres are whole numbers
    truth = drawn_faces()[i].landmarks - MARGIN
    groups = re.findall(r'<g class="(\w+)".*?</g>', article, re.S)
    assert groups == ["halo", "true", "predicted"]
    for name, wanted in (("true", truth), ("predicted", truth + np.array((9, 0)))):
        (group,) = re.findall(rf'<g class="{name}".*?</g>', article, re.S)
        points = [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', group)]
        np.testing.assert_allclose(points, wanted, atol=0.006)


@pytest.mark.usefixtures("no_figures")
def test_wrong_aus_are_marked(run: Path) -> None:
    predictions = predictions_of_drawn_faces()
    p = predictions.probabilities.copy()
    p[17] = np.where(predictions.labels[17] == 1, 0.3, 0.8)
    labels = predictions.labels.copy()
    labels[17, 0] = -1
    put_scores(run, replace(predictions, probabilities=p, labels=labels))
    page = report(run)
    worst = page.between("AUs: the largest errors", "AUs: the smallest errors")
    first = worst.split("S007/")[1].split("S006/")[0]
    wrong = 100 * np.mean([0.7 if label == 1 else 0.8 for label in labels[17, 1:]])
    assert f"AU error {wrong:.1f} %, 2 of 2 wrong" in first
    assert "1 no label" in first and first.count("✗") == 2


@pytest.mark.usefixtures("no_figures")
def test_thresholds_of_the_model_decide(run: Path) -> None:
    """At 0.5 all is right; now the first AU is predicted present in the last face, and the third to be
    absent."""
    predictions = replace(predictions_of_drawn_faces(), thresholds=(0.01, 0.5, 0.99))
    put_scores(run, predictions)
    page = report(run)
    assert "exceeds its threshold (thresholds of the model: AU" in page.text
    worst = page.between("AUs: the largest errors", "AUs: the smallest errors")
    first = worst.split("S007/")[1].split("S006/")[0]
    assert first.count("✗") == int(predictions.labels[17, 0] == 0) + int(predictions.labels[17, 2] == 1) > 0
    article = page.source.split("<article")[1]
    for percent in ("1.0", "50.0", "99.0"):
        assert f"--threshold:{percent}%" in article


@pytest.mark.usefixtures("no_figures")
def test_landmarks_that_are_not_numbers_are_the_worst(run: Path) -> None:
    predictions = predictions_of_drawn_faces()
    landmarks = predictions.landmarks.copy()
    landmarks[7, 3] = np.nan
    errors = predictions.errors.copy()
    errors[7] = np.nan
    put_scores(run, replace(predictions, landmarks=landmarks, errors=errors))
    page = report(run)
    worst = page.between("Landmarks: the largest errors", "Landmarks: the smallest errors")
    assert worst.split()[0] == predictions.ids[7]
    assert f"{predictions.ids[7]} landmarks that are not numbers, a failure" in worst
    assert f"{int((predictions.errors > 10).sum() + (predictions.errors[7] <= 10))} of 18 faces" in page.text
    article = next(a for a in page.source.split("<article") if f"Face {predictions.ids[7]}," in a)
    (dots,) = re.findall(r'<g class="predicted".*?</g>', article, re.S)
    assert dots.count("<circle") == 48 and "nan" not in article


def test_it_loads_nothing_and_runs_nothing(run_page: Page, evaluation_page: Page) -> None:
    for page in (run_page, evaluation_page):
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "link", "iframe", "object", "embed", "image", "use", "form"}
        for tag, attributes in page.elements:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                if name in ("src", "href", "srcset", "data", "action"):
                    assert (value or "").startswith(("data:image/", "#")), (tag, name)
        assert "url(" not in page.source and "@import" not in page.source
        assert all(image["alt"] for image in page.all("img"))
        assert page.all("html")[0]["lang"] == "en" and page.source.count("<title>") == 1
        targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        assert {link["href"].removeprefix("#") for link in page.all("a")} <= targets
        assert len(page.source) < 3_000_000


@pytest.mark.usefixtures("no_figures")
def test_text_of_files_is_escaped(run: Path) -> None:
    bad = '<script>alert("1")</script>&amp;'
    put_scores(run, predictions_of_drawn_faces(bad))
    (run / "history.json").write_text(json.dumps(history(bad)))
    page = report(run)
    assert bad in page.text and page.all("script") == [] and page.all("i") != [{}]
    assert "<i>one</i>" not in page.source


def test_the_same_files_give_the_same_bytes(evaluation: Path, tmp_path: Path) -> None:
    os.utime(evaluation / "metrics.json", (1_700_000_000, 1_700_000_000))
    assert write_report(evaluation, tmp_path / "a.html") == ""
    write_report(evaluation, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "2023-11-14 22:13 UTC" in Page(tmp_path / "a.html").text


def test_an_evaluation_has_intervals_and_no_training(evaluation_page: Page) -> None:
    page = evaluation_page
    intervals = read_scores(page.path.parent.parent / "metrics.json").intervals
    low, high = intervals.mean_error
    assert page.between("landmark error", "failures").split()[2] == f"{low:.2f}-{high:.2f}"
    assert "95 % intervals: 50 resamples of 6 subjects" in page.text
    assert "model.safetensors" in page.between("Evaluation", "Scores")
    assert "Training" not in page.text and "Landmarks: the largest errors" in page.text
    alts = [image["alt"] or "" for image in page.all("img")]
    assert sum("ROC curve" in alt for alt in alts) == 3


@pytest.mark.usefixtures("no_figures")
def test_scores_of_intensities(run: Path) -> None:
    scores = read_scores(run / "metrics.json")
    assert "ICC" not in report(run).text
    replace(
        scores, icc=(0.8125, None, None), pearson=(0.9, None, None), mae=(0.25, None, 1.5), icc_mean=0.8125,
        pearson_mean=0.9, mae_mean=0.875, rated=(1200, 0, 1),
    ).to_json(run / "metrics.json")  # fmt: skip
    text = report(run).text
    assert "Intensities" in text and "ICC(3,1)" in text and "1,200" in text
    assert all(value in text for value in ("0.81", "0.90", "0.25", "0.88", "1.50"))


@pytest.mark.usefixtures("no_figures")
def test_scores_of_each_data_set(run: Path) -> None:
    scores = read_scores(run / "metrics.json")
    assert "by itself" not in report(run).text
    part = replace(
        scores, f1=(0.1234, *[None] * (len(AUS) - 1)), valid=(3, *[0] * (len(AUS) - 1)), f1_mean=0.1234
    )
    replace(scores, sets={"BP4D": part, "mine": scores}).to_json(run / "metrics.json")
    text = report(run).text
    assert "BP4D by itself" in text and "mine by itself" in text and text.count("12.3") == 2
    assert f"Landmark error: {scores.mean_error:.1f} %." in text


@pytest.mark.usefixtures("no_figures")
def test_models_without_aus_or_landmarks(run: Path) -> None:
    predictions = predictions_of_drawn_faces()
    (run / "history.json").unlink()
    put_scores(run, replace(predictions, probabilities=None))
    page = report(run)
    assert "Scores of each AU" not in page.text and "Each AU" not in page.text and "AUs: the" not in page.text
    assert "Landmarks: the largest errors" in page.text
    put_scores(run, replace(predictions, landmarks=None, errors=None))
    page = report(run)
    assert "failures" not in page.text and "Landmarks: the" not in page.text
    assert "AUs: the largest errors" in page.text and 'class="predicted" stroke-width' in page.source
    assert "and predicted landmarks" not in page.source


@pytest.mark.usefixtures("no_figures")
def test_without_the_data_there_is_a_report_without_faces(evaluation: Path, tmp_path: Path) -> None:
    moved = Prepared(name="prepared", folder=str(tmp_path / "moved"), test_fold="1")
    EvaluationSource(JAANetConfig(AUS, image_size=64), moved, model="m.safetensors").write(evaluation)
    why = write_report(evaluation, tmp_path / "r.html")
    assert "moved" in why and "got no such folder" in why
    page = Page(tmp_path / "r.html")
    assert f"No faces are shown: {why}" in page.text and "AU 12" in page.text
    with pytest.raises(ValueError, match=r"elsewhere: wanted a prepared data set"):
        write_report(evaluation, tmp_path / "r.html", data=str(tmp_path / "elsewhere"))

    (evaluation / "evaluation.json").unlink()
    assert "no evaluation.json" in write_report(evaluation, tmp_path / "r.html")
    (evaluation / "predictions.csv").unlink()
    assert write_report(evaluation, tmp_path / "r.html") == "the folder has no predictions.csv"
    assert Page(tmp_path / "r.html").text.count("AU 12") == 1


@pytest.mark.usefixtures("no_figures")
def test_other_faces_than_those_of_the_predictions(evaluation: Path, tmp_path: Path) -> None:
    config = JAANetConfig(AUS, image_size=64)
    others = Synthetic(train_subjects=3, test_subjects=6, samples_per_subject=3)
    EvaluationSource(config, others).write(evaluation)
    assert "got S003/00000 in place of S002/00000" in write_report(evaluation, tmp_path / "r.html")
    with pytest.raises(ValueError, match="got S003/00000 in place of S002/00000"):
        write_report(evaluation, tmp_path / "r.html", data="synthetic")
    EvaluationSource(config, others.model_copy(update={"samples_per_subject": 2})).write(evaluation)
    assert "wanted the 18 faces of predictions.csv, got 12" in write_report(evaluation, tmp_path / "r.html")


def test_a_cross_validation(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "crossval"
    scores = replace(score(predictions_of_drawn_faces()), f1=(0.25, 0.5, 0.75), f1_mean=0.5)
    better = replace(scores, f1=(0.5, 0.75, 1.0), f1_mean=0.75)
    result = CrossValidation(
        "tiny", "drawn <faces>", (FoldResult("1", scores, better, 2), FoldResult("2", better, better, 1))
    )
    folder.mkdir()
    (folder / "crossval.json").write_text(json.dumps(result.to_dict()))
    shutil.copytree(run, folder / "fold-1")
    why = write_report(folder, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "reports of its folds" in why
    assert page.text.index(DEMONSTRATION) < page.text.index("tiny on drawn <faces>: F1 in percent")
    assert "1 25.0 50.0 37.5 50.0" in page.text and "Avg 50.0 75.0 62.5 75.0" in page.text
    assert [image["alt"][:7] for image in page.all("img")] == ["Fold 1:"]
    left_out = replace(result, leave_out="data")
    (folder / "crossval.json").write_text(json.dumps(left_out.to_dict()))
    write_report(folder, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert [image["alt"][:10] for image in page.all("img")] == [
        "Without 1:"
    ] and "left out by turns" in page.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", "metrics.json: is damaged: wanted JSON"),
        ("metrics.json", "[]", "metrics.json: is damaged: wanted the scores"),
        ("metrics.json", '{"aus": [1]}', "metrics.json: is damaged: wanted the scores"),
        ("metrics.json", '{"aus": [1], "f1": [NaN]}', "metrics.json: is damaged: wanted the scores"),
        ("metrics.json", "\x00", "metrics.json: is damaged: wanted JSON"),
        ("metrics.json", f'{{"aus": [1], "positives": [{10**400}]}}', "metrics.json: is damaged: wanted"),
        ("history.json", 5000 * "[", "history.json: is damaged: wanted"),
        (
            "history.json",
            '[{"epoch": 1, "losses": {"total": NaN}}]',
            "list of epochs and their losses, got",
        ),
        ("history.json", '[{"epoch": 1, "losses": {}, "scores": []}]', "got 0.scores: "),
        ("history.json", '[{"epoch": 1}]', "history.json: is damaged: wanted a list of epochs"),
        ("predictions.csv", "id,AU1\nS001/0,1\n", "predictions.csv: is damaged, or not of metrics.json"),
        ("predictions.csv", "id,id,AU1\n", "predictions.csv: is damaged: wanted different columns"),
        ("predictions.csv", "", "predictions.csv: is damaged, or not of metrics.json: wanted a column id"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_damaged_files(run: Path, name: str, text: str, message: str) -> None:
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        write_report(run, run / "r.html")
    assert len(str(error.value).splitlines()) == 1
    assert not (run / "r.html").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_damaged_row_is_named(run: Path) -> None:
    lines = (run / "predictions.csv").read_text().splitlines()
    lines[3] = lines[3][:200]
    (run / "predictions.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"predictions\.csv: line 4: wanted 107 columns.*got 'S002/00002"):
        write_report(run, run / "r.html")


def test_folders_that_hold_nothing_to_report(tmp_path: Path, run: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"run: is a folder, .*HTML"):
        write_report(run, run)
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        write_report(tmp_path / "none", tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: .*train, evaluate or crossval"):
        write_report(tmp_path / "empty", tmp_path / "r.html")
    (run / "metrics.json").unlink()
    with pytest.raises(ValueError, match="run: the run is not finished"):
        write_report(run, tmp_path / "r.html")
    (tmp_path / "empty" / "crossval.json").write_text('{"folds": []}')
    with pytest.raises(ValueError, match=r"crossval\.json: is damaged.* jaa crossval"):
        write_report(tmp_path / "empty", tmp_path / "r.html")


# In a browser.

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
with_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")

HARNESS = """<!doctype html><meta charset="utf-8"><body>
%s
<pre id="found"></pre>
<script>
const found = {}, start = element => element.outerHTML.slice(0, 80);
window.addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, images = [...page.images];
    found[frame.name] = {
      width: page.documentElement.scrollWidth, images: images.length,
      broken: images.filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt),
      outside: [...page.querySelectorAll("h1, h2, h3, h4, p, dl, .cards, .scroll, .face, summary, img")]
        .filter(e => !e.closest(".scroll") || e.matches(".scroll"))
        .filter(e => e.getBoundingClientRect().right > frame.clientWidth + 0.5).map(start),
      small: [...page.querySelectorAll("p, td, th, dd, dt, summary, span, a")]
        .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(start),
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def browse(tmp_path: Path, page: Path, *options: str) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@with_browser
@pytest.mark.parametrize("which", ["run_page", "evaluation_page"])
def test_no_image_is_broken_and_nothing_overflows(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page: Page = request.getfixturevalue(which)
    # A window of 400 pixels would be widened; a frame is not.
    frames = [
        f'<iframe name="{width}" style="width:{width}px;height:2000px;border:0" '
        f'srcdoc="{html.escape(page.source)}"></iframe>'
        for width in (1280, 400)
    ]
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS % "\n".join(frames), encoding="utf-8")
    dom = browse(tmp_path, harness, "--window-size=1400,900", "--dump-dom")
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1]))
    assert set(found) == {"1280", "400"}
    for width, seen in found.items():
        assert seen["width"] <= int(width), width
        assert seen["images"] == len(page.all("img")) > 10
        assert (seen["broken"], seen["outside"], seen["small"]) == ([], [], []), width


@with_browser
def test_the_note_is_the_first_thing_seen(run_page: Page, tmp_path: Path) -> None:
    browse(
        tmp_path,
        run_page.path,
        "--window-size=1280,2400",
        f"--screenshot={tmp_path / 'shot.png'}",
        "--blink-settings=preferredColorScheme=1",
    )
    picture = cv2.imread(str(tmp_path / "shot.png"))
    assert picture.shape[:2] == (2400, 1280)
    vermilion = np.array([0xD5, 0x5E, 0x00])[::-1]  # BGR
    framed = np.flatnonzero((np.abs(picture.astype(int) - vermilion).sum(-1) < 12).sum(1) > 900)
    assert 20 < framed.min() < framed.max() < 220  # the upper and the lower edge of the note's frame
    ink = (picture.max(-1) < 100).mean(1)
    # Something is written or drawn in every stretch of the page.
    assert all(ink[top : top + 300].max() > 0 for top in range(0, 2400, 300))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("f1", [0.5]), ("f1", ["0.5", 0, 0]), ("f1", [1e308, 0, 0]), ("f1_mean", True), ("note", 3)),
        *(("positives", [-1, 0, 0]), ("valid", [1.5, 0, 0]), ("mean_error", -1.0), ("aus", [1, 2])),
        ("intervals", []),
    ],
)
def test_scores_that_are_none(run: Path, name: str, value: object) -> None:
    values = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**values, name: value}))
    with pytest.raises(ValueError, match=r"metrics\.json: is damaged: .*got "):
        write_report(run, run / "report.html")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("cell", ["", "nan", "2", "0.5"])
def test_labels_that_are_none(run: Path, cell: str) -> None:
    lines = (run / "predictions.csv").read_text().splitlines()
    cells = lines[2].split(",")
    cells[2] = cell
    (run / "predictions.csv").write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]))
    with pytest.raises(ValueError, match=r"predictions\.csv: line 3: wanted \d+ columns"):
        write_report(run, run / "report.html")


@pytest.mark.parametrize("content", [b"\xff\xfe" * 40, b"id,AU1\n\x00,\xff\n", b'id\n"' + b"x" * 200_000])
def test_predictions_that_are_no_text(run: Path, content: bytes) -> None:
    header, _, rest = (run / "predictions.csv").read_bytes().partition(b"\n")
    for damaged in (content, header + b"\n" + content + rest):
        (run / "predictions.csv").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"predictions\.csv: "):
            write_report(run, run / "report.html")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("class", "OtherNet", "is damaged: wanted the class JAANet or JAAGraphNet, got 'OtherNet'"),
        ("class", [1], "is damaged: wanted what jaa evaluate writes, got class: "),
        (
            "config",
            {"aus": [1], "width": "x"},
            "is damaged: JAANetConfig: width: Input should be a valid integer",
        ),
        ("recipe_data", {"name": "other"}, "is damaged: wanted what jaa evaluate writes, got recipe_data"),
        ("fold", 3, "is damaged: wanted what jaa evaluate writes, got fold: "),
    ],
)
def test_a_damaged_origin(evaluation: Path, name: str, value: object, message: str) -> None:
    path = evaluation / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError) as caught:
        write_report(evaluation, evaluation / "report.html")
    assert f"evaluation.json: {message}" in str(caught.value)
