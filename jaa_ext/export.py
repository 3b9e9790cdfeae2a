"""Export of a model to one file that runs without jaa_ext, in ONNX or as a program of `torch.export`.

The file maps pictures, which it normalises itself, to results; the ops of jaa_ext become standard operators.
N is the batch, of any size; l the side of the images, A the number of AUs.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from jaa_ext import _library, facs
from jaa_ext.atomic import replacing
from jaa_ext.data import Crops, SyntheticFaces, normalize
from jaa_ext.data.errors import require_package
from jaa_ext.data.faces import aligned_size
from jaa_ext.models import JAANet
from jaa_ext.nn.attention import GroupedSequential
from jaa_ext.ops import attention_maps, reference
from jaa_ext.ops.reference import Border
from jaa_ext.predict.tables import au_columns

SUFFIXES = {"onnx": ".onnx", "exported-program": ".pt2"}
"""The suffix of the file in each format."""

OUTPUTS = ("probabilities", "landmarks", "refined_maps", "intensities")
"""Outputs of a file, less those that the model lacks."""

TOLERANCE = 1e-4
"""Largest difference from the model in probabilities, intensities, weights of maps, and pixels of landmarks.

Beyond images of 200 pixels that of landmarks grows with the side, as the last bit of a float32 does.
"""

BATCHES = (1, 8)
"""Batch sizes with which a file is checked and timed."""

MAX_ONNX_BYTES = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds: a protobuf is at most 2 GiB."""


@dataclass(frozen=True)
class Export:
    """The file that `export_model` wrote, compared with the model."""

    path: Path
    format: str
    megabytes: float
    """Millions of bytes."""
    runtime: str
    """Name and version of what ran the file."""
    threads: int
    differences: dict[str, float]
    """The largest absolute difference of each output, of landmarks in pixels."""
    milliseconds: dict[int, tuple[float, float]]
    """Milliseconds a face by the file and by jaa_ext, for each batch size."""

    def lines(self) -> list[str]:
        """Describe the export in lines of text."""
        differences = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        return [
            f"{self.megabytes:.1f} MB; largest differences from the model: {differences}",
            *(
                f"{count} face{'s' * (count != 1)} at a time: {theirs:.1f} ms a face in {self.runtime}, "
                f"{ours:.1f} ms in jaa_ext ({self.threads} thread{'s' * (self.threads != 1)})"
                for count, (theirs, ours) in self.milliseconds.items()
            ),
        ]


def export_model(model: JAANet, path: str | os.PathLike[str], format: str = "onnx") -> Export:
    """Write a model to one file that runs without jaa_ext, and compare the file with the model.

    The file's input ``image`` is (N, l, l, 3) uint8, RGB, the layout of pictures in arrays. Its outputs, in
    float32, are ``probabilities`` (N, A), ``landmarks`` (N, 49, 2), ``refined_maps`` (N, A, l/4, l/4) and
    ``intensities`` (N, A), less those that the model lacks. Its metadata describe AUs and their thresholds,
    input, outputs, config and the model's note: in ONNX as properties of the model, otherwise in the extra
    file ``metadata.json``.

    Args:
        model: stays unchanged; the file is for inference on any device, in float32.
        path: ``*.onnx`` or ``*.pt2``; an existing file is replaced whole or not at all.
        format: one of `SUFFIXES`.

    Raises:
        ValueError: an unknown format, another suffix, or weights too large for one ONNX file.
        OSError: a folder in place of the file, or a file in place of its folder.
        ImportError: a package of the extra ``export`` is not installed.
        RuntimeError: the file differs from the model by more than `TOLERANCE`; it is not written then.

    Example:
        >>> export = export_model(jaa_ext.load(), "model.onnx")  # doctest: +SKIP
        >>> for line in export.lines():  # doctest: +SKIP
        ...     print(line)
    """
    path = Path(path)
    if format not in SUFFIXES:
        raise ValueError(f"export_model: format must be one of {', '.join(SUFFIXES)}, got {format!r}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"{path}: a file of format {format} must end in {SUFFIXES[format]}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, wanted the name of the file")
    for folder in path.parents:  # now, not after the minutes that the work takes
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder}: is a file, wanted a folder")
    if format == "onnx":
        _require_onnx(model)
    whole = _Pictures(copy.deepcopy(model).cpu().float().eval())
    fused = _Pictures(whole.network.fuse())
    with _quiet():
        program = standard_operators(_trace(_Pictures(fused.network.fuse()), one_by_one=format != "onnx"))
    with replacing(path) as temporary:
        with _quiet():
            write = _write_onnx if format == "onnx" else _write_program
            run, runtime = write(program, _metadata(model), temporary)
        megabytes = temporary.stat().st_size / 1e6
        differences: dict[str, float] = {}
        milliseconds: dict[int, tuple[float, float]] = {}
        for count in BATCHES:
            faces = _faces(model.config.image_size, count)
            for name, value in _differences(run(faces), whole, faces).items():
                scale = max(1, model.config.image_size / 200) if name == "landmarks" else 1
                if not value <= TOLERANCE * scale:  # NaN too
                    raise RuntimeError(
                        f"{path} was not written: at batch size {count} in {runtime} {name} differ from the "
                        f"model's by {value:.1e}, wanted at most {TOLERANCE * scale:.1e}"
                    )
                differences[name] = max(value, differences.get(name, 0.0))
            milliseconds[count] = _milliseconds(run, faces), _milliseconds(fused, faces)
    return Export(path, format, megabytes, runtime, torch.get_num_threads(), differences, milliseconds)


def standard_operators(program: ExportedProgram) -> ExportedProgram:
    """Replace the ops of jaa_ext in a program of `torch.export` by standard operators of PyTorch.

    It makes models of one's own with layers of jaa_ext ready for `torch.onnx.export` or `torch.export.save`.
    A region convolution becomes one grouped convolution where all cells have the same size, and one
    convolution a cell elsewhere.

    Raises:
        ValueError: a batch norm in training mode.

    Example:
        >>> from jaa_ext.nn import RegionConv2d
        >>> program = torch.export.export(RegionConv2d(3, 8, 3, 4).eval(), (torch.randn(1, 3, 32, 32),))
        >>> "jaa_ext" in str(standard_operators(program).graph)
        False
    """
    table: dict[Any, Callable[..., Any]] = {}
    if _library.DEVICES:  # without kernels the program is already that of the reference
        ops = torch.ops.jaa_ext
        table = {
            ops.region_conv2d.default: _region_conv2d,
            ops.region_batch_norm.default: _region_batch_norm,
            ops.attention_maps.default: _attention_maps,
        }
    program = program.run_decompositions(table)
    for node in program.graph.nodes:
        # Other batch sizes than the traced one may have strides for which `view` fails.
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    program.graph_module.recompile()
    return program


class _Pictures(nn.Module):
    """A model that maps pictures to named results."""

    def __init__(self, network: JAANet) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        output = self.network(normalize(image.permute(0, 3, 1, 2)))
        results = {name: getattr(output, name) for name in OUTPUTS}
        return {name: tensor for name, tensor in results.items() if tensor is not None}


def _trace(pictures: _Pictures, *, one_by_one: bool) -> ExportedProgram:
    # One graph serves all batch sizes, so the AUs' branches need one arrangement for all. In PyTorch they are
    # faster one after the other; onnxruntime takes the same time for both, and grouped ones are a quarter of
    # the nodes.
    for module in pictures.modules():
        if isinstance(module, GroupedSequential):
            module.one_by_one = lambda input: one_by_one  # type: ignore[method-assign]
    side = pictures.network.config.image_size
    image = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    return torch.export.export(pictures, (image,), dynamic_shapes={"image": {0: Dim("batch")}}, strict=False)


def _metadata(model: JAANet) -> dict[str, str]:
    config = model.config
    side, num_aus, maps = config.image_size, len(config.aus), config.map_size
    about = {
        "note": model.note,
        "model": f"{type(model).__name__} of jaa_ext",
        "config": json.dumps(config.to_dict()),
        "image": f"uint8 (N, {side}, {side}, 3): RGB in 0..255, the middle {side} x {side} pixels of a face "
        f"aligned to {aligned_size(side)} x {aligned_size(side)}; normalisation is inside",
    }
    if config.au_detection:
        about["aus"] = " ".join(au_columns(config.aus))
        about["probabilities"] = f"float32 (N, {num_aus}): that each AU is present, in the order of aus"
        about["thresholds"] = " ".join(f"{value:g}" for value in model.thresholds)
    if config.alignment:
        about["landmarks"] = "float32 (N, 49, 2): x, y in pixels of image, y down"
    if config.refinement:
        about["refined_maps"] = f"float32 (N, {num_aus}, {maps}, {maps}): attention of each AU, 0..1"
    if config.intensity:
        about["intensities"] = (
            f"float32 (N, {num_aus}): of each AU, 0..5, in the order of aus; NaN for one that was not learnt"
        )
    return about


Run = Callable[[Tensor], dict[str, Tensor]]
"""Maps a file's input ``image`` to its outputs by name."""


def _write_onnx(program: ExportedProgram, about: dict[str, str], path: Path) -> tuple[Run, str]:
    import onnxruntime

    names = [name for name in OUTPUTS if name in about]
    exported = torch.onnx.export(
        program,
        (),
        input_names=["image"],
        output_names=names,
        dynamic_shapes={"image": {0: "batch"}},
        verbose=False,
    )
    assert exported is not None
    for node in exported.model.graph:
        node.metadata_props.clear()  # they name the source files of each node
    exported.model.doc_string = about["note"]
    exported.model.metadata_props.update(about)
    exported.save(path, external_data=False)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {"image": image.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run, f"onnxruntime {onnxruntime.__version__}"


def _write_program(program: ExportedProgram, about: dict[str, str], path: Path) -> tuple[Run, str]:
    # Not by its name, since torch warns of a temporary name without .pt2; and in memory first, since torch's
    # message about a full disk does not say so.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"metadata.json": json.dumps(about)})
    path.write_bytes(content.getbuffer())
    with path.open("rb") as written:
        module = torch.export.load(written).module()

    @torch.inference_mode()
    def run(image: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = module(image)
        return outputs

    return run, f"torch {torch.__version__}"


def _faces(side: int, count: int) -> Tensor:
    """Draw faces, (count, side, side, 3) uint8, on which landmarks and attention lie as in use."""
    drawn = SyntheticFaces(subjects=range(count), samples_per_subject=1, size=aligned_size(side))
    crops = Crops(drawn, side, train=False)
    return torch.stack([crops[i]["image"] for i in range(count)]).permute(0, 2, 3, 1).contiguous()


def _differences(got: dict[str, Tensor], whole: _Pictures, faces: Tensor) -> dict[str, float]:
    want = whole(faces)
    config = whole.network.config
    comparable = torch.ones(len(faces), dtype=torch.bool)
    if config.attention:
        # Faces whose maps differ are left out: the last bit of a landmark can move a centre by a whole pixel.
        options: dict[str, Any] = {"roi_ratio": config.roi_ratio, "decay": config.decay}
        draw = partial(attention_maps, aus=config.aus, image_size=config.image_size, **options)
        for size in (config.map_size, config.map_size + 8):
            ours, theirs = (draw(landmarks=each["landmarks"], map_size=size) for each in (want, got))
            comparable &= (ours == theirs).flatten(1).all(1)
    differences = {}
    for name, tensor in want.items():
        both_missing = got[name].isnan() & tensor.isnan()
        difference = torch.where(both_missing, 0, (got[name] - tensor).abs())
        if name != "landmarks":
            difference = difference[comparable]
        if len(difference):
            differences[name] = float(difference.max())
    return differences


def _milliseconds(run: Run, faces: Tensor, repeats: int = 5) -> float:
    """Measure the shortest time a face."""
    run(faces)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(faces)
        times.append(time.perf_counter() - start)
    return min(times) / len(faces) * 1e3


def _require_onnx(model: JAANet) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package, "exporting to ONNX needs", extra="export")
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    if size > MAX_ONNX_BYTES:
        raise ValueError(
            f"the model has {size / 1e9:.1f} GB of weights, but one ONNX file holds at most 2 GB: "
            "use the format exported-program"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, whose messages are for programmers; failures come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# The ops as standard operators. Sizes of images are known in a trace, that of the batch is not.


def _region_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, border: Border) -> Tensor:
    batch, in_channels, height, width = input.shape
    grid_h, grid_w, out_channels, _, kernel_h, kernel_w = weight.shape
    if border == "image" or height % grid_h or width % grid_w:
        return reference.region_conv2d(input, weight, bias, border=border)
    h, w = height // grid_h, width // grid_w
    # The cells become groups of channels: (N, grid_h * grid_w * in_channels, h, w).
    cells = input.reshape(batch, in_channels, grid_h, h, grid_w, w).permute(0, 2, 4, 1, 3, 5)
    cells = F.conv2d(
        cells.reshape(batch, grid_h * grid_w * in_channels, h, w),
        weight.flatten(0, 2),
        None if bias is None else bias.flatten(),
        padding=(kernel_h // 2, kernel_w // 2),
        groups=grid_h * grid_w,
    )
    cells = cells.reshape(batch, grid_h, grid_w, out_channels, h, w).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(batch, out_channels, height, width)


def _region_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    grid: Sequence[int],
    training: bool,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if training:
        raise ValueError("standard_operators: got a batch norm in training mode, wanted model.eval()")
    assert running_mean is not None and running_var is not None
    nothing = input.new_empty(0)
    batch, channels, height, width = input.shape
    grid_h, grid_w = grid
    if height % grid_h or width % grid_w:
        output = reference.region_batch_norm(
            input,
            grid=(grid_h, grid_w),
            running_mean=running_mean,
            running_var=running_var,
            weight=weight,
            bias=bias,
            training=False,
            eps=eps,
            relu=relu,
        )
        return output, nothing, nothing
    x = reference.full_precision(input)
    scale = torch.rsqrt(running_var.to(x.dtype) + eps)
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale
    if bias is not None:
        shift = shift + bias
    scale, shift = (
        t.reshape(grid_h, grid_w, channels).permute(2, 0, 1).reshape(channels, grid_h, 1, grid_w, 1)
        for t in (scale, shift)
    )
    cells = x.reshape(batch, channels, grid_h, height // grid_h, grid_w, width // grid_w)
    output = (cells * scale + shift).reshape(batch, channels, height, width)
    return (output.relu() if relu else output).to(input.dtype), nothing, nothing


def _attention_maps(
    landmarks: Tensor,
    points: Sequence[int],
    dy: Sequence[float],
    image_size: int,
    map_size: int,
    roi_ratio: float,
    decay: float,
) -> Tensor:
    """Draw maps as `reference.attention_maps` does, without index and constant tensors.

    A decomposition cannot make such tensors.
    """
    x = reference.full_precision(landmarks)
    left, right = facs.INNER_EYE_CORNERS
    r = (x[:, left, 0] - x[:, right, 0]).abs()
    shift = torch.stack([r * value for value in dy], 1)
    centres = torch.stack([x[:, point] for point in points], 1).reshape(-1, len(dy), 2, 2)
    maps = reference.draw_maps(centres, shift, image_size, map_size, roi_ratio, decay)
    return maps.to(landmarks.dtype)
