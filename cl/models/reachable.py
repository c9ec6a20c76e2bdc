"""Whether the features depend on what was put into a backbone: an unused adapter learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.models.anatomy import is_adapter
from cl.ops.per_sample import reachable_leaves


def check_adapters(backbone: nn.Module, trained: set[int], example: Tensor) -> None:
    """ConfigurationError if the features of `example` depend on no parameter of a trained adapter.

    trained: the ids of the parameters that are trained. One forward pass in evaluation mode, which changes
    nothing and draws no random number; no backward pass.
    """
    adapters = {name: m for name, m in backbone.named_modules() if is_adapter(m)}
    own = {
        name: {id(p): k for k, p in adapter.named_parameters() if id(p) in trained and p.numel()}
        for name, adapter in adapters.items()
    }
    if not any(own.values()):
        return
    reached = {id(leaf) for leaf in reachable_leaves(_features(backbone, example))}
    for name, parameters in own.items():
        idle = [key for number, key in parameters.items() if number not in reached]
        if idle:
            raise ConfigurationError(
                f"strategy: {', '.join(idle)} of what was put in the place of {name} "
                "in the backbone can learn nothing, for the features do not depend on it: "
                f"a {type(backbone).__name__} does not call this layer, or reads its weight instead. "
                "Choose other strategy.targets, or another backbone."
            )


def _features(backbone: nn.Module, example: Tensor) -> Tensor:
    """The features of the example, in evaluation mode; all modes are then as before."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            features: Tensor = backbone(example)
            return features
    except (AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"strategy: a {type(backbone).__name__} cannot be adapted there, for something in it reads the "
            f"weight of a layer instead of calling it ({error}). Choose other strategy.targets, or another "
            "backbone."
        ) from None
    finally:
        for module, training in modes:
            module.training = training
