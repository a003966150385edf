"""Checkpoints are written beside their target, brought to the disk, and then moved into place."""

from __future__ import annotations

import io
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import atomic_write


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's files, but a checkpoint is whole at every moment, also where the machine stops while one is written.

    Lightning writes into the temporary folder and moves the file from there, which copies it where the two are on
    different disks: a run killed then, or a full disk, leaves a checkpoint cut short. Every :class:`ReIDModule` uses
    this class unless the Trainer has another plugin of its kind.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint; where that fails, the earlier file of the same name is as it was.

        Raises:
            VIReIDError: If the system refuses to write, for example because the disk is full.
        """
        if storage_options is not None or "://" in str(path):  # other storage than files of this machine
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # Not straight into the file: torch's writer does not survive an error of the system in the middle of it.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_write(path, durable=True) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise VIReIDError(
                f"The checkpoint {path} could not be written: {error.strerror or error}. An earlier file of this name "
                "is as it was; make room, or write elsewhere (--checkpoint.dirpath), and go on from it."
            ) from error


def use_durable_checkpoints(trainer: Trainer) -> None:
    """Have a Trainer write its checkpoints by :class:`DurableCheckpointIO`, unless it was given another plugin."""
    try:
        is_default = type(trainer.strategy.checkpoint_io) is TorchCheckpointIO
    except NotImplementedError:  # a strategy that shards its files
        return
    if is_default:
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
