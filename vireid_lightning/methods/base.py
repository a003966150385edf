"""The base of every method: what they share, and nothing that one of them owns."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import describe_run
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.methods.transfer import initialise_from
from vireid_lightning.types import Batch


class ReIDModule(LightningModule, ABC):
    """A method of visible-infrared person re-identification.

    A subclass's constructor takes keyword-only arguments with the paper's values as defaults, calls this one first,
    and then builds its networks. It implements :meth:`embed` and :meth:`training_step`. Its checkpoints rebuild it
    without a config: see :mod:`vireid_lightning.methods.checkpoint`.

    Args:
        num_classes: Number of training identities, ``datamodule.num_identities``; the command line fills it in. None
            builds no classifiers: such a module embeds images but cannot be trained.
        optimization: Optimiser and learning-rate schedule.
        init_from: Checkpoint of any method of this package whose encoder training starts from. Heads (``heads``) start
            fresh. A stem per modality starts from the checkpoint's stem of that modality, or from its single one; a
            single stem from the checkpoint's single or *visible* one. Not used where a run is resumed or a checkpoint
            is tested.

    Attributes:
        heads: Prefixes of the state dict's names that belong to the training identities or to the method's own
            objective and are never handed on to another model.
        uses_identities: Whether training reads identities. If not, the datamodule removes them and draws batches of
            equal numbers of visible and infrared images.
        training_arguments: Constructor arguments that shape no network: a resumed run takes them from its config, all
            others from the checkpoint.
        labels_images: Whether the method labels its training images itself and draws batches by these labels.
    """

    heads: ClassVar[tuple[str, ...]] = ()
    uses_identities: ClassVar[bool] = True
    labels_images: ClassVar[bool] = False
    training_arguments: ClassVar[tuple[str, ...]] = ("optimization",)

    def __init__(
        self, *, num_classes: int | None, optimization: Optimization | dict[str, Any], init_from: str | None = None
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 2:
            raise VIReIDError(f"num_classes is {num_classes}; training needs at least 2 identities.")
        self.num_classes = num_classes
        self.optimization = Optimization.of(optimization)
        # Collects the arguments of the subclass's constructor, which is still running, and of this one, of which it may
        # lack some. Values stay plain, so that a checkpoint loads with weights_only=True.
        missing = {"num_classes", "init_from"} - set(inspect.signature(type(self)).parameters)
        self.save_hyperparameters(ignore=["optimization", *missing])
        self.save_hyperparameters({"optimization": self.optimization.to_dict()})
        self._init_from = init_from

    @abstractmethod
    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return the retrieval embedding of a batch, the one that every score and search uses.

        Args:
            images: (B, 3, H, W) float, normalised.
            modality: (B,) int64, 0 visible, 1 infrared.

        Returns:
            (B, D) float32. Meant for eval mode.
        """

    def forward(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return :meth:`embed`."""
        return self.embed(images, modality)

    def require_classes(self) -> int:
        """Return the number of training identities, or say how to give it."""
        if self.num_classes is None:
            raise VIReIDError(
                f"{type(self).__name__} was built without num_classes and has no classifiers to train; build it with "
                "num_classes=datamodule.num_identities."
            )
        return self.num_classes

    def _check_classes(self) -> None:
        classes = self.require_classes()
        identities = getattr(getattr(self.trainer, "datamodule", None), "num_identities", classes)
        if classes < identities:
            raise VIReIDError(
                f"num_classes is {classes}, but the training set has {identities} identities; leave num_classes out of "
                "the config, or set it to at least that number."
            )

    def combine(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], batch: Batch) -> Tensor:
        """Log each loss term as ``train/<term>``, check it, and return the weighted sum.

        Args:
            terms: Scalars, unweighted, in the order in which they are reported.
            weights: Weight of a term by name; 1 where a name is missing.
            batch: The batch that they come from, for the error's sake.

        Raises:
            VIReIDError: If a term is not finite; names the step, the terms and the batch's images.
        """
        loss = torch.stack([weights.get(name, 1.0) * term.float() for name, term in terms.items()]).sum()
        if not torch.isfinite(loss):
            bad = [f"{name}={term.item()}" for name, term in terms.items() if not torch.isfinite(term)]
            raise VIReIDError(
                f"The loss is not finite at step {self.global_step} of epoch {self.current_epoch} "
                f"({', '.join(bad) or f'the sum of the terms is {loss.item()}'}). Lower optimization.lr or train with "
                f"--trainer.precision 32-true or bf16-mixed. The batch: {', '.join(self._paths(batch))}."
            )
        size = len(batch["identity"])
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)
        values = {f"train/{name}": term.detach().float() for name, term in terms.items()}
        values["train/loss"] = loss.detach()
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the batch's embeddings and its samples' positions in the split; a callback scores them."""
        return {"embedding": self.embed(batch["image"], batch["modality"]).float(), "index": batch["index"]}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`validation_step` returns."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`validation_step` returns."""
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser and the schedule of ``optimization``."""
        return self.optimization.build(self, self.trainer.max_epochs or 1)

    def setup(self, stage: str) -> None:
        """Start from ``init_from``, once, unless the run's weights come from a checkpoint of its own."""
        if stage == "fit":
            self._check_classes()
        if self._init_from is not None and self.trainer.ckpt_path is None:
            self.print(initialise_from(self, self._init_from))
        self._init_from = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds method, preprocessing, identity map and dataset trial without the config."""
        describe_run(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loaded weights: ``init_from`` has done its part in the run that wrote them."""
        self._init_from = None

    def _paths(self, batch: Batch) -> list[str]:
        """Return the batch's image paths where the datamodule knows them, else positions in the split."""
        samples = getattr(getattr(self.trainer, "datamodule", None), "train_samples", None)
        return [samples[i].path if samples else f"#{i}" for i in batch["index"].tolist()]
