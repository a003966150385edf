"""The checkpoints of a run: the best weights, the end of the last epoch, and where a signal stopped it."""

from __future__ import annotations

import functools
import inspect
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from vireid_lightning.callbacks.monitors import check_monitors
from vireid_lightning.callbacks.signals import RunStopped, StopSignals
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import require_writable
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.methods.progress import begin_validation_anew


class LastAndBest(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose ``last.ckpt`` is that of the last epoch.

    Lightning (2.6) writes ``last.ckpt`` only when it writes another checkpoint, such as a new best one: a run whose
    score stopped rising would be resumed from, and scored at, an epoch long past. Here ``save_last`` writes it at the
    end of every epoch, after its validation, so that a run that was killed loses one epoch at most. A run that goes on
    in another folder knows the best score of the first one, and its file.

    SIGTERM, SIGINT and SLURM's request to requeue end training after the current step: its state is written to
    ``last.ckpt``, from which the run goes on with the batches that are left, and
    :class:`~vireid_lightning.callbacks.signals.RunStopped` ends the program. A method that cannot go on within an epoch
    (``resumes_within_epochs``) goes on from the end of the last one.

    Example:
        >>> LastAndBest(monitor="val/mAP", mode="max", filename="best", save_last=True).save_last
        True
    """

    _signals: StopSignals | None = None
    _in_validation = False
    _resumed: str | None = None

    @functools.wraps(ModelCheckpoint.__init__)  # type: ignore[misc]  # the signature that its help is made of
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        given = inspect.signature(ModelCheckpoint).bind(*arguments, **settings).arguments
        check_kinds(given, ModelCheckpoint.__init__)
        for name, least in (("save_top_k", -1), ("every_n_train_steps", 0), ("every_n_epochs", 0)):
            if given.get(name) is not None:
                check_number(name, given[name], least, whole=True)
        if given.get("mode", "min") not in ("min", "max"):
            raise VIReIDError(f"mode is {given['mode']!r}; give min or max.")
        super().__init__(*arguments, **settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written, and a name of a score that is misspelt.

        In a run that has no images to validate on only ``last.ckpt`` is written.

        Raises:
            VIReIDError: If there is either.
        """
        validated = getattr(trainer.datamodule, "eval_samples", None)  # type: ignore[attr-defined]  # set from outside
        if stage == "fit" and self.save_last and validated is not None and not validated("validate"):
            self.monitor, self.save_top_k = None, 0
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            for folder, what in ((self.dirpath, "checkpoints"), (trainer.log_dir, "logs")):
                if folder is not None:
                    require_writable(folder, what)
            check_monitors(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which checkpoint the run goes on from; Lightning hands over the callback's own state next."""
        self._resumed = str(trainer.ckpt_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far, which Lightning forgets in a new folder.

        Its file is looked for beside the checkpoint that the run goes on from, whose folder may have been moved, and
        where the run that wrote the checkpoint had it: that run may itself have gone on from an older folder.
        """
        resumed = Path(str(self._resumed)).resolve()
        models = {}
        for path, score in state_dict["best_k_models"].items():
            if (found := find_moved(path, state_dict["dirpath"], resumed.parent)) is not None:
                models[str(found)] = score
        best, worst = (
            find_moved(state_dict[name], state_dict["dirpath"], resumed.parent)
            for name in ("best_model_path", "kth_best_model_path")
        )
        state = {**state_dict, "best_model_path": "", "last_model_path": str(self._resumed)}
        if best is not None:
            paths = {"best_model_path": str(best), "kth_best_model_path": str(worst or ""), "best_k_models": models}
            super().load_state_dict({**state, **paths, "dirpath": self.dirpath})
        else:
            super().load_state_dict(state)
            self.last_model_path = str(self._resumed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for signals, in place of Lightning."""
        super().on_train_start(trainer, pl_module)
        self._signals = StopSignals()
        self._signals.install(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop here if a signal asks for it, unless more belongs to the step: gradients to add, or a validation."""
        super().on_train_batch_end(trainer, pl_module, *arguments)
        if self._signals is None or not self._signals.agree(trainer):
            return
        done = int(arguments[-1]) + 1
        interval = trainer.val_check_batch
        ends_epoch = done >= trainer.num_training_batches
        is_validated = interval is not None and interval != float("inf") and done % int(interval) == 0
        if not (ends_epoch or is_validated or done % trainer.accumulate_grad_batches):
            self._stop(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before a validation within training if a signal asks for it; the resumed run begins with it."""
        if self._signals is not None and self._signals.agree(trainer):
            self._in_validation = True
            self._stop(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say that a validation is due, where one is."""
        if self._in_validation:
            begin_validation_anew(checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's checkpoint, and stop if a signal asks for it."""
        super().on_train_epoch_end(trainer, pl_module)
        is_asked = self._signals is not None and self._signals.agree(trainer)
        if self.dirpath is not None and (self.save_last or is_asked):
            self._save_last(trainer)
        if is_asked:
            self._stop(trainer, pl_module, saved=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave ``last.ckpt`` as the last epoch wrote it."""
        self._forget_signals()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._forget_signals()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._forget_signals()
        if not isinstance(exception, RunStopped):
            super().on_exception(trainer, pl_module, exception)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
        """Leave ``last.ckpt`` to the end of the epoch, unless checkpoints are asked for within epochs."""
        if self._every_n_train_steps or self._train_time_interval is not None or trainer.interrupted:
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def _save_last(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
            return
        path = Path(self.dirpath or "") / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        before, self.last_model_path = self.last_model_path, str(path)
        try:
            trainer.save_checkpoint(path, self.save_weights_only)
        except BaseException:
            self.last_model_path = before
            raise

    def _stop(self, trainer: Trainer, pl_module: LightningModule, *, saved: bool = False) -> None:
        """Save the run's state and end the program."""
        signals = self._signals
        assert signals is not None
        if not saved and getattr(pl_module, "resumes_within_epochs", True):
            self._save_last(trainer)
        signals.requeue(trainer)
        path = self.last_model_path
        raise RunStopped(signals.received, path if path and Path(path).is_file() else None)

    def _forget_signals(self) -> None:
        if self._signals is not None:
            self._signals.remove()
            self._signals = None
        self._in_validation = False


def find_moved(path: str, folder: str, now: Path) -> Path | None:
    """Return where a checkpoint is that another one names, or None.

    Args:
        path: The checkpoint, as a run named it.
        folder: The run's folder of checkpoints then.
        now: The folder of the run's own checkpoint today.
    """
    if not path:
        return None
    related = now / os.path.relpath(path, folder)
    return next((each.resolve() for each in (now / Path(path).name, related, Path(path)) if each.is_file()), None)
