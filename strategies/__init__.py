"""The strategies: one file per method. Nothing is registered; a configuration names the class."""
