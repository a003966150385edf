"""From loading processes to a normalised batch on the device."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD


class LateDataLoader(DataLoader[Any]):
    """A DataLoader whose workers start on the first batch instead of when the iterator is made.

    Lightning makes the first iterator of a resumed run before it tells the sampler the epoch; workers that start at
    once would load batches of another epoch.

    Args:
        arguments: Arguments of a DataLoader; its ``sampler`` has an attribute ``first_step``.
        steps_done: Returns, for this loader, the number of batches that the pass which begins leaves out: those that a
            run had seen of its epoch before it was stopped.
    """

    def __init__(
        self, *arguments: Any, steps_done: Callable[[DataLoader[Any]], int] = lambda _: 0, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.steps_done = steps_done

    # A generator, unlike DataLoader's, so that nothing happens before the first batch.
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches that are left of the epoch."""
        self.sampler.first_step = self.steps_done(self)  # type: ignore[attr-defined]  # all of our training samplers'
        yield from super().__iter__()


def start_worker(worker: int) -> None:
    """Keep OpenCV from starting a thread for each core in each loading process.

    Signals that ask a whole group of processes to stop are left to the main one, which needs its loaders until it has
    saved its state. Where that one is gone, a batch that was on its way to it is no error to show.
    """
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    report = sys.excepthook

    def report_own(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (ConnectionError, EOFError)):
            report(kind, error, trace)

    sys.excepthook = report_own


def normalize(image: Tensor, erased: Tensor | None = None) -> Tensor:
    """Normalise images with the mean and standard deviation of ImageNet.

    Args:
        image: (N, 3, H, W) uint8, RGB.
        erased: (N, H, W) bool; these pixels become exactly 0.

    Returns:
        (N, 3, H, W) float32 on the same device.
    """
    mean, std = (torch.tensor(values, device=image.device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalized = image.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)
    return normalized if erased is None else normalized.masked_fill_(erased.unsqueeze(1), 0)
