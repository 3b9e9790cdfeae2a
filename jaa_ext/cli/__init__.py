"""The command `jaa`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jaa_ext.cli import predict as cli_predict
from jaa_ext.cli import prepare as cli_prepare
from jaa_ext.cli.output import Device, chosen_weights, console, say_where
from jaa_ext.progress import say

if TYPE_CHECKING:
    from jaa_ext.recipes import Recipe

app = typer.Typer(
    help="Joint facial action unit detection and face alignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(cli_prepare.app, name="prepare")
app.command()(cli_predict.predict)
app.command()(cli_predict.draw)


Out = Annotated[Path, typer.Option(help="Folder for the results; made if need be.")]
RecipeName = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a built-in recipe such as demo, paper, released or journal; an unknown name "
        "lists them all."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help='A folder of `jaa prepare`, or "synthetic" for drawn faces; in place of the recipe\'s.'
    ),
]
Fold = Annotated[str | None, typer.Option(help="The fold of the data that is tested; the others train.")]
Folds = Annotated[str | None, typer.Option(help="Folds to test, with commas between; all if not given.")]
Init = Annotated[
    Path | None, typer.Option(help="A model file to start from, such as one for BP4D to train for DISFA.")
]
Shrunk = Annotated[
    Literal["tiny", "small"] | None,
    typer.Option(
        help="A smaller network and schedule, on drawn faces if --data names no others: "
        "tiny takes seconds, small minutes a run."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what --out holds; give the other options as before.")
]
Model = Annotated[
    Path | None,
    typer.Argument(
        help="A model file, *.safetensors; the weights that come with jaa_ext if not given.",
        show_default=False,
    ),
]
TestRecipe = Annotated[
    str | None, typer.Option(help="The recipe whose test set is used, if --data names no folder.")
]
TestFold = Annotated[
    str | None, typer.Option(help='The fold that is tested; "all" for every face of the folder.')
]
LARGEST_SEED = 2**63 - 1
"""See `jaa_ext.recipes.datasets`, which loads slowly."""
MOST_RESAMPLES = 1_000_000
Seed = Annotated[
    int | None, typer.Option(min=0, max=LARGEST_SEED, help="Random seed, in place of the recipe's.")
]


def main() -> None:
    """Run the command. A mistake in what it was given ends it with one sentence and exit code 2."""
    try:
        app(prog_name="jaa")
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if os.environ.get("JAA_TRACEBACK") == "1":
            traceback.print_exc()
        message = str(error) or "the memory is full"
        if type(error) is RuntimeError:  # torch adds pages for programmers
            message = message.splitlines()[0]
        print(f"jaa: {message}", file=sys.stderr)
        sys.exit(2)


@app.command()
def demo(
    out: Out = Path("jaa-demo"),
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Of the weights and the order of the training faces."),
    ] = 0,
    device: Device = "auto",
) -> None:
    """Train a small JAA-Net on drawn faces, test it on unseen subjects and draw what it learnt.

    Takes a few minutes on two processor cores and downloads nothing. Interrupted, the same command goes on.
    """
    from jaa_ext.experiments.demo import run_demo

    run_demo(out, seed=seed, device=device, console=console)


@app.command()
def train(
    recipe: RecipeName,
    out: Out,
    data: Data = None,
    fold: Fold = None,
    init: Init = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a model by a recipe and test it after every epoch."""
    from jaa_ext.training import train as run

    chosen = _recipe(recipe, data, budget, seed, fold=fold, init=init)
    scores = run(chosen, out, resume=resume, device=device, console=console)
    scores.show(console)
    say_where(
        {
            out / "model.safetensors": "the trained model",
            out / "metrics.json": "its scores (metrics.csv likewise)",
            out / "predictions.csv": "labels, probabilities and landmarks of each test face",
            out / "history.json": "losses and scores of each epoch",
            out / "tensorboard": "the same for TensorBoard",
        }
    )


@app.command()
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
    from jaa_ext.evaluation.results import Origin
    from jaa_ext.memory import keep_freed_memory
    from jaa_ext.models import load_model
    from jaa_ext.recipes.schema import load_recipe
    from jaa_ext.training.run_folder import hold_folder

    require_one_process("`jaa evaluate`")
    keep_freed_memory()
    model = chosen_weights(model)
    network = load_model(model)
    chosen = None if recipe is None else load_recipe(recipe)
    origin = Origin(
        network.config, None if chosen is None else chosen.data, data, fold, model=str(model), recipe=recipe
    )
    faces = origin.faces()
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
        origin.write(out)
    scores.show(console)
    console.print(f"Tested on {len(faces)} faces of {len(faces.subjects)} subjects.", highlight=False)
    say_where(
        {
            out / "metrics.json": "the scores (metrics.csv likewise)",
            **({} if scores.f1 is None else {out / "figures": "scores.png, and a figure for each AU"}),
            out / "predictions.csv": "labels, probabilities and landmarks of each face",
            out / "evaluation.json": "what was tested, for `jaa report`",
        }
    )


@app.command()
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

    On faces that the model was not trained on. An AU that fewer than 20 of them have or lack keeps 0.5.
    """
    from dataclasses import replace

    from jaa_ext.distributed import require_one_process
    from jaa_ext.evaluation.calibrate import calibrate_thresholds
    from jaa_ext.evaluation.evaluate import collect_predictions
    from jaa_ext.evaluation.metrics import score
    from jaa_ext.evaluation.results import Origin
    from jaa_ext.models import load_model, save_model
    from jaa_ext.recipes.schema import load_recipe

    require_one_process("`jaa calibrate`")
    network = load_model(chosen_weights(model))
    if mirror is not None:
        network.config = replace(network.config, mirror=mirror)
    chosen = None if recipe is None else load_recipe(recipe)
    faces = Origin(network.config, None if chosen is None else chosen.data, data, fold).faces()
    before = collect_predictions(network, faces, device=device)
    if before.probabilities is None:
        raise ValueError(
            "calibrate: got a model without AU detection (au_detection=False), wanted one with it"
        )
    network.thresholds = calibrate_thresholds(
        before.probabilities, before.labels, before.subjects, aim=aim, seed=seed
    )
    save_model(network.cpu(), out, half=half)
    score(replace(before, thresholds=network.thresholds)).show(console)
    console.print(f"Calibrated on {len(faces)} faces of {len(faces.subjects)} subjects.", highlight=False)
    say(console, "The scores are of the same faces: on others they will be lower. Try next: jaa evaluate.")
    say_where({out: "the model, with its thresholds"})


@app.command()
def crossval(
    recipe: RecipeName,
    out: Out,
    data: Data = None,
    folds: Folds = None,
    init: Annotated[
        str | None,
        typer.Option(help='Model file to start each fold from; "{fold}" in it stands for the fold.'),
    ] = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a recipe once for each fold of its data, test it on that fold, and print the papers' tables."""
    from jaa_ext.experiments.crossval import cross_validate

    chosen = _recipe(recipe, data, budget, seed)
    result = cross_validate(
        chosen,
        out,
        folds=_listed(folds),
        init=None if init is None else lambda fold: Path(init.replace("{fold}", fold)),
        resume=resume,
        device=device,
        console=console,
    )
    tables = result.tables()
    for table in tables.values():
        table.show(console)
    say_where(
        {
            **{out / f"{name}.md": f"the table of {name} ({name}.csv likewise)" for name in tables},
            out / "crossval.json": "the scores of every fold, after its last and its best epoch",
            **{out / f"fold-{fold.fold}": f"the run that tests fold {fold.fold}" for fold in result.folds},
        }
    )


@app.command()
def ablate(
    out: Out,
    study: Annotated[
        Literal["eccv", "abaw"],
        typer.Option(help='"eccv": Tables 3 and 4 of ECCV 2018; "abaw": Table 1 of ABAW 2021.'),
    ] = "eccv",
    data: Data = None,
    folds: Folds = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train and test every system that a paper compares, and print its tables."""
    from jaa_ext.experiments.ablate import ablate as run

    comparison = run(
        study,
        out,
        lambda name: _recipe(name, data, budget, seed),
        folds=_listed(folds),
        resume=resume,
        device=device,
        console=console,
    )
    tables = comparison.tables()
    for table in tables.values():
        table.show(console)
    say_where(
        {
            **{out / f"{name}.md": f"{table.title} ({name}.csv likewise)" for name, table in tables.items()},
            out / "ablation.json": "the scores of every system and fold",
            **{out / name: "its runs" for name in comparison.results},
        }
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="What `jaa train`, `jaa evaluate` or `jaa crossval` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; report.html in the folder if not given.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help='Where the test faces lie now: a folder of `jaa prepare`, or "synthetic".'),
    ] = None,
) -> None:
    """Make one HTML file of a run, an evaluation or a cross validation, for any browser."""
    from jaa_ext.distributed import require_one_process
    from jaa_ext.report.html_report import write_report

    require_one_process("`jaa report`")
    out = folder / "report.html" if out is None else out
    why = write_report(folder, out, data=data, console=console)
    if why:
        say(console, f"Without faces: {why}.")
    say_where({out: "the report, for any browser; it needs no other file"})


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write: *.onnx, or *.pt2 for exported-program.")],
    model: Model = None,
    format: Annotated[
        Literal["onnx", "exported-program"],
        typer.Option(help='"onnx" (needs the extra `export`), or "exported-program" for torch.export.load.'),
    ] = "onnx",
) -> None:
    """Write a model as one file that runs without jaa_ext, and compare the file with the model."""
    from jaa_ext.distributed import require_one_process
    from jaa_ext.export import export_model
    from jaa_ext.models import load_model

    require_one_process("`jaa export`")
    network = load_model(chosen_weights(model))
    exported = export_model(network, out, format)
    if network.note:
        say(console, network.note, style="bold")
    for line in exported.lines():
        say(console, line)
    say_where({out: "the model; its metadata say what goes in and comes out"})


@app.command()
def import_weights(
    folder: Annotated[Path, typer.Argument(help="Folder of the authors' checkpoints, <module>_<epoch>.pth.")],
    out: Annotated[Path, typer.Option(help="The model file to write, *.safetensors.")],
    epoch: Annotated[
        int | None, typer.Option(help="Which epoch; may be left out if there is one only.")
    ] = None,
) -> None:
    """Turn the JAA-Net authors' published checkpoints into a model file (they are for non-commercial use)."""
    from jaa_ext.models import import_weights as run
    from jaa_ext.models import save_model

    model = run(folder, epoch)
    save_model(model, out)
    config = model.config
    console.print(
        f"{'IJCV (v2)' if config.local_loss else 'ECCV (v1)'} checkpoint of {len(config.aus)} AUs, images of "
        f"{config.image_size} pixels. {model.note}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    say_where({out: "the model"})


@app.command()
def info() -> None:
    """Print versions, what was compiled, the CPU instruction set and convolutions in use and the GPU."""
    from importlib.metadata import version

    import torch

    from jaa_ext import _library
    from jaa_ext.device import has_bfloat16

    built = _library.build_info()
    rows = {
        "jaa_ext": version("jaa_ext") if built else "source tree",
        "python": sys.version.split()[0],
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "kernels": "none: the reference implementations run",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none found",
        "weights": _about_weights(),
    }
    if _library.DEVICES:
        from jaa_ext import _C

        compiled = _C.build_info()
        cuda = f"CUDA {built['cuda']} for {built['archs']}" if built["cuda"] else f"no CUDA ({built['note']})"
        rows["kernels"] = f"CPU; {cuda}"
        rows["compiler"] = f"{compiled['compiler']}, against torch {built['torch']}"
        threads = torch.get_num_threads() if compiled["threads"] == "OpenMP" else 1
        rows["CPU"] = f"{compiled['cpu_level']} in use, {threads} threads"
        rows["conv3x3"] = _C.conv3x3_about()
    rows["bfloat16"] = ", ".join(
        f"{name} {'native' if has_bfloat16(torch.device(kind)) else 'slow: float32 in its place'}"
        for kind, name in (("cpu", "CPU"), ("cuda", "GPU"))
        if kind == "cpu" or torch.cuda.is_available()
    )
    for name, value in rows.items():
        say(console, f"{name:10}{value}")


def _recipe(
    name: str,
    data: str | None,
    budget: Literal["tiny", "small"] | None,
    seed: int | None,
    *,
    fold: str | None = None,
    init: Path | None = None,
) -> Recipe:
    """A recipe with what the command's options put in place of its values."""
    from jaa_ext.recipes.budget import shrink
    from jaa_ext.recipes.datasets import choose_data
    from jaa_ext.recipes.schema import load_recipe

    recipe = load_recipe(name)
    if budget is not None and data is None and getattr(recipe.data, "folder", "") is None:
        data = "synthetic"
    update: dict[str, Any] = {"data": choose_data(recipe.data, data, fold)}
    if seed is not None:
        update["seed"] = seed
    if init is not None:
        update["init"] = str(init)
    recipe = recipe.model_copy(update=update)
    return recipe if budget is None else shrink(recipe, budget)


def _about_weights() -> str:
    from jaa_ext.weights import FILE, digest

    return f"{FILE.name} ({digest(FILE)[:8]})" if FILE.is_file() else "none: this build comes without"


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
