"""The anatomy of networks: what each layer does and how deep it lies, by tables of names.

Whatever adapts, freezes, watches or merges layers asks here which ones these are.
"""

from cl.models.anatomy.families import CATEGORIES, FAMILIES, ROLES, Family
from cl.models.anatomy.places import Anatomy, Place, is_adapter
from cl.models.anatomy.targets import Target, find_targets, replace_layer
from cl.models.anatomy.trunk import Chain, Trunk, plain_blocks, plain_layers, plain_vit, trunk_of

__all__ = [
    "CATEGORIES",
    "FAMILIES",
    "ROLES",
    "Anatomy",
    "Chain",
    "Family",
    "Place",
    "Target",
    "Trunk",
    "find_targets",
    "is_adapter",
    "plain_blocks",
    "plain_layers",
    "plain_vit",
    "replace_layer",
    "trunk_of",
]
