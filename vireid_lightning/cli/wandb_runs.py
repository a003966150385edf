"""One run of the command line is one run of Weights & Biases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def close_wandb_run() -> Iterator[None]:
    """Close the W&B run that is opened within.

    A logger takes up the run that its process has open, so that two trainings from one notebook would be logged as one.
    A run that was open before stays open: it is the caller's.
    """
    before, failed = _find_open(), 1
    try:
        yield
        failed = 0
    finally:
        run = _find_open()
        if run is not None and run is not before:
            run.finish(exit_code=failed)


def _find_open() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)  # not imported where nobody logs to it
