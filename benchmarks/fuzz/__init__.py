"""Mutated inputs of every kind that the program reads, and what becomes of them."""
