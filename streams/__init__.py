"""The streams: one file per family. Nothing is registered; a configuration names the function."""
