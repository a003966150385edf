"""Runs whose processes are started by the strategy and gone when it returns: ``ddp_spawn`` and ``ddp_notebook``.

Of such a process Lightning brings back the weights and the best checkpoint's path, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def trains_elsewhere(trainer: Trainer) -> bool:
    """Whether training runs in processes that are gone when ``trainer.fit`` returns."""
    # Only the launcher of such processes has a method of starting them.
    return getattr(trainer.strategy.launcher, "_start_method", None) is not None


def settle_folders(trainer: Trainer, model: LightningModule) -> None:
    """Choose the run's folders here, so that they are known when its processes are gone."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger | TensorBoardLogger):
            logger.version  # noqa: B018  # the first question numbers the run
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.setup(trainer, model, "validate")  # as for "fit", without a remark on a folder that exists


def recall_run(trainer: Trainer, checkpoint: ModelCheckpoint) -> None:
    """Note the last checkpoint that the processes wrote, and keep a test from starting the run's CSV log anew."""
    path = Path(str(checkpoint.dirpath)) / f"{checkpoint.CHECKPOINT_NAME_LAST}{checkpoint.FILE_EXTENSION}"
    if checkpoint.save_last and path.is_file():
        checkpoint.last_model_path = str(path)
    trainer.loggers = [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]
