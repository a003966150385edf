"""Datasets, samples, batches and the cross-modality DataModule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Batch, Sample

if TYPE_CHECKING:
    from vireid_lightning.data.datamodule import CrossModalityDataModule
    from vireid_lightning.data.datasets.base import ReIDDataset, Split
    from vireid_lightning.data.datasets.llcm import LLCM
    from vireid_lightning.data.datasets.manifest import Manifest
    from vireid_lightning.data.datasets.market1501 import Market1501
    from vireid_lightning.data.datasets.msmt17 import MSMT17
    from vireid_lightning.data.datasets.regdb import RegDB
    from vireid_lightning.data.datasets.sysu_mm01 import SYSUMM01
    from vireid_lightning.data.datasets.sysu_mm02 import SYSUMM02
    from vireid_lightning.data.images.augmentation import Augmentation, TrainTransform
    from vireid_lightning.data.images.cache import ImageCache
    from vireid_lightning.data.images.reading import ImageFiles, read_image, resize_image
    from vireid_lightning.data.samplers.evaluation import EvaluationSampler
    from vireid_lightning.data.samplers.identity import IdentitySampler
    from vireid_lightning.data.self_training import Source
    from vireid_lightning.data.synthetic.dataset import Synthetic

__all__ = [
    "INFRARED",
    "LLCM",
    "MODALITIES",
    "MSMT17",
    "SYSUMM01",
    "SYSUMM02",
    "UNKNOWN",
    "VISIBLE",
    "Augmentation",
    "Batch",
    "CrossModalityDataModule",
    "EvaluationSampler",
    "IdentitySampler",
    "ImageCache",
    "ImageFiles",
    "Manifest",
    "Market1501",
    "ReIDDataset",
    "RegDB",
    "Sample",
    "Source",
    "Split",
    "Synthetic",
    "TrainTransform",
    "read_image",
    "resize_image",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Augmentation": "images.augmentation",
            "CrossModalityDataModule": "datamodule",
            "EvaluationSampler": "samplers.evaluation",
            "IdentitySampler": "samplers.identity",
            "ImageCache": "images.cache",
            "ImageFiles": "images.reading",
            "LLCM": "datasets.llcm",
            "MSMT17": "datasets.msmt17",
            "Manifest": "datasets.manifest",
            "Market1501": "datasets.market1501",
            "ReIDDataset": "datasets.base",
            "RegDB": "datasets.regdb",
            "SYSUMM01": "datasets.sysu_mm01",
            "SYSUMM02": "datasets.sysu_mm02",
            "Source": "self_training",
            "Split": "datasets.base",
            "Synthetic": "synthetic.dataset",
            "TrainTransform": "images.augmentation",
            "read_image": "images.reading",
            "resize_image": "images.reading",
        },
    )
