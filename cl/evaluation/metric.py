"""What a metric of one's own overrides: one class in one file; nothing registers it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from cl.data import Batch
from cl.learner import Learner
from cl.strategy import Progress
from cl.stream import Stream

Moment = Literal["after", "before", "during"]
Needs = Literal["answers", "outputs", "learner"]


@dataclass(frozen=True)
class Context:
    """What a metric may know when it measures.

    experience: the one that was just learnt ("after"), is going to be ("before"), or is being learnt
    ("during"), of `experiences`. seen: for each experience, how many classes have appeared by then.
    class_names: of the classes that have appeared by now. learner, stream: None where the metric is computed
    from what was answered in a run that is over.
    """

    experience: int
    experiences: int
    seen: Sequence[int]
    class_names: Sequence[str]
    moment: Moment = "after"
    learner: Learner | None = None
    stream: Stream | None = None


@dataclass(frozen=True)
class Undefined:
    """In the place of a number: why there is none, such as "needs two tasks"."""

    reason: str


Number = float | Undefined | None
Numbers = Mapping[str, Number]


class Metric(nn.Module):
    """Numbers of one's own, made inside the pass over the test images that is made anyway.

    For each experience `before`, then `batch` for all that is answered, then `after`. `self.context` is what
    `before` was given. Its state survives as a strategy's does: buffers, and attributes made of numbers,
    strings, tensors and containers of them (`cl.snapshot`).

    needs: "answers", the class of the highest output and the softmax of it, which a run keeps, so that the
    metric can be computed later; or all "outputs"; or the "learner". tasks, when: whose test images it is
    shown, and when, if `evaluation.tasks` and `evaluation.when` are not to say so.
    """

    needs: ClassVar[Needs] = "answers"
    tasks: ClassVar[str | None] = None
    when: ClassVar[Moment | None] = None
    transient: ClassVar[tuple[str, ...]] = ("context",)
    context: Context

    def __init__(self) -> None:
        super().__init__()

    def before(self, context: Context) -> None:
        """A pass begins."""

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        """Some images of one task were answered.

        batch: images (on the device, read when somebody looks at them), labels (int64 B, on the CPU) and
        positions in the task's test set. outputs: logits over the classes seen, float32 B × classes, on the
        CPU; −∞ for those of other tasks where the stream tells the task.
        """

    def step(self, progress: Progress) -> Numbers:
        """After every step of the training: numbers of this step, such as the accuracy on a sample.

        What happens in here (`learner.answers` for example) leaves no trace in the training.
        """
        return {}

    def after(self) -> Numbers:
        """The pass is over: the numbers by name, with an `Undefined` for what has no value."""
        return {}


def checked(numbers: Any) -> dict[str, float | Undefined]:
    """What a metric gave, as plain finite numbers; a ValueError for what has no proper name."""
    found: dict[str, float | Undefined] = {}
    for name, value in dict(numbers).items():
        if not isinstance(name, str) or not re.fullmatch(r"\w{1,100}", name):
            raise ValueError(
                f"{name!r:.100} cannot be the name of a number: letters, digits and _ can"
            )
        found[name] = _number(value)
    return found


def _number(value: Any) -> float | Undefined:
    if value is None or isinstance(value, Undefined):
        return value or Undefined("the metric gives no reason")
    number = float(value)
    finite = abs(number) < float("inf")
    return number if finite else Undefined(f"it came out as {number}")
