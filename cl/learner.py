"""A model and the strategy that keeps it up to date: learn, predict, save, load, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cl import restoring, snapshot
from cl.checkpoint import (
    check_layout,
    load_state,
    replacing_together,
    save_json,
    settle,
)
from cl.config import BackboneConfig, CacheConfig, TrainerConfig, as_object
from cl.data import AUGMENTATIONS, ArrayDataset, Batch, Order, Union, batches
from cl.data.arrays import Array
from cl.data.cache import create_cache
from cl.errors import ConfigurationError, WeightsError, explained, require, suggest
from cl.experience import Experience, StreamInfo
from cl.fabric import Fabric, create_fabric
from cl.instantiate import build
from cl.learner_file import DESCRIPTION, STATE, Kept, read_learner, write_learner
from cl.midway import checking, load_midway, write_midway
from cl.models.backbone import compile_blocks, create_backbone
from cl.models.export import export
from cl.models.model import Model
from cl.parallel import Ranks
from cl.random import derive_seed
from cl.stored import as_config
from cl.strategy import Chain, Plugin, Progress, Run, Strategy
from cl.training import Training, count_steps
from cl.trust import Kind, check_trust

KINDS = {
    "strategy": Kind(Strategy, "strategies"),
    "plugin": Kind(Plugin, "strategies", several=True),
}
"""What the sections of a stored learner's recipe may name."""


class Learner:
    """Learns one experience after the other and predicts over all classes seen.

    cfg: the sections strategy, plugin, backbone, trainer and seed of a configuration. stream: what may
    be known of the stream beforehand. augmentation: a key of `cl.data.AUGMENTATIONS`, used unless
    `trainer.augment` names another. fabric: one that is there already.
    """

    def __init__(
        self,
        cfg: DictConfig,
        stream: StreamInfo,
        augmentation: str = "none",
        fabric: Fabric | None = None,
    ) -> None:
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
        require(
            not self.strategy.own_loop or self.config.devices * self.config.nodes == 1,
            "trainer.devices: this strategy trains in a loop of its own, which knows one device only.",
        )
        torch.manual_seed(derive_seed(self.seed, "model"))  # timm initialises from the global one
        backbone = create_backbone(as_object(cfg.backbone, BackboneConfig))
        self.model = Model(
            backbone, create_cache(as_object(cfg.get("cache") or DictConfig({}), CacheConfig))
        )
        self.pretrained_numbers = count(self.model)
        self.fabric: Fabric = fabric or create_fabric(self.config)
        fabric = self.fabric
        self.model.ranks = Ranks(fabric.global_rank, fabric.world_size, fabric.device)
        self.class_names: tuple[str, ...] = ()
        self.experiences = 0
        self.run_id: str | None = None
        self.image_shape: tuple[int, ...] | None = None
        self.trained_numbers: int | None = None
        self.training: Training | None = None
        self.run = Run(
            self.model,
            self.seed,
            fabric.device,
            self.config,
            self.augmentation,
            self.strategy,
        )
        for hooks in self.methods:
            hooks.run = self.run
            hooks.setup(self.model, stream)
        self.to_device()
        if self.config.compile:
            compile_blocks(self.model.backbone)
        self.built = snapshot.survey(self.state)

    @property
    def methods(self) -> Chain:
        """The strategy and then the plugins: the order in which hooks are called."""
        return Chain(self.strategy, self.plugins)

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
        self,
        data: Experience | Array,
        labels: Sequence[str] | Array | None = None,
        *,
        on_step: Callable[[Progress], None] = lambda progress: None,
    ) -> int:
        """Learn an experience of a stream, or images and their labels. Returns the number of steps.

        images: uint8 N × H × W × 1 or 3. labels: N names or whole numbers; new ones are new classes.
        on_step: called after every step. If it fails, or is interrupted, the learner is what it was before.
        """
        if isinstance(data, Experience):
            experience = data
        elif labels is None:
            raise ConfigurationError("learn(images, labels): labels are missing.")
        else:
            experience = Experience.of(data, labels, self.class_names, self.experiences)
        before, trained_numbers = self._kept(copy=True), self.trained_numbers
        try:
            return self.learn_experience(experience, on_step)
        except BaseException:
            self._go_back(before, trained_numbers)
            raise

    def learn_experience(
        self,
        experience: Experience,
        on_step: Callable[[Progress], None] = lambda progress: None,
        midway: Path | None = None,
        arriving: Callable[[ArrayDataset], None] | None = None,
    ) -> int:
        """As `learn`, for a run that has its checkpoints: if it fails, the learner is of no use any more.

        midway: what `save_midway` wrote in this experience; the learner must be as it was before it. A
        MidwayError if it cannot be what was written.
        arriving: called with the images of each step before it is taken.
        """
        if self.image_shape is None:
            self.image_shape = tuple(int(side) for side in experience.train.images.shape[1:])
        self.class_names = experience.names
        self.run.logged.clear()
        self.run.progress = Progress(experience.index)
        for hooks in self.methods:
            hooks.before_experience(experience)
        self.to_device()
        trained = self._trained()
        self.trained_numbers = sum(p.numel() for p in trained)
        self.model.set_trained({id(p) for p in trained})
        untrained = self.strategy.gradient_free or self.strategy.own_loop
        steps = 0 if untrained else self._train(experience, on_step, midway, arriving)
        self.model.eval()
        self.run.logged.clear()
        for hooks in self.methods:
            hooks.after_experience(experience)
        self.to_device()
        self.model.weights_changed()
        self.experiences = experience.index + 1
        return steps

    def _train(
        self,
        experience: Experience,
        on_step: Callable[[Progress], None],
        midway: Path | None,
        arriving: Callable[[ArrayDataset], None] | None,
    ) -> int:
        data = self.methods.training_data(experience)
        steps = count_steps(len(data), self.config)
        for hooks in self.methods:
            hooks.before_training(steps)
        self.begun = snapshot.survey(self.state)
        if midway is None:
            training = Training(self.fabric, self.methods, self.run, data, experience.index)
        else:
            with checking(midway):
                tensors, values = load_midway(midway)
                snapshot.put_tensors(self.state, tensors)
                restoring.put(self.state, tensors, values["attributes"], self.fabric.device)
                training = Training(self.fabric, self.methods, self.run, data, experience.index)
                training.load(tensors, values["training"])
        self.training = training
        training.train(lambda order: self.training_batches(data, order, arriving), on_step)
        self.training = None
        return steps

    def _kept(self, copy: bool = False) -> Kept:
        """All that learning changes; as copies, which stay as they are when it goes on."""
        attributes, values = snapshot.take(self.state, self.built)
        state = snapshot.copies(self.state) if copy else self.state.state_dict()
        if copy:
            attributes = {name: tensor.clone() for name, tensor in attributes.items()}
        facts = (self.class_names, self.experiences, self.image_shape, self.run_id)
        return Kept(state, attributes, values, *facts, self.model.pretrained)

    def _become(self, kept: Kept, where: object, closed: str | None = None) -> None:
        """Be, newly built, the learner of which this was kept. where, closed: as in `load_state`."""
        load_state(self.state, kept.state, where, closed)
        restoring.put(self.state, kept.attributes, kept.values, self.fabric.device)
        self.class_names, self.experiences = kept.class_names, kept.experiences
        self.image_shape, self.run_id = kept.image_shape, kept.run_id
        self.model.pretrained = kept.pretrained
        self.to_device()

    @classmethod
    def _built(
        cls, recipe: DictConfig, stream: StreamInfo, augmentation: str, fabric: Fabric | None = None
    ) -> Learner:
        """A learner of this recipe whose weights are still to come."""
        bare = recipe.copy()
        bare.backbone.pretrained = False
        learner = cls(bare, stream, augmentation, fabric)
        learner.recipe = dict(recipe)
        return learner

    def _go_back(self, before: Kept, trained_numbers: int | None) -> None:
        """Be what was kept before: built anew, as a learner that is opened."""
        recipe = OmegaConf.create(self.recipe)
        again = self._built(recipe, self.stream, self.stream_augmentation, self.fabric)
        again._become(before, "the copy")
        again.model.cache, again.trained_numbers = self.model.cache, trained_numbers
        vars(self).update(vars(again))

    def save_midway(self, folder: Path) -> None:
        """Between two steps of `learn`: write what is needed to go on with the next step, as `write` does."""
        assert self.training is not None, "only while an experience is learnt"
        folder.mkdir(parents=True, exist_ok=True)
        attributes, values = snapshot.take(self.state, self.begun)
        tensors = {**snapshot.take_tensors(self.state), **attributes}
        more, progress = self.training.state()
        write_midway(folder, {**tensors, **more}, {"attributes": values, "training": progress})

    @property
    def seen(self) -> int:
        """How many classes have been seen."""
        return len(self.class_names)

    @property
    def logged(self) -> dict[str, Tensor]:
        """The numbers that the methods reported last."""
        return self.run.logged

    def training_batches(
        self,
        data: ArrayDataset,
        order: Order,
        arriving: Callable[[ArrayDataset], None] | None = None,
    ) -> Iterator[Batch]:
        """What is left of one shuffled, augmented pass over training data."""
        for batch in batches(
            data,
            self.model.transform,
            self.config.batch_size,
            self.fabric.device,
            order=order,
            augmentation=self.augmentation,
        ):
            if arriving is not None:
                arriving(data.subset(batch.positions))
            yield batch

    def logits(self, data: ArrayDataset, task: int | None = None) -> Tensor:
        """Logits over the classes seen, len(data) × classes, float32 on the CPU."""
        parts = [logits for _, logits in self.answers(data, task)]
        return torch.cat(parts) if parts else torch.empty(0, 0)

    @torch.inference_mode()
    def answers(
        self, data: ArrayDataset | Union, task: int | None = None
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of `data` with its logits over the classes seen, B × classes, float32 on the CPU."""
        self.model.eval()
        self.strategy.eval()
        size, device = self.config.evaluation_batch_size, self.fabric.device
        for batch in batches(data, self.model.transform, size, device):
            with self.fabric.autocast(), self.model.ranks.sharing():
                answer = self.methods.predict(batch.images, task)
            yield batch, answer.float().cpu()
        if self.model.cache is not None:
            self.model.cache.flush()

    def predict(self, images: Array) -> Array:
        """The class of each image (uint8 N × H × W × C), as an int64 array of N."""
        return self.logits(ArrayDataset.unlabelled(images)).argmax(1).numpy()

    def save(self, folder: Path) -> None:
        """Write everything that is needed to go on learning: learner.json and state.safetensors.

        What an earlier `save` wrote there is replaced all at once; other files stay.
        """
        with replacing_together(folder) as place:
            self.write(place)

    def write(self, folder: Path) -> None:
        """Write the files of `save` into a new folder; whoever calls seals it."""
        recipe = OmegaConf.to_container(OmegaConf.create(self.recipe), resolve=True)
        stream = asdict(self.stream)
        write_learner(self._kept(), recipe, stream, self.stream_augmentation, folder)

    @classmethod
    def load(
        cls, folder: Path, trust: Sequence[str] = (), trainer: dict[str, Any] | None = None
    ) -> Learner:
        """Open what `save` wrote; the learner predicts as before and can learn the next experience.

        A strategy from a package other than ours is imported only if the package is in `trust`, and nothing
        is built but a strategy and plugins (`cl.trust`). trainer: the section to go on with, if it is not the
        stored one. Raises WeightsError when a file is missing or damaged, ConfigurationError when the recipe
        names what may not be built.
        """
        settle(folder)
        content, kept = read_learner(folder)
        if trainer is not None:
            content["recipe"]["trainer"] = trainer
        recipe = as_config(content["recipe"], folder / DESCRIPTION)
        check_trust(recipe, KINDS, trust)
        learner = cls._built(recipe, StreamInfo(**content["stream"]), content["augmentation"])
        learner._become(kept, folder / STATE, closed="model")
        check_layout({**kept.state, **kept.attributes}, content.get("layout"), folder)
        learner._try_out(folder)
        return learner

    def _try_out(self, folder: Path) -> None:
        """Raise WeightsError unless what was opened answers, with a number for each class."""
        if not self.class_names or self.image_shape is None:
            return
        noise = np.random.default_rng(0).integers(0, 256, (2, *self.image_shape), np.uint8)
        with explained(WeightsError, f"{folder} does not fit together"):
            task = 0 if self.strategy.needs_task_id else None
            logits = self.logits(ArrayDataset.unlabelled(noise), task)
            if logits.shape != (2, self.seen):
                raise ValueError(f"{logits.shape[1]} answers for {self.seen} classes")
            if (logits.isnan() | logits.isposinf()).any():
                raise ValueError("its answers are no numbers")

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
        if self.trained_numbers is None:
            return sum(p.numel() for p in self._trained())
        return self.trained_numbers

    def _trained(self) -> list[nn.Parameter]:
        """What the optimiser trains, each once."""
        if self.strategy.gradient_free:
            return []
        groups = self.methods.parameter_groups()
        return list({id(p): p for group in groups for p in group["params"]}.values())

    @property
    def stored_numbers(self) -> int:
        """How many numbers must be kept besides the pretrained backbone."""
        return count(self.state) - self.pretrained_numbers + self.strategy.stored_elsewhere


def count(module: nn.Module) -> int:
    """Numbers in all parameters and buffers of a module."""
    return sum(tensor.numel() for tensor in module.state_dict().values())
