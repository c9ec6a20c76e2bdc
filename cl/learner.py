"""A model and the strategy that keeps it up to date: learn, predict, save, load, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from torch import Generator, Tensor, nn

from cl.checkpoint import load_json, load_module, save_json, save_module
from cl.config import BackboneConfig, TrainerConfig, as_object
from cl.data import AUGMENTATIONS, ArrayDataset, Batch, batches
from cl.data.arrays import Array
from cl.errors import require, suggest
from cl.instantiate import build, check_trust
from cl.models.backbone import create_backbone
from cl.models.export import export
from cl.models.model import Model
from cl.random import derive_seed
from cl.strategy import Hooks, Plugin, Strategy
from cl.stream import Experience, StreamInfo
from cl.training import Progress, count_steps, create_fabric, train

TRUSTED = ("cl", "strategies")
"""The packages that a stored learner may name; others only if the user says so."""


class Learner:
    """Learns one experience after the other and predicts over all classes seen.

    cfg: the sections strategy, plugin, backbone, trainer and seed of a configuration. stream: what may
    be known of the stream beforehand. augmentation: a key of `cl.data.AUGMENTATIONS`, used unless
    `trainer.augment` names another.
    """

    def __init__(self, cfg: DictConfig, stream: StreamInfo, augmentation: str = "none") -> None:
        self.config = as_object(cfg.trainer, TrainerConfig)
        self.recipe = {
            key: cfg[key] for key in ("strategy", "plugin", "backbone", "trainer", "seed")
        }
        self.stream, self.stream_augmentation, self.seed = stream, augmentation, int(cfg.seed)
        chosen = self.config.augment
        self.augmentation = augmentation if chosen == "stream" else chosen
        require(
            self.augmentation in AUGMENTATIONS,
            f"trainer.augment={chosen}: {suggest(chosen, ['stream', *AUGMENTATIONS])}",
        )
        self.strategy: Strategy = build(cfg.strategy, "strategy")
        self.plugins: list[Plugin] = [
            build(node, f"plugin.{name}") for name, node in (cfg.plugin or {}).items()
        ]
        torch.manual_seed(derive_seed(self.seed, "model"))  # timm initialises from the global one
        self.model = Model(create_backbone(as_object(cfg.backbone, BackboneConfig)))
        self.pretrained_numbers = count(self.model)
        self.fabric: Fabric = create_fabric(self.config)
        self.class_names: tuple[str, ...] = ()
        self.trained_numbers: int | None = None
        for hooks in self.hooks:
            size = self.config.evaluation_batch_size
            device = self.fabric.device
            hooks.attach(self.model, self.seed, device, size, self.augmentation)
            hooks.setup(self.model, stream)
        self.to_device()

    @property
    def hooks(self) -> tuple[Hooks, ...]:
        """The strategy and then the plugins: the order in which hooks are called."""
        return (self.strategy, *self.plugins)

    @property
    def state(self) -> nn.ModuleDict:
        """Everything that must be kept, as one module: the model's and the methods' tensors."""
        return nn.ModuleDict(
            {"model": self.model, "strategy": self.strategy, "plugins": nn.ModuleList(self.plugins)}
        )

    def to_device(self) -> None:
        """Move the model and all state to the device; new tensors may have been made on the CPU."""
        self.state.to(self.fabric.device)

    def learn(
        self, experience: Experience, on_step: Callable[[Progress], None] = lambda progress: None
    ) -> int:
        """Learn an experience; `on_step` is called after every step. Returns the number of steps."""
        self.class_names = experience.names
        for hooks in self.hooks:
            hooks.logged.clear()
        for hooks in self.hooks:
            hooks.before_experience(experience)
        self.to_device()
        self.trained_numbers = self._count_trainable()
        steps = 0
        if not self.strategy.gradient_free:
            data = self.strategy.training_data(experience)
            steps = count_steps(len(data), self.config)
            for hooks in self.hooks:
                hooks.before_training(steps)
            train(
                self.fabric,
                self.model,
                self.strategy,
                self.plugins,
                experience.index,
                self.config,
                lambda order: self.training_batches(data, order),
                steps,
                self.seed,
                on_step,
            )
        self.model.eval()
        for hooks in self.hooks:
            hooks.logged.clear()
            hooks.after_experience(experience)
        self.to_device()
        return steps

    @property
    def logged(self) -> dict[str, Tensor]:
        """The numbers that the methods reported last."""
        return {name: value for hooks in self.hooks for name, value in hooks.logged.items()}

    def training_batches(self, data: ArrayDataset, order: Generator) -> Iterator[Batch]:
        """One shuffled, augmented pass over training data."""
        return batches(
            data,
            self.model.transform,
            self.config.batch_size,
            self.fabric.device,
            shuffle=order,
            augmentation=self.augmentation,
        )

    @torch.inference_mode()
    def logits(self, data: ArrayDataset, task: int | None = None) -> Tensor:
        """Logits over the classes seen, len(data) × classes, float32 on the CPU."""
        self.model.eval()
        self.strategy.eval()
        size, device = self.config.evaluation_batch_size, self.fabric.device
        parts = []
        for batch in batches(data, self.model.transform, size, device):
            with self.fabric.autocast():
                parts.append(self.strategy.predict(batch.images, task).float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, 0)

    def predict(self, images: Array) -> Array:
        """The class of each image (uint8 N × H × W × C), as an int64 array of N."""
        labels = torch.zeros(len(images), dtype=torch.int64).numpy()
        return self.logits(ArrayDataset.of(images, labels)).argmax(1).numpy()

    def save(self, folder: Path) -> None:
        """Write everything that is needed to go on learning: learner.json and state.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        save_module(self.state, folder / "state.safetensors")
        content = {
            "format": 1,
            "recipe": OmegaConf.to_container(OmegaConf.create(self.recipe), resolve=True),
            "stream": asdict(self.stream),
            "augmentation": self.stream_augmentation,
            "class_names": self.class_names,
            "pretrained": self.model.pretrained,
        }
        save_json(content, folder / "learner.json")

    @classmethod
    def load(cls, folder: Path, trust: Sequence[str] = ()) -> Learner:
        """Open what `save` wrote; the learner predicts as before and can learn the next experience.

        A strategy from a package other than ours is imported only if the package is in `trust`.
        Raises WeightsError when a file is missing or damaged.
        """
        content = load_json(folder / "learner.json")
        recipe = OmegaConf.create(content["recipe"])
        for node in (recipe.strategy, *recipe.plugin.values()):
            check_trust(str(node._target_), (*TRUSTED, *trust))
        recipe.backbone.pretrained = False  # the weights are in the state
        learner = cls(recipe, StreamInfo(**content["stream"]), content["augmentation"])
        load_module(learner.state, folder / "state.safetensors")
        learner.recipe = dict(OmegaConf.create(content["recipe"]))
        learner.model.pretrained = content["pretrained"]
        learner.class_names = tuple(content["class_names"])
        learner.to_device()
        return learner

    def export(self, file: Path) -> None:
        """Write weights that plain timm loads, adapters merged, and the class names beside them.

        `timm.create_model(name, num_classes=C)` loads the file strictly.
        """
        export(self.model, file)
        save_json(list(self.class_names), file.with_suffix(".classes.json"))

    @property
    def trainable_parameters(self) -> int:
        """How many numbers the last experience's optimiser could change.

        Counted when that experience began: a method may have merged its adapters since.
        """
        return self._count_trainable() if self.trained_numbers is None else self.trained_numbers

    def _count_trainable(self) -> int:
        if self.strategy.gradient_free:
            return 0
        unique = {id(p): p.numel() for g in self.strategy.parameter_groups() for p in g["params"]}
        return sum(unique.values())

    @property
    def stored_numbers(self) -> int:
        """How many numbers must be kept besides the pretrained backbone."""
        return count(self.state) - self.pretrained_numbers


def count(module: nn.Module) -> int:
    """Numbers in all parameters and buffers of a module."""
    return sum(tensor.numel() for tensor in module.state_dict().values())
