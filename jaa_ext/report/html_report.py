"""A training run, an evaluation or a cross validation as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext.atomic import replacing
from jaa_ext.data import Crops
from jaa_ext.evaluation.metrics import FAILURE, normalized_error
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.results import (
    EVALUATION_FILE,
    EvaluationSource,
    read_history,
    read_predictions,
    read_scores,
)
from jaa_ext.evaluation.scores import AU_SCORES, Interval, Scores
from jaa_ext.experiments.crossval import read_crossval
from jaa_ext.facs import AU, NUM_LANDMARKS, au_in_words, au_name
from jaa_ext.models.thresholds import THRESHOLD
from jaa_ext.progress import ProgressListener
from jaa_ext.recipes.schema import Recipe, load_recipe
from jaa_ext.score_text import interval_text, score_text

TEMPLATE = "html_report.html.jinja"
FACES_SHOWN = 4
"""Faces in each group, each of another subject, since neighbouring frames of a video show one face."""
JPEG_QUALITY = 92


def write_report(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    data: str | tuple[str, ...] | None = None,
    listener: ProgressListener | None = None,
) -> str:
    """Write the report of a folder that `jaa train`, `jaa evaluate` or `jaa crossval` wrote.

    It has the scores, figures made anew from predictions.csv, and the test faces that are predicted best and
    worst, which are read from the data again. The same files give the same report.

    Args:
        folder: folder of the results.
        path: the HTML file; folders are made if need be.
        data: where the test faces lie now, see `choose_data`; None if they did not move.
        listener: hears how many faces are read.

    Returns:
        Why the report shows no faces; empty if it does.

    Raises:
        OSError: no such folder, or a folder in place of the HTML file.
        ValueError: the folder holds no finished results or damaged ones, or `data` names other faces.
    """
    folder, path = Path(folder), Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, wanted the name of the HTML file")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if (folder / "crossval.json").exists():
        page, why = _crossval_page(folder), "a cross validation has faces in the reports of its folds"
    elif (folder / "metrics.json").exists():
        page, why = _scores_page(folder, data, listener or ProgressListener())
    elif (folder / "recipe.yaml").exists():
        raise ValueError(f"{folder}: the run is not finished (no metrics.json); resume it first")
    else:
        raise ValueError(
            f"{folder}: wanted a folder of jaa train, evaluate or crossval, got one without metrics.json and "
            "crossval.json"
        )
    with replacing(path) as temporary:
        temporary.write_text(_render(page), encoding="utf-8")
    return why


class _Figure(NamedTuple):
    """A picture inside the page."""

    uri: str
    alt: str
    heading: str = ""
    open: bool = False
    """Whether it is unfolded when the page opens."""


class _Cell(NamedTuple):
    """A score in percent, or the ABAW score."""

    text: str
    interval: str
    share: float | None
    """0..100, for a bar."""


class _AURow(NamedTuple):
    """The label and the prediction of one AU of a face."""

    au: AU
    name: str
    label: str
    percent: float
    present: bool
    """Predicted present."""
    threshold: float
    """0..100."""
    wrong: bool


class _Face(NamedTuple):
    """A test face, its landmarks in pixels of the picture."""

    id: str
    uri: str
    side: int
    true: list[tuple[float, float]]
    predicted: list[tuple[float, float]]
    off: str
    """An SVG path from each true to each predicted landmark."""
    lines: list[str]
    aus: list[_AURow]


class _Group(NamedTuple):
    """Faces under one heading."""

    heading: str
    faces: list[_Face]


class _Table(NamedTuple):
    """Text in rows and columns."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def _scores_page(
    folder: Path, data: str | tuple[str, ...] | None, listener: ProgressListener
) -> tuple[dict[str, Any], str]:
    """Give the values of the template for a run or an evaluation, and why there are no faces (or "")."""
    scores = read_scores(folder / "metrics.json")
    is_run = (folder / "recipe.yaml").exists()
    recipe, source = None, None
    if is_run:
        recipe = load_recipe(folder / "recipe.yaml")
        source = EvaluationSource(recipe.model.config(), recipe.data)
    else:
        source = EvaluationSource.read(folder)
    table = folder / "predictions.csv"
    predictions = read_predictions(table, scores) if table.exists() else None

    groups: list[_Group] = []
    why = ""
    if predictions is None:
        why = "the folder has no predictions.csv"
    elif source is None:
        lacking = f"it has no {EVALUATION_FILE}, which jaa evaluate writes"
        why = f"the folder does not say what was tested ({lacking})"
    else:
        source = source.moved_to(data)
        try:
            crops = Crops(source.faces(), source.config.image_size, train=False)
            predictions = _with_errors(crops, predictions, listener)
            groups = _groups(crops, predictions)
        except (ValueError, OSError, ImportError) as error:
            if data is not None:
                raise
            why = f"the data are not at hand ({error}); --data tells where they lie now"
    history = read_history(folder / "history.json") if is_run else []
    overview, of_aus = (None, []) if predictions is None else _score_figures(predictions, scores)
    page = {
        "what": "Training run" if is_run else "Evaluation",
        "name": _name(folder, recipe, source),
        "note": scores.note,
        "facts": _facts(folder, recipe, source, predictions),
        "cards": _cards(scores, _failures(scores, predictions)),
        "scores": _score_rows(scores),
        "about_intervals": scores.about_intervals(),
        "about_thresholds": scores.about_thresholds(),
        "overview": overview,
        "of_aus": of_aus,
        "training": _training_figures(history, scores.note),
        "epochs": _epochs(history) if history else None,
        "tables": [*_intensity_tables(scores), *_set_tables(scores)],
        "groups": groups,
        "why_no_faces": why,
        "recipe_text": (folder / "recipe.yaml").read_text(encoding="utf-8") if is_run else "",
    }
    return page, why


def _crossval_page(folder: Path) -> dict[str, Any]:
    """Give the values of the template for a cross validation."""
    path = folder / "crossval.json"
    result = read_crossval(path)
    folds, note = result.folds, result.note
    tables = [_Table(t.title, t.header, t.rows, t.notes) for t in result.tables().values()]
    training, word = [], "Fold" if result.leave_out == "fold" else "Without"
    for fold in folds:
        history = read_history(folder / f"fold-{fold.fold}" / "history.json")
        training += _training_figures(history, note, f"{word} {fold.fold}")
    left = "folds" if result.leave_out == "fold" else "left out by turns"
    tested = {"recipe": result.recipe, "data": result.data, left: ", ".join(fold.fold for fold in folds)}
    lacking = ("cards", "scores", "about_intervals", "about_thresholds", "overview", "of_aus")
    return {
        "what": "Cross validation",
        "name": result.recipe,
        "note": note,
        "facts": {**tested, "date": _date(path)},
        "training": training,
        # The note stands at the top of the page: tables need not repeat it.
        "tables": [t._replace(notes=[line for line in t.notes if line != note]) for t in tables],
        **dict.fromkeys((*lacking, "epochs", "groups", "why_no_faces", "recipe_text")),
    }


def _render(page: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = (resources.files("jaa_ext") / "report" / TEMPLATE).read_text(encoding="utf-8")
    rules = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return rules.from_string(text).render(
        page, failure=f"{FAILURE:g}", threshold=f"{THRESHOLD:g}", shown=FACES_SHOWN
    )


# What the page says.


def _name(folder: Path, recipe: Recipe | None, source: EvaluationSource | None) -> str:
    if recipe is not None:
        return recipe.name
    return folder.name if source is None or source.model is None else Path(source.model).name


def _facts(
    folder: Path, recipe: Recipe | None, source: EvaluationSource | None, predictions: Predictions | None
) -> dict[str, str]:
    """Say what was trained or tested, and when."""
    facts: dict[str, str | None] = {}
    if recipe is not None:
        stages = ", ".join(f"{stage.name} {stage.epochs}" for stage in recipe.stages)
        facts["recipe"] = recipe.name
        epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
        sizes = f"{epochs} ({stages}), batches of {recipe.batch_size}"
        facts["training"] = f"{sizes}, {recipe.precision}, seed {recipe.seed}"
        facts["begun from"] = recipe.init
    if source is not None:
        config = source.config
        facts["model"] = source.model
        preset = "" if recipe is None else f"preset {recipe.model.preset}: "
        size = f"images of {config.image_size} pixels, unit width {config.width}"
        facts["network"] = f"{preset}{len(config.aus)} AUs, {size}"
        facts["recipe of the test set"] = source.recipe
        try:
            facts["data"] = source.data_in_words()
        except ValueError as error:
            facts["data"] = f"unknown ({error})"
    if predictions is not None:
        subjects = len(set(predictions.subjects or ()))
        facts["tested on"] = f"{len(predictions.labels):,} faces of {subjects:,} subjects"
    facts["date"] = _date(folder / "metrics.json")
    return {name: value for name, value in facts.items() if value}


def _failures(scores: Scores, predictions: Predictions | None) -> str:
    if predictions is None or scores.failure_rate is None:
        return ""
    count = len(predictions.labels)
    return f"{round(scores.failure_rate * count / 100):,} of {count:,} faces"


def _cards(scores: Scores, failures: str) -> list[tuple[str, _Cell, str]]:
    """Give the name of each mean score, its cell, and a remark or an empty one."""
    return [
        (label, _cell(*scores.of(name), factor, digits, unit), failures if name == "failure_rate" else "")
        for label, name, factor, digits, unit in (
            ("mean F1", "f1_mean", 100, 1, " %"),
            ("mean accuracy", "accuracy_mean", 100, 1, " %"),
            ("mean AUC", "auc_mean", 100, 1, " %"),
            ("ABAW score", "abaw_score", 1, 3, ""),
            ("landmark error", "mean_error", 1, 2, " %"),
            ("failures", "failure_rate", 1, 1, " %"),
        )
        if scores.of(name)[0] is not None
    ]


def _score_rows(scores: Scores) -> list[tuple[str, str, str, list[_Cell]]]:
    """Give the number, name, occurrence and five scores of each AU, and a row of their means."""
    if scores.f1 is None:
        return []
    rows = []
    for i, au in enumerate(scores.aus):
        positives, valid = (scores.of(name, i)[0] for name in ("positives", "valid"))
        present = f"{100 * positives / valid:.1f}" if positives is not None and valid else "-"
        cells = [_cell(*scores.of(name, i)) for name in AU_SCORES]
        rows.append((f"AU {au}", au_name(au), present, cells))
    return [*rows, ("mean", "", "", [_cell(*scores.of(f"{name}_mean")) for name in AU_SCORES])]


def _intensity_tables(scores: Scores) -> list[_Table]:
    if not any(scores.rated or ()):
        return []
    header, *rows = scores.intensity_rows()
    note = (
        "Intensities are 0 to 5. ICC(3,1) and Pearson's r are 1 where those predicted follow the true ones; "
        "MAE is their mean distance. Frames whose intensity is not known take no part."
    )
    return [_Table("Intensities", header, rows, [note])]


def _set_tables(scores: Scores) -> list[_Table]:
    """Give a table of the AUs of each of several data sets."""
    tables = []
    for name, part in (scores.sets or {}).items():
        rows = [
            [f"AU {au}", *(score_text(*part.of(score, i)) for score in AU_SCORES)]
            for i, au in enumerate(part.aus)
            if part.of("valid", i)[0]
        ]
        rows.append(["mean", *(score_text(*part.of(f"{score}_mean")) for score in AU_SCORES)])
        error = score_text(*part.of("mean_error"), factor=1, unit=" %")
        header = ("AU", *(f"{score.replace('f1', 'F1').replace('auc', 'AUC')} %" for score in AU_SCORES))
        tables.append(_Table(f"{name} by itself", header, rows, [f"Landmark error: {error}."]))
    return tables


def _cell(
    value: float | None, interval: Interval | None, factor: float = 100, digits: int = 1, unit: str = ""
) -> _Cell:
    if value is None:
        return _Cell("-", "", None)
    text = score_text(value, factor=factor, digits=digits, unit=unit)
    ends = "" if interval is None else interval_text(interval, factor=factor, digits=digits)
    return _Cell(text, ends, min(100.0, max(0.0, factor * value)))


def _epochs(history: list[dict[str, Any]]) -> _Table:
    rows = []
    for entry in history:
        scores = entry.get("scores") or {}
        rate = f"{entry['lr']:.2g}" if "lr" in entry else ""
        loss = f"{entry['losses']['total']:.4g}" if "total" in entry["losses"] else ""
        shown = [
            score_text(scores.get(name), factor=factor)
            for name, factor in (
                ("f1_mean", 100),
                ("accuracy_mean", 100),
                ("mean_error", 1),
                ("failure_rate", 1),
            )
        ]
        rows.append([str(entry["epoch"]), str(entry.get("stage", "")), rate, loss, *shown])
    scores_header = ("F1 %", "accuracy %", "landmark error %", "failures %")
    header = ("epoch", "stage", "learning rate", "loss", *scores_header)
    return _Table("Every epoch in figures", header, rows)


def _score_figures(predictions: Predictions, scores: Scores) -> tuple[_Figure | None, list[_Figure]]:
    """Draw the overview, and a figure for each AU with a label; none for a model without AUs."""
    from jaa_ext.plots.scores import write_figures

    with tempfile.TemporaryDirectory() as temporary:
        pictures = {path.stem: path.read_bytes() for path in write_figures(temporary, predictions, scores)}
    if not pictures:
        return None, []
    alt = "F1, accuracy and AUC of each AU and their means, and how often each AU occurs: as in the table"
    overview = _Figure(_uri(pictures["scores"], "png"), alt)
    indices = [i for i, au in enumerate(scores.aus) if f"AU{au}" in pictures]
    lowest = min(indices, key=lambda i: scores.of("f1", i)[0] or 0.0, default=None)
    of_aus = []
    for i in indices:
        au = scores.aus[i]
        heading = f"{au_in_words(au)}: F1 {_cell(*scores.of('f1', i)).text}\N{NO-BREAK SPACE}%"
        alt = f"{heading}: ROC curve, precision over recall, and histogram of the probabilities"
        of_aus.append(_Figure(_uri(pictures[f"AU{au}"], "png"), alt, heading, i == lowest))
    return overview, of_aus


def _training_figures(history: list[dict[str, Any]], note: str, heading: str = "") -> list[_Figure]:
    """Draw the course of training; no figure without a history."""
    if not history:
        return []
    from jaa_ext.plots.training import training_figure

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "training.png"
        training_figure(history, path, note)
        alt = "Losses, AU scores and landmark errors after each epoch"
        return [_Figure(_uri(path.read_bytes(), "png"), f"{heading}: {alt}" if heading else alt, heading)]


# Faces.


def _with_errors(crops: Crops, predictions: Predictions, listener: ProgressListener) -> Predictions:
    """Add the errors of the landmarks, by the true ones of the crops.

    Raises:
        ValueError: the crops are of other faces.
    """
    ids = predictions.ids or ()
    if len(crops) != len(ids):
        raise ValueError(f"wanted the {len(ids):,} faces of predictions.csv, got {len(crops):,}")
    truth = np.empty((len(ids), NUM_LANDMARKS, 2), np.float32)
    listener.on_start("Reading faces", len(ids))
    try:
        for i in range(len(ids)):
            crop = crops[i]
            if crop["id"] != ids[i]:
                raise ValueError(
                    f"wanted the faces of predictions.csv, got {crop['id']} in place of {ids[i]}"
                )
            truth[i] = crop["landmarks"].numpy()
            listener.on_progress(i + 1)
    finally:
        listener.on_end()
    if predictions.landmarks is None:
        return predictions
    errors = normalized_error(torch.from_numpy(predictions.landmarks), torch.from_numpy(truth))
    return replace(predictions, errors=errors.double().numpy())


def _groups(crops: Crops, predictions: Predictions) -> list[_Group]:
    """Choose the faces with the largest and the smallest errors of landmarks and of AUs."""
    au_errors = _au_errors(predictions)
    groups = []
    for what, errors in (("Landmarks", predictions.errors), ("AUs", au_errors)):
        if errors is None:
            continue
        # Landmarks that are not a number are the worst.
        finite = np.where(np.isnan(errors), np.inf, errors) if what == "Landmarks" else errors
        for word, key in (("largest", -finite), ("smallest", finite)):
            order = np.argsort(key, kind="stable")
            chosen = _first_of_each_subject(order, finite, predictions.subjects or ())
            faces = [_face(crops, predictions, au_errors, i) for i in chosen]
            if faces:
                groups.append(_Group(f"{what}: the {word} errors", faces))
    return groups


def _au_errors(predictions: Predictions) -> NDArray[np.float64] | None:
    """Give the mean distance of probabilities and labels in percent, (N,); NaN for a face without a label."""
    if predictions.known_probabilities is None:
        return None
    valid = predictions.labels >= 0
    away = np.abs(predictions.known_probabilities.astype(np.float64) - predictions.labels)
    count = valid.sum(1)
    total = np.where(valid, away, 0).sum(1)
    return np.where(count > 0, 100 * total / np.maximum(count, 1), np.nan)


def _first_of_each_subject(
    order: Iterable[int], errors: NDArray[np.float64], subjects: Sequence[str]
) -> list[int]:
    chosen: dict[str, int] = {}
    for i in order:
        if len(chosen) < FACES_SHOWN and not np.isnan(errors[i]):
            chosen.setdefault(subjects[i], int(i))
    return list(chosen.values())


def _face(crops: Crops, predictions: Predictions, au_errors: NDArray[np.float64] | None, i: int) -> _Face:
    crop = crops[i]
    image = np.ascontiguousarray(crop["image"].numpy().transpose(1, 2, 0)[..., ::-1])
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    lines = []
    if predictions.errors is not None:
        error = predictions.errors[i]
        words = "landmarks that are not numbers" if np.isnan(error) else f"landmark error {error:.1f} %"
        lines.append(words if error <= FAILURE else f"{words}, a failure")
    rows = _au_rows(predictions, i)
    if au_errors is not None and not np.isnan(au_errors[i]):
        labelled = [row for row in rows if row.label != "no label"]
        wrong = sum(row.wrong for row in labelled)
        lines.append(f"AU error {au_errors[i]:.1f} %, {wrong} of {len(labelled)} wrong")
    truth = crop["landmarks"].numpy()
    predicted = np.full_like(truth, np.nan) if predictions.landmarks is None else predictions.landmarks[i]
    known = np.isfinite(predicted).all(1)
    pairs = zip(truth[known], predicted[known], strict=True)
    return _Face(
        id=str(crop["id"]),
        uri=_uri(jpeg, "jpeg"),
        side=crops.size,
        true=_points(truth),
        predicted=_points(predicted[known]),
        off=" ".join(f"M{x:.2f} {y:.2f}L{u:.2f} {v:.2f}" for (x, y), (u, v) in pairs),
        lines=lines,
        aus=rows,
    )


def _au_rows(predictions: Predictions, i: int) -> list[_AURow]:
    if predictions.known_probabilities is None or predictions.predicted_present is None:
        return []
    rows = []
    for k, au in enumerate(predictions.aus):
        label, present = int(predictions.labels[i, k]), bool(predictions.predicted_present[i, k])
        word = {1: "present", 0: "absent"}.get(label, "no label")
        wrong = label >= 0 and present != (label == 1)
        percent = 100 * float(predictions.known_probabilities[i, k])
        threshold = 100 * predictions.threshold(k)
        rows.append(_AURow(au, au_name(au), word, percent, present, threshold, wrong))
    return rows


def _points(landmarks: NDArray[Any]) -> list[tuple[float, float]]:
    return [(round(float(x), 2), round(float(y), 2)) for x, y in landmarks]


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
