"""The anatomy of networks: what each layer does and how deep it lies, by tables of names.

Whatever adapts, freezes, watches or merges layers asks here which ones these are.
"""

from cl.models.anatomy.families import CATEGORIES, FAMILIES, ROLES, Family
from cl.models.anatomy.places import Anatomy, Place, is_adapter
from cl.models.anatomy.targets import Target, find_targets, replace_layer

__all__ = [
    "CATEGORIES",
    "FAMILIES",
    "ROLES",
    "Anatomy",
    "Family",
    "Place",
    "Target",
    "find_targets",
    "is_adapter",
    "replace_layer",
]
