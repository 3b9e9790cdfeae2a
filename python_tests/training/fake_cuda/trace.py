"""Runs iterations of training on tensors of a GPU without data, and prints their operations as JSON.

trace.py recipe:precision ..., with device.cpp, compiled, in LD_PRELOAD where torch is without CUDA.
"""

import json
import sys
import warnings
from types import SimpleNamespace

import torch
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from jaa_ext import _library
from jaa_ext.distributed import Processes
from jaa_ext.models import JAANet
from jaa_ext.recipes import load_recipe
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.optimization import Optimization
from jaa_ext.training.precision import BatchedWeightCast
from jaa_ext.training.runtime import deterministic

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class Trace(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # torch has no fake of the fused optimizer.
        fused = func.overloadpacket is torch.ops.aten._fused_sgd_
        outputs = None if fused else func(*args, **(kwargs or {}))
        if func in CONVOLUTIONS and not torch.cuda.is_available():
            outputs = tree_map_only(Tensor, as_cudnn, outputs)
        made = [t for t in tree_leaves(outputs) if isinstance(t, Tensor)]
        given = {t.untyped_storage()._cdata for t in inputs}
        self.calls.append(
            {
                "name": str(func.overloadpacket),
                "inputs": [describe(t) for t in inputs],
                "outputs": [describe(t) for t in made],
                # Neither a view nor memory alone.
                "computes": func._schema.is_mutable
                or ("empty" not in str(func) and any(t.untyped_storage()._cdata not in given for t in made)),
            }
        )
        return outputs


def as_cudnn(tensor):
    """cuDNN keeps channels_last (torch: cudnn_conv_suggest_memory_format); fakes without a GPU do not."""
    return torch.empty_like(tensor, memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def describe(tensor):
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return {
        "device": tensor.device.type,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "channels_last": channels_last,
    }


def trace(name, precision):
    recipe = load_recipe(name)
    config = recipe.model.config()
    plugin = MixedPrecision(precision, "cuda") if precision == "bf16-mixed" else Precision()
    with torch.device("meta"):
        model = JAANet(config).to(memory_format=torch.channels_last)
    with deterministic(), FakeTensorMode():
        model._apply(lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda"))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True, **recipe.optimizer.model_dump())
        optimizer.param_groups[0]["lr"] = torch.empty((), device="cuda")  # its sign cannot be looked at here

        whole = BatchedWeightCast(model)

        def module(image):
            with plugin.forward_context():
                output = whole(plugin.convert_input(image))
            return plugin.convert_output(output)

        optimizer.optimizer = optimizer  # as Fabric's wrapper has it
        weight = torch.empty(len(config.aus), device="cuda")
        optimization = SimpleNamespace(
            module=module,
            criterion=JointLoss(recipe.loss, weight),
            optimizer=optimizer,
            fabric=SimpleNamespace(backward=Tensor.backward),
            processes=Processes(),
        )
        size, faces = config.image_size, 16
        batch = (
            torch.empty(faces, 3, size, size, dtype=torch.uint8, device="cuda"),
            torch.empty(faces, len(config.aus), dtype=torch.int64, device="cuda"),
            torch.empty(faces, 49, 2, device="cuda"),
            torch.empty(faces, len(config.aus), device="cuda"),
        )
        with Trace():
            Optimization.compute_update(optimization, *batch)  # makes the momentum
        with Trace() as traced:
            Optimization.compute_update(optimization, *batch)
    return traced.calls


if not torch.cuda.is_available():
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_: True
_library.DEVICES = frozenset({*_library.DEVICES, "cuda"})  # their fakes are traced
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    print(json.dumps({wanted: trace(*wanted.split(":")) for wanted in sys.argv[1:]}))
