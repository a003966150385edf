"""The LightningDataModule of every experiment: batches for training, every image once for evaluation."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.data.evaluation_splits import EvaluationSplits, Stage
from vireid_lightning.data.images.augmentation import Augmentation, Pipeline, TrainTransform
from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.intensity import IntensityRange
from vireid_lightning.data.images.opening import open_all, open_readable
from vireid_lightning.data.images.reading import ImageFiles, Limits
from vireid_lightning.data.images.resizing import RESIZERS, Interpolation, check_image_size
from vireid_lightning.data.images.torch_datasets import EvaluationImages, TrainingImages
from vireid_lightning.data.loading import LateDataLoader, normalize, start_worker
from vireid_lightning.data.samplers.choice import BatchKind, TrainingSampler, build_sampler
from vireid_lightning.data.samplers.evaluation import EvaluationSampler
from vireid_lightning.data.samplers.pseudo_label import PseudoLabelSampler
from vireid_lightning.data.self_training import Domain, DomainName, SelfTraining, Source, open_source
from vireid_lightning.data.summary import count_samples, describe_batches
from vireid_lightning.data.trainer_checks import check_trainer
from vireid_lightning.data.training_data import TrainingData
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds
from vireid_lightning.printable import make_printable
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD, MODALITIES, UNKNOWN, Batch, Sample, note_values

# What is larger is a slip of the hand, and would fill the memory before anything else says so.
_LARGEST_BATCH = 2**17
_LONGEST_EPOCH = 10**6
_LARGEST_SEED = 2**32 - 1  # NumPy's


class CrossModalityDataModule(LightningDataModule):
    """Loads a dataset for any method.

    Training batches are of the kind that the method's class variable ``batches`` names: P identities
    (:class:`~vireid_lightning.data.samplers.identity.IdentitySampler`), P * K visible and P * K infrared images
    (:class:`~vireid_lightning.data.samplers.modality.ModalitySampler`), or P pseudo labels
    (:class:`~vireid_lightning.data.samplers.pseudo_label.PseudoLabelSampler`). For the latter two, identities are
    removed before anything sees them. Validation extracts the images that one protocol needs, test and prediction all
    images of the test split; each image is loaded by one rank, once. Images travel to the device as uint8 and are
    normalised there. The draws of training follow from (seed, epoch) alone, whatever the number of workers and
    processes, and whether or not the run was resumed.

    Args:
        dataset: The dataset; it lists samples and protocols.
        identities_per_batch: P, over all devices together; each takes an equal part.
        images_per_modality: K: a batch holds P identities x (K visible + K infrared) images.
        image_size: Height and width that images are resized to.
        interpolation: How images are resized. ``bilinear``, ``bicubic`` and ``lanczos`` are Pillow's, which every
            method's authors used; ``opencv-bilinear`` and the other OpenCV kernels do not filter where an image
            shrinks, and are for weights that were trained with them.
        intensity_range: Which values become black and white in images of more than 8 bits, such as a radiometric
            thermal camera's: fixed values or percentiles of the training images; null: such images are refused.
        visible_transforms: Augmentation of visible training images: a pipeline's name, or its settings; settings that
            are left out have MPANet's values.
        infrared_transforms: Augmentation of infrared training images, given in the same way.
        steps_per_epoch: Length of an epoch; None: each identity's scarcer modality is seen about once.
        validation_protocol: The protocol that validation scores; None: the dataset's default.
        eval_batch_size: Number of images in an evaluation batch on each device.
        num_workers: Number of loading processes of each device; 0 loads in the main process.
        multiprocessing_context: How loading processes are started; None: the system's default.
        cache_dir: Folder for decoded, resized images, in one file for each list of images; None: no cache.
        on_bad_image: What a missing, empty, truncated or non-image file does. ``error`` stops the run, before training
            unless the damage is in the middle of a file and there is no cache. ``skip`` leaves it out of training and
            says how many were left out; a file whose damage only shows on decoding is replaced by the next image of its
            identity and modality, and counted in ``skipped``. Evaluation never skips: a protocol without one of its
            images is another protocol.
        seed: Seed of sampling and augmentation; None: the seed of ``seed_everything``, else 0.
        source: Visible images of another dataset, for a method that first learns from them; null for every other one.

    Attributes:
        train_samples: The training images; ``index`` of a training batch points into it.
        self_training: The images and batches of a method that draws by pseudo labels, once set up for training.

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
        source: Source | None = None,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        super().__init__()
        given = {name: value for name, value in locals().items() if name not in ("self", "dataset")}
        check_kinds(given, CrossModalityDataModule.__init__)
        height, width = image_size
        check_image_size(image_size)
        if min(identities_per_batch, images_per_modality) < 1:
            name, value = min(
                ("identities_per_batch", identities_per_batch),
                ("images_per_modality", images_per_modality),
                key=lambda item: item[1],
            )
            raise VIReIDError(f"{name} is {value}: set 1 or more.")
        if eval_batch_size < 1:
            raise VIReIDError(f"eval_batch_size is {eval_batch_size}: set 1 or more.")
        if num_workers < 0:
            raise VIReIDError(f"num_workers is {num_workers}: set 0 or more.")
        if seed is not None and not 0 <= seed <= _LARGEST_SEED:
            raise VIReIDError(f"seed is {seed}: set 0 to {_LARGEST_SEED}.")
        if (images := 2 * identities_per_batch * images_per_modality) > _LARGEST_BATCH:
            raise VIReIDError(
                f"identities_per_batch is {identities_per_batch} and images_per_modality {images_per_modality}, a "
                f"batch of {images:,} images: give numbers with at most {_LARGEST_BATCH:,}."
            )
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise VIReIDError(f"steps_per_epoch is {steps_per_epoch}: set 1 or more, or null for one pass.")
        if steps_per_epoch is not None and steps_per_epoch > _LONGEST_EPOCH:
            raise VIReIDError(
                f"steps_per_epoch is {steps_per_epoch:,}: set at most {_LONGEST_EPOCH:,} and more trainer.max_epochs."
            )
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
        self.source = None if source is None else source.check()
        self.intensity_range = (intensity_range or IntensityRange()).check()
        self.self_training: SelfTraining | None = None
        self.identities = sorted(dataset.identities("train"))
        self._train_samples: list[Sample] | None = None
        self._evaluation = EvaluationSplits(dataset, validation_protocol or dataset.default_protocol)
        self._leaving: dict[str, list[int]] = {}  # values of the batch that is on its way to the device
        self._training_images: TrainingImages | None = None
        self._training_sampler: TrainingSampler | None = None
        self._evaluation_images: dict[str, EvaluationImages] = {}

    @property
    def num_identities(self) -> int:
        """Number of training identities, the classes of a classifier; reads the split alone."""
        return len(self.identities)

    @cached_property
    def fingerprint(self) -> str:
        """The dataset's fingerprint, computed once."""
        return self.dataset.fingerprint()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes a network's input, in plain values, for checkpoints and exports."""
        return {
            "image_size": list(self.image_size),
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "interpolation": self.interpolation,
            "resizer": RESIZERS[self.interpolation],
        } | self._describe_intensity()

    @cached_property
    def intensity_limits(self) -> tuple[Limits | None, ...]:
        """For each modality the values that become black and white, percentiles measured once; None where not given."""
        return self.intensity_range.measure(self.dataset)

    def _describe_intensity(self) -> dict[str, Any]:
        """Return the limits in plain values; nothing without any, as for all images of 8 bits."""
        limits = zip(MODALITIES, self.intensity_limits)
        given = {modality: list(values) for modality, values in limits if values is not None}
        return {"intensity_range": given} if given else {}

    @property
    def train_samples(self) -> list[Sample]:
        """The training images, without those that ``on_bad_image: skip`` left out at set-up."""
        if self._train_samples is None:
            samples = self.dataset.samples("train")
            if self._batches() != "identity":
                samples = [replace(sample, identity=UNKNOWN) for sample in samples]
            self._train_samples = samples
        return self._train_samples

    def digest_training_list(self) -> str:
        """Return 12 hexadecimal digits that change with any training image, those of ``source`` included."""
        domains = [] if self.self_training is None else list(self.self_training.domains.values())
        lists = [domain.samples for domain in domains] or [self.train_samples]
        digest = hashlib.sha256()
        for sample in chain.from_iterable(lists):
            digest.update(f"{sample.path} {sample.identity} {sample.modality} {sample.camera}\n".encode())
        return digest.hexdigest()[:12]

    @property
    def skipped(self) -> int:
        """Number of training files found unreadable on decoding and replaced (``on_bad_image: skip``)."""
        return 0 if self._training_images is None else int(self._training_images.bad.sum())

    def eval_samples(self, stage: Stage) -> list[Sample]:
        """Return the images that a stage extracts; ``index`` of an evaluation batch points into this list."""
        return self._evaluation[stage][0]

    def protocols(self, stage: Stage) -> list[Protocol]:
        """Return what a stage scores, as positions in :meth:`eval_samples`.

        Raises:
            VIReIDError: The dataset has no protocol of the name ``validation_protocol``.
        """
        return self._evaluation[stage][1]

    def setup(self, stage: str) -> None:
        """Check everything that can be checked before training: batches, protocols and image files; build the caches.

        Raises:
            VIReIDError: Something does not fit, or an image file cannot be read.
        """
        if isinstance(self.trainer, Trainer):
            check_trainer(self.trainer, stage)
        if stage == "fit":
            self._require_identities()
            self._train_samples = self._training_sampler = None
            self._sampler()  # checks P before thousands of files
            self._training_images = self._open_training()
            self.self_training = self._open_self_training(self._training_images)
        evaluated: Stage = "validate" if stage in ("fit", "validate") else "test"
        samples = self.eval_samples(evaluated)
        if not samples:
            self._miss_evaluation(stage)
            return
        self._evaluation_images[evaluated] = EvaluationImages(
            samples,
            open_all(
                self._files(samples),
                self.cache_dir,
                advice="Evaluation cannot skip files: a protocol without one of its images is another protocol.",
            ),
        )

    def training_data(self) -> TrainingData:
        """Return what a method is told before training; call it after ``setup("fit")``."""
        sampler = self._sampler()
        return TrainingData(
            num_identities=self.num_identities,
            image_size=self.image_size,
            seed=sampler.seed,
            steps_per_epoch=sampler.steps_per_epoch,
            samples=self.train_samples,
            self_training=self.self_training,
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the training batches, this rank's part of them."""
        if self._training_images is None:
            self.setup("fit")
        sampler, images = self._sampler(), self._training_images
        if self.self_training is not None:
            return self.self_training.train_loader()
        assert images is not None
        assert not isinstance(sampler, PseudoLabelSampler)
        return LateDataLoader(
            images,
            batch_size=sampler.batch_size,
            sampler=sampler,
            drop_last=True,
            steps_done=self._steps_done,
            **self._loading(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[DataLoader[dict[str, Any]]]:
        """Return the images that the validation protocol needs, this rank's part; none in a fit without any."""
        if self.trainer is not None and self.trainer.state.fn == "fit" and not self.eval_samples("validate"):
            return []
        return self._evaluation_dataloader("validate")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the images of the test split, this rank's part of them."""
        return self._evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
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

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Keep a batch's modalities and identities, which the host needs too, as it leaves for the device."""
        self._leaving = {name: batch[name].tolist() for name in ("modality", "identity") if name in batch}
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> Batch:
        """Turn uint8 images into normalised ones, on the device; erased pixels become exactly 0.

        They are float32, or float64 where the trainer's precision is 64-true.
        """
        for name, values in self._leaving.items():
            note_values(batch[name], values)
        self._leaving = {}
        erased = batch.get("erased")
        names = [name for name in ("image", "fake_infrared") if name in batch]
        images = {name: normalize(batch[name], erased) for name in names}
        if isinstance(self.trainer, Trainer) and self.trainer.precision == "64-true":
            images = {name: image.double() for name, image in images.items()}
        return cast("Batch", {**batch, **images})

    def summary(self) -> dict[str, Any]:
        """Return the counts of each split and, where it trains, the shape of the batches, in plain values."""
        splits: dict[str, Sequence[Sample]] = {
            "train": self.train_samples,
            "val": self.dataset.samples("val"),
            "test": self.dataset.samples("test"),
        }
        result: dict[str, Any] = {
            "dataset": self.dataset.name,
            "splits": {split: count_samples(samples) for split, samples in splits.items()},
            "world_size": self._world()[0],
            "validation_protocol": self._evaluation.validation_protocol,
            "image_size": list(self.image_size),
        }
        trains = self.trainer is None or self.trainer.state.fn == "fit"
        if trains and (self.dataset.labelled or self._batches() != "identity"):
            result |= describe_batches(
                self._sampler(),
                identities_per_batch=self.identities_per_batch,
                images_per_modality=self.images_per_modality,
            )
        return result

    def _miss_evaluation(self, stage: str) -> None:
        """Say that there are no images to search, which training alone can do without."""
        problem = f"{self.dataset.name} in {self.dataset.root} has no images to search"
        if stage != "fit":
            raise VIReIDError(f"{problem}, which scoring needs. Add query and gallery images.")
        warnings.warn(
            f"{make_printable(problem)}, only to train on: validation and test are left out, and last.ckpt is the "
            "run's result.",
            stacklevel=3,
        )

    def _require_identities(self) -> None:
        if self._batches() == "identity" and not self.dataset.labelled:
            raise VIReIDError(
                f"{self.dataset.name} has no identities in its training set, and batches of identities need them: "
                "only methods that learn without labels (whose `batches` is modality or pseudo_label) can train on it."
            )

    def _batches(self) -> BatchKind:
        """Return the kind of batch that the method asks for; batches of identities where no method is known."""
        kind: BatchKind = getattr(getattr(self.trainer, "lightning_module", None), "batches", "identity")
        return kind

    def _world(self) -> tuple[int, int]:
        """Return the number of processes and the number of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _steps_done(self, loader: DataLoader[Any]) -> int:
        """Return the number of steps of the epoch that a run had done when it was stopped within it.

        Only for the trainer's own loader: whoever else goes through the training batches sees all of them.
        """
        if not isinstance(self.trainer, Trainer) or self.trainer.train_dataloader is not loader:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _sampler(self) -> TrainingSampler:
        if self._training_sampler is None:
            world_size, rank = self._world()
            self._training_sampler = build_sampler(
                self._batches(),
                self.train_samples,
                identities_per_batch=self.identities_per_batch,
                images_per_modality=self.images_per_modality,
                steps_per_epoch=self.steps_per_epoch,
                num_replicas=world_size,
                rank=rank,
                seed=int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed,
            )
        return self._training_sampler

    def _open_training(self) -> TrainingImages:
        skip, files = self.on_bad_image == "skip", self._files(self.train_samples)
        if skip:
            kept, images = open_readable(files, self.cache_dir)
            self._train_samples = [self.train_samples[position] for position in kept]
            self._training_sampler = None
            self._sampler()
        else:
            images = open_all(
                files, self.cache_dir, advice="on_bad_image: skip would leave such files out of training."
            )
        transforms = [TrainTransform(augmentation, self.image_size) for augmentation in self.augmentations]
        training = TrainingImages(self.train_samples, images, self.identities, transforms, skip_bad=skip)
        if isinstance(images, ImageCache):
            training.bad[images.bad] = True
        return training

    def _open_self_training(self, training: TrainingImages) -> SelfTraining | None:
        sampler = self._sampler()
        if not isinstance(sampler, PseudoLabelSampler):
            if self.source is not None:
                raise VIReIDError(
                    "data.source holds images for methods that draw by pseudo labels; this one draws batches by "
                    f"{self._batches()}: leave data.source out."
                )
            return None
        if self.on_bad_image == "skip":
            raise VIReIDError(
                "on_bad_image: skip cannot be used with a method that labels its images itself and needs every one of "
                "them. Remove those that are damaged; vireid check-dataset --deep lists them."
            )
        domains: dict[DomainName, Domain] = {}
        if self.source is not None:
            domains["source"] = open_source(
                self.source, image_size=self.image_size, interpolation=self.interpolation, cache_dir=self.cache_dir
            )
        images = EvaluationImages(self.train_samples, training.images)
        batch = self.identities_per_batch, self.images_per_modality
        domains["target"] = Domain(self.dataset, self.train_samples, training, images, *batch)
        return SelfTraining(
            domains,
            sampler,
            loading=self._loading(),
            eval_batch_size=self.eval_batch_size,
            steps_done=self._steps_done,
        )

    def _files(self, samples: Sequence[Sample]) -> ImageFiles:
        return ImageFiles(
            self.dataset.root,
            [sample.path for sample in samples],
            self.image_size,
            self.interpolation,
            modalities=[sample.modality for sample in samples],
            limits=self.intensity_limits,
        )

    def _evaluation_dataloader(self, stage: Stage) -> DataLoader[dict[str, Any]]:
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
                "worker_init_fn": start_worker,
                "multiprocessing_context": self.multiprocessing_context,
            }
        return loading
