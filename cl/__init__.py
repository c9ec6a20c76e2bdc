"""Palimpsest: continual learning of pretrained models.

A stream of tasks feeds a pretrained backbone through a continual-adaptation strategy; metrics say
what was learnt and what was forgotten. Importing this package has no side effects.
"""

__version__ = "0.1.0"
