"""DCLNet: dense contrastive learning of every pixel, guided by parts found without labels (Sun et al., ACM MM 2022)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.data.training_data import TrainingData
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
    BackboneSettings,
    Encoder,
    GeM,
    ModalityRows,
    PartAwareParsing,
    PixelClassifiers,
    predicted_mask,
    rectify_parts,
    require_part_rows,
    shrink_mask,
)
from vireid_lightning.types import INFRARED, VISIBLE, Batch, read_values


class DCLNet(ReIDModule):
    """Two streams up to stage 1, a global branch, part-aware parsing, and the dense contrastive loss on stage 1's map.

    f is the GeM-pooled last map, z = BN-neck(f), the embedding z L2-normalised. Class activation maps of a part
    classifier teach a pixel classifier, whose prediction says which pixels of a visible and an infrared image of one
    person show the same part; the dense contrastive loss pulls those together. Trains on image heights that give the
    maps of stage 1 and stage 4 rows that ``parts`` divides: multiples of 96 for 6 parts.

    Args:
        gem_p: Exponent of the GeM pooling of the global branch.
        parts: Number of parts, which are horizontal stripes.
        metric: Metric loss on f: center cluster (``center_cluster``) or batch-hard triplet (``triplet``).
        margin: Margin of the metric loss; None is the authors', 0.7 for center cluster and 0.3 for the triplet.
        rectify: Whether predicted parts are rectified semantically; off in the authors' best released setting.
        temperature: Temperature of the dense contrastive loss.
        identity_weight: Weight of the global branch's identity cross-entropy.
        metric_weight: Weight of the metric loss.
        part_weight: Weight of the part classifier's cross-entropy.
        pixel_weight: Weight of the pixel classifiers' cross-entropies.
        continuity_weight: Weight of the continuity of neighbouring pixels' logits.
        dense_weight: Weight of the dense contrastive loss.
        optimization: Optimiser and schedule; the authors': Adam, 3.5e-3 for necks and classifiers, 3.5e-4 for the
            backbone, up to 150 epochs.
    """

    heads = ("classifier", "parsing", "pixels")

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        backbone: type[nn.Module] | str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        backbone_settings: BackboneSettings = BackboneSettings(),
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
        gather: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, optimization=optimization, init_from=init_from, gather=gather)
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
        self.adopt(
            Encoder(
                backbone,
                pretrained=pretrained,
                weights=weights,
                two_stream_until=2,
                pool=GeM(gem_p),
                settings=backbone_settings,
                stage1_for="DCLNet contrasts the pixels of stage 1's map",
            )
        )
        channels = self.backbone.channels
        if num_classes is not None:
            self.classifier = nn.Linear(channels[-1], num_classes, bias=False)
            self.parsing = PartAwareParsing(channels[-1], num_classes, parts, signed=self.backbone.signed)
            self.pixels = PixelClassifiers(channels, parts)

    def prepare(self, data: TrainingData) -> None:
        """Refuse an image height that the parts do not divide."""
        require_part_rows(data.image_size[0], self.parts)

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, L2-normalised: (B, D) float32."""
        return F.normalize(self.encode(images, modality).z.float())

    def list_overlays(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """Return the predicted mask, 1 where a pixel is of a part, and the parsed parts, (B, parts, h, w) each.

        Without classifiers, as in imported weights, there are none.
        """
        if self.num_classes is None:
            return {}
        maps, _, z = self.encode(images, modality)
        size = (maps[1].shape[2], maps[1].shape[3])
        nothing = torch.zeros(len(images), *size, dtype=torch.bool, device=images.device)
        masks = {
            "predicted part": predicted_mask(self.pixels(maps, ModalityRows.of(modality), size), nothing),
            "parsed part": self.parsing.activation_mask(maps[-1], self.classifier(z).argmax(1), size, nothing),
        }
        # Background is 0, the parts follow from 1.
        return {name: F.one_hot(mask, self.parts + 1).movedim(-1, 1)[:, 1:].float() for name, mask in masks.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the global branch, of the parts and of the pixels."""
        self.require_classes()
        images, identity = batch["image"], batch["identity"]
        require_part_rows(images.shape[2], self.parts)
        rows = ModalityRows.of(batch["modality"])
        shown = list(zip(read_values(batch["modality"]), read_values(identity), strict=True))
        visible, infrared = ([name for kind, name in shown if kind == which] for which in (VISIBLE, INFRARED))
        if visible != infrared:
            raise VIReIDError(
                "DCLNet compares the i-th visible with the i-th infrared image of a batch, which must show the same "
                "identity; train with the datamodule's own sampler."
            )
        maps, pooled, z = self.encode(images, batch["modality"])
        shallow, deep = maps[1], maps[-1]
        logits = self.classifier(z)
        all_pooled, all_logits, all_identity = self.gather(pooled, logits, identity)

        erased = batch["erased"] if "erased" in batch else torch.zeros_like(images[:, 0], dtype=torch.bool)
        size = (shallow.shape[2], shallow.shape[3])
        erased = shrink_mask(erased, size)
        parsed = self.parsing.activation_mask(deep, logits.argmax(1), size, erased)
        pixel_logits = self.pixels(maps, rows, size)
        mask = predicted_mask(pixel_logits, erased)
        if self.rectify:
            mask = rectify_parts(mask, shallow, self.parts)

        metric_loss = center_cluster_loss if self.metric == "center_cluster" else batch_hard_triplet_loss
        return {
            "identity": F.cross_entropy(all_logits, all_identity),
            self.metric: metric_loss(all_pooled, all_identity, self.margin),
            # What follows compares pixels within an image or a pair, which stay in their process.
            "part": F.cross_entropy(self.parsing(deep), identity),
            "pixel": pixel_classification_loss(pixel_logits, parsed, mean_count=self.mean_count),
            "continuity": continuity_loss(pixel_logits),
            "dense": dense_contrastive_loss(
                *rows.split(shallow),
                *rows.split(mask),
                temperature=self.temperature,
                parts=self.parts,
                mean_count=self.mean_count,
            ),
        }
