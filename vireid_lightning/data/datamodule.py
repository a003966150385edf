"""The LightningDataModule of every experiment: batches of identities for training, every image once for evaluation."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from vireid_lightning.data.batch import UNKNOWN, Batch, Sample
from vireid_lightning.data.cache import ImageCache
from vireid_lightning.data.dataset import ReIDDataset, Split
from vireid_lightning.data.image_dataset import EvaluationImages, TrainingImages
from vireid_lightning.data.images import INTERPOLATIONS, ImageFiles, Interpolation
from vireid_lightning.data.modality_sampler import ModalitySampler
from vireid_lightning.data.sampler import EvaluationSampler, IdentitySampler
from vireid_lightning.data.transforms import Augmentation, Pipeline, TrainTransform
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.metrics.protocols import Protocol, Trial

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: The stages that score protocols.
Stage = Literal["validate", "test"]

_SPLIT: dict[str, Split] = {"validate": "val", "test": "test"}


class CrossModalityDataModule(LightningDataModule):
    """Loads a dataset for any method.

    Training batches are those of :class:`~vireid_lightning.data.sampler.IdentitySampler`. For a method that reads no
    identities they are those of :class:`~vireid_lightning.data.modality_sampler.ModalitySampler`, P * K visible and
    P * K infrared images, and the identities are removed before anything sees them. Validation extracts the images that
    one protocol needs, test and prediction all images of the test split; each image is loaded by one rank, once. Images
    travel to the device as uint8 and are normalised there. The draws of training follow from (seed, epoch) alone,
    whatever the number of workers and processes, and whether or not the run was resumed.

    Args:
        dataset: The dataset; it lists samples and protocols.
        identities_per_batch: P, over all devices together; each takes an equal part.
        images_per_modality: K: a batch holds P identities x (K visible + K infrared) images.
        image_size: Height and width that images are resized to.
        interpolation: How images are resized.
        visible_transforms: Augmentation of visible training images: a pipeline's name, or its settings; settings that
            are left out have MPANet's values.
        infrared_transforms: The same for infrared training images.
        steps_per_epoch: Length of an epoch; None: each identity's scarcer modality is seen about once.
        validation_protocol: The protocol that validation scores; None: the dataset's default.
        eval_batch_size: Images in an evaluation batch on each device.
        num_workers: Loading processes of each device; 0 loads in the main process.
        multiprocessing_context: How they are started; None: the system's default.
        cache_dir: Folder for decoded, resized images, in one file for each list of images; None: no cache.
        on_bad_image: What a missing, empty, truncated or non-image file does. ``error`` stops the run, before training
            unless the damage is in the middle of a file and there is no cache. ``skip`` leaves it out of training and
            says how many were left out; a file whose damage only shows on decoding is replaced by the next image of its
            identity and modality, and counted in ``skipped``. Evaluation never skips: a protocol without one of its
            images is another protocol.
        seed: Seed of sampling and augmentation; None: the seed of ``seed_everything``, else 0.

    Attributes:
        train_samples: The training images; ``index`` of a training batch points into it.

    Raises:
        VIReIDError: An argument is out of its range.

    Example:
        >>> data = CrossModalityDataModule(SYSUMM01("/data/SYSU-MM01"), num_workers=8)  # doctest: +SKIP
        >>> data.num_identities  # doctest: +SKIP
        395
    """

    def __init__(
        self,
        dataset: ReIDDataset,
        *,
        identities_per_batch: int = 16,
        images_per_modality: int = 4,
        image_size: tuple[int, int] = (384, 128),
        interpolation: Interpolation = "bilinear",
        visible_transforms: Augmentation | Pipeline = "mpanet",
        infrared_transforms: Augmentation | Pipeline = "mpanet",
        steps_per_epoch: int | None = None,
        validation_protocol: str | None = None,
        eval_batch_size: int = 128,
        num_workers: int = 4,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
        cache_dir: str | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        height, width = image_size
        if min(height, width) < 1:
            raise VIReIDError(f"image_size is {image_size}: give height and width in pixels, such as [384, 128].")
        if interpolation not in INTERPOLATIONS:
            raise VIReIDError(f"interpolation is '{interpolation}': give one of {', '.join(INTERPOLATIONS)}.")
        if on_bad_image not in ("error", "skip"):
            raise VIReIDError(f"on_bad_image is '{on_bad_image}': give error or skip.")
        if eval_batch_size < 1:
            raise VIReIDError(f"eval_batch_size is {eval_batch_size}: set 1 or more.")
        if num_workers < 0:
            raise VIReIDError(f"num_workers is {num_workers}: set 0 or more.")
        if seed is not None and seed < 0:
            raise VIReIDError(f"seed is {seed}: set 0 or more.")
        self.dataset = dataset
        self.identities_per_batch = identities_per_batch
        self.images_per_modality = images_per_modality
        self.image_size = (height, width)
        self.interpolation: Interpolation = interpolation
        self.augmentations = (Augmentation.named(visible_transforms), Augmentation.named(infrared_transforms))
        self.steps_per_epoch = steps_per_epoch
        self.validation_protocol = validation_protocol
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.multiprocessing_context = multiprocessing_context
        self.cache_dir = cache_dir
        self.on_bad_image = on_bad_image
        self.seed = seed
        self.identities = sorted(dataset.identities("train"))
        self._train_samples: list[Sample] | None = None
        self._evaluation: dict[str, tuple[list[Sample], list[Protocol]]] = {}
        self._training_images: TrainingImages | None = None
        self._training_sampler: IdentitySampler | ModalitySampler | None = None
        self._evaluation_images: dict[str, EvaluationImages] = {}

    @property
    def num_identities(self) -> int:
        """Number of training identities, the classes of a classifier; reads the split alone."""
        return len(self.identities)

    @cached_property
    def fingerprint(self) -> str:
        """The dataset's fingerprint, listed once."""
        return self.dataset.fingerprint()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes a network's input, in plain values, for checkpoints and exports."""
        return {
            "image_size": list(self.image_size),
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "interpolation": self.interpolation,
        }

    @property
    def train_samples(self) -> list[Sample]:
        """The training images, without those that ``on_bad_image: skip`` left out at set-up."""
        if self._train_samples is None:
            samples = self.dataset.samples("train")
            if not self._uses_identities():
                samples = [replace(sample, identity=UNKNOWN) for sample in samples]
            self._train_samples = samples
        return self._train_samples

    @property
    def skipped(self) -> int:
        """Number of training files found unreadable on decoding and replaced (``on_bad_image: skip``)."""
        return 0 if self._training_images is None else int(self._training_images.bad.sum())

    def eval_samples(self, stage: Stage) -> list[Sample]:
        """Return the images that a stage extracts; ``index`` of an evaluation batch points into this list."""
        return self._evaluate(stage)[0]

    def protocols(self, stage: Stage) -> list[Protocol]:
        """Return what a stage scores, as positions in :meth:`eval_samples`.

        Raises:
            VIReIDError: The dataset has no protocol of the name ``validation_protocol``.
        """
        return self._evaluate(stage)[1]

    def setup(self, stage: str) -> None:
        """Check everything that can be checked before training: batches, protocols and image files; build the caches.

        Raises:
            VIReIDError: Something does not fit, or an image file cannot be read.
        """
        if stage == "fit":
            self._check_labelled()
            self._train_samples = self._training_sampler = None
            images = self._load(self.train_samples, training=True)
            transforms = [TrainTransform(augmentation, self.image_size) for augmentation in self.augmentations]
            self._training_images = TrainingImages(
                self.train_samples, images, self.identities, transforms, skip_bad=self.on_bad_image == "skip"
            )
            if isinstance(images, ImageCache):
                self._training_images.bad[images.bad] = True
            self._sampler()
        evaluated: Stage = "validate" if stage in ("fit", "validate") else "test"
        samples = self.eval_samples(evaluated)
        self._evaluation_images[evaluated] = EvaluationImages(samples, self._load(samples, training=False))

    def train_dataloader(self) -> DataLoader:
        """Return batches of P identities x (K visible + K infrared) images; this rank's part of them."""
        if self.trainer is not None and self.trainer.overfit_batches > 0:
            raise VIReIDError(
                "overfit_batches draws images one after the other, but training needs batches of identities: use "
                "limit_train_batches instead."
            )
        if self._training_images is None:
            self.setup("fit")
        sampler = self._sampler()
        return _LateDataLoader(
            self._training_images, batch_size=sampler.batch_size, sampler=sampler, drop_last=True, **self._loading()
        )

    def val_dataloader(self) -> DataLoader:
        """Return the images that the validation protocol needs, this rank's part of them."""
        return self._evaluation_dataloader("validate")

    def test_dataloader(self) -> DataLoader:
        """Return the images of the test split, this rank's part of them."""
        return self._evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the images of the test split, this rank's part of them."""
        return self._evaluation_dataloader("test")

    def teardown(self, stage: str) -> None:
        """Say how many unreadable files training met."""
        if stage == "fit" and self.skipped:
            warnings.warn(
                f"{self.skipped} training {'image' if self.skipped == 1 else 'images'} could not be decoded and gave "
                "way to others of the same identity and modality (on_bad_image: skip).",
                stacklevel=2,
            )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> Batch:
        """Turn uint8 images into normalised float32 ones, on the device; erased pixels become exactly 0."""
        image = batch["image"].to(torch.float32)
        mean, std = (
            torch.tensor(values, device=image.device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        image = image.div_(255).sub_(mean).div_(std)
        if "erased" in batch:
            image.masked_fill_(batch["erased"].unsqueeze(1), 0)
        return {**batch, "image": image}

    def summary(self) -> dict[str, Any]:
        """Return the counts of each split and the shape of the training batches, in plain values."""
        splits: dict[str, Sequence[Sample]] = {
            "train": self.train_samples,
            "val": self.dataset.samples("val"),
            "test": self.dataset.samples("test"),
        }
        result: dict[str, Any] = {
            "dataset": self.dataset.name,
            "splits": {split: _count(samples) for split, samples in splits.items()},
            "world_size": self._world()[0],
            "validation_protocol": self.validation_protocol or self.dataset.default_protocol,
            "image_size": list(self.image_size),
        }
        if self.dataset.labelled or not self._uses_identities():
            result["identities_per_batch"] = self.identities_per_batch
            result["images_per_modality"] = self.images_per_modality
            result["steps_per_epoch"] = self._sampler().steps_per_epoch
        return result

    def _check_labelled(self) -> None:
        if self._uses_identities() and not self.dataset.labelled:
            raise VIReIDError(
                f"{self.dataset.name} has no identities in its training set, and batches of identities need them: "
                "only methods that learn without labels (MMGL, CMAM) can train on it."
            )

    def _uses_identities(self) -> bool:
        """Return whether the method reads identities; where none is known, it does."""
        method = getattr(self.trainer, "lightning_module", None)
        return getattr(method, "uses_identities", True)

    def _world(self) -> tuple[int, int]:
        """Return the number of processes and the number of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _sampler(self) -> IdentitySampler | ModalitySampler:
        if self._training_sampler is None:
            self._training_sampler = self._new_sampler()
        return self._training_sampler

    def _new_sampler(self) -> IdentitySampler | ModalitySampler:
        world_size, rank = self._world()
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        steps, world = self.steps_per_epoch, {"num_replicas": world_size, "rank": rank, "seed": seed}
        if not self._uses_identities():
            wanted = self.identities_per_batch * self.images_per_modality
            return ModalitySampler(self.train_samples, images_per_modality=wanted, steps_per_epoch=steps, **world)
        return IdentitySampler(
            self.train_samples,
            identities_per_batch=self.identities_per_batch,
            images_per_modality=self.images_per_modality,
            steps_per_epoch=steps,
            **world,
        )

    def _evaluate(self, stage: Stage) -> tuple[list[Sample], list[Protocol]]:
        if stage not in self._evaluation:
            split = _SPLIT[stage]
            samples = self.dataset.samples(split)
            protocols = self.dataset.protocols(samples, split)
            if stage == "validate":
                protocol = self._choose(protocols)
                used = protocol.samples_used()
                samples = [samples[position] for position in used]
                protocols = [_moved(protocol, used)]
            self._evaluation[stage] = samples, protocols
        return self._evaluation[stage]

    def _choose(self, protocols: Sequence[Protocol]) -> Protocol:
        wanted = self.validation_protocol or self.dataset.default_protocol
        by_name = {protocol.name: protocol for protocol in protocols}
        if wanted not in by_name:
            raise VIReIDError(
                f"{self.dataset.name} has no validation protocol '{wanted}', only {', '.join(by_name)}."
                f"{did_you_mean(wanted, by_name)} Set validation_protocol to one of them."
            )
        return by_name[wanted]

    def _load(self, samples: list[Sample], *, training: bool) -> ImageFiles | ImageCache:
        """Return the samples' images after checking their files; ``skip`` shortens the list of training samples."""
        files = self._files(samples)
        skip = training and self.on_bad_image == "skip"
        if skip:
            samples = self._skip(samples, files.find_bad())
            files = self._files(samples)
        if self.cache_dir is None:
            if not skip:
                self._refuse(files.find_bad(), training=training)
            return files
        cache = ImageCache(self.cache_dir, files)
        if not skip and not cache.is_fresh():
            self._refuse(files.find_bad(), training=training)  # before minutes of building
        cache.build()
        if not skip:
            self._refuse({position: files.problem(position, decode=True) for position in cache.bad}, training=training)
        return cache

    def _files(self, samples: Sequence[Sample]) -> ImageFiles:
        return ImageFiles(self.dataset.root, [sample.path for sample in samples], self.image_size, self.interpolation)

    def _skip(self, samples: list[Sample], bad: dict[int, str]) -> list[Sample]:
        if bad:
            warnings.warn(
                f"{len(bad)} of {len(samples)} training images cannot be read and are left out "
                f"(on_bad_image: skip). The first: {next(iter(bad.values()))}",
                stacklevel=2,
            )
            self._train_samples = [sample for position, sample in enumerate(samples) if position not in bad]
        return self.train_samples

    def _refuse(self, bad: dict[int, str], *, training: bool) -> None:
        if not bad:
            return
        advice = (
            "on_bad_image: skip would leave such files out of training."
            if training
            else "Evaluation cannot skip files: a protocol without one of its images is another protocol."
        )
        others = f" {len(bad) - 1} more cannot be read." if len(bad) > 1 else ""
        raise VIReIDError(f"{next(iter(bad.values()))}{others} {advice}")

    def _evaluation_dataloader(self, stage: Stage) -> DataLoader:
        if stage not in self._evaluation_images:
            self.setup(stage)
        images = self._evaluation_images[stage]
        world_size, rank = self._world()
        sampler = EvaluationSampler(images, num_replicas=world_size, rank=rank)
        return DataLoader(images, batch_size=self.eval_batch_size, sampler=sampler, **self._loading())

    def _loading(self) -> dict[str, Any]:
        loading: dict[str, Any] = {"num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
        if self.num_workers:
            loading |= {
                "persistent_workers": True,
                "worker_init_fn": _start_worker,
                "multiprocessing_context": self.multiprocessing_context,
            }
        return loading


class _LateDataLoader(DataLoader):
    """A DataLoader whose workers start on the first batch instead of when the iterator is made.

    Lightning makes the first iterator of a resumed run before it tells the sampler the epoch; workers that start at
    once would load batches of another epoch.
    """

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()


def _start_worker(worker: int) -> None:
    """Keep OpenCV from starting a thread for each core in each worker."""
    cv2.setNumThreads(0)


def _moved(protocol: Protocol, used: np.ndarray) -> Protocol:
    """Return the protocol as positions in the list of the samples at the sorted positions ``used``."""
    trials = tuple(
        Trial(query=np.searchsorted(used, trial.query), gallery=np.searchsorted(used, trial.gallery))
        for trial in protocol.trials
    )
    return replace(protocol, trials=trials)


def _count(samples: Sequence[Sample]) -> dict[str, int]:
    modalities = Counter(sample.modality for sample in samples)
    return {
        "identities": len({sample.identity for sample in samples if sample.identity >= 0}),
        "visible": modalities[0],
        "infrared": modalities[1],
        "cameras": len({sample.camera for sample in samples if sample.camera >= 0}),
    }
