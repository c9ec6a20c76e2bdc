"""The command line: Hydra's, with an answer to typos that says what to type instead.

Torch is not imported before the configuration is composed and checked.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

from cl import __version__
from cl.config import check_interpolations
from cl.errors import PalimpsestError
from cl.output import outlive_readers
from cl.overrides import check, composing

CONFIGS = "pkg://configs"


def main() -> None:
    """Compose the configuration from `sys.argv`, check it, and run the experiment (or the sweep)."""
    sys.path.append(str(Path.cwd()))  # a user's own module next to where she types the command
    outlive_readers()
    if "--version" in sys.argv[1:]:
        print(f"palimpsest {__version__}")
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed
    try:
        with composing():
            sys.argv[1:] = expand_targets(sys.argv[1:])
            check(sys.argv[1:])
            hydra.main(version_base="1.3", config_path=CONFIGS, config_name="config")(_run)()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")


def _run(cfg: DictConfig) -> float:
    """One run; returns its `optimised_metric`.

    Nothing but SystemExit and KeyboardInterrupt leaves it, or Hydra would answer.
    """
    outlive_readers()  # a launcher may have started this process without `main`
    try:
        load(quiet=bool(OmegaConf.select(cfg, "trainer.quiet")))
        from cl import sweep

        if sweep.is_sweep():
            return sweep.run(cfg)
        return _run_one(cfg)
    except Exception as error:
        _end(error)


def load(quiet: bool = False) -> None:
    """Import torch and what needs it, unless it is there; tell her who waits for it, unless `quiet`."""
    if "torch" in sys.modules:
        return
    if not quiet and "LOCAL_RANK" not in os.environ:  # of several processes the first one speaks
        print("Loading PyTorch …", file=sys.stderr)
    gc.disable()  # what is imported stays: to look for garbage in it takes a quarter of the time
    try:
        import cl.sweep  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _run_one(cfg: DictConfig) -> float:
    from cl.evaluation.optimised import optimised
    from cl.experiment import start

    check_interpolations(cfg)
    experiment = start(cfg)
    try:
        return optimised(experiment.run(), cfg.optimised_metric)
    except KeyboardInterrupt:
        print(f"\nStopped. {experiment.again}", file=sys.stderr)
        sys.exit(130)


def _end(error: Exception) -> NoReturn:
    """Say what is wrong, with a traceback if it is nobody's mistake that we know of."""
    from cl.guards import refusal
    from cl.stopping import StoppedError

    if isinstance(error, StoppedError):
        print(f"\n{error}", file=sys.stderr)
        sys.exit(error.status)
    told = str(error) if isinstance(error, PalimpsestError) else refusal(error, Path.cwd())
    if told is None:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(f"error: {told}")


def expand_targets(argv: list[str]) -> list[str]:
    """`strategy._target_=X` alone stands for "no preset, only X and the arguments that I give"."""
    for group in ("strategy", "stream"):
        names = [argument.split("=")[0].lstrip("+") for argument in argv]
        if f"{group}._target_" in names and group not in names:
            argv = [
                f"++{argument.lstrip('+')}"
                if argument.lstrip("+").startswith(f"{group}.")
                else argument
                for argument in argv
            ]
            argv.append(f"{group}=custom")
    return argv
