"""Array data sets, batches, transforms and augmentation."""

from cl.data.arrays import ArrayDataset, class_counts
from cl.data.loading import Batch, batches, index_batches
from cl.data.memory import Memory, Sample
from cl.data.transforms import AUGMENTATIONS, Transform, augment

__all__ = [
    "AUGMENTATIONS",
    "ArrayDataset",
    "Batch",
    "Memory",
    "Sample",
    "Transform",
    "augment",
    "batches",
    "class_counts",
    "index_batches",
]
