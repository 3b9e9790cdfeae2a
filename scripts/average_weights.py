"""The mean of two trained models' weights, with batch norms that fit it: how the shipped weights end.

    python scripts/average_weights.py A.safetensors B.safetensors --data FOLDER --out MEAN.safetensors

B must have been trained on from A. The batch norms' running statistics are estimated anew on faces of the
folder's training fold, augmented as in the recipe `rendered`.
"""

import argparse
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from jaa_ext.data import Crops, PreparedFaces, normalize
from jaa_ext.models import load_model, save_model
from jaa_ext.recipes import load_recipe

FACES = 4800


def main(first: Path, second: Path, data: Path, out: Path) -> None:
    model, before = load_model(second), load_model(first)
    if before.config != model.config:
        raise SystemExit(f"{first} and {second} must be of one config")
    other = before.state_dict()
    mean = {
        name: (tensor + other[name]) / 2 if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(mean)
    faces = PreparedFaces(data, aus=model.config.aus, folds=["train"])
    augment = load_recipe("rendered").augment
    crops = Crops(faces, model.config.image_size, train=True, seed=3, augment=augment)
    chosen = torch.randperm(len(crops), generator=torch.Generator().manual_seed(1))[:FACES].tolist()
    loader = DataLoader(crops, batch_size=16, sampler=chosen)
    update_bn((normalize(batch["image"]) for batch in loader), model)
    save_model(model.eval(), out)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("first", type=Path)
    arguments.add_argument("second", type=Path)
    arguments.add_argument("--data", type=Path, required=True, help="a folder of `jaa prepare rendered`")
    arguments.add_argument("--out", type=Path, required=True)
    main(**vars(arguments.parse_args()))
