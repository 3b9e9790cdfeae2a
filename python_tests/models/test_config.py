"""Configurations: presets, what is refused, and configs written down and read back."""

import json

import pytest

from jaa_ext import facs
from jaa_ext.models import JAANetConfig

PLAIN = {"attention": False, "refinement": False, "gradient_enhancement": 1.0}


def test_presets():
    paper, released, journal = (
        make(facs.DISFA_AUS) for make in (JAANetConfig.paper, JAANetConfig.released, JAANetConfig.journal)
    )
    assert released == JAANetConfig(facs.DISFA_AUS)
    assert (released.local_pooling, released.padding_removal) == ("mean", False)
    assert released.target_maps == "resized"
    assert (paper.local_pooling, paper.padding_removal, paper.target_maps) == ("sum", True, "drawn")
    assert released.gradient_enhancement == paper.gradient_enhancement == 2
    assert (journal.local_loss, journal.gradient_enhancement, journal.local_pooling) == (True, 1, "mean")
    assert released.resolved_hidden_size == 512
    assert JAANetConfig((1,), hidden_size=100).resolved_hidden_size == 100
    assert JAANetConfig.paper((1,), local_pooling="mean", width=4).resolved_hidden_size == 256


def test_it_survives_json():
    own = facs.AURule((3, 4), 0.25)
    config = JAANetConfig.paper([1, own, 24], hidden_size=33)
    text = json.dumps(config.to_dict())
    assert JAANetConfig.from_dict(json.loads(text)) == config
    assert config.aus == (1, own, 24)
    sides = JAANetConfig.paper(["12L", 1, "12R", facs.AURule((3, 3), 0.25, 16, "R")])
    text = json.dumps(sides.to_dict())
    assert JAANetConfig.from_dict(json.loads(text)) == sides
    for wrong in ("12", "AU12L", "12l"):
        with pytest.raises(ValueError, match=f'"12L" for one side, or facs.AURule, got {wrong!r}'):
            JAANetConfig.from_dict({"aus": [1, wrong]})
    with pytest.raises(ValueError, match="aus has AU 12L more than once"):
        JAANetConfig.paper(["12L", 12, "12L"])
    with pytest.raises(ValueError, match="unknown field 'depth'"):
        JAANetConfig.from_dict({"aus": [1], "depth": 3})
    with pytest.raises(ValueError, match="field 'aus' is missing"):
        JAANetConfig.from_dict({})


def test_those_of_earlier_versions_are_read():
    config = JAANetConfig.paper((1, 12), hidden_size=33)
    earlier = config.to_dict()
    earlier["assemble"] = earlier.pop("local_pooling")
    earlier["embedding"] = earlier.pop("hidden_size")
    assert JAANetConfig.from_dict(earlier) == config
    with pytest.raises(ValueError, match="unknown field 'embedding'"):  # it stands there twice
        JAANetConfig.from_dict({**config.to_dict(), "embedding": 33})
    with pytest.raises(ValueError, match="unknown field 'neighbours'"):
        JAANetConfig.from_dict({**earlier, "neighbours": 0.2})


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"average_heads": True}, "average_heads", "local_loss"),
        ({"au_detection": False, "alignment": False}, "au_detection", "alignment"),
        ({"au_detection": False}, "au_detection", "global_features"),
        ({"au_detection": False, "global_features": False}, "au_detection", "attention"),
        ({"alignment": False}, "attention", "alignment"),
        ({"attention": False}, "refinement", "attention"),
        ({"attention": False, "refinement": False, "local_loss": True}, "local_loss", "attention"),
        (
            {**PLAIN, "padding_removal": True, "target_maps": "drawn"},
            "padding_removal",
            "attention",
        ),
        ({"padding_removal": True}, "padding_removal", "target_maps"),
        ({"refinement": False}, "gradient_enhancement", "refinement"),
        ({**PLAIN, "alignment": False, "global_features": False}, "au_detection", "global_features"),
        ({"aus": ()}, "au_detection", "aus"),
        (
            {**PLAIN, "au_detection": False, "global_features": False, "intensity": True},
            "au_detection",
            "intensity",
        ),
    ],
)
def test_impossible_combinations_name_both_fields(changes, first, second):
    with pytest.raises(ValueError) as caught:
        JAANetConfig(**{"aus": (1, 2), **changes})
    assert first in str(caught.value) and second in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100}, "image_size .*multiple of 16 .*at least 64, got 100"),
        ({"image_size": 48}, "image_size .*multiple of 16 .*at least 64, got 48"),
        ({"width": 0}, "width .*at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size .*at least 1, got 0"),
        ({"roi_ratio": 0.0}, r"roi_ratio .*\(0, 1\], got 0.0"),
        ({"decay": -1.0}, "decay .*at least 0, got -1.0"),
        ({"gradient_enhancement": 0.5}, "gradient_enhancement .*at least 1, got 0.5"),
        ({"region": "DRML"}, 'region .*"R" or "HMR", got "DRML"'),
        ({"local_pooling": "max"}, 'local_pooling .*"sum" or "mean", got "max"'),
        ({"target_maps": "zoomed"}, 'target_maps .*"drawn" or "resized", got "zoomed"'),
        ({"aus": (1, 2, 1)}, "aus has AU 1 more than once"),
        ({"aus": ("AU1",)}, "aus .*facs.AURule, got 'AU1'"),
        ({"aus": (1, 3)}, "no rule for AU 3"),
    ],
)
def test_values_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        JAANetConfig(**{"aus": (1, 2), **changes})
