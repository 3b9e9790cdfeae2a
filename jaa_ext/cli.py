"""The command `jaa`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Joint facial action unit detection and face alignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()

Device = Annotated[
    str, typer.Option(help='"auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".')
]
Out = Annotated[Path, typer.Option(help="Folder for the results; made if need be.")]


def main() -> None:
    """Run the command. A mistake in what it was given ends it with one sentence and exit code 2."""
    try:
        app(prog_name="jaa")
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("JAA_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"jaa: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def demo(
    out: Out = Path("jaa-demo"),
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the training faces.")] = 0,
    device: Device = "auto",
) -> None:
    """Train a small JAA-Net on drawn faces, test it on unseen subjects and draw what it learnt.

    Takes a few minutes on two processor cores and downloads nothing. Interrupted, the same command goes on.
    """
    from jaa_ext.demo import run_demo

    run_demo(out, seed=seed, device=device, console=console)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or a built-in recipe: demo, released, paper, journal.")
    ],
    out: Out,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    device: Device = "auto",
) -> None:
    """Train a model by a recipe."""
    from jaa_ext.engine import load_recipe
    from jaa_ext.engine import train as run

    scores = run(load_recipe(recipe), out, resume=resume, seed=seed, device=device, console=console)
    scores.show(console)
    _say_where(
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
    model: Annotated[Path, typer.Argument(help="A model file, *.safetensors.")],
    recipe: Annotated[
        str, typer.Option(help="The recipe whose test set is used: a YAML file or a built-in one.")
    ],
    out: Out,
    device: Device = "auto",
) -> None:
    """Score a model on the test set of a recipe."""
    from jaa_ext.engine import evaluate as run
    from jaa_ext.engine import load_recipe
    from jaa_ext.engine.runtime import keep_freed_memory
    from jaa_ext.models import load_model

    keep_freed_memory()
    chosen, network = load_recipe(recipe), load_model(model)
    _, test_set = chosen.data.build(network.config)
    scores = run(
        network,
        test_set,
        batch_size=chosen.batch_size,
        device=device,
        workers=chosen.workers,
        predictions=out / "predictions.csv",
    )
    scores.to_json(out / "metrics.json")
    scores.to_csv(out / "metrics.csv")
    scores.show(console)
    _say_where(
        {
            out / "metrics.json": "the scores (metrics.csv likewise)",
            out / "predictions.csv": "labels, probabilities and landmarks of each face",
        }
    )


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Image files.")],
    weights: Annotated[Path, typer.Option(help="A model file, *.safetensors.")],
    out: Out,
    device: Device = "auto",
) -> None:
    """Find the faces of photographs and predict their AUs and landmarks (needs the extra `faces`)."""
    import cv2

    from jaa_ext.atomic import replacing
    from jaa_ext.engine.runtime import keep_freed_memory
    from jaa_ext.models import load_model
    from jaa_ext.predict import Predictor, read_image, write_csv
    from jaa_ext.predict.draw import draw_faces

    keep_freed_memory()
    model = load_model(weights)
    predictor = Predictor(model, device=device)
    aus, rows, pictures = model.config.aus, [], {}
    for place, photo in enumerate(photos):
        image = read_image(photo)
        faces = predictor(image)
        rows.append((photo, faces))
        console.print(f"{photo}: {len(faces)} face{'s' * (len(faces) != 1)} found", soft_wrap=True)
        # Two photographs of one name, in two folders, must not overwrite each other's picture.
        same_name = sum(other.stem == photo.stem for other in photos[:place])
        picture = out / f"{photo.stem}{f'_{same_name + 1}' if same_name else ''}_faces.png"
        drawn = draw_faces(image, faces, aus, model.note)
        with replacing(picture) as temporary:
            temporary.write_bytes(cv2.imencode(".png", drawn[..., ::-1])[1].tobytes())
        pictures[picture] = "the photograph with boxes, landmarks and AUs"
    write_csv(out / "faces.csv", rows, aus, weights=model.note)
    if model.note:
        console.print(model.note, style="bold")
    _say_where({out / "faces.csv": "a row for each face", **pictures})


@app.command()
def info() -> None:
    """Print versions, what was compiled, the CPU instruction set in use and the GPU."""
    from importlib.metadata import version

    import torch

    from jaa_ext import _library

    built = _library.build_info()
    rows = {
        "jaa_ext": version("jaa_ext") if built else "source tree",
        "python": sys.version.split()[0],
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "kernels": "none: the reference implementations run",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none found",
    }
    if _library.DEVICES:
        from jaa_ext import _C

        compiled = _C.build_info()
        cuda = f"CUDA {built['cuda']} for {built['archs']}" if built["cuda"] else f"no CUDA ({built['note']})"
        rows["kernels"] = f"CPU; {cuda}"
        rows["compiler"] = f"{compiled['compiler']}, against torch {built['torch']}"
        threads = torch.get_num_threads() if compiled["threads"] == "OpenMP" else 1
        rows["CPU"] = f"{compiled['cpu_level']} in use, {threads} threads"
    for name, value in rows.items():
        console.print(f"{name:10}{value}", soft_wrap=True, highlight=False, markup=False)


def _say_where(files: dict[Path, str]) -> None:
    console.print("Results:")
    for path, what in files.items():
        console.print(f"  {path}  {what}", soft_wrap=True, highlight=False, markup=False)
