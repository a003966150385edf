"""Trainer settings that do not fit batches of identities, refused before anything is read."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities import rank_zero_warn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import emulates_bfloat16

#: Precisions of a trainer under which every method trains.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true")


def check_trainer(trainer: Trainer, stage: str) -> None:
    """Refuse settings of a trainer with which training would fail late, or train nothing; warn of one that crawls.

    Args:
        trainer: The trainer.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        VIReIDError: If there is such a setting; names it.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
        if isinstance(callback, LearningRateFinder):
            raise VIReIDError(
                "LearningRateFinder in trainer.callbacks sets an attribute that methods here do not have; train a few "
                "steps at several rates of optimization.lr instead (trainer.max_steps)."
            )
        if isinstance(callback, BatchSizeFinder):
            raise VIReIDError(
                "BatchSizeFinder in trainer.callbacks changes the batch, which is a setting of the experiment here; "
                "set data.identities_per_batch and data.images_per_modality by hand."
            )
    if str(trainer.precision) not in PRECISIONS:
        raise VIReIDError(
            f"trainer.precision is {trainer.precision}, with weights in half precision, in which batch normalisation "
            f"cannot keep its running statistics; set one of {', '.join(PRECISIONS)}."
        )
    if str(trainer.precision) == "bf16-mixed" and emulates_bfloat16(trainer.strategy.root_device):
        rank_zero_warn(
            "trainer.precision is bf16-mixed, as 16-mixed is on a processor too, and this one has no instructions for "
            "it, so that a step takes some 30 times as long as in float32. Set trainer.precision to 32-true."
        )
    if stage != "fit":
        return
    if getattr(trainer, "overfit_batches", 0) > 0:
        raise VIReIDError(
            "trainer.overfit_batches draws images one after the other, but training needs batches of identities: use "
            "trainer.limit_train_batches instead."
        )
    if trainer.limit_train_batches == 0:
        raise VIReIDError("trainer.limit_train_batches is 0, so that nothing is trained; leave it out.")
    if trainer.max_epochs == 0:  # max_steps of 0 prepares a method without training it
        raise VIReIDError("trainer.max_epochs is 0, so that nothing is trained; set 1 or more.")
    for name, least in (("accumulate_grad_batches", 1), ("check_val_every_n_epoch", 1), ("log_every_n_steps", 0)):
        value = getattr(trainer, name)
        if value is not None and value < least:
            raise VIReIDError(f"trainer.{name} is {value}; set {least} or more.")
    clip = trainer.gradient_clip_val
    if clip is not None and not 0 <= clip < math.inf:
        raise VIReIDError(f"trainer.gradient_clip_val is {clip}; set 0 or more, or null for no clipping.")
