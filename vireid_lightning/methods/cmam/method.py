"""CMAM: two networks that learn from unlabelled images, first visible ones, then both modalities of the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial, reduce
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from vireid_lightning.clustering import cluster_centroids, update_memory
from vireid_lightning.data.samplers.choice import BatchKind
from vireid_lightning.data.training_data import TrainingData
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
from vireid_lightning.methods.cmam import within_epoch
from vireid_lightning.methods.cmam.clusters import cluster
from vireid_lightning.methods.cmam.schedule import (
    Phase,
    SourceStage,
    TargetStage,
    Timeline,
    check_plan,
    check_trainer,
    describe_early_end,
)
from vireid_lightning.methods.distributed import gather_rows
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.methods.pseudo_labels import (
    Clusters,
    assign_clusters,
    extract_features,
    label_by_identity,
    require_self_training,
)
from vireid_lightning.methods.step_kind import StepKind
from vireid_lightning.modules import BackboneSettings, Encoder, GeM, GrayView, draw_channels
from vireid_lightning.types import Batch, note_values, read_values


class CMAM(ReIDModule):
    """Asymmetric Mutual Learning for Unsupervised Transferable Visible-Infrared Re-ID (Wu et al., IEEE TCSVT 2024).

    Model 1 sees images as they are, model 2 their gray views. Stage 1 learns from visible images of a source
    (``data.source``): circle softmax and soft-margin triplet loss for each of three streams (model 1 on the colours,
    model 1 on the gray view, model 2 on the gray view), and mutual terms by which the gray streams follow the colours
    and never the reverse. Stage 2 learns from the target's visible and infrared images: contrast of each model with a
    memory of cluster prototypes, and agreement of the two models.

    No identity of either is read in training, unless ``data.source.labels`` has stage 1 use the source's identities in
    place of clusters. At the start of every epoch all images of the stage are clustered, in stage 2 by modality, and
    the clusters matched across modalities; ``data.steps_per_epoch`` is therefore the number of steps between two
    clusterings. True identities, where the datasets have them, are compared with the pseudo labels in the log alone:
    ``source/...`` and ``target/...``, see :func:`~vireid_lightning.methods.pseudo_labels.describe_clusters`.

    One run goes through all phases; ``trainer.max_epochs`` is their number of epochs. Prototypes, and the classifiers
    of stage 1, whose rows are the clusters' mean features, start anew at every clustering; the optimiser's state at
    every phase. Within an epoch, checkpoints hold labels, prototypes and classifiers, so a run that was stopped goes on
    as if it had not been. In several processes features are gathered, the first one clusters, and all share labels and
    memory.

    The embedding is z of model 1, averaged over the image and its mirror image, L2-normalised.

    Args:
        source: Settings of stage 1, by default the authors'; null leaves the stage out.
        target: Settings of stage 2, by default the authors'; null leaves the stage out. On its own it starts from
            ``init_from``.
        backbone: Name of a timm network, or the class of your own, on the command line by its import path, for both
            models.
        fake_share: Share of an image's fake-infrared copy in its gray view, where ``data.source`` has such copies.
        embedding: Embedding that is scored: ``rgb``, that of model 1 alone, or ``both``, both models' z, one after the
            other.
        optimization: Optimiser, weight decay, and the learning rate of stage 1. The schedule is that of the stages.
        init_from: Checkpoint whose encoder training starts from: of both models where it is CMAM's own, else the same
            one for both.

    Raises:
        VIReIDError: If the backbone does not fit, or ``optimization`` sets a schedule; in training, if stages, data and
            ``max_epochs`` do not fit together, or a clustering leaves nothing to learn from.
    """

    batches: ClassVar[BatchKind] = "pseudo_label"
    training_arguments: ClassVar[tuple[str, ...]] = ("optimization", "gather", "source", "target")

    timeline: Timeline
    phase: Phase

    def __init__(
        self,
        *,
        source: SourceStage | None = SourceStage(),
        target: TargetStage | None = TargetStage(),
        backbone: type[nn.Module] | str = "resnet50.tv_in1k",
        pretrained: bool = True,
        weights: str | None = None,
        backbone_settings: BackboneSettings = BackboneSettings(),
        fake_share: float = 0.2,
        embedding: Literal["rgb", "both"] = "rgb",
        optimization: Optimization = Optimization(lr=3.5e-4, weight_decay=5e-4, schedule="constant"),
        init_from: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(num_classes=None, optimization=optimization, init_from=init_from, gather=gather)
        if self.optimization.schedule != "constant" or self.optimization.warmup_epochs:
            raise VIReIDError(
                "CMAM's learning rate follows the steps of its stages (warmup_steps, constant_steps and final_lr of "
                "source and target); leave optimization.schedule constant and optimization.warmup_epochs 0."
            )
        # A checkpoint holds the stages as dictionaries.
        self.source = SourceStage(**source) if isinstance(source, dict) else source
        self.target = TargetStage(**target) if isinstance(target, dict) else target
        stages = {"source": self.source, "target": self.target}
        self.save_hyperparameters({name: stage and asdict(stage) for name, stage in stages.items()})
        self.embedding = embedding
        # Model 1 is spelled out, so that other methods find its backbone under its usual name.
        first, second = (
            Encoder(
                backbone,
                pretrained=pretrained,
                weights=weights,
                pool=GeM(3.0, learnable=True),
                settings=backbone_settings,
            )
            for _ in range(2)
        )
        self.adopt(first)
        self.gray = second
        self.gray_view = GrayView(fake_share)
        # Made anew at every clustering, so neither is part of the module's state.
        self._prototypes: list[Tensor] = []
        self._memory_is_due = False
        self._stored_epoch: Mapping[str, Any] | None = None
        self._classifiers = [nn.Parameter(torch.zeros(1, self.backbone.channels[-1])) for _ in range(2)]

    def rgb(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z of model 1, (B, D)."""
        return self.encode(images, modality).z

    def features(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return what is clustered: z of both models, each averaged over the image and its mirror image, (B, 2 D)."""
        mirrored = images.flip(3)
        views = self.gray_view(images), self.gray_view(mirrored)
        rgb = (self.rgb(images, modality) + self.rgb(mirrored, modality)) / 2
        gray = (self.gray(views[0], modality).z + self.gray(views[1], modality).z) / 2
        return torch.cat([rgb, gray], dim=1).float()

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return the embedding, L2-normalised: (B, D) float32, or (B, 2 D) for ``both``."""
        if self.embedding == "both":
            return F.normalize(self.features(images, modality), dim=1)
        return F.normalize((self.rgb(images, modality) + self.rgb(images.flip(3), modality)).float(), dim=1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the current phase; the batch's ``identity`` are the pseudo labels."""
        images, stage = batch["image"], self.phase.stage
        channel = self.draw(batch["modality"], draw_channels)
        view = self.gray_view(images, channel, fake_infrared=batch.get("fake_infrared"), erased=batch.get("erased"))
        if isinstance(stage, SourceStage):
            return self._source_losses(stage, batch, view)
        return self._target_losses(stage, batch, view)

    def _target_losses(self, stage: TargetStage, batch: Batch, view: Tensor) -> dict[str, Tensor]:
        modality, labels = batch["modality"], batch["identity"]
        rgb, gray, labels, modality = self.gather(
            self.rgb(batch["image"], modality), self.gray(view, modality).z, labels, modality
        )
        logits = [
            prototype_logits(z, prototypes, temperature=stage.temperature)
            for z, prototypes in zip((rgb, gray), self._prototypes)
        ]
        self.keep(rgb=rgb, gray=gray, labels=labels, modality=modality)
        self._memory_is_due = self.training
        return {
            "contrast_rgb": F.cross_entropy(logits[0], labels),
            "contrast_gray": F.cross_entropy(logits[1], labels),
            # J halves the sum of both directions
            "agreement_kl": 2 * symmetric_kl_divergence(*logits),
            "agreement_distance": distance_difference(rgb, gray),
        }

    def _source_losses(self, stage: SourceStage, batch: Batch, view: Tensor) -> dict[str, Tensor]:
        images, modality, labels = batch["image"], batch["modality"], batch["identity"]
        # Three passes, not one over a longer batch: batch statistics would carry gradient between the streams.
        *streams, labels = self.gather(
            self.rgb(images, modality), self.rgb(view, modality), self.gray(view, modality).z, labels
        )
        weights = self._classifiers[0], self._classifiers[0], self._classifiers[1]
        logits = [
            circle_softmax_logits(z, weight, labels, scale=stage.scale, margin=stage.margin)
            for z, weight in zip(streams, weights)
        ]
        terms = {
            "identity": _add(F.cross_entropy(each, labels, label_smoothing=stage.smoothing) for each in logits),
            "triplet": _add(batch_hard_triplet_loss(z, labels, margin=None) for z in streams),
        }
        if self.loss_weights["mutual_kl"]:
            terms["mutual_kl"] = asymmetric_kl(*logits)
        if self.loss_weights["mutual_similarity"]:
            terms["mutual_similarity"] = asymmetric_similarity(*streams)
        return terms

    def on_after_backward(self) -> None:
        """Average the gradients of stage 1's classifiers over the processes.

        DDP does so for what the module held when it was wrapped; the classifiers are made anew at every clustering.
        """
        if self.trainer.world_size > 1 and self.phase.domain == "source":
            for classifier in self._classifiers:
                if classifier.grad is not None:
                    classifier.grad = cast("Tensor", self.trainer.strategy.reduce(classifier.grad, reduce_op="mean"))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the prototypes towards the batch's features, those of all processes."""
        self._update_memory()

    def _update_memory(self) -> None:
        stage, is_due = self.phase.stage, self._memory_is_due
        self._memory_is_due = False
        if isinstance(stage, TargetStage) and is_due:
            kept = self.kept if self.gathers else {name: gather_rows(self, each) for name, each in self.kept.items()}
            # The order that one process has: a prototype moves from one image to the next.
            kinds, values = read_values(kept["modality"]), read_values(kept["labels"])
            order = sorted(range(len(kinds)), key=kinds.__getitem__)
            rows = torch.tensor(order).to(self.device, non_blocking=True)
            labels = kept["labels"][rows]
            note_values(labels, [values[row] for row in order])
            for prototypes, name in zip(self._prototypes, ("rgb", "gray")):
                update_memory(prototypes, kept[name][rows], labels, momentum=stage.momentum)

    def enter(self, phase: Phase) -> None:
        """Begin a phase, or go on with it: its terms and their weights count from now on."""
        self.phase = phase
        if isinstance(phase.stage, SourceStage):
            weights = {"mutual_kl": phase.kl_weight, "mutual_similarity": phase.stage.similarity_weight}
        else:
            weights = {"agreement_kl": phase.kl_weight, "agreement_distance": phase.stage.distance_weight}
        self.loss_weights = weights

    def step_kinds(self, clusters: int) -> dict[str, StepKind]:
        """Return the steps of both stages, between two clusterings that found ``clusters`` clusters."""

        def begin(stage: SourceStage | TargetStage) -> None:
            self.enter(Phase(stage, "kmeans", 0, 1, 1, 1, lr=self.optimization.lr, kl_weight=0.1))
            shape = clusters, self.backbone.channels[-1]
            rows = [F.normalize(torch.randn(shape, device=self.device), dim=1) for _ in range(2)]
            self._prototypes, self._classifiers = rows, [nn.Parameter(row.clone()) for row in rows]

        stages = {"stage 1": (3, self.source), "stage 2": (2, self.target)}
        return {
            name: StepKind(passes, 2, partial(begin, stage))
            for name, (passes, stage) in stages.items()
            if stage is not None
        }

    def on_train_epoch_start(self) -> None:
        """Cluster the phase's images, and start prototypes, classifiers and the epoch's batches from the clusters."""
        phase = self.timeline.phase(self.current_epoch)
        self.enter(phase)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)  # configure_optimizers returns one
        if self.current_epoch == phase.first_epoch:
            optimizer.state.clear()
        # A checkpoint holds the rate that its own run's next step would have had, which may have had other stages.
        rate = self.timeline.rate(self.current_epoch * self.timeline.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        features = extract_features(self, phase.domain, self.features)
        clusters = assign_clusters(self, phase.domain, lambda modality: self._cluster(features, modality))
        labels = clusters.labels.to(self.device)
        centroids = [
            cluster_centroids(F.normalize(part, dim=1), labels, clusters.count) for part in features.chunk(2, dim=1)
        ]
        self._prototypes = centroids if phase.domain == "target" else []
        if phase.domain == "source":
            for old in self._classifiers:
                optimizer.state.pop(old, None)
            self._classifiers = [nn.Parameter(rows.to(self.gray.neck.weight.dtype)) for rows in centroids]
            optimizer.param_groups[-1]["params"] = list(self._classifiers)

    @property
    def resumes_within_epochs(self) -> bool:
        """Whether a run that was stopped within an epoch can go on there: yes."""
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a run needs to go on within this epoch."""
        super().on_save_checkpoint(checkpoint)
        if self._is_fitting() and len(require_self_training(self).labels):
            self._update_memory()  # where a callback saves at the end of a step, the memory's turn is yet to come
            labels = torch.from_numpy(require_self_training(self).labels)
            checkpoint[within_epoch.KEY] = within_epoch.describe_epoch(
                self.phase, labels, self._prototypes, self._classifiers
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the run needs if it goes on within an epoch."""
        super().on_load_checkpoint(checkpoint)
        self._stored_epoch = checkpoint.get(within_epoch.KEY)

    def on_train_start(self) -> None:
        """Go on within an epoch with its labels, prototypes and classifiers, where the run was stopped there.

        Raises:
            VIReIDError: If the checkpoint does not hold them, or was saved in another phase.
        """
        super().on_train_start()
        stored, self._stored_epoch = self._stored_epoch, None
        if not 0 < self.trainer.fit_loop.epoch_loop.batch_progress.current.ready < self.trainer.num_training_batches:
            return
        self.enter(self.timeline.phase(self.current_epoch))
        stored = within_epoch.read_epoch(stored, self.trainer.ckpt_path, self.phase)
        require_self_training(self).assign(self.phase.domain, stored["labels"].numpy())
        self._prototypes = [rows.to(self.device) for rows in stored["prototypes"]]
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)  # configure_optimizers returns one
        self._classifiers = within_epoch.restore_classifiers(optimizer, self._classifiers, stored["classifiers"])

    def _cluster(self, features: Tensor, modality: Tensor) -> Clusters:
        phase = self.phase
        if phase.clusterer == "identities":
            return label_by_identity(require_self_training(self).domains[phase.domain].samples)
        return cluster(
            features,
            modality,
            phase.stage,
            phase.clusterer,
            matching=self.target is None or self.target.matching,
            seed=self.draw_key[0] + self.current_epoch,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, with the classifiers of stage 1 as its last group, and the stages' schedule."""
        optimizer = self.optimization.build(self, max_epochs=1)["optimizer"]
        rate = self.optimization.lr
        optimizer.add_param_group({"params": list(self._classifiers), "lr": rate})
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.timeline.rate(step) / rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def start_from(self, path: str) -> str:
        """Start both models from a checkpoint; where it is another method's, from the same encoder."""
        account = super().start_from(path)
        if read_checkpoint(path)[BLOCK]["method"] != type(self).__name__:
            state = self.state_dict()
            self.gray.load_state_dict({name: state[name] for name in self.gray.state_dict()})
        return account

    def prepare(self, data: TrainingData) -> None:
        """Plan the phases, and check that stages, data and length of the run fit together."""
        check_trainer(self.trainer)
        domains = require_self_training(self).domains
        self.timeline = Timeline(
            self.source,
            self.target,
            steps_per_epoch=data.steps_per_epoch,
            lr=self.optimization.lr,
            labelled_source="source" in domains and domains["source"].labelled,
        )
        check_plan(self.timeline, domains, self.trainer.max_epochs)
        early_end = describe_early_end(self.timeline, self.trainer.max_epochs or 0, self.trainer.max_steps)
        if early_end is not None:
            rank_zero_info(early_end)

    @classmethod
    def upgrade_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Leave out ``source_labels``, which is ``data.source.labels`` today."""
        return {name: value for name, value in arguments.items() if name != "source_labels"}


def _add(terms: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, terms)
