"""The typed part of the configuration. It imports no torch, so that a typo is answered at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.errors import ConfigurationError, require, require_one_of

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "quarter_cosine", "milestones")
PRECISIONS = ("32", "bf16", "16")
PARALLEL = ("auto", "ddp")
TASKS = ("seen", "next", "all")
MOMENTS = ("after", "before", "during")

HARMLESS = (
    *("logger", "cache", "optimised_metric"),
    *("trainer.device", "trainer.devices", "trainer.nodes", "trainer.strategy", "trainer.compile"),
    *("trainer.checkpoint", "trainer.checkpoint_minutes", "trainer.quiet"),
    "trainer.evaluation_batch_size",
)
"""What may be changed when a run goes on: it does not decide what is learnt, apart from last bits."""

LATER = ("trainer.epochs", "trainer.precision")
"""What may be changed too, for the experiences that have not been begun."""


@dataclass
class TrainerConfig:
    """How the optimisation loop runs.

    epochs: passes over the data of one experience. batch_size: images per step.
    lr, weight_decay, momentum (SGD only): as in torch.optim. schedule: the learning rate within one
    experience, "constant", "cosine" (half a period, from lr to 0, step by step), "quarter_cosine" (from lr
    to nearly 0, epoch by epoch) or "milestones" (a tenth of it from each of the epochs `milestones` on).
    evaluation_batch_size: images per forward pass without gradient. device: "auto", "cpu", "cuda" or
    "cuda:1". precision: "32", "bf16" or "16".
    compile: let torch.compile make the backbone's blocks faster; the first steps take longer.
    devices, nodes: how many take part; a batch is shared among them. strategy: "ddp", or "auto", which is the
    same where there are several. Sharded weights (FSDP) are not offered: methods change weights by hand.
    augment: "stream" takes the stream's own augmentation, otherwise as `cl.data.AUGMENTATIONS`.
    checkpoint: keep a checkpoint after every experience, and inside one every `checkpoint_minutes` (0:
    never). quiet: say nothing on the console; log.txt has it all the same.
    """

    epochs: int = 1
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "constant"
    milestones: list[int] = field(default_factory=list)
    evaluation_batch_size: int = 256
    device: str = "auto"
    precision: str = "32"
    compile: bool = False
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    augment: str = "stream"
    checkpoint: bool = True
    checkpoint_minutes: float = 15.0
    quiet: bool = False

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "evaluation_batch_size", "devices", "nodes"):
            value = getattr(self, key)
            require(value >= 1, f"trainer.{key}={value}: it must be at least 1.")
        for key in ("lr", "weight_decay", "momentum", "checkpoint_minutes"):
            value = getattr(self, key)
            require(value >= 0, f"trainer.{key}={value}: it must not be negative.")
        require_one_of("trainer.optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("trainer.schedule", self.schedule, SCHEDULES)
        require(
            (self.schedule == "milestones") == bool(self.milestones),
            "trainer.schedule=milestones needs epochs, as in trainer.milestones=[18]; "
            "the other schedules need trainer.milestones=[].",
        )
        require_one_of("trainer.precision", self.precision, PRECISIONS)
        require_one_of("trainer.strategy", self.strategy, PARALLEL)


@dataclass
class BackboneConfig:
    """A timm model without its classifier.

    name: as in `timm.list_models()`. image_size: the side in pixels, null for the model's own.
    pretrained: false starts at random. weights: a safetensors file instead of the one looked up.
    """

    name: str = MISSING
    image_size: int | None = None
    pretrained: bool = True
    weights: str | None = None

    def __post_init__(self) -> None:
        size = self.image_size
        require(size is None or size >= 1, f"backbone.image_size={size}: it must be at least 1.")


@dataclass
class CacheConfig:
    """Features of what is frozen of a backbone are computed once.

    memory_gb: what they may take in memory; 0 switches it off. dir: a folder that keeps them for
    later runs too, null for none; processes may share it. dir_gb: its size, after which the oldest go.
    """

    memory_gb: float = 1.0
    dir: str | None = None
    dir_gb: float = 10.0

    def __post_init__(self) -> None:
        for key in ("memory_gb", "dir_gb"):
            value = getattr(self, key)
            require(value >= 0, f"cache.{key}={value}: it must not be negative.")


@dataclass
class EvaluationConfig:
    """What the metrics of `metric=[…]` are shown, beside what each asks for itself.

    tasks: whose test images, those "seen", the "next" one too, or "all" of the stream. when: "after" each
    experience, "before" it (from the second on), "during" it, where each batch of its images is answered
    before it is trained on for the first time (prequential), or several of them. The numbers of the last two
    are called before_… and during_…. The accuracy matrix is made in any case, after each experience, of the
    tasks seen. answers: keep class and confidence of every test image in answers.npy.
    """

    tasks: str = "seen"
    when: list[str] = field(default_factory=lambda: ["after"])
    answers: bool = True

    def __post_init__(self) -> None:
        require_one_of("evaluation.tasks", self.tasks, TASKS)
        for moment in self.when:
            require_one_of("evaluation.when", moment, MOMENTS)


@dataclass
class NamesConfig:
    """What a run is called: the folder is <output>/<stream>/<strategy>/<backbone>/…"""

    stream: str = MISSING
    strategy: str = MISSING
    backbone: str = MISSING


@dataclass
class Config:
    """One run. `stream`, `strategy`, each `plugin`, `metric` and `logger` name a `_target_` and arguments.

    resume: the folder of a run to go on with. All else is taken from that folder; what is typed beside it
    is changed, and noted, if it is `HARMLESS` or for `LATER`, and refused if it is neither and the run has
    another value. "latest": the newest run under `output` that is not complete and has this very
    configuration (what is `HARMLESS` may differ); an error if there is none. "auto": the same, but where
    there is none a new run begins, so that a scheduler can start one command again and again. trust: packages
    whose code a stored configuration may name. optimised_metric: the number of summary.json, such as
    "average_accuracy" or "metrics.calibration_error", that the run returns, for sweepers that search.
    """

    stream: Any = MISSING
    strategy: Any = MISSING
    plugin: dict[str, Any] = field(default_factory=dict)
    metric: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    optimised_metric: str = "average_accuracy"
    seed: int = 0
    output: str = "runs"
    resume: str | None = None
    trust: list[str] = field(default_factory=list)
    names: NamesConfig = field(default_factory=NamesConfig)


Section = TypeVar("Section")


def as_object(node: DictConfig, kind: type[Section]) -> Section:
    """A section of a configuration as the dataclass `kind`, with its types and ranges checked."""
    for where in OmegaConf.missing_keys(node):
        raise ConfigurationError(f"{where} must be given: {where}=…")
    try:
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), node))
    except (OmegaConfBaseException, RecursionError) as error:
        where = getattr(error, "full_key", None) or "configuration"
        raise ConfigurationError(f"{where}: {describe(error)}") from None
    assert isinstance(result, kind)
    return result


def covered(key: str, by: Iterable[str]) -> bool:
    """Whether one of `by` is the dotted key or a section that holds it."""
    return any(key == each or key.startswith(f"{each}.") for each in by)


def check_interpolations(cfg: DictConfig) -> None:
    """Raise ConfigurationError when a ${…} in `cfg` leads nowhere, or back to itself."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        where = getattr(error, "full_key", None) or "configuration"
        raise ConfigurationError(f"{where}: {describe(error)}") from None


def describe(error: BaseException) -> str:
    """One line on what Hydra, OmegaConf or a YAML parser found."""
    if isinstance(error, RecursionError):
        return "a ${…} leads back to itself, or lists are nested too deeply."
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("See http", "full_key:", "object_type=", "reference_type=", "Error parsing override")
    told = [line for line in lines if line and not line.startswith(noise)]
    return " ".join(told[:4]) or type(error).__name__


ConfigStore.instance().store(name="schema", node=Config)
