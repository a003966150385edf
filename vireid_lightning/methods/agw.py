"""AGW: attention, generalised-mean pooling and the weighted regularised triplet loss (Ye et al., TPAMI 2021)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import weighted_regularized_triplet_loss
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules import BackboneSettings, Encoder, GeM, insert_non_local
from vireid_lightning.types import Batch


class AGW(ReIDModule):
    """The baseline's two streams with non-local blocks, GeM pooling and a triplet loss without a margin.

    f is the GeM-pooled last map, z = BN-neck(f). The triplet acts on f, the classifier on z. The embedding is z,
    L2-normalised.

    Args:
        gem_p: Exponent of the GeM pooling.
        non_local_blocks: Number of non-local blocks at the end of stage 2 and of stage 3, each behind a block of the
            stage. Networks other than convolutional ones take none: [0, 0].
        non_local_channels: Number of channels within a non-local block; 1 in the released code.
        triplet_form: Form of the triplet loss's weights: ``release``, that of the released code, whose numbers are the
            published ones, or ``softmax``, a true softmax.
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
        gem_p: float = 3.0,
        non_local_blocks: tuple[int, int] = (2, 3),
        non_local_channels: int = 1,
        triplet_form: Literal["release", "softmax"] = "release",
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
        self.triplet_form = triplet_form
        self.loss_weights = {"identity": identity_weight, "triplet": triplet_weight}
        self.adopt(
            Encoder(
                backbone,
                pretrained=pretrained,
                weights=weights,
                two_stream_until=1,
                pool=GeM(gem_p),
                settings=backbone_settings,
            )
        )
        for stage, count in zip((2, 3), non_local_blocks, strict=True):
            part = self.backbone.stages[stage]
            if not count:
                continue
            if not isinstance(part, nn.Sequential) or type(part) is not nn.Sequential:  # maps (B, C, H, W) throughout
                raise VIReIDError(
                    "AGW puts non-local blocks behind the blocks of stages 2 and 3, which must be a convolutional "
                    f"network's; '{self.backbone.name}' has none such. Choose a network such as resnet50 or "
                    "convnext_tiny, or set non_local_blocks: [0, 0]."
                )
            insert_non_local(part, self.backbone.channels[stage], count, non_local_channels)
        if num_classes is not None:
            self.classifier = nn.Linear(self.backbone.channels[-1], num_classes, bias=False)

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, L2-normalised: (B, D) float32."""
        return F.normalize(self.encode(images, modality).z.float())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the identity cross-entropy and the weighted regularised triplet loss."""
        self.require_classes()
        _, pooled, z = self.encode(batch["image"], batch["modality"])
        pooled, z, identity = self.gather(pooled, z, batch["identity"])
        return {
            "identity": F.cross_entropy(self.classifier(z), identity),
            "triplet": weighted_regularized_triplet_loss(pooled, identity, form=self.triplet_form),
        }
