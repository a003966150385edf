"""Datasets, samples, batches and the cross-modality DataModule."""

from vireid_lightning.data.batch import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Batch, Sample
from vireid_lightning.data.cache import ImageCache
from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.data.dataset import ReIDDataset, Split
from vireid_lightning.data.images import BadImageError, ImageFiles, read_image, resize_image
from vireid_lightning.data.sampler import Draw, EvaluationSampler, IdentitySampler
from vireid_lightning.data.sysu_mm01 import SYSUMM01
from vireid_lightning.data.transforms import PIPELINES, Augmentation, TrainTransform

__all__ = [
    "INFRARED",
    "MODALITIES",
    "PIPELINES",
    "SYSUMM01",
    "UNKNOWN",
    "VISIBLE",
    "Augmentation",
    "BadImageError",
    "Batch",
    "CrossModalityDataModule",
    "Draw",
    "EvaluationSampler",
    "IdentitySampler",
    "ImageCache",
    "ImageFiles",
    "ReIDDataset",
    "Sample",
    "Split",
    "TrainTransform",
    "read_image",
    "resize_image",
]
