"""CMAM: two networks that learn from unlabelled images, first visible ones, then both modalities of the target."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.clustering import cluster_centroids, update_memory
from vireid_lightning.data.self_training import SelfTraining, true_identities
from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import (
    asymmetric_kl,
    asymmetric_similarity,
    batch_hard_triplet_loss,
    circle_softmax_logits,
    distance_difference,
    prototype_logits,
    symmetric_kl_divergence,
)
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint
from vireid_lightning.methods.cmam.clusters import Clusters, cluster, describe, own_labels
from vireid_lightning.methods.cmam.schedule import Phase, SourceStage, TargetStage, Timeline, check_plan
from vireid_lightning.methods.distributed import extract_all, on_first_process
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules import Extractor, GrayView, draw_channels
from vireid_lightning.types import Batch


class CMAM(ReIDModule):
    """Asymmetric Mutual Learning for Unsupervised Transferable Visible-Infrared Re-ID (Wu et al., IEEE TCSVT 2024).

    Model 1 sees images as they are, model 2 their gray views. Stage 1 learns from visible images of a source
    (``data.source``): circle softmax and soft-margin triplet loss for each of three streams (model 1 on the colours,
    model 1 on the gray view, model 2 on the gray view), and mutual terms by which the gray streams follow the colours
    and never the reverse. Stage 2 learns from the target's visible and infrared images: contrast of each model with a
    memory of cluster prototypes, and agreement of the two models.

    No identity of either is read in training. At the start of every epoch all images of the stage are clustered, in
    stage 2 by modality, and the clusters matched across modalities; ``data.steps_per_epoch`` is therefore the number of
    steps between two clusterings. True identities, where the datasets have them, are compared with the pseudo labels in
    the log alone: ``source/...`` and ``target/...``, see :func:`~vireid_lightning.methods.cmam.clusters.describe`.

    One run goes through all phases; ``trainer.max_epochs`` is their number of epochs. Prototypes, and the classifiers
    of stage 1, whose rows are the clusters' mean features, start anew at every clustering; the optimiser's state at
    every phase. So a run that was stopped at the end of an epoch goes on as if it had not been. In several processes
    features are gathered, the first one clusters, and all share labels and memory; losses that sum over the batch do so
    over a process's part of it.

    The embedding is z of model 1, averaged over the image and its mirror image, L2-normalised.

    Args:
        source: Stage 1, with the authors' settings; None leaves it out.
        target: Stage 2, likewise; None leaves it out. On its own it starts from ``init_from``.
        source_labels: Whether stage 1 uses the source's identities in place of clusters.
        backbone: Name of a timm CNN with four stages, of both models.
        pretrained: Start from trained weights of the backbone.
        weights: Local file with those weights.
        fake_share: Share of an image's fake-infrared copy in its gray view, where ``data.source`` has such copies.
        embedding: ``rgb``: model 1 alone; ``both``: both models' z, one after the other.
        optimization: Optimiser, weight decay, and the learning rate of stage 1. The schedule is that of the stages.
        init_from: Checkpoint whose encoder training starts from: of both models where it is CMAM's own, else the same
            one for both.

    Raises:
        VIReIDError: If the backbone does not fit, or ``optimization`` sets a schedule; in training, if stages, data and
            ``max_epochs`` do not fit together, or a clustering leaves nothing to learn from.
    """

    uses_identities: ClassVar[bool] = False
    labels_images: ClassVar[bool] = True
    training_arguments: ClassVar[tuple[str, ...]] = ("optimization", "source", "target", "source_labels")

    def __init__(
        self,
        *,
        source: SourceStage | None = SourceStage(),
        target: TargetStage | None = TargetStage(),
        source_labels: bool = False,
        backbone: str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        fake_share: float = 0.2,
        embedding: Literal["rgb", "both"] = "rgb",
        optimization: Optimization = Optimization(lr=3.5e-4, weight_decay=5e-4, schedule="constant"),
        init_from: str | None = None,
    ) -> None:
        super().__init__(num_classes=None, optimization=optimization, init_from=init_from)
        if self.optimization.schedule != "constant" or self.optimization.warmup_epochs:
            raise VIReIDError(
                "CMAM's learning rate follows the steps of its stages (warmup_steps, constant_steps and final_lr of "
                "source and target); leave optimization.schedule constant and optimization.warmup_epochs 0."
            )
        # A checkpoint holds the stages as dictionaries.
        self.source = SourceStage(**source) if isinstance(source, dict) else source
        self.target = TargetStage(**target) if isinstance(target, dict) else target
        self.save_hyperparameters({name: stage and asdict(stage) for name, stage in self._stages().items()})
        self.source_labels = source_labels
        self.embedding = embedding
        # Model 1 is spelled out, so that other methods find its backbone under its usual name.
        rgb = Extractor(backbone, pretrained=pretrained, weights=weights)
        self.backbone, self.pool, self.neck = rgb.backbone, rgb.pool, rgb.neck
        self.gray = Extractor(backbone, pretrained=pretrained, weights=weights)
        self.gray_view = GrayView(fake_share)
        # Made anew at every clustering, so neither is part of the module's state.
        self._labels = torch.empty(0, dtype=torch.long)
        self._prototypes: list[Tensor] = []
        self._classifiers = [nn.Parameter(torch.zeros(1, self.backbone.channels[-1])) for _ in range(2)]
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def rgb(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z of model 1, (B, D)."""
        return self.neck(self.pool(self.backbone.features(images, modality)[-1]))

    def features(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return what is clustered: z of both models, each averaged over the image and its mirror image, (B, 2 D)."""
        views = [(view, self.gray_view(view)) for view in (images, images.flip(3))]
        rgb = sum(self.rgb(view, modality) for view, _ in views) / 2
        gray = sum(self.gray(view, modality) for _, view in views) / 2
        return torch.cat([rgb, gray], dim=1).float()

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return the embedding, L2-normalised: (B, D) float32, or (B, 2 D) for ``both``."""
        if self.embedding == "both":
            return F.normalize(self.features(images, modality), dim=1)
        return F.normalize((self.rgb(images, modality) + self.rgb(images.flip(3), modality)).float(), dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the stage's terms."""
        images, modality = batch["image"], batch["modality"]
        seed = (self._data.sampler.seed, self.current_epoch, self.global_rank, batch_idx)
        channel = draw_channels(len(images), seed).to(images.device)
        view = self.gray_view(images, channel, fake_infrared=batch.get("fake_infrared"), erased=batch.get("erased"))
        labels = self._labels[batch["index"]]
        if self.phase.domain == "source":
            return self._source_step(batch, images, view, labels)
        rgb, gray = self.rgb(images, modality), self.gray(view, modality)
        stage = self.target
        logits = [
            prototype_logits(z, prototypes, temperature=stage.temperature)
            for z, prototypes in zip((rgb, gray), self._prototypes)
        ]
        self._seen = rgb.detach(), gray.detach(), labels
        terms = {
            "contrast_rgb": F.cross_entropy(logits[0], labels),
            "contrast_gray": F.cross_entropy(logits[1], labels),
            # J halves the sum of both directions
            "agreement_kl": 2 * symmetric_kl_divergence(*logits),
            "agreement_distance": distance_difference(rgb, gray),
        }
        return self.combine(
            terms, {"agreement_kl": stage.kl_weight, "agreement_distance": stage.distance_weight}, batch
        )

    def _source_step(self, batch: Batch, images: Tensor, view: Tensor, labels: Tensor) -> Tensor:
        modality, stage = batch["modality"], self.source
        # Three passes, not one over a longer batch: batch statistics would carry gradient between the streams.
        streams = self.rgb(images, modality), self.rgb(view, modality), self.gray(view, modality)
        weights = self._classifiers[0], self._classifiers[0], self._classifiers[1]
        logits = [
            circle_softmax_logits(z, weight, labels, scale=stage.scale, margin=stage.margin)
            for z, weight in zip(streams, weights)
        ]
        terms = {
            "identity": sum(F.cross_entropy(each, labels, label_smoothing=stage.smoothing) for each in logits),
            "triplet": sum(batch_hard_triplet_loss(z, labels, margin=None) for z in streams),
        }
        mutual = {"mutual_kl": self.phase.kl_weight, "mutual_similarity": stage.similarity_weight}
        if mutual["mutual_kl"]:
            terms["mutual_kl"] = asymmetric_kl(*logits)
        if mutual["mutual_similarity"]:
            terms["mutual_similarity"] = asymmetric_similarity(*streams)
        return self.combine(terms, mutual, batch)

    def on_after_backward(self) -> None:
        """Average the gradients of stage 1's classifiers over the processes.

        DDP does so for what the module held when it was wrapped; the classifiers are made anew at every clustering.
        """
        if self.trainer.world_size > 1 and self.phase.domain == "source":
            for classifier in self._classifiers:
                classifier.grad = self.trainer.strategy.reduce(classifier.grad, reduce_op="mean")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the prototypes towards the batch's features, those of all processes."""
        if self._seen is None:
            return
        rgb, gray, labels = (self.all_gather(each).view(-1, *each.shape[1:]) for each in self._seen)
        for prototypes, embeddings in zip(self._prototypes, (rgb, gray)):
            update_memory(prototypes, embeddings, labels, momentum=self.target.momentum)
        self._seen = None

    @property
    def phase(self) -> Phase:
        """The phase of the current epoch."""
        return self.timeline.phase(self.current_epoch)

    @property
    def _data(self) -> SelfTraining:
        return self.trainer.datamodule.self_training

    def on_train_epoch_start(self) -> None:
        """Cluster the phase's images, and start prototypes, classifiers and the epoch's batches from the clusters."""
        phase = self.phase
        optimizer = self.optimizers(use_pl_optimizer=False)
        if self.current_epoch == phase.first_epoch:
            optimizer.state.clear()
        # A checkpoint holds the rate that its own run's next step would have had, which may have had other stages.
        rate = self.timeline.rate(self.current_epoch * self.timeline.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        count = len(self._data.domains[phase.domain].samples)
        features = extract_all(self, self._data.extraction_loader(phase.domain), count, self.features)
        clusters = on_first_process(self.trainer, lambda: self._cluster(features))
        self._labels = clusters.labels.to(self.device)
        centroids = [
            cluster_centroids(F.normalize(part, dim=1), self._labels, clusters.count)
            for part in features.chunk(2, dim=1)
        ]
        self._prototypes = centroids if phase.domain == "target" else []
        if phase.domain == "source":
            for old in self._classifiers:
                optimizer.state.pop(old, None)
            self._classifiers = [nn.Parameter(rows) for rows in centroids]
            optimizer.param_groups[-1]["params"] = list(self._classifiers)
        self._data.assign(phase.domain, clusters.labels.numpy())
        self._log_clusters(clusters)

    def _cluster(self, features: Tensor) -> Clusters:
        phase, domain = self.phase, self._data.domains[self.phase.domain]
        if phase.clusterer == "identities":
            return own_labels(domain.samples)
        return cluster(
            features,
            torch.from_numpy(domain.modality),
            self._stages()[phase.domain],
            phase.clusterer,
            matching=self.target is None or self.target.matching,
            seed=self._data.sampler.seed + self.current_epoch,
        )

    def _log_clusters(self, clusters: Clusters) -> None:
        name, datamodule = self.phase.domain, self.trainer.datamodule
        dataset = datamodule.source.dataset if name == "source" else datamodule.dataset
        domain = self._data.domains[name]
        values = describe(clusters, torch.from_numpy(domain.modality), true_identities(dataset, domain.samples))
        self.log_dict({f"{name}/{key}": float(value) for key, value in values.items()}, sync_dist=False)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser, with the classifiers of stage 1 as its last group, and the stages' schedule."""
        optimizer = self.optimization.build(self, max_epochs=1)["optimizer"]
        rate = self.optimization.lr
        optimizer.add_param_group({"params": list(self._classifiers), "lr": rate})
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.timeline.rate(step) / rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Check stages and data; start both models from ``init_from``, where that is another method's checkpoint."""
        origin = None if self.trainer.ckpt_path else self._init_from
        super().setup(stage)
        if origin is not None and read_checkpoint(origin)[BLOCK]["method"] != type(self).__name__:
            state = self.state_dict()
            self.gray.load_state_dict({name: state[name] for name in self.gray.state_dict()})

    def _check_classes(self) -> None:
        """Check, in place of the number of identities, that stages, data and length of the run fit together."""
        data = getattr(getattr(self.trainer, "datamodule", None), "self_training", None)
        if data is None:
            raise VIReIDError("CMAM draws batches by its own pseudo labels; train it with a CrossModalityDataModule.")
        limited = isinstance(self.trainer.limit_train_batches, int) or self.trainer.limit_train_batches != 1.0
        if self.trainer.accumulate_grad_batches != 1 or (limited and not self.trainer.fast_dev_run):
            raise VIReIDError(
                "CMAM's stages count optimisation steps, data.steps_per_epoch of them in an epoch; leave "
                "trainer.accumulate_grad_batches at 1 and trainer.limit_train_batches unset."
            )
        self.timeline = Timeline(
            self.source,
            self.target,
            steps_per_epoch=data.sampler.steps_per_epoch,
            lr=self.optimization.lr,
            source_labels=self.source_labels,
        )
        modalities = {name: domain.modality for name, domain in data.domains.items()}
        check_plan(self.timeline, self._stages(), modalities, self.trainer.max_epochs)

    def _stages(self) -> dict[str, SourceStage | TargetStage | None]:
        return {"source": self.source, "target": self.target}

    def _paths(self, batch: Batch) -> list[str]:
        """Return the batch's image paths in the dataset of the current stage."""
        samples = self._data.domains[self.phase.domain].samples
        return [samples[index].path for index in batch["index"].tolist()]
