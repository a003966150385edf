"""What a method that labels its own training images needs: their features' images, and batches by its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.data.images.augmentation import Augmentation, Pipeline, TrainTransform
from vireid_lightning.data.images.opening import open_all
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.data.images.torch_datasets import EvaluationImages, Images, TrainingImages
from vireid_lightning.data.loading import LateDataLoader
from vireid_lightning.data.samplers.evaluation import EvaluationSampler
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.data.samplers.pseudo_label import PseudoLabelSampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import UNKNOWN, VISIBLE, Sample

#: ``source``: visible images that the first stage learns from; ``target``: the datamodule's own dataset.
DomainName = Literal["source", "target"]


@dataclass(frozen=True)
class Source:
    """The visible images that CMAM's first stage learns from.

    Attributes:
        dataset: Any dataset; only the visible images of its training split are used.
        identities_per_batch: Pseudo identities in a batch, over all devices together.
        images_per_identity: Images of each.
        transforms: Augmentation; the default is the authors'.
        fake_infrared: Folder with a translated, fake-infrared copy of every one of these images, under the same
            relative path; None: there are none.
    """

    dataset: ReIDDataset
    identities_per_batch: int = 4
    images_per_identity: int = 16
    transforms: Augmentation | Pipeline = Augmentation(jitter=1.0, brightness=0.2, contrast=0.15, saturation=0.0)
    fake_infrared: str | None = None


@dataclass(frozen=True)
class Domain:
    """The training images of one stage.

    Attributes:
        samples: Its images; ``index`` of a batch points into them.
        training: The images, augmented.
        evaluation: The images as they are.
        identities_per_batch: P.
        images_per_modality: K.
    """

    samples: Sequence[Sample]
    training: TrainingImages
    evaluation: EvaluationImages
    identities_per_batch: int
    images_per_modality: int

    @property
    def modality(self) -> NDArray[np.int64]:
        """Modality of each image."""
        return np.array([sample.modality for sample in self.samples], dtype=np.int64)


class SelfTraining:
    """Hands a method the images of a domain to extract features from, and draws batches by the labels it makes.

    Args:
        domains: By name.
        sampler: Of the training batches.
        loading: Arguments of every DataLoader.
        eval_batch_size: Images in a batch of :meth:`extraction_loader`.
    """

    def __init__(
        self,
        domains: dict[DomainName, Domain],
        sampler: PseudoLabelSampler,
        *,
        loading: dict[str, Any],
        eval_batch_size: int,
    ) -> None:
        for domain in domains.values():
            sampler.check_batch(domain.identities_per_batch, domain.images_per_modality)
        self.domains = domains
        self.sampler = sampler
        self.loading = loading
        self.eval_batch_size = eval_batch_size

    def assign(self, name: DomainName, labels: NDArray[np.int64]) -> None:
        """Draw the coming epoch's batches from a domain by these labels; negative ones are left out."""
        domain = self.domains[name]
        before = list(self.domains)[: list(self.domains).index(name)]
        self.sampler.assign(
            labels,
            domain.modality,
            identities_per_batch=domain.identities_per_batch,
            images_per_modality=domain.images_per_modality,
            offset=sum(len(self.domains[other].samples) for other in before),
        )

    def train_loader(self) -> DataLoader:
        """Return the one loader of all epochs; each draws by the labels of the last :meth:`assign`."""
        images = TrainingBatches([domain.training for domain in self.domains.values()])
        return LateDataLoader(images, batch_size=None, sampler=self.sampler, **self.loading)

    def extraction_loader(self, name: DomainName) -> DataLoader:
        """Return a domain's images as they are, this rank's part of them."""
        images = self.domains[name].evaluation
        sampler = EvaluationSampler(images, num_replicas=self.sampler.num_replicas, rank=self.sampler.rank)
        once = {**self.loading, "persistent_workers": False}
        return DataLoader(images, batch_size=self.eval_batch_size, sampler=sampler, **once)


class TrainingBatches(Dataset[dict[str, Any]]):
    """Whole batches from one of several lists of images, numbered one after the other.

    Args:
        parts: The lists.
    """

    def __init__(self, parts: Sequence[TrainingImages]) -> None:
        self.parts = list(parts)

    def __getitem__(self, draws: list[Draw]) -> dict[str, Any]:
        """Return the batch of these draws; its ``index`` counts within the list that they come from."""
        offset = 0
        for part in self.parts:
            if draws[0].index < offset + len(part):
                return default_collate([part[Draw(draw.index - offset, draw.seed)] for draw in draws])
            offset += len(part)
        raise IndexError(f"{draws[0].index} is beyond the {offset} training images")


class SourceImages(TrainingImages):
    """Augmented training images beside their fake-infrared copies, which go through the same augmentation.

    Args:
        fakes: The copies, in the order of the samples.
        arguments: Those of :class:`~vireid_lightning.data.images.torch_datasets.TrainingImages`.
    """

    def __init__(self, *arguments: Any, fakes: Images) -> None:
        super().__init__(*arguments)
        self.fakes = fakes

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return one item of a training batch, with ``fake_infrared``, (3, H, W) uint8."""
        item = super().__getitem__(draw)
        fake, _ = self.transforms[VISIBLE](self.fakes[item["index"]], draw.seed)
        return {**item, "fake_infrared": torch.from_numpy(np.ascontiguousarray(fake.transpose(2, 0, 1)))}


def open_source(
    source: Source,
    *,
    labelled: bool,
    image_size: tuple[int, int],
    interpolation: Any,
    cache_dir: str | None,
) -> Domain:
    """Open the visible training images of a source dataset.

    Args:
        source: Where they are and how they are batched.
        labelled: Whether their identities are used; if not, they are removed here.
        image_size: Height and width that images are resized to.
        interpolation: How.
        cache_dir: Folder for a cache of them.

    Raises:
        VIReIDError: There is no visible image, a file cannot be read, or a fake-infrared copy is missing.
    """
    dataset = source.dataset
    samples = [sample for sample in dataset.samples("train") if sample.modality == VISIBLE]
    if not samples:
        raise VIReIDError(f"The source {dataset.name} in {dataset.root} has no visible training image.")
    if not labelled:
        samples = [Sample(sample.path, UNKNOWN, sample.modality, sample.camera) for sample in samples]
    paths = [sample.path for sample in samples]

    def opened(root: Path, advice: str) -> Images:
        return open_all(ImageFiles(root, paths, image_size, interpolation), cache_dir, advice=advice)

    images = opened(dataset.root, f"It is a training image of the source {dataset.name}.")
    transform = TrainTransform(Augmentation.named(source.transforms), image_size)
    identities = sorted({sample.identity for sample in samples} - {UNKNOWN})
    arguments = (samples, images, identities, [transform])
    if source.fake_infrared is None:
        training = TrainingImages(*arguments)
    else:
        fakes = opened(
            Path(source.fake_infrared).expanduser(),
            "data.source.fake_infrared needs a copy of every visible training image, under the same relative path.",
        )
        training = SourceImages(*arguments, fakes=fakes)
    return Domain(
        samples, training, EvaluationImages(samples, images), source.identities_per_batch, source.images_per_identity
    )


def true_identities(dataset: ReIDDataset, samples: Sequence[Sample]) -> NDArray[np.int64] | None:
    """Return the identities of training images, for the log alone; None where the dataset has none.

    Args:
        dataset: Where the samples are from.
        samples: Some of its training images, with or without their identities.
    """
    if not dataset.labelled:
        return None
    by_path = {sample.path: sample.identity for sample in dataset.samples("train")}
    known = np.array([by_path[sample.path] for sample in samples], dtype=np.int64)
    return known if (known >= 0).any() else None
