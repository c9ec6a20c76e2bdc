"""Avalanche's own training strategies on our streams, with our evaluation, metrics and logs."""

from __future__ import annotations

import gc
import inspect
import random
import types
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.data import augment
from cl.data.avalanche import Copies, labelled
from cl.errors import ConfigurationError, require, suggest
from cl.models.avalanche import Pixels, growing, growing_means, widen_logits
from cl.models.model import Model
from cl.random import derive_seed
from cl.strategy import ParameterGroup, Strategy
from cl.stream import Experience, StreamInfo
from cl.training import check_finite, create_optimizer, learning_rate_factor

RUNS = ("AGEM", "CWRStar", "Cumulative", "DER", "EWC", "GDumb", "GEM", "GSS_greedy", "ICaRL")
RUNS += ("LwF", "MAS", "Naive", "Replay", "SynapticIntelligence")
ALIASES = {"SI": "SynapticIntelligence"}

NAMES = ("alpha", "batch_size_mem", "beta", "decay_factor", "eps", "ewc_lambda", "fixed_memory")
NAMES += ("keep_importance_data", "lambda_reg", "mem_size", "mem_strength", "memory_size")
NAMES += ("memory_strength", "mode", "patterns_per_exp", "sample_size", "si_lambda", "temperature")
ARGUMENTS = dict.fromkeys(NAMES)
"""What the strategies that run take, so that the command line knows the names; null: Avalanche's default."""

OURS = {"self", "model", "feature_extractor", "classifier", "optimizer", "criterion", "device"}
OURS |= {"train_mb_size", "train_epochs", "eval_mb_size", "plugins", "evaluator", "eval_every"}
OURS |= {"peval_mode", "base_kwargs", "kwargs", "verbose", "input_size", "cwr_layer_name"}
OURS |= {"buffer_transform"}
"""What the bridge itself gives to a strategy of Avalanche, or leaves alone; `args` may not name it."""


class Avalanche(Strategy):
    """Any of Avalanche's training strategies that are known to run (Carta et al., 2023; avalanche-lib 0.6).

    name: Naive, Replay, EWC, LwF, GEM, AGEM, SynapticIntelligence (or SI), MAS, GDumb, DER, ICaRL,
    GSS_greedy, CWRStar or Cumulative. args: what that strategy's constructor takes besides model, optimiser,
    criterion, sizes and device; null leaves it at Avalanche's default.

    Avalanche's loop trains our model, as `trainer` says, with cross-entropy over all classes seen (ICaRL
    with its own loss); the head grows as in every strategy. Predictions are the trained model's, with
    ICaRL the nearest mean's. These are Avalanche's algorithms with Avalanche's deviations from the papers;
    where we have the method too, ours is the one that follows the paper. The optimiser's state goes on from
    one experience to the next.

    Stored: what Avalanche's objects hold. Its memories refer to the images of whole experiences, so these are
    counted. None of it is in a checkpoint: a saved learner predicts, but learns no further experience, and a
    run that was killed starts again. Plugins of ours do not see Avalanche's steps.
    """

    cost = "as the chosen one's"
    own_loop = True
    transient = ("running",)

    means: Tensor
    learnt: Tensor

    def __init__(self, name: str = "Naive", args: Mapping[str, Any] = ARGUMENTS) -> None:
        super().__init__()
        self.name = ALIASES.get(name, name)
        self.args = {key: value for key, value in args.items() if value is not None}
        self.running: Any = None
        self.classes_of: list[int] = []
        self.register_buffer("learnt", torch.zeros((), dtype=torch.int64))
        self.register_buffer("means", torch.zeros(0, 0))  # ICaRL's class means, classes × features

    def setup(self, model: Model, stream: StreamInfo) -> None:
        self.create = find(self.name)
        check_arguments(self.name, self.create, self.args)
        require(
            self.run.trainer.precision == "32",
            "strategy=avalanche: Avalanche's loop computes in 32 bits: trainer.precision=32.",
        )
        room = self.args.get("mem_size", 200)
        require(
            self.name != "GSS_greedy" or room >= self.run.trainer.batch_size + 32,
            f"strategy.args.mem_size={room}: GSS_greedy compares whole batches with its memory, so it needs "
            f"{self.run.trainer.batch_size + 32} at least (trainer.batch_size and 32 of Avalanche's own).",
        )

    def before_experience(self, experience: Experience) -> None:
        require(
            self.running is not None or not self.learnt,
            f"strategy=avalanche: a checkpoint does not hold the state of Avalanche's {self.name}, so this "
            "learner can predict, but not go on learning. Start the run anew, without resume=…",
        )
        require(
            self.name != "ICaRL" or experience.classes == experience.new_classes,
            "strategy.name=ICaRL: Avalanche's cannot see a class again; take a class-incremental stream.",
        )
        self.grow_head(experience)

    def after_experience(self, experience: Experience) -> None:
        seed = derive_seed(self.run.seed, f"Avalanche/{self.name}", experience.index)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self.classes_of.append(len(experience.new_classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Avalanche's own deprecations
            if self.running is None:
                self.running = self.make(experience)
            if self.name == "DER":
                widen_logits(self.running.storage_policy, experience.seen)
            self.running.train(self.adopt(experience), eval_streams=[])
        self.keep(self.running.model)
        self.learnt += 1

    def make(self, experience: Experience) -> Any:
        """Avalanche's strategy object around our model, optimiser and settings."""
        network = nn.Sequential(
            OrderedDict(pixels=Pixels(self.run.model.transform), backbone=self.run.model.backbone)
        )
        head = growing(self.run.model.head, self.run.seed)
        own: dict[str, Any] = {
            "feature_extractor": network,
            "classifier": head,
            "buffer_transform": None,
        }
        if self.name != "ICaRL":
            own = {"model": nn.Sequential(OrderedDict(features=network, head=head))}
        optimizer = create_optimizer(self.parameter_groups(), self.run.trainer)
        own |= {
            "optimizer": optimizer,
            "criterion": nn.CrossEntropyLoss(),
            "device": self.run.device,
        }
        own |= {
            "train_mb_size": self.run.trainer.batch_size,
            "train_epochs": self.run.trainer.epochs,
        }
        own |= {"eval_mb_size": self.run.trainer.evaluation_batch_size}
        own |= {"evaluator": None, "plugins": [self.watcher()]}
        height, width, channels = experience.train.images.shape[1:]
        own |= {"input_size": [channels, height, width], "cwr_layer_name": "head.inner"}
        taken = inspect.signature(self.create).parameters
        made = self.create(**self.args, **{key: own[key] for key in own if key in taken})
        if self.name == "ICaRL":
            made.model.eval_classifier = growing_means()
        return made

    def adopt(self, experience: Experience) -> Any:
        """Our experience as one of Avalanche's, with copies of its images."""
        from avalanche.benchmarks.scenarios import DatasetExperience

        order = self.generator("augmentation", experience.index)

        def augmented(image: Tensor) -> Tensor:
            batch = augment(image.permute(1, 2, 0)[None], self.run.augmentation, order)
            return batch[0].permute(2, 0, 1)

        images, task = Copies(experience.train), experience.task or 0
        training = None if self.run.augmentation == "none" else augmented
        data = labelled(images, images.targets, task, training)
        made = DatasetExperience(dataset=data, current_experience=experience.index)
        made.classes_in_this_experience = list(experience.classes)
        made.seen, made.position = experience.seen, experience.index
        made.benchmark = types.SimpleNamespace(
            n_classes_per_exp=list(self.classes_of), classes_order=list(range(experience.seen))
        )
        return made

    def watcher(self) -> Any:
        """A plugin of Avalanche: our schedule, a log of the loss, and a stop when that is not finite."""
        from avalanche.core import SupervisedPlugin

        log, model, trainer = self.log, self.run.model, self.run.trainer

        class Watcher(SupervisedPlugin):  # type: ignore[misc]
            def before_update(self, strategy: Any, **_: Any) -> None:
                step, steps = (
                    strategy.clock.train_exp_iterations,
                    strategy.train_epochs * len(strategy.dataloader),
                )
                for group in strategy.optimizer.param_groups:
                    group["lr"] = trainer.lr * learning_rate_factor(trainer, step, steps)

            def after_training_iteration(self, strategy: Any, **_: Any) -> None:
                loss = strategy.loss.detach()
                log("loss", loss)
                check_finite(loss, model, strategy.clock.train_iterations, trainer.lr)

        return Watcher()

    @torch.no_grad()
    def keep(self, trained: nn.Module) -> None:
        """Take over what was trained: Avalanche may have worked on a copy of the model."""
        if self.name == "ICaRL":
            self.means = trained.eval_classifier.class_means.clone()
        elif trained.features.backbone is not self.run.model.backbone:
            self.run.model.backbone.load_state_dict(trained.features.backbone.state_dict())
            self.run.model.head.load_state_dict(trained.head.inner.state_dict())
        mine = {id(tensor) for tensor in (*self.run.model.parameters(), *self.run.model.buffers())}
        self.stored_elsewhere = sum(t.numel() for t in tensors_in(self.running, mine))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [{"params": list(self.run.model.parameters())}]

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        """As Avalanche's model answers: by its head, or by the distance to the nearest class mean."""
        if not len(self.means):
            return super().predict(images, task)
        features = F.normalize(self.run.model.encode(images), dim=1)
        return -torch.cdist(features, self.means, compute_mode="donot_use_mm_for_euclid_dist")


def find(name: str) -> Any:
    """Avalanche's class of this name; ConfigurationError if it is not known to run, or lacks a package."""
    require(name in RUNS, f"strategy.name={name}: {suggest(name, [*RUNS, *ALIASES])} (Avalanche)")
    try:
        from avalanche.training import supervised
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"strategy=avalanche: the package {error.name} is missing. pip install avalanche-lib {error.name}"
        ) from None
    if name == "GEM":
        import qpsolvers

        require(
            "quadprog" in qpsolvers.available_solvers,
            "strategy.name=GEM: its solver, the package quadprog, is missing. pip install qpsolvers quadprog",
        )
    return getattr(supervised, name)


def check_arguments(name: str, create: Any, given: Mapping[str, Any]) -> None:
    """Raise ConfigurationError unless the strategy has each argument that is given, and none is missing."""
    known = {k: p for k, p in inspect.signature(create).parameters.items() if k not in OURS}
    names = ", ".join(known) or "none"
    for key in given:
        require(
            key in known,
            f"strategy.args.{key}: Avalanche's {name} has no such argument. It has: {names}.",
        )
    needed = [k for k, p in known.items() if p.default is p.empty and k not in given]
    shown = " ".join(f"strategy.args.{key}=…" for key in needed)
    require(not needed, f"strategy.name={name}: it needs {shown}")


def tensors_in(root: Any, known: set[int]) -> list[Tensor]:
    """Each tensor that can be reached from an object, once, but for those whose id is `known`."""
    found: list[Tensor] = []
    seen, queue = set(known), [root]
    code = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
    while queue:
        each = queue.pop()
        if id(each) in seen or isinstance(each, code):
            continue
        seen.add(id(each))
        if isinstance(each, np.ndarray) and each.dtype.kind in "iuf":
            each = torch.from_numpy(each)
        if isinstance(each, Tensor):
            found.append(each)
        else:
            queue += gc.get_referents(each)
    return found
