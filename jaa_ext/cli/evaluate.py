"""The commands that test models: evaluate, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jaa_ext.cli.options import LARGEST_SEED, MOST_RESAMPLES, Data, Model, Out, TestFold, TestRecipe
from jaa_ext.cli.output import Device, chosen_weights, console, say_where, show_scores
from jaa_ext.cli.progress import say


def evaluate(
    out: Out,
    model: Model = None,
    recipe: TestRecipe = None,
    data: Data = None,
    fold: TestFold = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_RESAMPLES,
            help="Resamples of the subjects, for 95 % intervals; 0 leaves them out.",
        ),
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the resamples.")] = 0,
    device: Device = "auto",
) -> None:
    """Score a model: F1, accuracy, precision, recall, AUC and landmarks, with 95 % intervals and figures.

    An AU is said to be present from the model's own threshold on: 0.5 unless it is calibrated.
    """
    from jaa_ext.distributed import require_one_process
    from jaa_ext.evaluation import evaluate as run
    from jaa_ext.evaluation.results import EvaluationSource, one_or_several
    from jaa_ext.memory import keep_freed_memory
    from jaa_ext.models import load_model
    from jaa_ext.recipes.schema import load_recipe
    from jaa_ext.training.run_folder import hold_folder

    require_one_process("`jaa evaluate`")
    keep_freed_memory()
    model = chosen_weights(model)
    network = load_model(model)
    chosen = None if recipe is None else load_recipe(recipe)
    source = EvaluationSource(
        network.config,
        None if chosen is None else chosen.data,
        one_or_several(data),
        fold,
        model=str(model),
        recipe=recipe,
    )
    faces = source.faces()
    with hold_folder(out):
        scores = run(
            network,
            faces,
            batch_size=16 if chosen is None else chosen.batch_size,
            device=device,
            workers=None if chosen is None else chosen.workers,
            predictions=out / "predictions.csv",
            bootstrap=bootstrap,
            seed=seed,
            figures=out / "figures",
        )
        scores.to_json(out / "metrics.json")
        scores.to_csv(out / "metrics.csv")
        source.write(out)
    show_scores(scores)
    console.print(f"Tested on {len(faces)} faces of {len(faces.subjects)} subjects.", highlight=False)
    say_where(
        {
            out / "metrics.json": "the scores (metrics.csv likewise)",
            **({} if scores.f1 is None else {out / "figures": "scores.png, and a figure for each AU"}),
            out / "predictions.csv": "labels, probabilities and landmarks of each face",
            out / "evaluation.json": "what was tested, for `jaa report`",
        }
    )


def calibrate(
    out: Annotated[Path, typer.Option(help="The model file to write, *.safetensors; may be MODEL itself.")],
    model: Model = None,
    recipe: TestRecipe = None,
    data: Data = None,
    fold: TestFold = None,
    aim: Annotated[
        Literal["balanced-accuracy", "f1"],
        typer.Option(
            help="What is to be as high as possible: the mean of recall and specificity, which does not "
            "depend on how often an AU occurs, or F1, which does."
        ),
    ] = "balanced-accuracy",
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Whether the model will answer with the mean over a face and its mirror image: more exact, "
            "at twice the work. As before if not given.",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Keep the weights in half precision, at half the size.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the resamples.")] = 0,
    device: Device = "auto",
) -> None:
    """Choose the probability from which on each AU is said to be present, and keep it in the model's file.

    On faces that the model was not trained on. An AU that fewer than 20 of them, or those of one subject
    alone, have or lack keeps its threshold.
    """
    from dataclasses import replace

    from jaa_ext.distributed import require_one_process
    from jaa_ext.evaluation.calibrate import MIN_FACES, calibrate_thresholds
    from jaa_ext.evaluation.evaluate import collect_predictions
    from jaa_ext.evaluation.metrics import score
    from jaa_ext.evaluation.results import EvaluationSource, one_or_several
    from jaa_ext.models import load_model, save_model
    from jaa_ext.recipes.schema import load_recipe

    require_one_process("`jaa calibrate`")
    model = chosen_weights(model)
    network = load_model(model)
    if not network.config.au_detection:
        raise ValueError(f"{model}: detects no AUs (au_detection=False), wanted a model that does")
    if mirror is not None:
        network.config = replace(network.config, mirror=mirror)
    chosen = None if recipe is None else load_recipe(recipe)
    section = None if chosen is None else chosen.data
    faces = EvaluationSource(network.config, section, one_or_several(data), fold).faces()
    predictions = collect_predictions(network, faces, device=device)
    assert predictions.probabilities is not None
    network.thresholds, kept = calibrate_thresholds(
        predictions.probabilities,
        predictions.labels,
        predictions.subjects,
        aim=aim,
        seed=seed,
        former=network.thresholds,
    )
    save_model(network.cpu(), out, half=half)
    show_scores(score(replace(predictions, thresholds=network.thresholds)))
    nothing = len(kept) == len(predictions.aus)
    done = "Nothing was calibrated" if nothing else "Calibrated"
    console.print(f"{done} on {len(faces)} faces of {len(faces.subjects)} subjects.", highlight=False)
    if kept:
        few = ", ".join(str(predictions.aus[place]) for place in kept)
        sentence = f"fewer than {MIN_FACES} faces, or those of one subject alone, have or lack AU {few}"
        say(console, f"note: {sentence}: the threshold stays as it was.")
    if not nothing:
        lower = "The scores are of the same faces: on others they will be lower."
        say(console, f"{lower} Try next: jaa evaluate.")
    say_where({out: "the model, with its thresholds"})
