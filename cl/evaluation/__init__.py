"""What is asked of a learner after, before and during each experience, and what is made of its answers."""

from cl.evaluation.metric import Context, Metric, Undefined
from cl.evaluation.row import AccuracyMatrix, Cell, count_correct, evaluate, own_classes

__all__ = [
    "AccuracyMatrix",
    "Cell",
    "Context",
    "Metric",
    "Undefined",
    "count_correct",
    "evaluate",
    "own_classes",
]
