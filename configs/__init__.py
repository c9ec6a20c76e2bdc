"""The configuration files, as package data."""
