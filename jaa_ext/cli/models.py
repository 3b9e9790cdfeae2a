"""The commands for model files and the installation: export, import-weights, info."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jaa_ext.cli.options import Model
from jaa_ext.cli.output import chosen_weights, console, say_where
from jaa_ext.cli.progress import say


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


def _about_weights() -> str:
    from jaa_ext.weights import FILE, digest

    return f"{FILE.name} ({digest(FILE)[:8]})" if FILE.is_file() else "none: this build comes without"
