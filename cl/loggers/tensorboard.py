"""TensorBoard: an event file in the run folder (extra `tensorboard`)."""

from __future__ import annotations

from typing import Any

from cl.errors import ConfigurationError
from cl.loggers.base import ExperienceResult, Logger, RunInfo, series_of_step
from cl.report.plots import heat_map, to_pixels


class TensorBoardLogger(Logger):
    """Writes `tensorboard/` in the run folder:  tensorboard --logdir runs

    train/… over the steps of the optimiser; test/…, learnt/… and cost/… over experiences; the matrix as a
    picture, the configuration and the summary as text. A resumed run adds an event file; TensorBoard shows
    both as one run and drops what was repeated.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigurationError(
                'logger=tensorboard needs a package: pip install "palimpsest[tensorboard]"'
            ) from None
        self.create: Any = SummaryWriter
        self.writer: Any = None

    def start(self, run: RunInfo) -> None:
        self.run = run
        self.writer = self.create(str(run.folder / "tensorboard"))
        self._text("configuration", run.config)

    def step(self, values: dict[str, float]) -> None:
        for name, value in series_of_step(values).items():
            self.writer.add_scalar(f"train/{name}", value, int(values["total_steps"]))

    def experience(self, result: ExperienceResult) -> None:
        R, index = result.accuracy, result.index
        series = {f"test/{name}": value for name, value in result.metrics().items()}
        series |= {f"test/accuracy/task_{j + 1}": R[index, j] for j in range(index + 1)}
        series |= {f"learnt/{name}": value for name, value in result.logged.items()}
        series |= {f"cost/{name}": value for name, value in result.costs().items()}
        for name, value in series.items():
            self.writer.add_scalar(name, float(value), index)
        if index == self.run.experiences - 1:
            pixels = to_pixels(heat_map(R))
            self.writer.add_image("matrix/heat_map", pixels, index, dataformats="HWC")
        self.writer.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        self._text("summary", summary)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _text(self, name: str, content: dict[str, Any]) -> None:
        lines = (f"    {key}: {value}" for key, value in content.items())
        self.writer.add_text(name, "\n".join(lines))
