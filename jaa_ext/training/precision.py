"""Mixed precision: where it is used, and with few kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jaa_ext.device import float32_instead, warn_of_float32_instead
from jaa_ext.models import JAANet, JAAOutput
from jaa_ext.recipes.schema import Recipe


def precision_on(device: torch.device, precision: Any) -> Any:
    """A recipe's precision, or "32-true" where that is used instead, see `jaa_ext.device.float32_instead`."""
    return "32-true" if precision == "bf16-mixed" and float32_instead(device) else precision


def recipe_on(device: torch.device, recipe: Recipe) -> Recipe:
    """The recipe with its `precision_on` the device, and a warning if that is another than it asks for."""
    precision = precision_on(device, recipe.precision)
    if precision == recipe.precision:
        return recipe
    warn_of_float32_instead(device)
    return recipe.model_copy(update={"precision": precision})


class BatchedWeightCast(nn.Module):
    """A model whose weights are cast to autocast's dtype in one operation, and their gradients back in one.

    Autocast itself casts each weight and bias, and each gradient, by a kernel of its own: 140 operations in a
    training step of JAA-Net. The results have the same bits. Outside autocast the model is called as it is.

    Args:
        model: the model to train; its parameters stay float32.
    """

    def __init__(self, model: JAANet) -> None:
        super().__init__()
        self.model = model
        self.names = [
            f"{path}.{name}"
            for path, layer in model.half_precision_layers().items()
            for name, _ in layer.named_parameters(recurse=False)
        ]

    def forward(self, image: Tensor) -> JAAOutput:
        kind = image.device.type
        if not torch.is_autocast_enabled(kind):
            return self.model(image)  # type: ignore[no-any-return]
        weights = [self.model.get_parameter(name) for name in self.names]
        cast = _Cast.apply(torch.get_autocast_dtype(kind), *weights)  # type: ignore[no-untyped-call]
        replaced = dict(zip(self.names, cast, strict=True))
        return torch.func.functional_call(self.model, replaced, (image,))  # type: ignore[no-any-return]


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        cast = _cast(list(weights), dtype)
        fixed = [c for c, trained in zip(cast, ctx.needs_input_grad[1:], strict=True) if not trained]
        ctx.mark_non_differentiable(*fixed)  # or their gradients would be computed
        ctx.set_materialize_grads(False)
        return cast

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        full = iter(_cast([grad for grad in grads if grad is not None], torch.float32))
        return (None, *(None if grad is None else next(full) for grad in grads))


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    results = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    torch._foreach_copy_(results, tensors)
    return results
