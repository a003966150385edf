"""The checkpoints of a run: the best weights, and the end of the last epoch."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastAndBest(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose ``last.ckpt`` is that of the last epoch.

    Lightning (2.6) writes ``last.ckpt`` only when it writes another checkpoint, such as a new best one: a run whose
    score stopped rising would be resumed from, and scored at, an epoch long past. Here ``save_last`` writes it at the
    end of every epoch, after its validation, so that a run that was killed loses one epoch at most.

    Example:
        >>> LastAndBest(monitor="val/mAP", mode="max", filename="best", save_last=True).save_last
        True
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's checkpoint."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.save_last or trainer.fast_dev_run:
            return
        self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
