"""The weights that come with the package."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

import jaa_ext
from jaa_ext import facs, weights
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model
from jaa_ext.predict import Predictor
from jaa_ext.predict.detector import FaceDetector


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A small model in their place."""
    torch.manual_seed(0)
    path = tmp_path / "default.safetensors"
    save_model(JAANet(JAANetConfig.journal((1, 12), image_size=64, width=1)), path, note="the shipped one")
    monkeypatch.setattr(weights, "FILE", path)
    return path


def test_they_are_what_is_loaded_where_no_file_is_named(shipped):
    wanted = load_model(shipped).state_dict()
    for model in (jaa_ext.load(), load_model(), load_model(device="cpu")):
        assert model.note == "the shipped one" and model.config.aus == (1, 12)
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_they_are_those_of_a_predictor_without_a_model(shipped):
    predictor = Predictor(device="cpu")
    assert predictor.note == "the shipped one" and predictor.aus == (1, 12)


def test_a_build_without_them_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FILE", tmp_path / "default.safetensors")
    for load in (jaa_ext.load, Predictor, weights.default_weights):
        with pytest.raises(FileNotFoundError, match=r"without weights .*default\.safet.*--we"):
            load()


def test_the_digest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert weights.digest(path) == hashlib.sha256(b"content").hexdigest()


@pytest.mark.skipif(not weights.FILE.is_file(), reason="this build comes without weights")
def test_those_of_this_build():
    assert weights.FILE.stat().st_size <= 12_000_000
    model = jaa_ext.load()
    assert model.note and model.config.au_detection and model.config.alignment
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.skipif(not weights.FILE.is_file(), reason="this build comes without weights")
def test_what_the_astronaut_does():
    """She smiles with parted lips, and does not frown, wrinkle the nose or pull the lip corners down."""
    image = np.ascontiguousarray(skimage.data.astronaut())
    (face,) = Predictor().faces(image)
    present = dict(zip(jaa_ext.load().config.aus, face.present, strict=True))
    assert present[12] and present[25] and not any(present[au] for au in (4, 9, 15))
    intensities = dict(zip(jaa_ext.load().config.aus, face.intensities, strict=True))
    assert intensities[12] > 2.5 and intensities[15] < 1

    (other,) = FaceDetector(landmarks="dlib")(image)
    left, right = (other.landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    apart = np.linalg.norm(face.landmarks - other.landmarks, axis=1).mean()
    assert apart < 0.1 * np.linalg.norm(right - left)
