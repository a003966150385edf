"""DCLNet: dense contrastive learning of every pixel, guided by parts found without labels (Sun et al., ACM MM 2022)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import (
    batch_hard_triplet_loss,
    center_cluster_loss,
    continuity_loss,
    dense_contrastive_loss,
    pixel_classification_loss,
)
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules import (
    Backbone,
    BNNeck,
    GeM,
    ModalityRows,
    PartAwareParsing,
    PixelClassifiers,
    predicted_mask,
    rectify_parts,
    require_part_rows,
    shrink_mask,
)
from vireid_lightning.types import Batch


class DCLNet(ReIDModule):
    """Two streams up to stage 1, a global branch, part-aware parsing, and the dense contrastive loss on stage 1's map.

    f is the GeM-pooled last map, z = BN-neck(f), the embedding z L2-normalised. Class activation maps of a part
    classifier teach a pixel classifier, whose prediction says which pixels of a visible and an infrared image of one
    person show the same part; the dense contrastive loss pulls those together. Trains on image heights that give the
    maps of stage 1 and stage 4 rows that ``parts`` divides: multiples of 96 for 6 parts.

    Args:
        num_classes: Training identities; the command line fills it in.
        backbone: Any four-stage timm CNN.
        pretrained: Start from the trained weights of ``backbone``.
        weights: Local file with those weights, instead of timm's.
        gem_p: Exponent of the global pooling.
        parts: Horizontal stripes.
        metric: Loss on f: center cluster (``center_cluster``) or batch-hard triplet (``triplet``).
        margin: Of that loss; None is the authors', 0.7 for center cluster and 0.3 for the triplet.
        rectify: Semantic rectification of the predicted parts; off in the authors' best released setting.
        temperature: Of the dense contrastive loss.
        identity_weight: Of the global cross-entropy.
        metric_weight: Of ``metric``.
        part_weight: Of the part classifier's cross-entropy.
        pixel_weight: Of the pixel classifiers' cross-entropies.
        continuity_weight: Of the continuity of neighbouring pixels' logits.
        dense_weight: Of the dense contrastive loss.
        optimization: The authors': Adam, 3.5e-3 for necks and classifiers, 3.5e-4 for the backbone, up to 150 epochs.
        init_from: Checkpoint whose encoder training starts from.
    """

    heads = ("classifier", "parsing", "pixels")

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        backbone: str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        gem_p: float = 3.0,
        parts: int = 6,
        metric: Literal["center_cluster", "triplet"] = "center_cluster",
        margin: float | None = None,
        rectify: bool = False,
        temperature: float = 0.05,
        identity_weight: float = 1.0,
        metric_weight: float = 1.0,
        part_weight: float = 1.0,
        pixel_weight: float = 1.0,
        continuity_weight: float = 1.0,
        dense_weight: float = 1.0,
        optimization: Optimization = Optimization(
            lr=3.5e-4,
            lr_factors={"neck": 10.0, "classifier": 10.0, "parsing": 10.0, "pixels": 10.0},
            warmup_epochs=5,
            milestones=[15, 27],
        ),
        init_from: str | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, optimization=optimization, init_from=init_from)
        self.parts, self.metric, self.rectify, self.temperature = parts, metric, rectify, temperature
        self.margin = margin if margin is not None else {"center_cluster": 0.7, "triplet": 0.3}[metric]
        self.loss_weights = {
            "identity": identity_weight,
            metric: metric_weight,
            "part": part_weight,
            "pixel": pixel_weight,
            "continuity": continuity_weight,
            "dense": dense_weight,
        }
        self.backbone = Backbone(backbone, pretrained=pretrained, weights=weights, two_stream_until=2)
        channels = self.backbone.channels
        self.pool = GeM(gem_p)
        self.neck = BNNeck(channels[-1])
        if num_classes is not None:
            self.classifier = nn.Linear(channels[-1], num_classes, bias=False)
            self.parsing = PartAwareParsing(channels[-1], num_classes, parts)
            self.pixels = PixelClassifiers(channels, parts)

    def setup(self, stage: str) -> None:
        """Refuse an image height that the parts do not divide before training starts."""
        super().setup(stage)
        preprocessing = getattr(getattr(self.trainer, "datamodule", None), "preprocessing", None)
        if stage == "fit" and preprocessing is not None:
            require_part_rows(preprocessing["image_size"][0], self.parts)

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, L2-normalised: (B, D) float32."""
        pooled = self.pool(self.backbone.features(images, modality)[-1])
        return F.normalize(self.neck(pooled).float())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of all losses."""
        self.require_classes()
        images, identity = batch["image"], batch["identity"]
        require_part_rows(images.shape[2], self.parts)
        rows = ModalityRows.of(batch["modality"])
        if not torch.equal(identity[rows.visible], identity[rows.infrared]):
            raise VIReIDError(
                "DCLNet compares the i-th visible with the i-th infrared image of a batch, which must show the same "
                "identity; train with the datamodule's own sampler."
            )
        maps = self.backbone.features(images, batch["modality"])
        shallow, deep = maps[1], maps[-1]
        pooled = self.pool(deep)
        logits = self.classifier(self.neck(pooled))

        erased = batch["erased"] if "erased" in batch else torch.zeros_like(images[:, 0], dtype=torch.bool)
        size = shallow.shape[2:]
        erased = shrink_mask(erased, size)
        parsed = self.parsing.activation_mask(deep, logits.argmax(1), size, erased)
        pixel_logits = self.pixels(maps, rows, size)
        mask = predicted_mask(pixel_logits, erased)
        if self.rectify:
            mask = rectify_parts(mask, shallow, self.parts)

        metric_loss = center_cluster_loss if self.metric == "center_cluster" else batch_hard_triplet_loss
        terms = {
            "identity": F.cross_entropy(logits, identity),
            self.metric: metric_loss(pooled, identity, self.margin),
            "part": F.cross_entropy(self.parsing(deep), identity),
            "pixel": pixel_classification_loss(pixel_logits, parsed),
            "continuity": continuity_loss(pixel_logits),
            "dense": dense_contrastive_loss(
                shallow[rows.visible],
                shallow[rows.infrared],
                mask[rows.visible],
                mask[rows.infrared],
                temperature=self.temperature,
            ),
        }
        return self.combine(terms, self.loss_weights, batch)
