"""Where the events of a run go. A logger is told what happened; it decides nothing."""

from cl.loggers.base import ExperienceResult, Logger, RunInfo
from cl.loggers.console import ConsoleLogger
from cl.loggers.files import FileLogger
from cl.loggers.shield import Shielded

__all__ = ["ConsoleLogger", "ExperienceResult", "FileLogger", "Logger", "RunInfo", "Shielded"]
