"""What the command line's runs show while they last, and what they leave when they fail at once."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn, RichProgressBarTheme
from rich.progress import BarColumn


class ProgressLine(RichProgressBar):
    """Lightning's progress bar in one line of 80 columns: the loss, and Rank-1 and mAP of the last validation."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=".3g"))

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Leave out the speed, which the times beside it tell too, and make the bar short where room is scarce."""
        columns = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 8 if shutil.get_terminal_size().columns < 110 else 40
        return [column for column in columns if not isinstance(column, ProcessingSpeedColumn)]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what the line shows, by short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {
            name.removeprefix("val/"): metrics[name] for name in ("loss", "val/rank1", "val/mAP") if name in metrics
        }


class RemoveEmptyFolder(Callback):
    """Removes the folder that a logger made for a run which failed before anything was written to it."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the folder if it is empty. Processes do not wait for each other here: others may go on."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            folder = getattr(logger, "log_dir", None)
            if folder is not None:
                with suppress(OSError):  # it is not empty, or not there
                    Path(folder).rmdir()
