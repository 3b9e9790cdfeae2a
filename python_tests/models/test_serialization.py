"""Models as files: what is written comes back, and what does not fit is said in a sentence."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, build_model, load_model, save_model


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


def test_files_of_earlier_versions_are_read(saved):
    want = load_model(saved)
    config = want.config.to_dict()
    config["assemble"], config["embedding"] = config.pop("local_pooling"), config.pop("hidden_size")
    about = {"model": "JAANet", "config": config, "note": "earlier"}
    rewrite(saved, keep, {"jaa_ext": json.dumps(about)})
    got = load_model(saved)
    assert got.config == want.config and got.note == "earlier"
    assert all(torch.equal(got.state_dict()[name], tensor) for name, tensor in want.state_dict().items())


def test_half_precision_stays(tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(model().bfloat16(), path)
    assert load_model(path).au_head[0].weight.dtype == torch.bfloat16


def wide():
    torch.manual_seed(0)
    return JAANet(JAANetConfig.journal((1, 12), image_size=64, width=4))


class TestHalf:
    """Half precision on the disk, float32 in memory."""

    @pytest.fixture
    def halved(self, tmp_path):
        original, path = wide(), tmp_path / "half.safetensors"
        original(torch.randn(2, 3, 64, 64))  # running statistics other than their start
        original.thresholds = (0.25, 0.75)
        save_model(original, path, half=True)
        return original, path

    def test_what_comes_back_is_rounded(self, halved, tmp_path):
        original, path = halved
        loaded = load_model(path)
        assert loaded.thresholds == (0.25, 0.75)
        large = {name for name, tensor in original.named_parameters() if tensor.numel() >= 1024}
        assert "au_head.0.weight" in large and "au_head.0.bias" not in large
        for name, tensor in original.state_dict().items():
            want = tensor.half().float() if name in large else tensor
            assert torch.equal(loaded.state_dict()[name], want), name
            assert loaded.state_dict()[name].dtype == tensor.dtype
        save_model(original, tmp_path / "whole.safetensors")
        assert path.stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
        again = tmp_path / "again.safetensors"
        save_model(loaded, again, half=True)
        assert again.read_bytes() == path.read_bytes()

    def test_what_half_precision_cannot_hold(self, tmp_path):
        large = wide()
        with torch.no_grad():
            large.au_head[0].weight[0, 0] = 1e5
        path = tmp_path / "half.safetensors"
        with pytest.raises(
            ValueError, match=r"in float16 tensor 'au_head\.0\.weight' has 1 of .*without half \(--half\)$"
        ):
            save_model(large, path, half=True)
        with pytest.raises(TypeError, match="float32, got bfloat16 in "):
            save_model(model().bfloat16(), path, half=True)
        assert not path.exists()

    def test_a_model_in_float16_stays_one(self, tmp_path):
        save_model(model().half(), tmp_path / "model.safetensors")
        assert load_model(tmp_path / "model.safetensors").au_head[0].weight.dtype == torch.float16


class TestThresholds:
    def test_they_come_back(self, tmp_path):
        path, original = tmp_path / "model.safetensors", model()
        original.thresholds = (0.1, 0.43)
        save_model(original, path)
        assert load_model(path).thresholds == (0.1, 0.43)

    def change(self, path, **changes):
        header = path.read_bytes()
        length = int.from_bytes(header[:8], "little")
        about = json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["jaa_ext"])
        for name, value in changes.items():
            about.pop(name) if value is None else about.update({name: value})
        rewrite(path, keep, {"jaa_ext": json.dumps(about)})

    def test_an_older_file_has_none(self, saved):
        self.change(saved, thresholds=None)
        assert load_model(saved).thresholds == (0.5, 0.5)

    @pytest.mark.parametrize(
        ("thresholds", "sentence"),
        [
            ([0.5], r"thresholds must be one for each of the 2 AUs, got 1"),
            ([0.5, 1.5], r"thresholds must lie between 0 and 1, got 1\.5 in place 1"),
            ([0.5, float("nan")], r"thresholds"),
            ([0.5, "0.5"], r"thresholds: 1: Input should be a valid number"),
            (0.5, r"thresholds: Input should be a valid array"),
        ],
    )
    def test_those_that_do_not_fit_are_told_with_the_file(self, saved, thresholds, sentence):
        self.change(saved, thresholds=thresholds)
        with pytest.raises(ValueError, match=rf"model\.safetensors: .*{sentence}"):
            load_model(saved)


def test_a_fused_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="fused model cannot be saved"):
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


def header_and_body(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put(path, header, body=b""):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


CONFIG = {"aus": [1, 12], "image_size": 64, "width": 1}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([], "must be JSON with model, config and note"),
        ({"model": ["JAANet"], "config": CONFIG, "note": ""}, "(model: Input should be a valid string)"),
        ({"model": "JAANet", "config": [1], "note": ""}, "(config: Input should be "),
        ({"model": "JAANet", "config": CONFIG, "note": 3}, "(note: Input should be a valid string)"),
        ({"image_size": "64"}, "JAANetConfig: image_size: Input should be a valid integer, got 64"),
        ({"width": True}, "JAANetConfig: width: Input should be a valid integer, got True"),
        ({"width": None}, "JAANetConfig: width: Input should be a valid integer, got None"),
        ({"aus": 1}, "JAANetConfig: aus: Input should be a valid "),
        ({"aus": [1, [2]]}, "JAANetConfig: aus.1."),
        ({"aus": [{"points": [1]}]}, "JAANetConfig: aus.0."),
        ({"aus": [{"points": [1, 2], "dy": 1e300}]}, "AURule: dy must be in -100..100, got 1e+300"),
        ({"region": []}, "JAANetConfig: region: Input should be 'R' or 'HMR', got []"),
        ({"decay": float("inf")}, "JAANetConfig: decay must be finite, got inf"),
        ({"roi_ratio": float("nan")}, "JAANetConfig: roi_ratio must be in (0, 1], got nan"),
        ({"image_size": 16 * 10**8}, "JAANetConfig: image_size must be at most 4096, got 1600000000"),
        ({"width": 10**6}, "JAANetConfig: width must be at most 4096, got 1000000"),
        ({"width": 10**30}, "JAANetConfig: width must be at most 4096"),
        ({"hidden_size": 10**12}, "JAANetConfig: hidden_size must be at most 16777216, got 1000000000000"),
        ({"aus": [1] * 10**5}, "JAANetConfig: aus must be at most 1000, got 100000"),
        ({"image_size": 4096, "width": 4096}, "weights, wanted at most 2.1e+09"),
    ],
)  # fmt: skip
def test_metadata_of_wrong_types_and_absurd_sizes(saved, about, message):
    if isinstance(about, dict) and "model" not in about:
        about = {"model": "JAANet", "config": {**CONFIG, **about}, "note": ""}
    header, body = header_and_body(saved)
    put(saved, {**header, "__metadata__": {"jaa_ext": json.dumps(about)}}, body)
    with pytest.raises(ValueError) as caught:
        load_model(saved)
    assert str(caught.value).startswith(f"{saved}: ") and message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_header_that_claims_an_exabyte(saved):
    header, body = header_and_body(saved)
    name = next(name for name in header if name != "__metadata__")
    put(saved, {**header, name: {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}}, body)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file"):
        load_model(saved)
    saved.write_bytes((2**60).to_bytes(8, "little") + body)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file"):
        load_model(saved)


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_weights_that_are_no_floats(saved, dtype):
    rewrite(saved, lambda tensors: tensors.update({"au_head.1.bias": torch.zeros(4).to(dtype)}))
    word = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"tensor 'au_head\.1\.bias' must be float32, got {word}$"):
        load_model(saved)


def test_counts_that_are_no_int64(saved):
    name = next(name for name in load_file(saved) if name.endswith("num_batches_tracked"))
    rewrite(saved, lambda tensors: tensors.update({name: torch.tensor(3, dtype=torch.int32)}))
    with pytest.raises(ValueError, match=rf"{name}' must be int64, got int32$"):
        load_model(saved)


def test_weights_of_mixed_dtypes(saved):
    rewrite(saved, lambda tensors: tensors.update({"au_head.1.bias": torch.zeros(4).double()}))
    with pytest.raises(ValueError, match=r"must be float\d\d as '.*' is, got float\d\d$"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(saved, value):
    def spoil(tensors):
        tensors["au_head.0.weight"][0, 0] = value
        tensors["au_head.1.bias"][1] = value

    rewrite(saved, spoil)
    wanted = (
        r"model\.safetensors: tensor 'au_head\.[01]\.\w+' \(and 1 more\) has 1 of \d+ values that are not "
        "finite$"
    )
    with pytest.raises(ValueError, match=wanted):
        load_model(saved)


def test_a_variance_below_zero(saved):
    name = next(name for name in load_file(saved) if name.endswith("running_var"))
    rewrite(saved, lambda tensors: tensors[name].view(-1)[0].fill_(-1))
    with pytest.raises(ValueError, match=f"tensor '{name}' has negative variances$"):
        load_model(saved)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_model(model(), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_in_place_of_the_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder, .*file"):
        save_model(model(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_model_of_terabytes_is_not_built():
    with pytest.raises(ValueError, match=r"width 2048, .* would have \S+ weights, wanted at most 2\.1e\+09$"):
        build_model(JAANetConfig.released((1, 12), image_size=1024, width=2048))
