"""Exported files against the models they were made from, run by others than jaa_ext."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils._pytree import tree_map

import jaa_ext
from jaa_ext import export, facs, ops
from jaa_ext.export import export_model, standard_operators
from jaa_ext.models import JAAGraphNet, JAAGraphNetConfig, JAANetConfig, build_model
from jaa_ext.nn import RegionBatchNorm2d, RegionConv2d

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
AUS = (1, facs.AURule((31, 40), 0.5))
ALL = {"probabilities", "landmarks", "refined_maps"}
RATED = {*ALL, "intensities"}


def config(preset="released", base=JAANetConfig, aus=AUS, **changes):
    return getattr(base, preset)(aus, **{"image_size": SIZE, "width": 1, **changes})


VARIANTS = {
    "released": (config(), ALL),
    "paper": (config("paper", intensity=True), RATED),
    "journal": (config("journal"), ALL),
    "mirrored": (config("journal", intensity=True, average_heads=True, mirror=True), RATED),
    "sides": (config("journal", aus=("12L", "12R"), intensity=True, mirror=True), RATED),
    "graph": (config("graph", JAAGraphNetConfig, graph_widths=(3,)), ALL),
    "no refinement, R": (
        config(refinement=False, gradient_enhancement=1.0, region="R"),
        {"probabilities", "landmarks"},
    ),
    "no alignment": (
        config(alignment=False, attention=False, refinement=False, gradient_enhancement=1.0),
        {"probabilities"},
    ),
    "no AUs": (
        config(
            au_detection=False,
            global_features=False,
            attention=False,
            refinement=False,
            gradient_enhancement=1.0,
        ),
        {"landmarks"},
    ),
}


def build(config):
    """A model with live features and no statistics at their neutral values, landmarks on the picture."""
    torch.manual_seed(0)
    model = build_model(config)
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.2, 0.5)
        norm.momentum = 1.0
    if config.alignment:
        shape = 0.3 + 0.4 * torch.rand(49, 2)
        shape[list(facs.INNER_EYE_CORNERS), 0] = torch.tensor([0.45, 0.55])
        model.set_mean_shape(shape * SIZE)
        with torch.no_grad():  # so that maps differ from picture to picture
            model.alignment.landmarks.weight *= 20
    if isinstance(model, JAAGraphNet):
        model.set_labels(torch.tensor([[1, 1], [0, 1]]))
    if config.intensity:
        torch.nn.init.normal_(model.au_head.intensity.linear.weight)
        model.set_rated([True, "12R" in config.aus])
    with torch.no_grad():
        model(torch.from_numpy(pictures(8)).permute(0, 3, 1, 2) / 127.5 - 1)
    return model.eval()


def pictures(count):
    """Noise of a colour of its own in each picture."""
    generator = np.random.default_rng(count)
    noise = generator.uniform(0, 256, (count, SIZE, SIZE, 3))
    return (noise * generator.uniform(0.2, 1, (count, 1, 1, 3))).astype(np.uint8)


def expected(model, images):
    """The model's results, of pictures normalised as (x / 255 - 0.5) / 0.5."""
    x = torch.from_numpy(((images.astype(np.float64) / 255 - 0.5) / 0.5).astype(np.float32))
    with torch.no_grad():
        output = model(x.permute(0, 3, 1, 2))
    named = {name: getattr(output, name) for name in RATED}
    return {name: tensor.numpy() for name, tensor in named.items() if tensor is not None}


def check(got, model, images):
    want = expected(model, images)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-4, err_msg=name)
        # Numbers that every picture shares would prove nothing.
        assert len(images) == 1 or np.nanmax(np.ptp(value, axis=0)) > 1e-3, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_in_onnxruntime(variant, tmp_path: Path, capfd) -> None:
    config, names = VARIANTS[variant]
    model = build(config)
    model.note = "only a test"
    path = tmp_path / "model.onnx"
    made = export_model(model, path)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [path]
    assert made.differences.keys() == names and max(made.differences.values()) <= 1e-4
    assert made.megabytes == path.stat().st_size / 1e6
    assert made.milliseconds.keys() == {1, 8} and min(map(min, made.milliseconds.values())) > 0

    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} == {""} and not graph.functions
    assert [opset.domain for opset in graph.opset_import] == [""]
    assert str(Path(jaa_ext.__file__).parent).encode() not in path.read_bytes()
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert about["note"] == graph.doc_string == "only a test"
    named = "AU12L AU12R" if variant == "sides" else "AU01 AUrule1"
    assert about.get("aus") == (named if config.au_detection else None)
    assert about.get("thresholds") == ("0.5 0.5" if config.au_detection else None)
    assert type(config).from_dict(json.loads(about["config"])) == config
    assert names == about.keys() & RATED

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.shape, image.type) == ("image", ["batch", SIZE, SIZE, 3], "tensor(uint8)")
    outputs = {output.name: output.shape[0] for output in session.get_outputs()}
    assert outputs == dict.fromkeys(names, "batch")
    for count in (1, 2, 5):
        images = pictures(count)
        check(dict(zip(outputs, session.run(None, {"image": images}), strict=True)), model, images)


ELSEWHERE = """
import json, sys
sys.modules["jaa_ext"] = None  # importing it raises
import numpy as np, torch
for path in sys.argv[1:]:
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["metadata.json"])["note"] == "only a test"
    namespaces = {getattr(node.target, "namespace", "aten") for node in program.graph.nodes}
    assert namespaces <= {"aten", "_operator"}, namespaces
    module = program.module()
    for count in (1, 2, 5):
        images = torch.from_numpy(np.load(f"{count}.npy"))
        np.savez(f"{path}.{count}.npz", **{name: t.numpy() for name, t in module(images).items()})
assert not any(name.startswith("jaa_ext.") for name in sys.modules)
"""


def test_program_where_there_is_no_jaa_ext(tmp_path: Path, capfd) -> None:
    models = {}
    for variant in ("paper", "mirrored", "sides", "no alignment"):
        path = tmp_path / f"{variant}.pt2"
        models[path] = build(VARIANTS[variant][0])
        models[path].note = "only a test"
        made = export_model(models[path], path, "exported-program")
        assert made.differences.keys() == VARIANTS[variant][1]
    assert capfd.readouterr() == ("", "")
    assert set(tmp_path.iterdir()) == models.keys()
    for count in (1, 2, 5):
        np.save(tmp_path / f"{count}.npy", pictures(count))
    subprocess.run([sys.executable, "-c", ELSEWHERE, *models], check=True, cwd=tmp_path)
    for path, model in models.items():
        for count in (1, 2, 5):
            with np.load(f"{path}.{count}.npz") as got:
                check(dict(got), model, pictures(count))


def traced(module, *inputs):
    program = torch.export.export(module, inputs, dynamic_shapes=[{0: torch.export.Dim("n")}] * len(inputs))
    program = standard_operators(program)
    namespaces = {getattr(node.target, "namespace", "aten") for node in program.graph.nodes}
    assert namespaces <= {"aten", "_operator"}
    return program.module()


@pytest.mark.parametrize("border", ["cell", "image"])
@pytest.mark.parametrize(("height", "width"), [(12, 9), (11, 10)])
@pytest.mark.parametrize("bias", [True, False])
def test_region_layers_of_any_size(border, height, width, bias) -> None:
    torch.manual_seed(0)
    norm = RegionBatchNorm2d(2, (2, 3), relu=bias, affine=bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if bias:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    layers = torch.nn.Sequential(norm, RegionConv2d(2, 3, (3, 5), (2, 3), bias=bias, border=border)).eval()
    layers.requires_grad_(False)
    program = traced(layers, torch.randn(2, 2, height, width))
    for count in (1, 3):
        x = torch.randn(count, 2, height, width)
        torch.testing.assert_close(program(x), layers(x))
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(program(x), layers(x))


class Maps(torch.nn.Module):
    def forward(self, landmarks):
        return ops.attention_maps(landmarks, AUS, image_size=52, map_size=13, roi_ratio=0.4, decay=0.9)


def test_attention_maps_of_odd_landmarks() -> None:
    torch.manual_seed(0)
    program = traced(Maps(), torch.rand(2, 49, 2))
    landmarks = 72 * torch.rand(8, 49, 2) - 10
    landmarks[1, 31, 0], landmarks[2, 4, 1], landmarks[3, 40, 0] = torch.nan, torch.inf, -torch.inf
    landmarks[4] = torch.arange(49).unsqueeze(-1) % 13 * 2.0  # half pixels of the map: half to even
    want = ops.attention_maps(landmarks, AUS, image_size=52, map_size=13, roi_ratio=0.4, decay=0.9)
    assert (want.amax((2, 3)) > 0).sum() > 8 and (want[1, 1] == 0).all()
    torch.testing.assert_close(program(landmarks), want)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode, wanted model.eval\(\)"):
        traced(RegionBatchNorm2d(2, 2).requires_grad_(False), torch.randn(2, 2, 4, 4))


@pytest.fixture(scope="module")
def model():
    return build(VARIANTS["no AUs"][0])


@pytest.mark.parametrize("format", export.SUFFIXES)
def test_a_file_that_differs_is_not_left(format, model, tmp_path: Path) -> None:
    odd = copy.deepcopy(model)
    odd.alignment.register_forward_hook(
        lambda module, inputs, output: tree_map(
            lambda x: x + 1 if torch.compiler.is_exporting() else x, output
        )
    )
    path = tmp_path / f"model{export.SUFFIXES[format]}"
    path.write_text("older")
    wanted = r"was not written: at batch size 1 in \w+ \S+ landmarks differ .* wanted at most 1\.0e-04"
    with pytest.raises(RuntimeError, match=wanted):
        export_model(odd, path, format)
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "older"


def test_the_model_stays_as_it_was(model, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    export_model(model, tmp_path / "model.pt2", "exported-program")
    assert model.training and not model.fused
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    model.eval()


def test_mistakes(model, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="format must be one of onnx, exported-program, got 'tflite'"):
        export_model(model, tmp_path / "model.onnx", "tflite")
    with pytest.raises(ValueError, match=r"model\.pt: .*exported-program .*\.pt2"):
        export_model(model, tmp_path / "model.pt", "exported-program")
    with monkeypatch.context() as patch:
        patch.setattr(export, "MAX_ONNX_BYTES", 1000)
        with pytest.raises(ValueError, match=r"GB of weights, .*exported-program"):
            export_model(model, tmp_path / "model.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs onnx, .*pip install 'jaa_ext\[exp"):
        export_model(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
