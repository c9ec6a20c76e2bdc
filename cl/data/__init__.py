"""Array data sets, batches, transforms and augmentation."""

from cl.data.arrays import ArrayDataset, Union, class_counts
from cl.data.loading import Batch, Order, batches, index_batches
from cl.data.memory import Memory, Sample
from cl.data.transforms import AUGMENTATIONS, Transform, augment

__all__ = [
    "AUGMENTATIONS",
    "ArrayDataset",
    "Batch",
    "Memory",
    "Order",
    "Sample",
    "Transform",
    "Union",
    "augment",
    "batches",
    "class_counts",
    "index_batches",
]
