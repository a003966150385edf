"""What a method that trains on pseudo labels needs: the images to extract features from, and batches by its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.data.datasets.roots import find_below_data
from vireid_lightning.data.images.augmentation import Augmentation, Pipeline, TrainTransform
from vireid_lightning.data.images.intensity import IntensityRange
from vireid_lightning.data.images.opening import open_all
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.data.images.resizing import Interpolation
from vireid_lightning.data.images.torch_datasets import EvaluationImages, Images, TrainingImages
from vireid_lightning.data.loading import LateDataLoader
from vireid_lightning.data.samplers.evaluation import EvaluationSampler
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.data.samplers.pseudo_label import PseudoLabelSampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.types import INFRARED, UNKNOWN, VISIBLE, Sample

#: ``source``: visible images of another dataset; ``target``: the datamodule's own dataset.
DomainName = Literal["source", "target"]


@dataclass(frozen=True)
class Source:
    """Visible images of another dataset, from which a method with pseudo labels can learn before it sees the target.

    Attributes:
        dataset: Any dataset; only the visible images of its training split are used.
        identities_per_batch: Number of pseudo labels in a batch, over all devices together.
        images_per_identity: Number of images of each pseudo label in a batch.
        transforms: Augmentation of these images: a pipeline's name, or its settings.
        fake_infrared: Folder with a translated, fake-infrared copy of every one of these images, under the same
            relative path; null uses no copies.
        labels: Whether the dataset's own identities stand in for pseudo labels; if not, they are never read.
        intensity_range: Which values become black and white in images of more than 8 bits, as the datamodule's for its
            own; ``infrared`` is that of the fake-infrared copies. Null: such images are refused.
    """

    dataset: ReIDDataset
    identities_per_batch: int = 4
    images_per_identity: int = 16
    transforms: Augmentation | Pipeline = Augmentation(jitter=1.0, brightness=0.2, contrast=0.15, saturation=0.0)
    fake_infrared: str | None = None
    labels: bool = False
    intensity_range: IntensityRange | None = None

    def check(self) -> Source:
        """Return the source itself if every value is in its range.

        This is not done on construction, for the reason of :meth:`Augmentation.check`.

        Raises:
            VIReIDError: A value is not of its kind, or outside its range.
        """
        check_kinds(vars(self), Source, "source.")
        check_number("source.identities_per_batch", self.identities_per_batch, 2, whole=True)
        check_number("source.images_per_identity", self.images_per_identity, 1, whole=True)
        Augmentation.named(self.transforms)
        if self.intensity_range is not None:
            self.intensity_range.check()
        return self


@dataclass(frozen=True)
class Domain:
    """Training images that are labelled, and drawn, together.

    Attributes:
        dataset: The dataset that they are from.
        samples: The images; ``index`` of a batch points into them. Their identities are removed unless ``labelled``.
        training: The images, augmented.
        evaluation: The images as they are.
        identities_per_batch: P, the number of pseudo labels in a batch.
        images_per_modality: K, the number of images of each label and modality in a batch.
        labelled: Whether a method may use the identities of the samples.
    """

    dataset: ReIDDataset
    samples: Sequence[Sample]
    training: TrainingImages
    evaluation: EvaluationImages
    identities_per_batch: int
    images_per_modality: int
    labelled: bool = False

    @property
    def modality(self) -> NDArray[np.int64]:
        """Modality of each image."""
        return np.array([sample.modality for sample in self.samples], dtype=np.int64)

    def true_identities(self) -> NDArray[np.int64] | None:
        """Return the identities of the images, for the log alone; None where the dataset has none."""
        return true_identities(self.dataset, self.samples)


class SelfTraining:
    """Hands a method the images of a domain to extract features from, and draws batches by the labels it assigns.

    Args:
        domains: The training images by the name of their domain.
        sampler: Sampler of the training batches.
        loading: Arguments that every DataLoader is made with.
        eval_batch_size: Number of images in a batch of :meth:`extraction_loader`.
        steps_done: Returns the number of batches that a pass of a training loader leaves out.

    Attributes:
        domains: The training images by the name of their domain.
        labels: (N,) pseudo labels of the last :meth:`assign`; empty before the first.
    """

    def __init__(
        self,
        domains: dict[DomainName, Domain],
        sampler: PseudoLabelSampler,
        *,
        loading: dict[str, Any],
        eval_batch_size: int,
        steps_done: Callable[[DataLoader[Any]], int] = lambda _: 0,
    ) -> None:
        for domain in domains.values():
            sampler.check_batch(domain.identities_per_batch, domain.images_per_modality)
        self.domains = domains
        self.sampler = sampler
        self.loading = loading
        self.eval_batch_size = eval_batch_size
        self.steps_done = steps_done
        self.labels: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._drawn: DomainName = "target"

    @property
    def drawn(self) -> Domain:
        """The domain that batches are drawn from since the last :meth:`assign`."""
        return self.domains[self._drawn]

    def assign(self, name: DomainName, labels: NDArray[np.int64]) -> None:
        """Draw the coming epoch's batches from a domain by pseudo labels; images of negative labels are left out.

        A batch carries the labels as its ``identity``.
        """
        domain = self.domains[name]
        before = list(self.domains)[: list(self.domains).index(name)]
        self.sampler.assign(
            labels,
            domain.modality,
            identities_per_batch=domain.identities_per_batch,
            images_per_modality=domain.images_per_modality,
            offset=sum(len(self.domains[other].samples) for other in before),
        )
        self._drawn, self.labels = name, labels

    def train_loader(self) -> DataLoader[dict[str, Any]]:
        """Return the one loader of all epochs; each draws by the labels of the last :meth:`assign`."""
        images = TrainingBatches([domain.training for domain in self.domains.values()])
        return LateDataLoader(images, batch_size=None, sampler=self.sampler, steps_done=self.steps_done, **self.loading)

    def extraction_loader(self, name: DomainName) -> DataLoader[dict[str, Any]]:
        """Return a domain's images as they are, this rank's part of them."""
        images = self.domains[name].evaluation
        sampler = EvaluationSampler(images, num_replicas=self.sampler.num_replicas, rank=self.sampler.rank)
        once = {**self.loading, "persistent_workers": False}
        return DataLoader(images, batch_size=self.eval_batch_size, sampler=sampler, **once)


class TrainingBatches(Dataset[dict[str, Any]]):
    """Whole batches from one of several lists of images, numbered one after the other.

    Args:
        parts: The lists of images.
    """

    def __init__(self, parts: Sequence[TrainingImages]) -> None:
        self.parts = list(parts)

    def __getitem__(self, draws: list[Draw]) -> dict[str, Any]:
        """Return the batch of these draws.

        Its ``index`` counts within the list that they come from; its ``identity`` is the label of the draws.
        """
        offset = 0
        for part in self.parts:
            if draws[0].index < offset + len(part):
                items = [part[Draw(draw.index - offset, draw.seed, draw.label)] for draw in draws]
                labelled = [{**item, "identity": draw.label} for item, draw in zip(items, draws)]
                batch: dict[str, Any] = default_collate(labelled)
                return batch
            offset += len(part)
        raise IndexError(f"{draws[0].index} is beyond the {offset} training images")


class SourceImages(TrainingImages):
    """Augmented training images beside their fake-infrared copies, which go through the same augmentation.

    Args:
        fakes: The copies, in the order of the samples.
        arguments: Arguments of :class:`~vireid_lightning.data.images.torch_datasets.TrainingImages`.
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
    source: Source, *, image_size: tuple[int, int], interpolation: Interpolation, cache_dir: str | None
) -> Domain:
    """Open the visible training images of a source dataset, without their identities unless it says to use them.

    Args:
        source: The dataset and how its images are batched.
        image_size: Height and width that images are resized to.
        interpolation: Interpolation that images are resized by.
        cache_dir: Folder for a cache of the resized images; None reads them from their files.

    Raises:
        VIReIDError: There is no visible image, a file cannot be read, or a fake-infrared copy is missing.
    """
    dataset = source.dataset
    samples = [sample for sample in dataset.samples("train") if sample.modality == VISIBLE]
    if not samples:
        raise VIReIDError(f"The source {dataset.name} in {dataset.root} has no visible training image.")
    if not source.labels:
        samples = [Sample(sample.path, UNKNOWN, sample.modality, sample.camera) for sample in samples]
    paths = [sample.path for sample in samples]

    limits = (source.intensity_range or IntensityRange()).check().measure(dataset)

    def open_images(root: Path, modality: int, advice: str) -> Images:
        files = ImageFiles(
            root,
            paths,
            image_size,
            interpolation,
            modalities=[modality] * len(paths),
            limits=limits,
            setting="data.source.intensity_range",
        )
        return open_all(files, cache_dir, advice=advice)

    images = open_images(dataset.root, VISIBLE, f"It is a training image of the source {dataset.name}.")
    transform = TrainTransform(Augmentation.named(source.transforms), image_size)
    identities = sorted({sample.identity for sample in samples} - {UNKNOWN})
    arguments = (samples, images, identities, [transform])
    if source.fake_infrared is None:
        training = TrainingImages(*arguments)
    else:
        fakes = open_images(
            find_below_data(source.fake_infrared),
            INFRARED,
            "data.source.fake_infrared needs a copy of every visible training image, under the same relative path.",
        )
        training = SourceImages(*arguments, fakes=fakes)
    return Domain(
        dataset,
        samples,
        training,
        EvaluationImages(samples, images),
        source.identities_per_batch,
        source.images_per_identity,
        labelled=source.labels,
    )


def true_identities(dataset: ReIDDataset, samples: Sequence[Sample]) -> NDArray[np.int64] | None:
    """Return the identities of training images, for the log alone; None where the dataset has none.

    Args:
        dataset: The dataset that the samples are from.
        samples: Some of its training images, with or without their identities.
    """
    if not dataset.labelled:
        return None
    by_path = {sample.path: sample.identity for sample in dataset.samples("train")}
    known = np.array([by_path[sample.path] for sample in samples], dtype=np.int64)
    return known if (known >= 0).any() else None
