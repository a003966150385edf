"""MMGL: self-supervised pre-training on visible and infrared images, without labels or ImageNet weights."""

from __future__ import annotations

from typing import ClassVar, Literal, TypedDict, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from vireid_lightning.data.samplers.choice import BatchKind
from vireid_lightning.data.training_data import TrainingData
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.losses.cycle_contrastive import cycle_contrastive_loss, cycle_return_loss
from vireid_lightning.losses.permutation_recovery import permutation_recovery_loss, recover_order, sinkhorn
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.mmgl.stripe_recovery import StripeRecovery
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.modality_rows import ModalityRows
from vireid_lightning.modules.stripes import PartHead, PermutationHead, draw_orders, require_stripes, shuffle_stripes
from vireid_lightning.modules.trunk import BackboneSettings
from vireid_lightning.types import Batch

#: Form of part-aware cycle-contrastive learning.
CycleForm = Literal["agreement", "return"]

#: Streams of random orders that never meet.
_TRAINING, _EVALUATION = 0, 1


class SinkhornSettings(TypedDict):
    """Arguments of Sinkhorn's algorithm."""

    rounds: int
    temperature: float


class MMGL(ReIDModule):
    """Modality-shared feature learning without ImageNet or labels (Wan et al., IEEE TIFS 2023, arXiv 2112.06147).

    The horizontal stripes of each image are shuffled, in an order of its own. Two tasks on the stage-4 map:
    permutation recovery (find the order; one head for both modalities) and part-aware cycle-contrastive learning (what
    a part retrieves from the visible and from the infrared parts of the batch must agree, or lead back to it). The loss
    is permutation_weight * permutation recovery + cycle_weight * cycle-contrastive.

    Identities are never read: batches hold equal numbers of visible and infrared images, P * K of each
    (``identities_per_batch`` and ``images_per_modality`` of the datamodule), drawn without them. Other methods
    start from a checkpoint of this one by their ``init_from``.

    In validation and testing, on shuffled images whose orders depend only on their place in the split, it logs
    ``val/permutation_accuracy``, ``val/stripe_match``, ``val/stripe_return``, each also by modality, and
    ``val/feature_spread``; see :class:`~vireid_lightning.methods.mmgl.stripe_recovery.StripeRecovery`.

    Args:
        pretrained: Whether the backbone starts from trained weights. The method is about starting from random ones,
            timm's: for a ResNet Kaiming's, with the last BatchNorm of every residual branch at 0.
        two_stream_until: Number of parts of the backbone that exist per modality: 1, the stem, is the two-stream
            network; 0 is the one-stream one.
        stripes: Number d of stripes, which must divide the image's height, and the height of the stage-4 map where
            parts are learned.
        permutation_weight: Weight of the permutation recovery; 0 builds no head for it. The loss is a mean over a
            matrix's entries; d * d, 36, makes it the squared error of the matrix. On synthetic pedestrians, beside the
            cycle-contrastive loss, orders were not recovered in 1,200 steps with 1 and began to be in 400 with 36.
        cycle_weight: Weight of the cycle-contrastive loss; 0 builds no head for it.
        cycle_form: Form of the cycle-contrastive loss, which the paper leaves open: ``agreement`` (what a part
            retrieves from either modality must agree) or ``return`` (a part's neighbour in the other modality must
            lead back to the part itself).
        cycle_start: Epoch, from 0, from which the cycle-contrastive loss counts. Before it, the loss is logged and
            weighs 0, so that permutation recovery can begin to work first.
        sinkhorn_rounds: Number of normalisations of rows and columns by Sinkhorn's algorithm.
        sinkhorn_temperature: Divisor of the permutation head's scores.
        part_dimension: Length of a part feature.
        temperature: Temperature t of the cycle-contrastive loss.
        optimization: Optimiser and schedule: SGD at 0.1 (the paper's), cosine to 0 after 10 epochs of warm-up (ours).
            ``lr_factors: {part_head: 0.25}`` gives the cycle-contrastive head a rate of its own.

    Raises:
        VIReIDError: If the backbone does not fit, or an argument is out of its range; in training, if the stripes do
            not fit the image's height.
    """

    heads: ClassVar[tuple[str, ...]] = ("permutation_head.", "part_head.")
    batches: ClassVar[BatchKind] = "modality"

    def __init__(
        self,
        *,
        backbone: type[nn.Module] | str = "resnet50",
        pretrained: bool = False,
        weights: str | None = None,
        backbone_settings: BackboneSettings = BackboneSettings(),
        two_stream_until: int = 1,
        stripes: int = 6,
        permutation_weight: float = 1.0,
        cycle_weight: float = 0.5,
        cycle_form: CycleForm = "agreement",
        cycle_start: int = 0,
        sinkhorn_rounds: int = 20,
        sinkhorn_temperature: float = 1.0,
        part_dimension: int = 256,
        temperature: float = 0.07,
        optimization: Optimization = Optimization(optimizer="sgd", lr=0.1, schedule="cosine", warmup_epochs=10),
        init_from: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(num_classes=None, optimization=optimization, init_from=init_from, gather=gather)
        if stripes < 2:
            raise VIReIDError(f"stripes is {stripes}; there is no order to recover below 2.")
        if min(permutation_weight, cycle_weight) < 0 or permutation_weight == cycle_weight == 0:
            raise VIReIDError(
                f"permutation_weight is {permutation_weight} and cycle_weight {cycle_weight}; give weights of 0 or "
                "more, and one above 0."
            )
        if cycle_form not in get_args(CycleForm) or cycle_start < 0:
            raise VIReIDError(
                f"cycle_form is '{cycle_form}' and cycle_start {cycle_start}; give agreement or return, and an epoch "
                "of 0 or more."
            )
        check_number("sinkhorn_rounds", sinkhorn_rounds, 1, whole=True)
        self.stripes = stripes
        self.loss_weights = {"permutation_recovery": permutation_weight, "cycle_contrastive": cycle_weight}
        self.cycle_form, self.cycle_weight, self.cycle_start = cycle_form, cycle_weight, cycle_start
        self.sinkhorn = SinkhornSettings(rounds=sinkhorn_rounds, temperature=sinkhorn_temperature)
        self.temperature = temperature
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            weights=weights,
            two_stream_until=two_stream_until,
            settings=backbone_settings,
        )
        self.backbone.require_maps("MMGL cuts the last map into stripes")
        channels = self.backbone.channels[-1]
        self.permutation_head = PermutationHead(channels, stripes) if permutation_weight else None
        self.part_head = PartHead(channels, stripes, part_dimension) if cycle_weight else None
        self.recovery = StripeRecovery()

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return the pooled stage-4 map of the images as they are, (B, C), L2-normalised."""
        pooled = self.backbone.features(images, modality)[-1].mean((2, 3))
        return F.normalize(pooled.float(), dim=1)

    def recover(self, images: Tensor, modality: Tensor, order: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Shuffle images and return what the heads make of them.

        Args:
            images: (B, 3, H, W).
            modality: (B,) int64.
            order: (B, d) int64: the stripe that each place is to show.

        Returns:
            Scores of the order (B, d, d) and L2-normalised part features (B, d, ``part_dimension``), place by place;
            None for a task that is switched off.
        """
        self._require_stripes(images.shape[2])
        maps = self.backbone.features(shuffle_stripes(images, order), modality)[-1]
        scores = None if self.permutation_head is None else self.permutation_head(maps)
        parts = None if self.part_head is None else self.part_head(maps)
        return scores, parts

    def prepare(self, data: TrainingData) -> None:
        """Check that the stripes fit the images, and that what is monitored is logged."""
        self._require_stripes(data.image_size[0])
        monitored = [c.monitor or "" for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        for name, weight, head in (
            ("val/permutation_accuracy", "permutation_weight", self.permutation_head),
            ("val/stripe", "cycle_weight", self.part_head),
        ):
            if head is None and any(monitor.startswith(name) for monitor in monitored):
                raise VIReIDError(
                    f"checkpoint.monitor is {name}..., which is not logged with {weight}: 0; set it to "
                    "val/stripe_match, val/permutation_accuracy or val/mAP, whichever there is."
                )

    def on_train_epoch_start(self) -> None:
        """Let the cycle-contrastive loss count from its epoch on."""
        weight = self.cycle_weight if self.current_epoch >= self.cycle_start else 0.0
        self.loss_weights = {**self.loss_weights, "cycle_contrastive": weight}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of a batch; its images may come in any order of modalities."""
        images, modality = batch["image"], batch["modality"]
        order = self.draw(modality, lambda count, key: draw_orders(count, self.stripes, (_TRAINING, *key)))
        scores, parts = self.recover(images, modality, order)
        terms: dict[str, Tensor] = {}
        if scores is not None:
            terms["permutation_recovery"] = permutation_recovery_loss(scores, order, **self.sinkhorn)
        if parts is not None:
            parts, modality = self.gather(parts, modality)
            visible, infrared = (half.flatten(0, 1) for half in ModalityRows.of(modality).split(parts))
            contrast = cycle_contrastive_loss if self.cycle_form == "agreement" else cycle_return_loss
            terms["cycle_contrastive"] = contrast(visible, infrared, temperature=self.temperature)
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the embeddings of the images as they are, and note what is recovered of them shuffled."""
        outputs = super().validation_step(batch, batch_idx)
        images = batch["image"]
        orders = [draw_orders(1, self.stripes, (_EVALUATION, index)) for index in batch["index"].tolist()]
        order = torch.cat(orders).to(images.device)
        scores, parts = self.recover(images, batch["modality"], order)
        found = None if scores is None else recover_order(sinkhorn(scores, **self.sinkhorn))
        self.recovery.update(outputs["embedding"], batch["modality"], order, found, parts)
        return outputs

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the embeddings alone."""
        return super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log what was recovered."""
        self._log_recovery("val")

    def on_test_epoch_end(self) -> None:
        """Log what was recovered."""
        self._log_recovery("test")

    def _require_stripes(self, height: int) -> None:
        if self.part_head is None:
            require_stripes(height, self.stripes)
        else:
            # The stripes of the stage-4 map are the parts.
            require_stripes(height, self.stripes, stride=self.backbone.strides[-1], map_rows=self.backbone.map_rows)

    def _log_recovery(self, stage: str) -> None:
        # The metric has gathered all processes; averaging their equal values again keeps Lightning from a warning.
        self.log_dict({f"{stage}/{name}": value for name, value in self.recovery.compute().items()}, sync_dist=True)
        self.recovery.reset()
