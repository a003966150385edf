"""What the loop around a training step costs: the Trainer, logging, and the loader with its processes."""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from vireid_lightning.methods import ReIDModule


class _StepTimes(Callback):
    """Notes when each training step of a loop ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())


def time_loop(
    module: ReIDModule, data: LightningDataModule, precision: str, device: torch.device, *, rounds: int, warmup: int
) -> float:
    """Return the median time in seconds from the end of a training step to the end of the next, under a Trainer.

    Args:
        module: The method; trained.
        data: Its data, with the loader that training has.
        precision: ``float32`` or ``bfloat16``.
        device: Where it runs.
        rounds: Number of measured steps.
        warmup: Number of steps before.
    """
    times = _StepTimes(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers
        trainer = Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_steps=rounds + warmup + 1,
            callbacks=[times],
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    return statistics.median(end - start for start, end in zip(times.ends[warmup:], times.ends[warmup + 1 :]))
