"""Plain weights: what the learner has become, without adapters, for timm or any other loader."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from cl.checkpoint import save_tensors
from cl.errors import PalimpsestError
from cl.models.backbone import classifier_names
from cl.models.model import Model


def export(model: Model, file: Path) -> None:
    """Write backbone and head under timm's names as safetensors; adapters are merged."""
    state = merged_state(model.backbone)
    names = classifier_names(model.backbone)
    linear = model.head.linear_state()
    if linear["weight"].shape[1] != model.features:
        raise PalimpsestError(
            "The head reads the features of two networks, so a plain timm model cannot hold it. "
            "Use the learner's own format (`Learner.save`)."
        )
    for head in names or ["head."]:  # two of a distilled network, whose answer is the mean of both
        state |= {f"{head}{name}": tensor.clone() for name, tensor in linear.items()}
    save_tensors(state, file)


def merged_state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The state of `module` with every adapter replaced by the plain layer that does the same."""
    merged = getattr(module, "merged_state", None)
    if merged is not None:
        return {prefix + name: tensor for name, tensor in merged().items()}
    own = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    persistent = {n: t for n, t in own.items() if n not in module._non_persistent_buffers_set}
    state = {prefix + name: tensor.detach() for name, tensor in persistent.items()}
    for name, child in module.named_children():
        state |= merged_state(child, f"{prefix}{name}.")
    return state
