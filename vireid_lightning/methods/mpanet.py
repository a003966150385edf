"""MPANet: modality alleviation, pattern alignment and mutual mean learning."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.center_cluster import center_cluster_loss
from vireid_lightning.losses.modality_identity import modality_identity_loss
from vireid_lightning.losses.mutual_mean import mutual_mean_loss
from vireid_lightning.losses.separation import separation_loss
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.modality_alleviation import ModalityAlleviation
from vireid_lightning.modules.modality_classifiers import ModalityClassifiers, mean_rate
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.pattern_alignment import PatternAlignment
from vireid_lightning.modules.trunk import BackboneSettings
from vireid_lightning.types import Batch


class MPANet(ReIDModule):
    """Discover Cross-Modality Nuances for Visible-Infrared Person Re-Identification (Wu et al., CVPR 2021).

    One stream for both modalities: modality alleviation behind stages 3 and 4 (a vision transformer's third and
    last quarter of blocks), pattern alignment instead of pooling.
    The loss is identity + separation_weight * separation + center_cluster_weight * center cluster + modality_weight *
    (modality identity of both classifiers) + mutual_weight * mutual mean learning.

    Args:
        parts: Number of pattern masks.
        margin: Margin of the center cluster loss: the distance beyond which centres no longer repel each other.
        identity_weight: Weight of the identity cross-entropy.
        separation_weight: Weight of the separation of the masks.
        center_cluster_weight: Weight of the center cluster loss.
        modality_weight: Weight of each modality's own cross-entropy. The authors' code has the coefficient 0.5 and adds
            the term twice, which is 1.
        mutual_weight: Weight of the mutual mean learning.
        mean_momentum: Share of the classifiers' weights that enters their running means at a step, up to epoch 99; from
            then on times 100 / (epoch + 1).
        optimization: Optimiser and schedule; the authors': Adam at 3.5e-4, divided by 10 at epochs 80 and 120 as for
            SYSU-MM01; RegDB's milestone is 110.

    Raises:
        VIReIDError: If the backbone does not fit, or an argument is out of its range.
    """

    heads: ClassVar[tuple[str, ...]] = ("classifier.", "modality_classifiers.")

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        backbone: type[nn.Module] | str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        backbone_settings: BackboneSettings = BackboneSettings(),
        parts: int = 6,
        margin: float = 0.7,
        identity_weight: float = 1.0,
        separation_weight: float = 0.5,
        center_cluster_weight: float = 1.0,
        modality_weight: float = 1.0,
        mutual_weight: float = 2.5,
        mean_momentum: float = 0.2,
        optimization: Optimization = Optimization(milestones=[80, 120]),
        init_from: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, optimization=optimization, init_from=init_from, gather=gather)
        if parts < 1:
            raise VIReIDError(f"parts is {parts}; give at least 1 pattern.")
        if not 0 < mean_momentum <= 1:
            raise VIReIDError(f"mean_momentum is {mean_momentum}; give a share above 0 and up to 1.")
        self.margin = margin
        self.mean_momentum = mean_momentum
        self.loss_weights = {
            "identity": identity_weight,
            "separation": separation_weight,
            "center_cluster": center_cluster_weight,
            "modality_identity": modality_weight,
            "mutual_mean": mutual_weight,
        }
        self.backbone = Backbone(backbone, pretrained=pretrained, weights=weights, settings=backbone_settings)
        self.backbone.require_maps("MPANet pools the last map under its patterns")
        for stage in (3, 4):
            self.backbone.insert_after(stage, ModalityAlleviation(self.backbone.channels[stage]))
        self.patterns = PatternAlignment(self.backbone.channels[4], parts)
        self.neck = BNNeck(self.patterns.out_features)
        if num_classes is not None:
            self.classifier = nn.Linear(self.patterns.out_features, num_classes, bias=False)
            self.modality_classifiers = ModalityClassifiers(self.patterns.out_features, num_classes)

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, (B, (parts + 1) * C), not normalised; see :meth:`ReIDModule.embed`."""
        features, _ = self.patterns(self.backbone.features(images, modality)[-1])
        z: Tensor = self.neck(features)
        return z

    def list_overlays(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """Return the masks of the patterns, (B, parts, h, w)."""
        return {"pattern": self.patterns(self.backbone.features(images, modality)[-1])[1]}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Move the classifiers' running means, which the losses then compare with."""
        self.modality_classifiers.update_means(mean_rate(self.current_epoch + 1, self.mean_momentum))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of a batch; its images may come in any order of modalities."""
        self.require_classes()
        features, masks = self.patterns(self.backbone.features(batch["image"], batch["modality"])[-1])
        features, z, identity, modality = self.gather(
            features, self.neck(features), batch["identity"], batch["modality"]
        )
        own, other = self.modality_classifiers(z, modality)
        return {
            "identity": F.cross_entropy(self.classifier(z).float(), identity),
            "separation": separation_loss(masks),  # a mean over images
            "center_cluster": center_cluster_loss(features, identity, self.margin),
            "modality_identity": modality_identity_loss(own, identity, modality),
            "mutual_mean": mutual_mean_loss(own, other),
        }
