"""What a method does with all images at once, in however many processes it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from vireid_lightning.errors import VIReIDError

_Result = TypeVar("_Result")


@torch.no_grad()
def extract_all(
    module: LightningModule,
    loader: DataLoader[dict[str, Any]],
    count: int,
    features: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Run a function of images over a whole list of them, in eval mode, and gather it in every process.

    Args:
        module: The method, under a Trainer with a datamodule.
        loader: This process's part of the images: positions r, r + R, ... of R processes.
        count: Number of images in the whole list.
        features: Function from images and modality to (B, D).

    Returns:
        (count, D) float32 on the module's device, in the order of the list.
    """
    trainer, training, parts = module.trainer, module.training, []
    datamodule: LightningDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set but not declared
    if trainer.world_size > 1:
        # Each process has running statistics of its own until DDP's next forward pass, which this is not.
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
    module.eval()
    for batch in loader:
        batch = datamodule.on_after_batch_transfer(move_data_to_device(batch, module.device), 0)
        with trainer.precision_plugin.forward_context():
            parts.append((batch["index"], features(batch["image"], batch["modality"]).float()))
    module.train(training)
    positions, values = (torch.cat(each) for each in zip(*parts))
    # Processes may differ by one in length; what fills the shorter ones up goes to a last row, which is cut off.
    lacking = -(-count // trainer.world_size) - len(positions)
    positions = gather_rows(module, F.pad(positions, (0, lacking), value=count))
    values = gather_rows(module, F.pad(values, (0, 0, 0, lacking)))
    gathered = values.new_empty(count + 1, values.shape[1])
    gathered[positions] = values
    return gathered[:count]


def gather_rows(module: LightningModule, tensor: Tensor) -> Tensor:
    """Return the rows of a tensor (B, ...) of every process, one process after the other, without gradient."""
    return cast("Tensor", module.all_gather(tensor)).view(-1, *tensor.shape[1:])


def on_first_process(trainer: Trainer, function: Callable[[], _Result]) -> _Result:
    """Return in every process what a function returns in the first; raise in all what it raises there.

    Raises:
        VIReIDError: What the function raised, or, in the other processes, that it raised something else.
    """
    if trainer.world_size == 1:
        return function()
    result: _Result | None = None
    failure: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = function()
        except Exception as error:  # whatever it is, the others wait for word of it
            failure = error
    known = failure is None or isinstance(failure, VIReIDError)
    told = failure if known else VIReIDError(f"Process 0: {failure!r}")
    result, told = trainer.strategy.broadcast((result, told))
    if told is not None:
        raise failure or told
    return cast("_Result", result)
