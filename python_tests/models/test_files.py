"""Models as files: what is written comes back, and what does not fit is said in a sentence."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model


def model(preset=JAANetConfig.journal, **changes):
    torch.manual_seed(0)
    return JAANet(preset((1, facs.AURule((3, 4), 0.5)), image_size=64, width=1, **changes))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model(), path, note="for a test")
    return path


def rewrite(path, change, metadata=None):
    """Write the file again with changed tensors, or with other metadata."""
    tensors = load_file(path)
    change(tensors)
    if metadata is None:
        header = path.read_bytes()
        length = int.from_bytes(header[:8], "little")
        metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    save_file(tensors, path, metadata=metadata)


def keep(tensors):
    pass


@pytest.mark.parametrize("preset", [JAANetConfig.journal, JAANetConfig.paper, JAANetConfig.released])
def test_what_is_written_comes_back(tmp_path, preset):
    original = model(preset)
    original(torch.randn(2, 3, 64, 64))  # running statistics other than their start
    image = torch.randn(1, 3, 64, 64)
    want = original.eval()(image)
    path = tmp_path / "model.safetensors"
    save_model(original.to(memory_format=torch.channels_last), str(path), note="Für Menschen.")
    random = torch.get_rng_state()
    loaded = load_model(str(path))
    assert torch.equal(torch.get_rng_state(), random), "loading used random numbers"
    assert type(loaded) is JAANet and loaded.config == original.config and loaded.note == "Für Menschen."
    assert not loaded.training
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for got, expected in zip(vars(loaded(image)).values(), vars(want).values(), strict=True):
        assert (got is None) == (expected is None)
        assert got is None or torch.equal(got, expected), "not the same bits"
    loaded.train()(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_note_stays_when_saved_again(saved, tmp_path):
    again = tmp_path / "again.safetensors"
    save_model(load_model(saved), again)
    assert load_model(again).note == "for a test"
    save_model(load_model(saved), again, note="another")
    assert load_model(again).note == "another"
    save_model(model(), again)
    assert load_model(again).note == ""


def test_half_precision_stays(tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(model().bfloat16(), path)
    assert load_model(path).au_head[0].weight.dtype == torch.bfloat16


def test_a_fused_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="save_model: a fused model cannot be saved; save the model"):
        save_model(model().fuse(), tmp_path / "fused.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model(), saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_saving_what_cannot_be_loaded(tmp_path):
    with pytest.raises(TypeError, match=r"must be one of \['JAAGraphNet', 'JAANet'\], got Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "x.safetensors")


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*missing\.safetensors"):
        load_model(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", bytes(100)])
def test_not_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors: not a safetensors file"):
        load_model(path)


def test_cut_off_file(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_model(saved)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"other": "x"}, 'not a model of jaa_ext \\(no "jaa_ext" in the metadata\\)'),
        ({"jaa_ext": "{"}, "must be JSON with model, config and note"),
        ({"jaa_ext": '{"model": "JAANet"}'}, "must be JSON with model, config and note.*config"),
        (
            {"jaa_ext": '{"model": "OtherNet", "config": {}, "note": ""}'},
            r"unknown model 'OtherNet'; this version knows \['JAAGraphNet', 'JAANet'\]",
        ),
        (
            {"jaa_ext": '{"model": "JAANet", "config": {"aus": [1], "depth": 2}, "note": ""}'},
            r"model\.safetensors: JAANetConfig: unknown field 'depth'",
        ),
    ],
)
def test_metadata_that_does_not_fit(saved, metadata, message):
    rewrite(saved, keep, metadata)
    with pytest.raises(ValueError, match=message):
        load_model(saved)


def test_missing_tensors(saved):
    rewrite(saved, lambda tensors: tensors.pop("au_head.0.weight"))
    with pytest.raises(ValueError, match=r"model\.safetensors: missing tensor 'au_head\.0\.weight'$"):
        load_model(saved)
    rewrite(saved, lambda tensors: tensors.pop("au_head.0.bias"))
    with pytest.raises(ValueError, match=r"missing tensor 'au_head\.0\.bias' and 1 more$"):
        load_model(saved)


def test_unexpected_tensor(saved):
    rewrite(saved, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(ValueError, match="unexpected tensor 'extra'"):
        load_model(saved)


def test_misshapen_tensor(saved):
    rewrite(saved, lambda tensors: tensors.update({"au_head.1.bias": torch.zeros(5)}))
    with pytest.raises(ValueError, match=r"tensor 'au_head\.1\.bias' must be \[4\], got \[5\]"):
        load_model(saved)
