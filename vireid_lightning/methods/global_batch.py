"""The batch of all processes as a method sees it: one training objective, in however many processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.autograd.function import once_differentiable

from vireid_lightning.data.training_data import TrainingData
from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.synced_batch_norm import BatchNormSync
from vireid_lightning.types import VISIBLE


class GlobalBatch(LightningModule):
    """What makes R processes minimise the function that one process minimises on the same batch.

    The gradients of R processes are averaged, so they minimise the mean of the losses that the processes return. That
    mean is the loss of the whole batch where every process

    - computes what compares images, or counts them, from rows of all processes: :meth:`gather`;
    - or returns the mean of a value that each of its own images has, since all processes have equally many images;
    - or divides a sum over its own images by the mean of all processes' counts: :meth:`mean_count`.

    Random draws are those of an image's place in the whole batch: :meth:`draw`.

    Attributes:
        gathers: Whether :meth:`gather` and :meth:`mean_count` reach over the processes; otherwise the losses are those
            of each process's own images.
        training_data: What the method was told of its data; None before training and where there is no datamodule.
    """

    gathers: bool
    training_data: TrainingData | None
    _step: int

    def __init__(self) -> None:
        super().__init__()
        self._gathered = False

    @property
    def draw_key(self) -> tuple[int, int, int, int]:
        """Seed, epoch, 0 and step within the epoch: what the random draws of a training step follow from.

        It is the same in every process; :meth:`draw` gives each image a draw of its own. The third number was that of
        the process, and stays so that runs of one process draw as they did.
        """
        data = self.training_data
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if data is None else data.seed
        return seed, self.current_epoch, 0, self._step

    @overload
    def gather(self, rows: Tensor, /) -> Tensor: ...

    @overload
    def gather(self, *rows: Tensor) -> tuple[Tensor, ...]: ...

    def gather(self, *rows: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the rows of tensors (B, ...) of all processes, with gradient: (R * B, ...), process after process.

        Losses of gathered tensors are those of the whole batch, whatever their form, and need no scaling. Outside of
        training, in one process, and with ``gather: false``, the tensors come back as they are.

        Args:
            rows: Tensors whose first dimension is the process's batch, such as embeddings and labels.

        Returns:
            As many tensors, or the one itself where one is given.

        Example:
            >>> pooled, identity = self.gather(pooled, batch["identity"])  # doctest: +SKIP
        """
        if self._reaches_over():
            rows = tuple(_Gather.apply(each) for each in rows)
        self._gathered = True
        return rows if len(rows) != 1 else rows[0]

    def mean_count(self, count: Tensor) -> Tensor:
        """Return the mean over processes of a number of things in the process's batch.

        A process that divides a sum over its own things by it has, on average, what one process would have.

        Args:
            count: A tensor without gradient, such as the number of pixels that have a loss term.
        """
        self._gathered = True
        if not self._reaches_over():
            return count
        total = count.detach().float()
        torch.distributed.all_reduce(total)
        return total / torch.distributed.get_world_size()

    def draw(self, modality: Tensor, function: Callable[[int, Sequence[int]], Tensor]) -> Tensor:
        """Return a random draw for each image of the batch: that of its place in the batch of all processes.

        Args:
            modality: (B,) int64 of the process's batch.
            function: Function from a number of images and a key to that many draws, which follow from the key alone,
                such as :func:`~vireid_lightning.modules.draw_channels`.

        Returns:
            (B, ...) on the device of ``modality``.
        """
        processes = 1 if self._trainer is None else self.trainer.world_size
        drawn = function(len(modality) * processes, self.draw_key).to(modality.device)
        return drawn if processes == 1 else drawn[find_places(modality, processes, self.global_rank)]

    def setup(self, stage: str) -> None:
        """Have ``trainer.sync_batchnorm`` done by our own layers, which keep timm's activations and run on the CPU."""
        strategy = self.trainer.strategy
        # Lightning names the plugin nowhere else; it applies it between this and the first step.
        if stage == "fit" and getattr(strategy, "_layer_sync", None) is not None:
            strategy._layer_sync = BatchNormSync(strategy.root_device)  # type: ignore[attr-defined]

    @property
    def synchronises_normalisation(self) -> bool:
        """Whether batch normalisation runs over the images of all processes."""
        return isinstance(getattr(self.trainer.strategy, "_layer_sync", None), BatchNormSync)

    def _reaches_over(self) -> bool:
        return self.gathers and self._trainer is not None and self.trainer.training and self.trainer.world_size > 1

    def _check_processes(self, count: int) -> None:
        """Check that batches which are not of our samplers have as many images in every process.

        Raises:
            VIReIDError: If the processes have different numbers of images.
        """
        if not self._reaches_over() or self.training_data is not None:
            return
        device = self.device
        counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(counts, torch.tensor(count, device=device))
        if len(found := {int(each) for each in counts}) > 1:
            raise VIReIDError(
                f"The processes have batches of {min(found)} to {max(found)} images, but losses over all processes "
                "need equally many in each: let the loader drop the last batch, or set the model's gather to false."
            )

    def _remark_on_gathering(self) -> None:
        """Say, once, that a method's losses never look beyond their process."""
        if self._reaches_over() and not self._gathered:
            self._gathered = True
            rank_zero_warn(
                f"{type(self).__name__}.losses does not call self.gather: what it compares are the images of each of "
                f"{self.trainer.world_size} processes alone, not those of the whole batch. Gather embeddings and "
                "labels first, or, where each term is a mean over images, set gather to false."
            )


class _Gather(torch.autograd.Function):
    """The rows of all processes; what each process makes of them reaches the gradient of the process they are from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        own = rows.contiguous()
        parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        total = grad_output.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        first = torch.distributed.get_rank() * ctx.count
        return total[first : first + ctx.count]


def find_places(modality: Tensor, processes: int, rank: int) -> Tensor:
    """Return where the images of a process lie in the batch that one process would have, (B,) int64.

    That is the order of our samplers: the visible images of all processes, process after process, and then the infrared
    ones.

    Args:
        modality: (B,) int64 of the process's batch; all processes have as many images of each modality.
        processes: Number of processes.
        rank: Number of the process.

    Example:
        >>> find_places(torch.tensor([0, 0, 1, 1]), processes=3, rank=1)
        tensor([2, 3, 8, 9])
    """
    visible = modality == VISIBLE
    within = torch.where(visible, visible.cumsum(0), (~visible).cumsum(0)) - 1
    counts = torch.stack([visible.sum(), (~visible).sum()])
    own, before = torch.where(visible, counts[0], counts[1]), torch.where(visible, 0, processes * counts[0])
    return before + rank * own + within
