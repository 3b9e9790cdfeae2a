"""A predicted face."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaa_ext.predict import FacePrediction


@pytest.fixture
def prediction() -> Callable[..., FacePrediction]:
    """Makes a face of 300 pixels, its landmarks on a grid, with 12 AUs; fields can be given."""

    def make(probabilities: Any = (0.9,) * 12, **fields: Any) -> FacePrediction:
        grid = np.stack(np.meshgrid(np.linspace(130, 370, 7), np.linspace(50, 290, 7)), -1).reshape(49, 2)
        probabilities = np.asarray(probabilities, np.float32)
        face = dict(
            face_id=0,
            box=(100.0, 20.0, 400.0, 320.0),
            landmarks=grid.astype(np.float32),
            detected_landmarks=np.zeros((49, 2), np.float32),
            probabilities=probabilities,
            present=probabilities > 0.5,
            crop=np.zeros((8, 8, 3), np.uint8),
            initial_maps=None,
            refined_maps=None,
        )
        return FacePrediction(**(face | fields))

    return make
