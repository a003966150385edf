"""The two-stream baseline of the field (Ye et al., TPAMI 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.losses import batch_hard_triplet_loss
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules import BackboneSettings, Encoder, GlobalAveragePooling
from vireid_lightning.types import Batch


class Baseline(ReIDModule):
    """Identity cross-entropy and a batch-hard triplet loss on a network whose stem exists per modality.

    f is the average-pooled last map, or a vision transformer's class token, z = BN-neck(f). The triplet acts on f, the
    classifier on z. The embedding is z, L2-normalised.

    Args:
        margin: Margin of the triplet loss.
        identity_weight: Weight of the identity cross-entropy.
        triplet_weight: Weight of the triplet loss.
        optimization: Optimiser and schedule; the authors': SGD, 0.1 for neck and classifier, 0.01 for the rest, 80
            epochs.
    """

    heads = ("classifier",)

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        backbone: type[nn.Module] | str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        backbone_settings: BackboneSettings = BackboneSettings(),
        margin: float = 0.3,
        identity_weight: float = 1.0,
        triplet_weight: float = 1.0,
        optimization: Optimization = Optimization(
            optimizer="sgd",
            lr=0.01,
            lr_factors={"neck": 10.0, "classifier": 10.0},
            warmup_epochs=10,
            milestones=[20, 50],
        ),
        init_from: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, optimization=optimization, init_from=init_from, gather=gather)
        self.margin = margin
        self.loss_weights = {"identity": identity_weight, "triplet": triplet_weight}
        self.adopt(
            Encoder(
                backbone,
                pretrained=pretrained,
                weights=weights,
                two_stream_until=1,
                pool=GlobalAveragePooling(),
                settings=backbone_settings,
            )
        )
        if num_classes is not None:
            self.classifier = nn.Linear(self.backbone.channels[-1], num_classes, bias=False)

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, L2-normalised: (B, D) float32."""
        return F.normalize(self.encode(images, modality).z.float())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the identity cross-entropy and the triplet loss."""
        self.require_classes()
        _, pooled, z = self.encode(batch["image"], batch["modality"])
        pooled, z, identity = self.gather(pooled, z, batch["identity"])
        return {
            "identity": F.cross_entropy(self.classifier(z), identity),
            "triplet": batch_hard_triplet_loss(pooled, identity, self.margin),
        }
