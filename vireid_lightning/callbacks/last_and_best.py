"""The checkpoints of a run: the best weights, and the end of the last epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastAndBest(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose ``last.ckpt`` is that of the last epoch.

    Lightning (2.6) writes ``last.ckpt`` only when it writes another checkpoint, such as a new best one: a run whose
    score stopped rising would be resumed from, and scored at, an epoch long past. Here ``save_last`` writes it at the
    end of every epoch, after its validation, so that a run that was killed loses one epoch at most. A run that goes on
    in another folder knows the best score of the first one.

    Example:
        >>> LastAndBest(monitor="val/mAP", mode="max", filename="best", save_last=True).save_last
        True
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for no best score in a run that has no images to validate on: only ``last.ckpt`` is written."""
        validated = getattr(trainer.datamodule, "eval_samples", None)  # type: ignore[attr-defined]  # set from outside
        if stage == "fit" and self.save_last and validated is not None and not validated("validate"):
            self.monitor, self.save_top_k = None, 0
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which checkpoint the run goes on from; Lightning hands over the callback's own state next."""
        self._resumed = trainer.ckpt_path

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far, which Lightning forgets in a new folder.

        Its file is looked for beside the checkpoint that the run goes on from, whose folder may have been moved.
        """
        folder = Path(str(self._resumed)).resolve().parent
        best = folder / Path(state_dict["best_model_path"]).name
        if state_dict["best_model_path"] and best.is_file():
            models = {str(folder / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
            paths = {"best_model_path": str(best), "best_k_models": models, "last_model_path": str(self._resumed)}
            paths["kth_best_model_path"] = str(folder / Path(state_dict["kth_best_model_path"]).name)
            super().load_state_dict({**state_dict, **paths, "dirpath": self.dirpath})
        else:
            super().load_state_dict({**state_dict, "best_model_path": ""})
            self.last_model_path = str(self._resumed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's checkpoint."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.save_last or self.dirpath is None:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
            return
        self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave ``last.ckpt`` as the last epoch wrote it."""
