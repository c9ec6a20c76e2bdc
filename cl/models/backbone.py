"""Any timm model as a backbone, with its weights looked up where the user put them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, TypeGuard

import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from cl.checkpoint import TENSORS_BYTES, check_numbers
from cl.config import BackboneConfig
from cl.data.transforms import Transform
from cl.errors import ConfigurationError, WeightsError, explained, suggest
from cl.models import nano
from cl.models.anatomy import trunk_of
from cl.stored import require_file


@dataclass(frozen=True)
class Backbone:
    """A timm model without classifier, the transform of its input, and where its weights are from.

    features: numbers per image that the model gives. pretrained: "random" or the weights' name.
    """

    module: nn.Module
    transform: Transform
    features: int
    pretrained: str


def create_backbone(config: BackboneConfig) -> Backbone:
    """Create the timm model `config.name` and load its weights.

    They come from `config.weights`, else from `CL_WEIGHTS_DIR/<name>.safetensors`, else from the
    package, else from timm's own loader. Raises ConfigurationError for an unknown name or a size that
    the model cannot take, WeightsError when the weights are missing or do not fit.
    """
    module = _create(config)
    pretrained = "random"
    if config.pretrained:
        pretrained = load_pretrained(module, config)
    data = resolve_model_data_config(module)
    size = config.image_size or data["input_size"][-1]
    transform = Transform(size, tuple(data["mean"]), tuple(data["std"]))
    return Backbone(module, transform, count_features(module, size, config), pretrained)


@torch.no_grad()
def count_features(module: nn.Module, size: int, config: BackboneConfig) -> int:
    """How many numbers the backbone gives per image, found by showing it one.

    If it gives tokens or several tensors, it is made to give what its classifier would read. WeightsError if
    what it gives are no numbers.
    """
    module.eval()
    image = torch.ones(1, 3, size, size)
    try:
        given = module(image)
        if not is_features(given):
            module.forward = MethodType(pooled_features, module)
            given = module(image)
    except NotImplementedError:
        given = None
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"backbone.image_size={size}: {config.name} cannot take it ({_first_line(error)})."
        ) from None
    if not is_features(given):
        raise ConfigurationError(
            f"backbone.name={config.name}: it gives no single vector for an image, and timm has no pooling "
            "for it. Choose a model that can classify."
        )
    if not given.isfinite().all():
        raise WeightsError(f"The weights of {config.name} give features that are no numbers.")
    return int(given.shape[1])


def is_features(given: object) -> TypeGuard[Tensor]:
    """Whether it is what a head reads: B × features."""
    return isinstance(given, Tensor) and given.dim() == 2


def pooled_features(module: Any, images: Tensor) -> Tensor:
    """What the classifier of a timm model would read: pooled, but without the last layer."""
    features: Tensor = module.forward_head(module.forward_features(images), pre_logits=True)
    return features


def _create(config: BackboneConfig) -> nn.Module:
    if not timm.is_model(config.name):
        raise ConfigurationError(
            f"backbone.name={config.name}: timm has no such model. "
            f"{suggest(config.name, timm.list_models())}"
        )
    # Only models with position embeddings need to be told the size; others take any.
    sized = {} if config.image_size is None else {"img_size": config.image_size}
    try:
        module = timm.create_model(config.name, num_classes=0, **sized)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        module = timm.create_model(config.name, num_classes=0)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"backbone.image_size={config.image_size}: {config.name} cannot take it ({_first_line(error)})."
        ) from None
    assert isinstance(module, nn.Module)
    return module


def load_pretrained(module: nn.Module, config: BackboneConfig) -> str:
    """Load the weights into `module` and return what to call them; nano without a file stays random."""
    file = find_weights(config)
    if file is not None:
        load_weights(module, file)
        return f"nano, {nano.NANO_VERSION}" if file == nano.nano_weights() else file.stem
    if config.name == nano.NANO_NAME:
        return "random"
    try:
        loaded = timm.create_model(config.name, pretrained=True, num_classes=0)
    except Exception as error:  # no network, no such weights, refused: timm raises many kinds
        raise WeightsError(
            f"The weights of {config.name} are neither here nor could timm download them "
            f"({_first_line(error)}).\nPut them into {weights_folder() / config.name}.safetensors, "
            "or set CL_WEIGHTS_DIR to the folder that holds this file.\n"
            "To start at random: backbone.pretrained=false. A backbone that needs no download: "
            "backbone=nano"
        ) from None
    fit_weights(module, loaded.state_dict(), config.name)
    return f"timm {config.name}"


def weights_folder() -> Path:
    """`CL_WEIGHTS_DIR`, default ./weights."""
    return Path(os.environ.get("CL_WEIGHTS_DIR", "weights"))


def find_weights(config: BackboneConfig) -> Path | None:
    """The local weights file of a backbone, or None."""
    if config.weights is not None:
        file = Path(config.weights)
        if not file.exists():
            raise WeightsError(f"backbone.weights={file}: there is no such file.")
        return file
    candidates = [weights_folder() / f"{config.name}.safetensors"]
    if config.name == nano.NANO_NAME:
        candidates.append(nano.nano_weights())
    return next((file for file in candidates if file.exists()), None)


def load_weights(module: nn.Module, file: Path) -> None:
    """Load a safetensors file into `module`; position embeddings are resampled to its image size."""
    require_file(file, TENSORS_BYTES, WeightsError)
    with explained(WeightsError, f"{file} is not a readable safetensors file"):
        state = load_file(file)
    for name, tensor in state.items():
        check_numbers(tensor, f"{file}: {name}")
    with explained(WeightsError, f"{file} does not fit the backbone"):
        fit_weights(module, state, str(file))


def fit_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; WeightsError names the keys and shapes that do not fit."""
    state = {key: value.float() for key, value in state.items()}
    adapt = getattr(
        __import__(type(module).__module__, fromlist=["_"]), "checkpoint_filter_fn", None
    )
    if adapt is not None:
        state = adapt(state, module)
    own = module.state_dict()
    classifier = tuple(classifier_names(module))
    state = {
        key: value for key, value in state.items() if key in own or not key.startswith(classifier)
    }
    problems = [f"missing: {key} {tuple(own[key].shape)}" for key in own.keys() - state.keys()]
    problems += [f"not in the model: {key}" for key in state.keys() - own.keys()]
    problems += [
        f"shape of {key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:8])
        more = f"\n  … and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise WeightsError(f"{source} does not fit the backbone:\n  {shown}{more}")
    module.load_state_dict(state)


def classifier_names(module: nn.Module) -> list[str]:
    """The prefixes of the names of the classifier's weights, such as ["head."]."""
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    names = [named] if isinstance(named, str) else list(named)
    return [f"{name}." for name in names]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def compile_blocks(backbone: nn.Module) -> None:
    """Let torch.compile translate each block of the backbone; the head, which grows, is left alone.

    Where the blocks come in stages, or nobody knows them, the backbone is translated as one.

    Sizes of parameters and buffers may be variables of a translation: when an adapter in the block has grown
    once, there is one that serves every later size.
    """
    torch._dynamo.config.recompile_limit = 64  # blocks that are trained differently, in every mode
    torch._dynamo.config.force_parameter_static_shapes = False
    torch._dynamo.config.force_nn_module_property_static_shapes = False
    trunk = trunk_of(backbone)
    for part in [backbone] if trunk is None or trunk.staged else trunk.blocks:
        part.compile()
