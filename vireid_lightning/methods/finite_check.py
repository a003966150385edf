"""The check that a step's loss is finite, which on a GPU is read a step later, so that nothing waits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError


class _Step(NamedTuple):
    """What is known of a step: names of its terms, their values with the sum as the last, and its place and images."""

    names: list[str]
    values: Tensor
    step: int
    epoch: int
    images: Tensor | None


class FiniteCheck:
    """Holds a step's loss until it is read.

    The values are copied to the host while the device goes on. By the next step they are there, and reading them waits
    for nothing that the step does not wait for anyway.
    """

    def __init__(self) -> None:
        self._step: _Step | None = None
        self._copied: torch.cuda.Event | None = None

    def note(self, terms: Mapping[str, Tensor], loss: Tensor, index: Tensor | None, *, step: int, epoch: int) -> None:
        """Hold a step's terms and their weighted sum.

        Args:
            terms: Scalars by name.
            loss: Their weighted sum.
            index: (B,) int64, the images of the batch; None where the batch does not say.
            step: Number of the step in the run.
            epoch: Number of its epoch.
        """
        values = torch.stack([*(term.detach().to(loss.dtype) for term in terms.values()), loss.detach()])
        self._step = _Step(list(terms), values.to("cpu", non_blocking=True), step, epoch, index)
        self._copied = torch.cuda.Event() if loss.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def settle(self, name_images: Callable[[list[int]], list[str]]) -> None:
        """Check the step that is held, if any.

        Args:
            name_images: Function from positions in the training set to the names of images.

        Raises:
            VIReIDError: If a term is not finite; names the step, the terms and the batch's images.
        """
        held, self._step = self._step, None
        if held is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        if held.values[-1].isfinite():
            return
        *values, total = held.values.tolist()
        bad = [f"{name}={value}" for name, value in zip(held.names, values) if not -torch.inf < value < torch.inf]
        images = ["unknown images"] if held.images is None else name_images(held.images.tolist())
        raise VIReIDError(
            f"The loss is not finite at step {held.step} of epoch {held.epoch} "
            f"({', '.join(bad) or f'the sum of the terms is {total}'}). Lower optimization.lr or train with "
            f"--trainer.precision 32-true or bf16-mixed. The batch: {', '.join(images)}."
        )
