"""Datasets, samples, batches and the cross-modality DataModule."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vireid_lightning.data.batch import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Batch, Sample
from vireid_lightning.data.dataset import ReIDDataset, Split
from vireid_lightning.data.llcm import LLCM
from vireid_lightning.data.manifest import Manifest
from vireid_lightning.data.market1501 import Market1501
from vireid_lightning.data.msmt17 import MSMT17
from vireid_lightning.data.regdb import RegDB
from vireid_lightning.data.sysu_mm01 import SYSUMM01
from vireid_lightning.data.sysu_mm02 import SYSUMM02

if TYPE_CHECKING:
    from vireid_lightning.data.cache import ImageCache
    from vireid_lightning.data.datamodule import CrossModalityDataModule
    from vireid_lightning.data.images import ImageFiles, read_image, resize_image
    from vireid_lightning.data.sampler import EvaluationSampler, IdentitySampler
    from vireid_lightning.data.self_training import Source
    from vireid_lightning.data.synthetic import Synthetic
    from vireid_lightning.data.transforms import Augmentation, TrainTransform

# Name -> module, resolved on first use: these import lightning and albumentations, which takes seconds, and neither
# reading index files nor drawing synthetic images, in processes of their own, needs them.
_LAZY = {
    "Augmentation": "transforms",
    "CrossModalityDataModule": "datamodule",
    "EvaluationSampler": "sampler",
    "IdentitySampler": "sampler",
    "ImageCache": "cache",
    "ImageFiles": "images",
    "Source": "self_training",
    "Synthetic": "synthetic",
    "TrainTransform": "transforms",
    "read_image": "images",
    "resize_image": "images",
}

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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
