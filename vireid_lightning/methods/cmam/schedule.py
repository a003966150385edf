"""The stages of CMAM as epochs: which images, which clustering, which learning rate at each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from lightning.pytorch import Trainer

from vireid_lightning.data.self_training import Domain, DomainName
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds

#: How pseudo labels are made; ``identities`` are the source's own.
Clusterer = Literal["dbscan", "kmeans", "identities"]


@dataclass(frozen=True)
class _Stage:
    """What both stages have.

    Attributes:
        warmup_steps: Number of steps of linear warm-up, from 0.01 of the learning rate.
        eps: Largest Jaccard distance of two neighbours in DBSCAN.
        min_samples: Number of images within ``eps``, itself included, that make an image a core image of DBSCAN.
        k1: Number of neighbours that the k-reciprocal Jaccard distance considers.
        k2: Number of neighbours that the k-reciprocal Jaccard distance averages over.
        clusters: Number of clusters of each modality that k-means makes.
    """

    warmup_steps: int = 2000
    eps: float = 0.4
    min_samples: int = 4
    k1: int = 30
    k2: int = 6
    clusters: int = 400

    def __post_init__(self) -> None:
        """Refuse settings that would only fail at the stage's first clustering.

        Raises:
            VIReIDError: A setting is out of its range.
        """
        check_kinds(vars(self), type(self))
        ranges = {
            "eps": (0 < self.eps < 1, "between 0 and 1"),
            "min_samples": (self.min_samples >= 1, "1 or more"),
            "k1": (self.k1 >= 1, "1 or more"),
            "k2": (self.k2 >= 1, "1 or more"),
            "clusters": (self.clusters >= 2, "2 or more"),
            "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
            **self._ranges(),
        }
        for name, (fits, needed) in ranges.items():
            if not fits:
                raise VIReIDError(f"{type(self).__name__}.{name} is {getattr(self, name)}; it must be {needed}.")

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return {}


@dataclass(frozen=True)
class SourceStage(_Stage):
    """Stage 1: asymmetric mutual learning on the source's visible images.

    Attributes:
        steps: Number of optimisation steps of one pass.
        kl_weights: Weight of the mutual KL terms, one for each pass; every pass starts the schedule again.
        similarity_weight: Weight of the mutual similarity terms.
        clustering: Clustering that makes the pseudo labels, unless the source's identities are used.
        constant_steps: Step at which the learning rate begins to fall.
        final_lr: Learning rate that the cosine ends at.
        smoothing: Label smoothing of the cross-entropy.
        scale: Scale of the circle softmax.
        margin: Margin of the circle softmax.
    """

    steps: int = 15_000
    kl_weights: tuple[float, ...] = (0.0, 0.1)
    similarity_weight: float = 0.5
    clustering: Literal["dbscan", "kmeans"] = "dbscan"
    constant_steps: int = 9000
    final_lr: float = 7.7e-7
    smoothing: float = 0.1
    scale: float = 64.0
    margin: float = 0.35

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return {
            **{name: (getattr(self, name) >= 0, "0 or more") for name in ("steps", "constant_steps", "final_lr")},
            **{name: (getattr(self, name) >= 0, "0 or more") for name in ("similarity_weight", "margin")},
            "kl_weights": (all(weight >= 0 for weight in self.kl_weights), "0 or more each"),
            "scale": (self.scale > 0, "above 0"),
            "smoothing": (0 <= self.smoothing < 1, "from 0 to below 1"),
        }


@dataclass(frozen=True)
class TargetStage(_Stage):
    """Stage 2: self-training on the target's visible and infrared images.

    Attributes:
        dbscan_steps: Number of optimisation steps on labels of DBSCAN; 0 leaves this phase out.
        kmeans_steps: Number of optimisation steps on labels of k-means, afterwards; 0 leaves this phase out. Each phase
            has a schedule of its own: warm-up, then cosine.
        lr: Learning rate.
        final_lr: Learning rate that the cosine ends at.
        matching: Whether visible and infrared clusters are matched. Without, each modality has pseudo identities of its
            own, which shows what matching is worth.
        temperature: Temperature of the contrast with the cluster memory.
        kl_weight: Weight of the agreement of the two models' classes.
        distance_weight: Weight of the agreement of the two models' distances.
        momentum: Share of the old prototype in the cluster memory.
    """

    dbscan_steps: int = 12_000
    kmeans_steps: int = 12_000
    lr: float = 1e-4
    final_lr: float = 0.0
    matching: bool = True
    temperature: float = 0.05
    kl_weight: float = 0.01
    distance_weight: float = 0.05
    momentum: float = 0.2

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return {
            **{name: (getattr(self, name) >= 0, "0 or more") for name in ("dbscan_steps", "kmeans_steps", "final_lr")},
            **{name: (getattr(self, name) >= 0, "0 or more") for name in ("kl_weight", "distance_weight")},
            "momentum": (0 <= self.momentum <= 1, "from 0 to 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "lr": (self.lr > 0, "above 0"),
        }


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one learning-rate schedule.

    Attributes:
        stage: Settings of the stage that it belongs to.
        clusterer: How its images are labelled.
        first_epoch: Epoch at which it starts.
        epochs: Number of epochs.
        steps: Number of steps.
        constant_steps: Step at which the cosine starts.
        lr: Learning rate.
        kl_weight: Weight of the mutual KL terms.
    """

    stage: SourceStage | TargetStage
    clusterer: Clusterer
    first_epoch: int
    epochs: int
    steps: int
    constant_steps: int
    lr: float
    kl_weight: float

    @property
    def domain(self) -> Literal["source", "target"]:
        """The images that it learns from."""
        return "source" if isinstance(self.stage, SourceStage) else "target"

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the phase, from 0."""
        warmup, final_lr = self.stage.warmup_steps, self.stage.final_lr
        if step < warmup:
            return self.lr * (0.01 + 0.99 * step / warmup)
        fall = max(self.constant_steps, warmup)
        if step < fall:
            return self.lr
        share = min((step - fall) / max(self.steps - fall, 1), 1.0)
        return final_lr + 0.5 * (self.lr - final_lr) * (1 + math.cos(math.pi * share))


class Timeline:
    """All phases of a run, one after the other; an epoch lies between two clusterings.

    Args:
        source: Stage 1, or None.
        target: Stage 2, or None.
        steps_per_epoch: Steps between two clusterings.
        lr: Learning rate of stage 1.
        labelled_source: Whether stage 1 uses the source's identities.

    Attributes:
        phases: The phases in order.
        epochs: Number of epochs of all phases.

    Raises:
        VIReIDError: If a phase's steps are no whole number of epochs, or there is no phase.

    Example:
        >>> timeline = Timeline(SourceStage(), TargetStage(), steps_per_epoch=500, lr=3.5e-4)
        >>> [(phase.domain, phase.clusterer, phase.first_epoch) for phase in timeline.phases], timeline.epochs
        ([('source', 'dbscan', 0), ('source', 'dbscan', 30), ('target', 'dbscan', 60), ('target', 'kmeans', 84)], 108)
    """

    def __init__(
        self,
        source: SourceStage | None,
        target: TargetStage | None,
        *,
        steps_per_epoch: int,
        lr: float,
        labelled_source: bool = False,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.phases: list[Phase] = []
        self.epochs = 0
        if source is not None:
            clusterer: Clusterer = "identities" if labelled_source else source.clustering
            for kl_weight in source.kl_weights:
                self._add(source, clusterer, source.steps, lr, source.constant_steps, kl_weight)
        if target is not None:
            self._add(target, "dbscan", target.dbscan_steps, target.lr, 0, target.kl_weight)
            self._add(target, "kmeans", target.kmeans_steps, target.lr, 0, target.kl_weight)
        if not self.phases:
            raise VIReIDError("CMAM has no steps to train: give a source or a target stage with steps above 0.")

    def _add(
        self,
        stage: SourceStage | TargetStage,
        clusterer: Clusterer,
        steps: int,
        lr: float,
        constant_steps: int,
        kl_weight: float,
    ) -> None:
        epochs = steps // self.steps_per_epoch
        phase = Phase(stage, clusterer, self.epochs, epochs, steps, constant_steps, lr, kl_weight)
        if steps < 0 or steps % self.steps_per_epoch:
            raise VIReIDError(
                f"The {phase.domain} stage has a phase of {steps} steps, which is no whole number of epochs of "
                f"{self.steps_per_epoch} steps (data.steps_per_epoch, the steps between two clusterings); "
                f"give a multiple of {self.steps_per_epoch}."
            )
        if epochs:
            self.phases.append(phase)
            self.epochs += epochs

    def phase(self, epoch: int) -> Phase:
        """Return the phase that an epoch belongs to; the last one's for any epoch after it."""
        return [phase for phase in self.phases if phase.first_epoch <= epoch][-1]

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the run, from 0."""
        phase = self.phase(step // self.steps_per_epoch)
        return phase.rate(step - phase.first_epoch * self.steps_per_epoch)


def check_trainer(trainer: Trainer) -> None:
    """Refuse settings of a trainer that would make a phase's steps another number of optimisation steps.

    Raises:
        VIReIDError: If gradients are accumulated or epochs are cut short.
    """
    limit = trainer.limit_train_batches
    limited = isinstance(limit, int) or limit != 1.0
    # Lightning sets fast_dev_run without declaring it.
    if trainer.accumulate_grad_batches != 1 or (limited and not getattr(trainer, "fast_dev_run", False)):
        raise VIReIDError(
            "CMAM's stages count optimisation steps, data.steps_per_epoch of them in an epoch; leave "
            "trainer.accumulate_grad_batches at 1 and trainer.limit_train_batches unset."
        )


def check_plan(timeline: Timeline, domains: Mapping[DomainName, Domain], max_epochs: int | None) -> None:
    """Check before training that stages, images and the length of the run fit together.

    Args:
        timeline: The phases.
        domains: The images that there are, by the name of their domain.
        max_epochs: Number of epochs that the trainer runs.

    Raises:
        VIReIDError: If a stage has no images or more clusters than images, or the run is longer than the phases.
    """
    for phase in timeline.phases:
        if phase.domain not in domains:
            raise VIReIDError(
                "CMAM's first stage needs visible images to learn from: set data.source.dataset, or leave the stage "
                "out with model.source: null."
            )
        fewest = int(np.unique(domains[phase.domain].modality, return_counts=True)[1].min())
        clusters = phase.stage.clusters
        if phase.clusterer == "kmeans" and clusters > fewest:
            raise VIReIDError(
                f"{phase.domain}.clusters is {clusters}, but a modality of the {phase.domain} has only {fewest} "
                "training images; set it to about the number of people."
            )
    if max_epochs is None or not 0 < max_epochs <= timeline.epochs:
        raise VIReIDError(
            f"trainer.max_epochs is {max_epochs}, but the stages take {timeline.epochs} epochs of "
            f"{timeline.steps_per_epoch} steps; set it to {timeline.epochs}, or fewer to stop earlier."
        )


def describe_early_end(timeline: Timeline, max_epochs: int, max_steps: int) -> str | None:
    """Return a sentence on what a run leaves out that ends before the stages do; None where it has all of them.

    Args:
        timeline: The phases.
        max_epochs: Number of epochs that the trainer runs.
        max_steps: Number of steps at which it stops; -1 for none.
    """
    steps = max_epochs * timeline.steps_per_epoch
    if max_steps >= 0:
        steps = min(steps, max_steps)
    planned = timeline.epochs * timeline.steps_per_epoch
    if steps >= planned:
        return None
    last = timeline.phase(max(0, steps - 1) // timeline.steps_per_epoch)
    left_out = [each for each in timeline.phases if each.first_epoch > last.first_epoch]
    names = ", ".join(f"{each.domain} ({each.clusterer})" for each in left_out)
    return (
        f"The run ends after {steps} of the {planned} steps of CMAM's stages, within {last.domain} ({last.clusterer})"
        + (f"; it leaves out {names}." if names else ".")
    )
