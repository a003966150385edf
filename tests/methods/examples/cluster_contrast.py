"""Cluster contrast, written as a user would: DBSCAN on the Jaccard distance, one memory of cluster centroids, InfoNCE.

After Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification" (ACCV 2022), with the clusters of each
modality side by side in the memory and never matched. Train it from this file's folder::

    lightning fit --model cluster_contrast.ClusterContrast --data.dataset SYSUMM01 \
      --data.dataset.root /path/to/SYSU-MM01 --data.steps_per_epoch 400 --trainer.max_epochs 50
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.clustering import cluster_centroids, dbscan_labels, update_memory
from vireid_lightning.losses import prototype_logits
from vireid_lightning.methods import Optimization, ReIDModule
from vireid_lightning.methods.distributed import gather_rows
from vireid_lightning.methods.pseudo_labels import Clusters, assign_clusters, cluster_by_modality, extract_features
from vireid_lightning.modules import Encoder, GeM
from vireid_lightning.types import Batch


class ClusterContrast(ReIDModule):
    """Contrast of every image with a memory of cluster centroids, which follows the images of each batch.

    Args:
        eps: Largest Jaccard distance of two neighbours in DBSCAN.
        min_samples: Number of images within ``eps`` that make an image a core image of DBSCAN.
        k1: Number of neighbours that the k-reciprocal Jaccard distance considers.
        k2: Number of neighbours that the k-reciprocal Jaccard distance averages over.
        temperature: Temperature of the contrast with the memory.
        momentum: Share of the old centroid in the memory's update.
    """

    batches = "pseudo_label"

    def __init__(
        self,
        *,
        backbone: str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        eps: float = 0.6,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        temperature: float = 0.05,
        momentum: float = 0.1,
        optimization: Optimization = Optimization(lr=3.5e-4, milestones=[20, 40]),
        init_from: str | None = None,
    ) -> None:
        super().__init__(num_classes=None, optimization=optimization, init_from=init_from)
        self.dbscan = {"eps": eps, "min_samples": min_samples, "k1": k1, "k2": k2}
        self.temperature, self.momentum = temperature, momentum
        self.adopt(Encoder(backbone, pretrained=pretrained, weights=weights, two_stream_until=1, pool=GeM()))
        self.memory = torch.empty(0)  # made anew at every clustering, so it is no part of a checkpoint

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, L2-normalised: (B, D) float32."""
        return F.normalize(self.encode(images, modality).z.float())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return InfoNCE of the images with the memory; the batch's ``identity`` are the pseudo labels."""
        z, labels = self.encode(batch["image"], batch["modality"]).z, batch["identity"]
        self.keep(z=z, labels=labels)
        return {"contrast": F.cross_entropy(prototype_logits(z, self.memory, temperature=self.temperature), labels)}

    def on_train_epoch_start(self) -> None:
        """Cluster all images, and start the memory and the epoch's batches from the clusters."""
        features = extract_features(self, "target", self.embed)

        def find_clusters(modality: Tensor) -> Clusters:
            return cluster_by_modality(features, modality, lambda part: dbscan_labels(part, **self.dbscan))

        clusters = assign_clusters(self, "target", find_clusters)
        self.memory = cluster_centroids(features, clusters.labels, clusters.count)

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Move the memory towards the batch's embeddings, those of all processes."""
        z, labels = (gather_rows(self, self.kept[name]) for name in ("z", "labels"))
        update_memory(self.memory, z, labels, momentum=self.momentum)
