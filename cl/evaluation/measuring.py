"""The metrics of a run: shown every answer, asked for their numbers, kept through kills."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from cl import restoring, snapshot
from cl.checkpoint import load_json, load_tensors, save_json, save_tensors
from cl.config import EvaluationConfig, as_object
from cl.data import ArrayDataset, Batch
from cl.errors import PalimpsestError, WeightsError, explained, require
from cl.evaluation.answers import Answers
from cl.evaluation.metric import Context, Metric, Moment, Undefined, checked
from cl.evaluation.row import evaluate, pass_over
from cl.experience import Experience
from cl.instantiate import build
from cl.learner import Learner
from cl.matrix import Cell
from cl.strategy import Progress
from cl.stream import Stream


class Measure(nn.Module):
    """One metric at one moment. A metric that fails stops no run: its numbers are undefined from then on.

    numbers: what it gave last; reasons: why one of them is None.
    """

    def __init__(self, name: str, metric: Metric, moment: Moment, tasks: str) -> None:
        super().__init__()
        self.name, self.metric = name, metric
        self.moment, self.tasks = metric.when or moment, metric.tasks or tasks
        self.prefix = "" if metric.when or moment == "after" else f"{moment}_"
        self.numbers: dict[str, float | None] = {}
        self.reasons: dict[str, str] = {}
        self.failed = ""

    def reach(self, context: Context) -> int:
        """How many tasks it is shown."""
        seen = context.experience + (context.moment == "after")
        more = {"seen": 0, "next": 1, "all": context.experiences}[self.tasks]
        return min(seen + more, context.experiences)

    def begin(self, context: Context) -> None:
        """A pass begins."""
        self.metric.context = context
        self.call("before", context)

    def call(self, hook: str, *content: Any) -> Any:
        """What a hook of the metric gives; None if it fails, or has failed before."""
        if self.failed:
            return None
        try:
            result = getattr(self.metric, hook)(*content)
            return checked(result) if hook in ("after", "step") else result
        except PalimpsestError:
            raise
        except Exception as error:
            self.fail(f"`{hook}`", error)

    def fail(self, where: str, error: Exception) -> None:
        """Say once what failed; the run goes on without this metric."""
        what = str(error).strip().partition("\n")[0]
        self.failed = f"{where} failed ({type(error).__name__}: {what})"
        print(f"metric.{self.name}: {self.failed}. The run goes on without it.", file=sys.stderr)

    def finish(self) -> None:
        """A pass is over: ask for the numbers."""
        found = self.call("after") or {}
        if self.failed:
            found = {self.name: Undefined(self.failed)}
        self.numbers, self.reasons = {}, {}
        for name, value in found.items():
            defined = isinstance(value, float)
            self.numbers[self.prefix + name] = value if defined else None
            if not defined:
                self.reasons[self.prefix + name] = value.reason


class Measuring(nn.Module):
    """All metrics of a run. Its state is written into every checkpoint.

    cfg: the sections `metric` and `evaluation` of a configuration.
    """

    transient = ("config", "stream", "learner", "answers", "built")

    def __init__(self, cfg: DictConfig, stream: Stream, learner: Learner) -> None:
        super().__init__()
        self.stream, self.answers = stream, Answers()
        self.learner = learner
        self.config = as_object(cfg.get("evaluation") or DictConfig({}), EvaluationConfig)
        self.measures = nn.ModuleList(
            Measure(str(name), metric, moment, self.config.tasks)
            for name, node in (cfg.get("metric") or {}).items()
            for moment, metric in self._built(str(name), node)
        )
        self.built = snapshot.survey(self)

    def _built(self, name: str, node: DictConfig) -> Iterator[tuple[Moment, Metric]]:
        """A metric for each moment that it measures at, so that these do not mix."""
        moments = [moment for moment in get_args(Moment) if moment in self.config.when]
        metric = build_metric(name, node)
        for number, moment in enumerate([metric.when] if metric.when else moments):
            yield moment, build_metric(name, node) if number else metric

    def __iter__(self) -> Iterator[Measure]:
        for measure in self.measures:
            assert isinstance(measure, Measure)
            yield measure

    @property
    def numbers(self) -> dict[str, float | None]:
        """By name; where two metrics give a number of one name, the second has its own name before it."""
        return merged(self, "numbers")

    @property
    def reasons(self) -> dict[str, str]:
        """Why a number is None, by its name."""
        return merged(self, "reasons")

    def before(self, index: int) -> None:
        """Before experience `index` is learnt: a pass for the metrics that want one."""
        context = self._context(index, "before")
        told = self._begin(context)
        if told and index:
            reach = max(measure.reach(context) for measure in told)
            pass_over(self.learner, self.stream, reach, self._watch(context, told))
            for measure in told:
                measure.finish()

    def row(self, index: int) -> list[Cell]:
        """After experience `index` was learnt: the row of the matrix, and the numbers of the metrics."""
        context = self._context(index, "after")
        told = self._begin(context)
        reach = max((measure.reach(context) for measure in told), default=0)
        watch = self._watch(context, told)
        cells = evaluate(self.learner, self.stream, index, watch, reach)
        for measure in [*told, *self._at("during")]:
            measure.finish()
        return cells

    def arriving(
        self, experience: Experience, resumed: bool
    ) -> Callable[[ArrayDataset], None] | None:
        """What is to be called with each batch before it is trained on; None if nobody wants to see it.

        resumed: the experience had begun before a kill, so the metrics know of its first batches.
        """
        context = self._context(experience.index, "during")
        told = self._at("during")
        for measure in told:
            measure.metric.context = context
            if not resumed:
                measure.call("before", context)
        own, index = experience.train, experience.index
        ours = np.zeros(len(own.images), dtype=bool)
        ours[own.rows] = True
        task = index if self.stream.scenario == "task-incremental" else None
        task = index if self.learner.strategy.needs_task_id else task

        def show(images: ArrayDataset) -> None:
            if not told or self.learner.run.progress.epoch or images.images is not own.images:
                return
            new = images.subset(np.flatnonzero(ours[images.rows]))
            if not len(new):
                return
            try:
                with aside(self.learner):
                    answers = [*self.learner.answers(new, task)]
            except Exception as error:  # not every method can answer before it has learnt
                for measure in told:
                    measure.fail("predicting in the middle of the training", error)
                told.clear()
                return
            for batch, outputs in answers:
                shown = Batch(batch.images, batch.labels.cpu(), batch.positions)
                for measure in told:
                    measure.call("batch", index, shown, outputs)

        return show if told and experience.classes else None  # without labels nothing is right

    def step(self, progress: Progress) -> dict[str, float]:
        """After a step of the training: the numbers of those metrics that look inside an experience."""
        found: dict[str, Any] = {}
        for measure in self:
            if type(measure.metric).step is not Metric.step:
                measure.metric.context = self._context(progress.experience, "during")
                with aside(self.learner):
                    found |= measure.call("step", progress) or {}
        return {name: value for name, value in found.items() if isinstance(value, float)}

    def write(self, folder: Path) -> None:
        """Write the state into a checkpoint, if there is any; whoever calls seals it."""
        if not len(self.measures):
            return
        tensors, values = snapshot.take(self, self.built)
        save_tensors({**snapshot.take_tensors(self), **tensors}, folder / "metrics.safetensors")
        save_json(values, folder / "metrics.json")

    def load(self, folder: Path) -> None:
        """Go to where `write` was; a checkpoint of a run without metrics has nothing to say."""
        if not (folder / "metrics.json").exists():
            require(
                not len(self.measures),
                f"{folder} has no metrics.json: it was made without metrics.",
            )
            return
        values, tensors = (
            load_json(folder / "metrics.json"),
            load_tensors(folder / "metrics.safetensors"),
        )
        with explained(WeightsError, f"{folder / 'metrics.json'} is damaged"):
            snapshot.put_tensors(self, tensors)
            restoring.put(self, tensors, values, torch.device("cpu"))

    def _at(self, moment: Moment) -> list[Measure]:
        return [measure for measure in self if measure.moment == moment]

    def _begin(self, context: Context) -> list[Measure]:
        """The metrics of a moment, which are told that a pass begins."""
        told = self._at(context.moment)
        for measure in told:
            measure.begin(context)
        return told

    def _watch(
        self, context: Context, told: list[Measure]
    ) -> Callable[[int, Batch, Tensor], None] | None:
        """Shows answers to those who want to see the task, and keeps them; None if there is nobody."""
        reaches = [(measure, measure.reach(context)) for measure in told]
        keeps = self.config.answers and context.moment == "after"

        def watch(task: int, batch: Batch, outputs: Tensor) -> None:
            if keeps and outputs.ndim == 2:
                self.answers.add(task, outputs)
            for measure, reach in reaches:
                if task < reach:
                    measure.call("batch", task, batch, outputs)

        return watch if keeps or told else None

    def _context(self, index: int, moment: Moment) -> Context:
        stream, last = self.stream, index - (moment == "before")
        names = [
            stream.class_names[label] for label in range(stream.seen[last] if last >= 0 else 0)
        ]
        return Context(index, len(stream), stream.seen, names, moment, self.learner, stream)


def merged(measures: Iterable[Measure], attribute: str) -> dict[str, Any]:
    """The numbers (or reasons) of several metrics; of two with one name the second has its own before it."""
    everything: dict[str, Any] = {}
    taken: set[str] = set()
    for measure in measures:
        names = {n: f"{measure.name}_{n}" if n in taken else n for n in measure.numbers}
        taken |= measure.numbers.keys()
        everything |= {names[n]: value for n, value in getattr(measure, attribute).items()}
    return everything


def build_metric(name: str, node: DictConfig) -> Metric:
    """The metric that `metric.<name>` describes."""
    metric = build(node, f"metric.{name}")
    require(isinstance(metric, Metric), f"metric.{name}._target_={node._target_}: it is no Metric.")
    assert isinstance(metric, Metric)
    return metric


@contextmanager
def aside(learner: Learner) -> Iterator[None]:
    """What is asked of a learner in here leaves no trace in its training.

    The modes of its modules and the state of torch's random numbers are put back.
    """
    device = learner.fabric.device
    modes = [(module, module.training) for module in learner.state.modules()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
