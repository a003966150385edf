"""Datasets, samples, batches and the cross-modality DataModule."""

from __future__ import annotations

from typing import TYPE_CHECKING

# One line for each dataset: the command line knows by name the datasets that are imported here. Their files are light.
from vireid_lightning.data.datasets.base import PublishedSplit as PublishedSplit
from vireid_lightning.data.datasets.base import ReIDDataset as ReIDDataset
from vireid_lightning.data.datasets.base import Split as Split
from vireid_lightning.data.datasets.llcm import LLCM as LLCM
from vireid_lightning.data.datasets.manifest import Manifest as Manifest
from vireid_lightning.data.datasets.market1501 import Market1501 as Market1501
from vireid_lightning.data.datasets.msmt17 import MSMT17 as MSMT17
from vireid_lightning.data.datasets.regdb import RegDB as RegDB
from vireid_lightning.data.datasets.sysu_mm01 import SYSUMM01 as SYSUMM01
from vireid_lightning.data.datasets.sysu_mm02 import SYSUMM02 as SYSUMM02
from vireid_lightning.data.synthetic.dataset import Synthetic as Synthetic
from vireid_lightning.lazy import lazily
from vireid_lightning.types import INFRARED as INFRARED
from vireid_lightning.types import MODALITIES as MODALITIES
from vireid_lightning.types import UNKNOWN as UNKNOWN
from vireid_lightning.types import VISIBLE as VISIBLE
from vireid_lightning.types import Batch as Batch
from vireid_lightning.types import Sample as Sample

if TYPE_CHECKING:
    from vireid_lightning.data.datamodule import CrossModalityDataModule as CrossModalityDataModule
    from vireid_lightning.data.images.augmentation import Augmentation as Augmentation
    from vireid_lightning.data.images.augmentation import TrainTransform as TrainTransform
    from vireid_lightning.data.images.cache import ImageCache as ImageCache
    from vireid_lightning.data.images.intensity import IntensityRange as IntensityRange
    from vireid_lightning.data.images.reading import ImageFiles as ImageFiles
    from vireid_lightning.data.images.reading import read_image as read_image
    from vireid_lightning.data.images.resizing import resize_image as resize_image
    from vireid_lightning.data.samplers.evaluation import EvaluationSampler as EvaluationSampler
    from vireid_lightning.data.samplers.identity import IdentitySampler as IdentitySampler
    from vireid_lightning.data.self_training import Source as Source
else:
    # What loads OpenCV, albumentations, torch or Lightning is imported on first use.
    _MODULES = {
        "Augmentation": "images.augmentation",
        "CrossModalityDataModule": "datamodule",
        "EvaluationSampler": "samplers.evaluation",
        "IdentitySampler": "samplers.identity",
        "ImageCache": "images.cache",
        "ImageFiles": "images.reading",
        "IntensityRange": "images.intensity",
        "Source": "self_training",
        "TrainTransform": "images.augmentation",
        "read_image": "images.reading",
        "resize_image": "images.resizing",
    }
    __getattr__, _ = lazily(__name__, _MODULES)
    # Computed, so that a dataset's line above is the only one. What is imported above are classes and constants.
    __all__ = sorted({*_MODULES, *(name for name in globals() if name[0].isupper())} - {"TYPE_CHECKING"})

    def __dir__() -> list[str]:
        """Return the public names."""
        return __all__
